"""A tokenizer that knows the words of the world, and any other text letter by letter."""

from __future__ import annotations

import json
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from seats_cli.training.model import vocabulary
from seats_cli.training.processor import (
    ROLES,
    SPECIAL_TOKENS,
    SYSTEM_PROMPT,
    Vocabulary,
    write_processor_files,
)
from seats_cli.world.questions import all_questions
from seats_cli.world.scene import sample_scene


@pytest.fixture(scope="module")
def folder(words, tmp_path_factory):
    folder = tmp_path_factory.mktemp("processor")
    write_processor_files(folder, words)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def ids_of(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_every_word_of_the_world_is_one_token(tokenizer):
    """Of scenes that had no part in making the vocabulary."""
    rng = np.random.default_rng(99)
    texts = {SYSTEM_PROMPT}
    for _ in range(200):
        for question in all_questions(sample_scene(rng)):
            texts |= {question.text, question.answer}
    for text in texts:
        pieces = re.findall(r" ?\w+|[^\w\s]", text)
        assert "".join(pieces) == text
        assert [tokenizer.decode([token]) for token in ids_of(tokenizer, text)] == pieces


def test_roles_and_special_tokens_are_one_token_each(tokenizer, words):
    for text in (*ROLES, *SPECIAL_TOKENS):
        assert ids_of(tokenizer, text) == [words.ids[text]]


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(tokenizer, text):
    ids = ids_of(tokenizer, text)
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == unicodedata.normalize("NFC", text)


def test_ids_have_no_gaps_and_the_embedding_has_room(tokenizer, words):
    ids = sorted([*words.symbols.values(), *(words.ids[token] for token in SPECIAL_TOKENS)])
    assert ids == list(range(len(ids)))
    assert len(tokenizer) == len(ids)
    assert len(ids) <= words.size < len(ids) + 64
    assert words.size % 64 == 0


def test_the_vocabulary_is_the_same_every_time(words):
    assert vocabulary() == words


def test_the_default_knows_the_roles_and_no_other_word():
    bare = Vocabulary()
    assert {token for token in bare.symbols if len(token) == max(map(len, bare.symbols))} == {"assistant"}
    assert set(ROLES) <= set(bare.symbols)
    assert bare.size == 320


def test_a_vocabulary_of_texts_has_their_words_and_any_text_still(tmp_path):
    made = Vocabulary.of_texts(["low low lower", *ROLES])
    write_processor_files(tmp_path, made)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(ids_of(tokenizer, "low low lower")) == 3
    assert len(ids_of(tokenizer, "lowest")) > 1
    assert tokenizer.decode(ids_of(tokenizer, "slowest é 中")) == "slowest é 中"


def test_the_files_name_the_published_classes(folder, words):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["processor_class"] == "Qwen2_5OmniProcessor"
    added = {int(number): entry["content"] for number, entry in config["added_tokens_decoder"].items()}
    assert added == {words.ids[token]: token for token in SPECIAL_TOKENS}
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == words.ids["<|im_end|>"]

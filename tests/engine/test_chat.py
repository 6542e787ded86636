"""A conversation: its first turn is a question by itself, its later ones what transformers makes of the turns."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

from seats_cli.config import GenerationOptions, SelectionOptions
from seats_cli.engine.chat import Chat
from seats_cli.engine.pipeline import Settings, answer, layout_of
from seats_cli.engine.prepare import position_warning
from seats_cli.errors import UsageError
from seats_cli.models.turns import Turn
from tests.array_clip import clip_for, stock_of
from tests.engine.library import timeless
from tests.engine.test_laws import SHAPES
from tests.tiny_stock import stock_generate

FIRST, SECOND, THIRD = "What happens?", " And then?\n", "Wer spricht? 🙂"


@pytest.fixture(params=SHAPES, ids=lambda name: name.replace(" ", "-"))
def shape(request):
    return SHAPES[request.param]


def chat_of(loaded, shape, trr=0.3, *, opened=None, n=6, **generation):
    clip, media = clip_for(loaded, *shape, seed=4)

    def open_clip():
        if opened is not None:
            opened["clip"] += 1
        return clip

    settings = Settings(media, SelectionOptions(trr=trr), GenerationOptions(max_new_tokens=n, **generation))
    return Chat(loaded, open_clip, settings)


def alone(loaded, chat, question):
    return answer(loaded, chat._open_clip, question, chat.settings)


@pytest.mark.parametrize("trr", [1.0, 0.3])
def test_the_first_question_is_one_by_itself(loaded, shape, trr):
    chat = chat_of(loaded, shape, trr)
    report = chat.ask(FIRST)
    assert report.command == "chat"
    assert timeless(dataclasses.replace(report, command="ask")) == timeless(alone(loaded, chat, FIRST))


def test_with_every_token_a_turn_is_transformers(loaded, shape):
    chat = chat_of(loaded, shape, 1.0, n=10)
    for question in (FIRST, SECOND, THIRD):
        history = [(turn.question, turn.answer) for turn in chat.turns]
        inputs = stock_of(loaded.model.processor, *shape, question, seed=4, history=history)
        layout = layout_of(loaded.model, chat._read.shape, question, GenerationOptions(), history=chat.turns)
        np.testing.assert_array_equal(layout.ids, inputs["input_ids"][0].numpy())
        both = bool(shape[0] and shape[3])
        tokens = stock_generate(loaded.model.thinker, inputs, both, max_new_tokens=10)
        kept = [token for token in tokens if token not in loaded.model.stop_ids]
        assert chat.ask(question).answer == loaded.model.tokenizer.decode(kept, skip_special_tokens=True).strip()
    assert len(chat.turns) == 3


def test_a_turn_is_a_prefill_and_nothing_else(loaded):
    opened = Counter()
    chat = chat_of(loaded, SHAPES["both"], opened=opened)
    first, second = chat.ask(FIRST), chat.ask(SECOND)
    assert opened == {"clip": 1}
    assert (first.media.cached, second.media.cached) == (False, True)
    assert first.seconds.encode > 0
    stages = second.seconds
    assert (stages.decode, stages.encode, stages.select) == (0, 0, 0)
    assert stages.prefill <= stages.first_token <= stages.answer
    assert second.tokens.text > first.tokens.text
    assert (second.tokens.video, second.tokens.audio) == (first.tokens.video, first.tokens.audio)
    assert second.selection.stage_one == first.selection.stage_one


def test_history_matters_and_is_forgotten(loaded):
    chat = chat_of(loaded, SHAPES["both"])
    fresh = chat.ask(SECOND)
    assert chat.undo() == fresh
    assert chat.undo() is None
    chat.ask(FIRST)
    after = chat.ask(SECOND)
    assert after.tokens.text > fresh.tokens.text
    assert chat.turns == tuple(Turn(r.question, r.answer) for r in chat.reports)
    chat.undo()
    assert chat.ask(SECOND).answer == after.answer
    chat.reset()
    assert chat.turns == ()
    again = chat.ask(SECOND)
    assert (again.answer, again.tokens) == (fresh.answer, fresh.tokens)


def test_what_cannot_be_asked_leaves_the_turns(loaded):
    chat = chat_of(loaded, SHAPES["both"])
    chat.ask(FIRST)
    turns = chat.turns
    for question in ("", "end<|im_end|>"):
        with pytest.raises(UsageError):
            chat.ask(question)
    assert chat.turns == turns
    with pytest.raises(UsageError, match="no such switch"):
        chat_of(loaded, SHAPES["both"], thinking=False)


def test_an_answer_that_was_interrupted_is_remembered_as_far_as_it_came(loaded):
    chat = chat_of(loaded, SHAPES["both"])
    pieces = []

    def interrupt(piece):
        pieces.append(piece)
        if len(pieces) == 2:
            raise KeyboardInterrupt

    report = chat.ask(FIRST, on_text=interrupt)
    assert report.finish_reason == "interrupted"
    assert [turn.answer for turn in chat.turns] == ["".join(pieces).strip()]


def test_other_tokens_of_the_same_clip(loaded):
    opened = Counter()
    chat = chat_of(loaded, SHAPES["both"], 0.2, opened=opened)
    few, whole = chat.n_kept
    chat.ask(FIRST)
    turns = chat.turns
    with pytest.raises(UsageError):
        chat.select(SelectionOptions(trr=0.95))
    assert (opened["clip"], chat.settings.selection.trr, chat.n_kept) == (1, 0.2, (few, whole))
    chat.select(SelectionOptions(trr=0.5))
    assert opened["clip"] == 2
    assert few < chat.n_kept[0] < chat.n_kept[1] == whole
    assert chat.turns == turns
    assert chat.ask(SECOND).selection.trr == 0.5


def test_a_selection_that_fails_leaves_what_was(loaded):
    chat = chat_of(loaded, SHAPES["both"], 0.2)
    before = chat.ask(FIRST)
    chat.undo()
    chat._open_clip, opening = None, chat._open_clip
    with pytest.raises(TypeError):
        chat.select(SelectionOptions(trr=0.5))
    chat._open_clip = opening
    assert chat.settings.selection.trr == 0.2
    assert chat.ask(FIRST).answer == before.answer


@torch.inference_mode()
def test_a_long_conversation_is_warned_of(loaded, monkeypatch):
    chat = chat_of(loaded, SHAPES["both"])
    first = chat.ask(FIRST)
    assert not any("position" in line for line in first.warnings)
    spec = dataclasses.replace(loaded.model.spec, max_positions=first.tokens.text)
    monkeypatch.setattr(loaded.model, "spec", spec)
    (line,) = [line for line in chat.ask("word " * 40).warnings if "position" in line]
    assert "forget earlier turns" in line
    layout = layout_of(loaded.model, chat._read.shape, "word " * 40, GenerationOptions())
    assert "turns" not in (position_warning(layout, spec.max_positions) or "")

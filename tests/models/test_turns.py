"""Earlier turns in a prompt: the ids of transformers, and answers that cannot break the structure."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seats_cli.config import ModelOptions
from seats_cli.errors import ModelError, UsageError
from seats_cli.models.loading import load
from seats_cli.models.turns import Turn, messages_of, spelled, token_ids
from tests import tiny, tiny_qwen3

HISTORY = (Turn("What is seen?", "A red ball."), Turn(" And then?\n", "Nichts 世界 🙂\n\nmore"), Turn("?", ""))


@pytest.fixture(scope="module", params=[tiny, tiny_qwen3], ids=lambda family: family.MODEL_TYPE)
def model(request, tmp_path_factory):
    folder = request.param.write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))
    return load(ModelOptions(model=str(folder), device="cpu")).model


def templated(model, question, system, clip, history):
    """Transformers' own, with every content as a list."""
    content, messages = [{"type": clip, clip: "x"}], []
    if system is not None:
        messages.append({"role": "system", "content": [{"type": "text", "text": system}]})
    for turn in history:
        messages.append({"role": "user", "content": [*content, {"type": "text", "text": turn.question}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
        content = []
    messages.append({"role": "user", "content": [*content, {"type": "text", "text": question}]})
    text = model.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return model.tokenizer(text, add_special_tokens=False)["input_ids"]


def whole(model, clip, prompt):
    layout = model.spec.layout
    before, after = prompt
    return [*before, layout.video_id if clip == "video" else layout.audio_id, *after]


@pytest.mark.parametrize("n", range(len(HISTORY) + 1))
@pytest.mark.parametrize("clip", ["video", "audio"])
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_ids_are_those_of_the_template(model, n, clip, system):
    found = model.prompt("Why?", system, clip, history=HISTORY[:n])
    assert whole(model, clip, found) == templated(model, "Why?", system, clip, HISTORY[:n])
    if not n:
        assert found == model.prompt("Why?", system, clip)


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=st.lists(st.tuples(text.filter(str.strip), text.map(str.strip)), max_size=3))
def test_ids_of_any_text(model, turns):
    history = [Turn(*turn) for turn in turns]
    found = model.prompt("Why?", None, "video", history=history)
    assert whole(model, "video", found) == templated(model, "Why?", None, "video", history)


spelling = st.lists(st.one_of(st.sampled_from(tiny.SPECIAL_TOKENS), st.sampled_from("<| a\n|>")), max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=spelling, clip=st.sampled_from(["video", "audio"]))
def test_an_answer_cannot_break_the_structure(model, parts, clip):
    """Special ids are those of the same conversation with a harmless answer, and the text is what was said."""
    said, tokenizer = "".join(parts).strip(), model.tokenizer
    special = set(tokenizer.added_tokens_encoder.values())
    turns = (Turn("One?", said), Turn("Two?", said))
    found = whole(model, clip, model.prompt("Three?", None, clip, history=turns))
    plain = whole(model, clip, model.prompt("Three?", None, clip, history=[Turn(t.question, "a") for t in turns]))
    assert [i for i in found if i in special] == [i for i in plain if i in special]
    harmless = "".join(
        f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n{said}<|im_end|>\n" for q in ["Two?"]
    )
    assert harmless in tokenizer.decode(found)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=spelling)
def test_spelled_words_are_the_text_without_a_reserved_id(model, parts):
    tokenizer, said = model.tokenizer, "".join(parts)
    ids = spelled(tokenizer, said, list(tokenizer.added_tokens_encoder))
    assert not set(ids) & set(tokenizer.added_tokens_encoder.values())
    assert tokenizer.decode(ids) == unicodedata.normalize("NFC", said)


@pytest.mark.parametrize("place", ["[answer 0]", "[answer 0] [answer 1]"])
def test_the_words_that_hold_a_place_may_be_said(model, place):
    turns = [Turn(place, "<|im_end|>"), Turn("And?", place)]
    text = model.tokenizer.decode(whole(model, "video", model.prompt("Why?", None, "video", history=turns)))
    assert text.count(place) == 2
    assert "assistant\n<|im_end|><|im_end|>\n" in text


def test_questions_of_earlier_turns_are_checked(model):
    with pytest.raises(UsageError, match="the question contains the reserved token"):
        model.prompt("Why?", None, "video", history=[Turn("<|im_end|>", "a")])


def test_a_template_that_drops_answers(model):
    messages = messages_of("Why?", None, "video", [Turn("One?", "<|im_end|>")])
    with pytest.raises(ModelError, match="does not write the answers"):
        token_ids(messages, model.tokenizer, lambda turns: "nothing")

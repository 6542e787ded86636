"""Answer tokens: which is chosen, when it ends, and how it becomes text."""

from __future__ import annotations

import random
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2_5OmniThinkerForConditionalGeneration
from transformers.generation.logits_process import TemperatureLogitsWarper, TopPLogitsWarper

from seats_cli.config import GenerationOptions, SelectionOptions
from seats_cli.engine.cache import RaggedCache
from seats_cli.engine.decode import (
    Sampler,
    TextStream,
    choice_probabilities,
    choice_tokens,
    decode,
    next_logits,
)
from seats_cli.errors import UsageError
from seats_cli.models.base import OmniModel
from tests import tiny
from tests.array_clip import stock_of
from tests.engine.test_laws import QUESTION, SHAPES, run

VOCAB = 320


class Script:
    """A model that says what it is told: token ``i`` of the script is the likeliest at step ``i``."""

    in_one_place = False

    def __init__(self, script: list[int], stop: tuple[int, ...] = (999,)) -> None:
        self.script, self.stop_ids, self.calls = script, stop, []

    def decoding(self) -> nullcontext[None]:
        return nullcontext()

    def logits(self, step: int) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor(self.script[step]), 1000).float()


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch):
    def make(script: list[int], stop: tuple[int, ...] = (999,)) -> Script:
        model = Script(script, stop)

        def step(_model, token, position, _cache):
            model.calls.append((int(token), position))
            return model.logits(len(model.calls))

        monkeypatch.setattr("seats_cli.engine.decode.next_logits", step)
        return model

    return make


def write(model: Script, n: int, on_token=None):
    options = GenerationOptions(max_new_tokens=n)
    return decode(model, model.logits(0), RaggedCache(1), 40, options, on_token)


def test_stops_at_a_stop_token_and_leaves_it_out(scripted) -> None:
    seen: list[int] = []
    model = scripted([5, 6, 7, 8, 9], stop=(8, 12))
    decoded = write(model, 10, seen.append)
    assert (decoded.token_ids, decoded.finish_reason) == ([5, 6, 7], "stop")
    assert seen == [5, 6, 7]
    assert model.calls == [(5, 40), (6, 41), (7, 42)]


def test_stop_at_once(scripted) -> None:
    decoded = write(scripted([8], stop=(8,)), 10)
    assert (decoded.token_ids, decoded.finish_reason) == ([], "stop")


@pytest.mark.parametrize("n", [1, 2, 4])
def test_max_new_tokens_and_no_step_too_many(scripted, n: int) -> None:
    model = scripted([5, 6, 7, 8, 9])
    decoded = write(model, n)
    assert (decoded.token_ids, decoded.finish_reason) == ([5, 6, 7, 8, 9][:n], "length")
    assert len(model.calls) == n - 1


@pytest.mark.parametrize("after", [1, 3])
def test_ctrl_c_keeps_what_there_is(scripted, after: int) -> None:
    seen: list[int] = []

    def interrupt(token: int) -> None:
        seen.append(token)
        if len(seen) == after:
            raise KeyboardInterrupt

    decoded = write(scripted([5, 6, 7, 8, 9]), 5, interrupt)
    assert (decoded.token_ids, decoded.finish_reason) == ([5, 6, 7, 8, 9][:after], "interrupted")


def test_ctrl_c_in_the_middle_of_a_step(scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    model = scripted([5, 6, 7])

    def step(*_: object) -> torch.Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr("seats_cli.engine.decode.next_logits", step)
    decoded = write(model, 5)
    assert (decoded.token_ids, decoded.finish_reason) == ([5], "interrupted")


def test_other_errors_pass(scripted) -> None:
    def fail(_: int) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        write(scripted([5, 6]), 5, fail)


# Choosing


def test_greedy_is_argmax() -> None:
    for seed in range(20):
        logits = torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed))
        chosen = Sampler(GenerationOptions()).choose(logits)
        assert chosen.shape == (1,)
        assert int(chosen) == max(range(VOCAB), key=logits.tolist().__getitem__)


def test_greedy_ignores_the_seed_and_top_p() -> None:
    logits = torch.randn(VOCAB)
    ours = Sampler(GenerationOptions(seed=3, top_p=0.1)).choose(logits)
    assert int(ours) == int(logits.argmax())


@pytest.mark.parametrize("temperature", [0.3, 1, 1.7])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_draws_are_those_of_the_warpers(temperature: float, top_p: float, dtype: torch.dtype) -> None:
    sampler = Sampler(GenerationOptions(temperature=temperature, top_p=top_p, seed=11))
    generator = torch.Generator().manual_seed(11)
    source = torch.Generator().manual_seed(5)
    for _ in range(50):
        logits = (torch.randn(VOCAB, generator=source) * 3).to(dtype)
        scores = TemperatureLogitsWarper(float(temperature))(None, logits[None].float())
        if top_p < 1:
            scores = TopPLogitsWarper(top_p)(None, scores)
        expected = torch.multinomial(scores.softmax(-1), 1, generator=generator)
        assert int(sampler.choose(logits)) == int(expected)


def test_sampled_answer_is_that_of_generate(loaded) -> None:
    """One seed for both; transformers draws from the global generator."""
    shape = SHAPES["both"]
    thinker: Qwen2_5OmniThinkerForConditionalGeneration = loaded.model.thinker
    inputs = stock_of(loaded.model.processor, *shape, QUESTION)
    with torch.random.fork_rng():
        torch.manual_seed(21)
        ids = thinker.generate(
            **inputs,
            use_audio_in_video=True,
            do_sample=True,
            temperature=1.3,
            top_p=0.8,
            top_k=0,
            max_new_tokens=12,
        )
    theirs = ids[0, inputs["input_ids"].shape[1] :].tolist()
    assert sample(loaded, 21, temperature=1.3, top_p=0.8) == [t for t in theirs if t not in loaded.model.stop_ids]


def sample(loaded, seed: int | None, temperature: float = 1.5, top_p: float = 1.0) -> list[int]:
    prepared, prompted = run(loaded, SHAPES["both"], SelectionOptions(trr=1.0), spare=12)
    options = GenerationOptions(max_new_tokens=12, temperature=temperature, top_p=top_p, seed=seed)
    filled = prompted.prefill
    with torch.inference_mode():
        decoded = decode(loaded.model, filled.logits, filled.cache, prepared.layout.next_position, options)
    return decoded.token_ids


def test_the_seed_fixes_the_answer_and_nothing_else(loaded) -> None:
    state = torch.get_rng_state()
    answers = [sample(loaded, seed) for seed in (1, 1, 2, 3)]
    assert answers[0] == answers[1]
    assert len({tuple(a) for a in answers}) == 3
    assert len({tuple(sample(loaded, None)) for _ in range(3)}) > 1
    assert torch.equal(torch.get_rng_state(), state), "the global generator is not ours"


@pytest.mark.parametrize("temperature", [1e-3, 1e-12, 1e-40, 5e-324])
@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_a_very_low_temperature_is_greedy(temperature: float, top_p: float) -> None:
    logits = torch.randn(VOCAB, generator=torch.Generator().manual_seed(1)) * 20
    sampler = Sampler(GenerationOptions(temperature=temperature, top_p=top_p, seed=0))
    assert all(int(sampler.choose(logits)) == int(logits.argmax()) for _ in range(5))


def test_one_step_extends_every_layer_by_one(loaded) -> None:
    prepared, prompted = run(loaded, SHAPES["both"], SelectionOptions(trr=0.3))
    cache = prompted.prefill.cache
    before = cache.lengths
    assert before == tuple(sum(counts) for counts in prompted.prefill.counts)
    with torch.inference_mode():
        logits = next_logits(loaded.model, torch.tensor([50]), prepared.layout.next_position, cache)
    assert logits.shape == (loaded.model.spec.geometry.text.vocab,)
    assert cache.lengths == tuple(n + 1 for n in before)


# Text


@pytest.fixture
def tokenizer(loaded):
    return loaded.model.tokenizer


def stream(tokenizer, ids: list[int]) -> tuple[list[str], str]:
    pieces: list[str] = []
    text = TextStream(tokenizer, pieces.append)
    for token in ids:
        text.push(token)
        assert "".join(pieces) == text._shown
    return pieces, text.close()


def test_characters_are_never_broken(tokenizer) -> None:
    text = "Ein 🙂, 世界! 👩‍👩‍👧‍👦 ü"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) == len(text.encode()), "one token a byte"
    pieces, final = stream(tokenizer, ids)
    assert "".join(pieces) == final == text
    assert all(len(piece) == 1 for piece in pieces)
    assert "\ufffd" not in "".join(pieces)


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_streams_whole(tokenizer_of_module, text: str) -> None:
    ids = tokenizer_of_module(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    pieces, final = stream(tokenizer_of_module, ids)
    assert "".join(pieces) == final == tokenizer_of_module.decode(ids)


@settings(max_examples=60, deadline=None)
@given(ids=st.lists(st.integers(0, 255), max_size=24))
def test_bytes_that_are_no_text_take_nothing_back(tokenizer_of_module, ids: list[int]) -> None:
    pieces, final = stream(tokenizer_of_module, ids)
    assert "".join(pieces) == final == tokenizer_of_module.decode(ids)


@pytest.fixture(scope="module")
def tokenizer_of_module(loaded):
    return loaded.model.tokenizer


def test_half_a_character_at_the_end_is_shown_as_such(tokenizer) -> None:
    ids = tokenizer("a🙂", add_special_tokens=False)["input_ids"][:-1]
    pieces, final = stream(tokenizer, ids)
    assert pieces[0] == "a"
    assert final.startswith("a\ufffd")
    assert "".join(pieces) == final


def test_special_tokens_are_not_text(tokenizer) -> None:
    ids = tokenizer("ab", add_special_tokens=False)["input_ids"]
    special = tiny.token_ids()["<|vision_bos|>"]
    assert stream(tokenizer, [ids[0], special, ids[1]]) == (["a", "b"], "ab")


def test_nothing_is_taken_back() -> None:
    class Fickle:
        """Changes its mind about what it said."""

        def decode(self, ids: list[int], **_: object) -> str:
            return ["", "Hello", "Help", "Hello there"][len(ids)]

    pieces: list[str] = []
    text = TextStream(Fickle(), pieces.append)
    for token in range(3):
        text.push(token)
    assert pieces == ["Hello", " there"]
    assert text.close() == "Hello there"


def test_without_a_listener(tokenizer) -> None:
    text = TextStream(tokenizer)
    for token in tokenizer("quiet", add_special_tokens=False)["input_ids"]:
        text.push(token)
    assert text.close() == "quiet"


# Choices


def test_choices_are_a_softmax_over_their_first_tokens(tokenizer) -> None:
    logits = torch.randn(VOCAB, generator=torch.Generator().manual_seed(2)) * 4
    labels = ["yes", "no", "C", "42"]
    first = [tokenizer(label, add_special_tokens=False)["input_ids"][0] for label in labels]
    got = choice_probabilities(logits, labels, tokenizer)
    expected = torch.softmax(logits.double(), -1)[first]
    torch.testing.assert_close(torch.tensor(got, dtype=torch.float64), expected / expected.sum())
    assert sum(got) == pytest.approx(1.0, abs=1e-12)
    shuffled = list(zip(labels, got, strict=True))
    random.Random(0).shuffle(shuffled)
    again = choice_probabilities(logits, [label for label, _ in shuffled], tokenizer)
    assert again == pytest.approx([share for _, share in shuffled])


def test_choices_stay_finite_with_extreme_logits(tokenizer) -> None:
    logits = torch.full((VOCAB,), -1e30)
    logits[tokenizer("A", add_special_tokens=False)["input_ids"][0]] = 1e30
    assert choice_probabilities(logits, ["A", "B"], tokenizer) == [1.0, 0.0]


@pytest.mark.parametrize("labels", [["yes", "yeah"], ["A", "B", "A."], ["x y", "x z"]])
def test_choices_must_differ_at_once(tokenizer, labels: list[str]) -> None:
    with pytest.raises(UsageError, match="begin with the same token") as caught:
        choice_probabilities(torch.zeros(VOCAB), labels, tokenizer)
    assert repr(labels[0]) in str(caught.value)
    assert repr(labels[-1]) in str(caught.value)


def test_no_choices(tokenizer) -> None:
    assert choice_tokens([], tokenizer) == []


# Stop tokens


END = tiny.token_ids()["<|im_end|>"]


@pytest.mark.parametrize(
    ("eos", "expected"), [(None, (END,)), (7, (7, END)), ([7, END, 7, 9], (7, END, 9)), ((3,), (3, END))]
)
def test_stop_ids(loaded, monkeypatch: pytest.MonkeyPatch, eos: object, expected: tuple[int, ...]) -> None:
    model: OmniModel = loaded.model
    monkeypatch.setattr(model.thinker.generation_config, "eos_token_id", eos)
    assert model.stop_ids == expected

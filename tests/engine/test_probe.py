"""Teacher forcing with a modality gone against really writing the answer, on a tiny random model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch

from seats_cli.config import GenerationOptions, MediaOptions, ModelOptions, SelectionOptions
from seats_cli.dataset import Question
from seats_cli.engine.analytic import FULL
from seats_cli.engine.decode import Decoded, choice_probabilities, choice_tokens, decode
from seats_cli.engine.evaluate import Evaluation, evaluate
from seats_cli.engine.pipeline import Settings, prepare, read_prompt
from seats_cli.engine.prefill import Prefill, prefill
from seats_cli.engine.probe import REMOVALS, chooses, outcomes, probe, report_of, says, with_answer
from seats_cli.engine.stage_one import EncodedClip
from seats_cli.errors import InterruptedRunError, MediaError, UsageError
from seats_cli.layout import Layout, Modality
from seats_cli.models.loading import LoadedModel, load
from seats_cli.selection.base import EncodedWindows, Kept, LayerKept, LayerState, SelectionMethod
from seats_cli.timing import Stopwatch
from tests.array_clip import ArrayClip, clip_for, random_clip
from tests.engine.test_laws import QUESTION, SHAPES
from tests.tiny import printable_ids

N_TOKENS = 5


class Removes(SelectionMethod):
    """Everything of some modalities leaves before one layer."""

    name, summary, needs_saliency = "removes", "", False
    gone: tuple[Modality, ...]
    layer: int

    @property
    def drop_before_layer(self) -> tuple[int, ...]:
        return (self.layer,)

    def before_llm(self, windows: EncodedWindows) -> Kept:
        return Kept(torch.arange(len(windows.embeddings)), None, windows.window_sizes)

    def before_layer(self, state: LayerState) -> LayerKept:
        stays = [i for i, modality in enumerate(state.modality.tolist()) if modality not in self.gone]
        return LayerKept(torch.tensor(stays))


@dataclasses.dataclass(frozen=True)
class Asked:
    """A prompt: its layout and all of it encoded."""

    layout: Layout
    encoded: EncodedClip

    def with_answer(self, loaded: LoadedModel, ids: list[int]) -> tuple[Layout, EncodedClip]:
        return with_answer(loaded.model, self.layout, self.encoded, ids)


def asked(loaded: LoadedModel, name: str, seed: int = 0) -> Asked:
    clip, media = clip_for(loaded, *SHAPES[name], seed=seed)
    selection = SelectionOptions(method="full", trr=1.0)
    settings = Settings(media=media, selection=selection)
    prepared = prepare(loaded, clip, QUESTION, settings, Stopwatch())
    prompted = read_prompt(loaded, prepared, selection, Stopwatch())
    return Asked(prepared.layout, prompted.encoded)


def prefilled(loaded: LoadedModel, prompt: Asked, removal: str, layer: int) -> Prefill:
    """By the engine, with the modality dropped on the way."""
    method = Removes(None, SelectionOptions(), 1.0)
    method.gone, method.layer = REMOVALS[removal], layer
    return prefill(loaded.model, prompt.layout, prompt.encoded, method, kv_cache="staged")


def written(loaded: LoadedModel, prompt: Asked, removal: str, layer: int) -> list[int]:
    """What greedy decoding writes then."""
    filled = prefilled(loaded, prompt, removal, layer)
    options = GenerationOptions(max_new_tokens=N_TOKENS + 1)
    return decode(loaded.model, filled.logits, filled.cache, prompt.layout.next_position, options).token_ids


@pytest.fixture(params=["sdpa", "eager"], scope="module")
def talker(request: pytest.FixtureRequest, checkpoint) -> LoadedModel:
    """A model that stops: every third printable token ends an answer."""
    loaded = load(ModelOptions(model=str(checkpoint), device="cpu", dtype="float32", attn=request.param))
    loaded.model.thinker.generation_config.eos_token_id = sorted(printable_ids())[::3]
    return loaded


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def answers_without(loaded: LoadedModel, prompt: Asked) -> dict[tuple[str, int], tuple[int, ...]]:
    """What is written when something leaves before a layer; before layer L the engine drops nothing any more."""
    layers = range(len(loaded.model.layers) + 1)
    return {(name, layer): tuple(written(loaded, prompt, name, layer)) for name in REMOVALS for layer in layers}


@pytest.mark.parametrize("name", ["both", "picture alone", "sound alone", "one frame"])
def test_right_is_what_decoding_writes(talker: LoadedModel, name: str) -> None:
    n_layers = len(talker.model.layers)
    for seed in range(8):
        prompt = asked(talker, name, seed)
        answers = answers_without(talker, prompt)
        references = {ids for ids in answers.values() if len(ids) <= N_TOKENS}
        if len(references) > 1:  # what is removed changes the answer
            break
    assert len(references) > 1
    for reference in references:
        found = outcomes(talker.model, *prompt.with_answer(talker, list(reference)), says(talker.model, reference))
        assert found == {
            removal: tuple(answers[removal, layer] == reference for layer in range(n_layers + 1))
            for removal in REMOVALS
        }
        assert len({right[-1] for right in found.values()}) == 1


def test_an_answer_must_end_where_the_reference_does(talker: LoadedModel) -> None:
    """The beginning of the right answer is not the right answer."""
    prompt = next(
        p for p in (asked(talker, "both", seed) for seed in range(20)) if len(written(talker, p, "both", 99)) > 1
    )
    ids = written(talker, prompt, "both", 99)[:-1][:1]
    assert not outcomes(talker.model, *prompt.with_answer(talker, ids), says(talker.model, ids))["both"][-1]


@pytest.mark.parametrize("name", ["both", "sound alone"])
def test_a_choice_is_the_likeliest_label(talker: LoadedModel, name: str) -> None:
    prompt = asked(talker, name, seed=2)
    labels, tokenizer = ["A", "b", "C", "z", "7"], talker.model.tokenizer
    n_layers = len(talker.model.layers)
    tokens = choice_tokens(labels, tokenizer)
    found = [
        outcomes(talker.model, prompt.layout, prompt.encoded, chooses(talker.model, tokens, [right]))
        for right in range(len(labels))
    ]
    for removal in REMOVALS:
        for layer in range(n_layers + 1):
            shares = choice_probabilities(prefilled(talker, prompt, removal, layer).logits, labels, tokenizer)
            best = shares.index(max(shares))
            assert [one[removal][layer] for one in found] == [i == best for i in range(len(labels))]


@pytest.mark.parametrize(
    ("name", "absent", "present"), [("picture alone", "audio", "video"), ("sound alone", "video", "audio")]
)
def test_what_is_not_there_changes_nothing_by_leaving(
    loaded: LoadedModel, name: str, absent: str, present: str
) -> None:
    prompt = asked(loaded, name)
    seen: list[torch.Tensor] = []

    def judge(hidden: torch.Tensor) -> bool:
        seen.append(hidden)
        return len(seen) % 3 == 0

    found = outcomes(loaded.model, prompt.layout, prompt.encoded, judge)
    n_layers = len(loaded.model.layers)
    assert found["both"] == found[present]
    assert found[absent] == (found["both"][-1],) * (n_layers + 1)
    assert len(seen) == n_layers + 1  # nothing is computed twice


def test_the_answer_stands_where_decoding_puts_it(loaded: LoadedModel) -> None:
    prompt = asked(loaded, "both")
    layout = prompt.layout
    longer, encoded = prompt.with_answer(loaded, [7, 8, 9])
    assert encoded.index.tolist() == list(range(longer.n_tokens))
    assert torch.equal(encoded.embeddings[: layout.n_tokens], prompt.encoded.embeddings)
    assert longer.ids[-3:].tolist() == [7, 8, 9]
    assert (longer.positions[:, -3:] == [[layout.next_position + i for i in range(3)]] * 3).all()
    assert (longer.modality[-3:] == Modality.TEXT).all()
    assert (longer.window[-3:] == -1).all()
    assert longer.window_sizes == layout.window_sizes
    assert longer.n_tokens == layout.n_tokens + 3


# Questions of a file


def question(line: int, media: str, answers: tuple[str, ...], **more: Any) -> Question:
    return Question(line=line, id=str(line), media=media, path=media, text=QUESTION, answers=answers, **more)


class Clips:
    """Opens random clips by name, and remembers how often."""

    names: ClassVar = ("both", "picture alone", "sound alone")

    def __init__(self) -> None:
        self.opened: list[str] = []

    def __call__(self, path: str, options: MediaOptions) -> ArrayClip:
        self.opened.append(path)
        if path not in self.names:
            raise MediaError(f"{path} does not exist")
        return random_clip(*SHAPES[path], seed=6)[0]


def evaluation(loaded: LoadedModel, questions: list[Question], clips: Clips) -> Evaluation:
    return Evaluation(
        file="rows.jsonl",
        loaded=loaded,
        questions=questions,
        settings={"full": FULL},
        media=MediaOptions(min_pixels=12 * 784, max_pixels=16 * 784),
        generation=GenerationOptions(max_new_tokens=3 * N_TOKENS),
        open_clip=clips,
    )


@pytest.fixture(scope="module")
def said(talker: LoadedModel) -> dict[str, str]:
    """What the model answers to each clip, where that is some text."""
    rows = [question(i, name, ("?",)) for i, name in enumerate(Clips.names)]
    found = evaluate(evaluation(talker, rows, Clips()))["full"]
    return {row.media: row.answer for row in found if row.answer and row.finish_reason == "stop"}


def test_with_nothing_removed_it_is_what_an_evaluation_finds(talker: LoadedModel, said: dict[str, str]) -> None:
    assert said
    rows = [
        row
        for n, (name, answer) in enumerate(said.items())
        for row in (
            question(10 * n, name, (answer,)),
            # In other words for a machine, and the same for a reader.
            question(10 * n + 1, name, (answer.upper() + ".",)),
            question(10 * n + 2, name, ("something else", answer.lower())),
            question(10 * n + 3, name, (answer + " and more",)),
            question(10 * n + 4, name, ("C",), choices=("A", "b", "C")),
            question(10 * n + 5, name, ("A", "b"), choices=("A", "b", "C")),
        )
    ]
    work = evaluation(talker, rows, Clips())
    expected = [row.correct for row in evaluate(work)["full"]]
    found = [row.outcomes for row in probe(work)]
    assert expected.count(True) >= 3 * len(said)
    assert not all(expected)
    n_layers = len(talker.model.layers)
    for name in REMOVALS:
        assert [one[name][-1] for one in found] == expected
        assert {len(one[name]) for one in found} == {n_layers + 1}
    # A choice is right for one of the two rows that share the labels between them.
    for place in range(4, len(found), 6):
        for name in REMOVALS:
            assert [a + b for a, b in zip(found[place][name], found[place + 1][name], strict=True)] == [1] * (
                n_layers + 1
            )


def test_any_of_several_answers_will_do(talker: LoadedModel, said: dict[str, str]) -> None:
    name = next(iter(said))
    answers = list(dict.fromkeys([said[name], *said.values(), "zz", "b"]))
    each = probe(evaluation(talker, [question(i, name, (a,)) for i, a in enumerate(answers)], Clips()))
    (together,) = probe(evaluation(talker, [question(1, name, tuple(answers))], Clips()))
    for removal in REMOVALS:
        columns = zip(*(one.outcomes[removal] for one in each), strict=True)
        assert together.outcomes[removal] == tuple(map(any, columns))


def test_a_clip_is_read_once_and_one_that_fails_stops_nothing(talker: LoadedModel) -> None:
    labels = {"choices": ("A", "b")}
    names = ["both", "gone", "sound alone", "both", "gone"]
    rows = [question(i, name, ("A",), **labels) for i, name in enumerate(names)]
    clips, failures, through = Clips(), [], []
    found = probe(
        evaluation(talker, rows, clips),
        on_row=lambda row: through.append(row.question.line),
        on_error=lambda error, path: failures.append((str(error), path)),
    )
    assert clips.opened == ["both", "gone", "sound alone"]
    assert failures == [("gone does not exist", [rows[1], rows[4]])]
    assert sorted(through) == [row.question.line for row in found] == [0, 1, 2, 3, 4]
    assert [row.outcomes is None for row in found] == [False, True, False, False, True]
    assert [row.error is not None for row in found] == [False, True, False, False, True]
    assert found[0].outcomes == found[3].outcomes


def test_two_spellings_of_a_path_are_one_clip(talker: LoadedModel) -> None:
    clips = Clips()
    rows = [question(i, name, ("A",), choices=("A", "b")) for i, name in enumerate(["both", "./both"])]
    work = evaluation(talker, rows, clips)
    assert report_of(work, probe(work), tolerance=0.01, categories=()).clips == 1
    assert clips.opened == ["both"]


def test_what_cannot_be_asked_is_known_before_anything_is_opened(talker: LoadedModel) -> None:
    clips = Clips()
    rows = [question(1, "both", ("A",)), question(2, "both", ("Aa",), choices=("Aa", "Ab"))]
    with pytest.raises(UsageError, match=r"rows\.jsonl:2: choices 'Aa' and 'Ab' begin with the same token"):
        probe(evaluation(talker, rows, clips))
    assert clips.opened == []


def test_ctrl_c_ends_it(talker: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> Decoded:
        return Decoded([], "interrupted")

    monkeypatch.setattr("seats_cli.engine.probe.decode", interrupted)
    with pytest.raises(InterruptedRunError):
        probe(evaluation(talker, [question(1, "both", ("A",))], Clips()))

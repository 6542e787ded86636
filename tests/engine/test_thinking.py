"""Reasoning told from the answer: what is whose, what is seen when, and where it is left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seats_cli.config import GenerationOptions, MediaOptions, ModelOptions, SelectionOptions
from seats_cli.dataset import Question
from seats_cli.engine.evaluate import Evaluation, evaluate
from seats_cli.engine.pipeline import Settings, answer, layout_of, write_answer
from seats_cli.engine.prepare import ClipShape
from seats_cli.engine.probe import probe, report_of
from seats_cli.engine.thinking import SKIPPED, UNASKED, Splitter, Trimmed, prompt_of, skips_thinking, thinks
from seats_cli.errors import UsageError
from seats_cli.models.loading import LoadedModel, load
from seats_cli.report import Report
from seats_cli.training.processor import Vocabulary
from tests.array_clip import random_clip
from tests.engine.test_laws import QUESTION, SHAPES
from tests.tiny import token_ids, write_tiny_checkpoint
from tests.tiny_processor import THINKING, thinking_ids

OPEN, CLOSE = thinking_ids()
END = token_ids()["<|im_end|>"]
SPACES = (Vocabulary().symbols["Ġ"], Vocabulary().symbols["Ċ"])
SOUND = ClipShape(None, None, 100, 25)
TOKENS = st.lists(st.sampled_from([OPEN, CLOSE, *range(1, 9)]), max_size=14)


class Split:
    """A splitter that has seen some tokens, and what it gave out."""

    def __init__(self, ids: list[int], thinking: bool, *, marks: bool = True) -> None:
        self.answer: list[int] = []
        self.thinking: list[int] = []
        self.steps: list[int] = []
        self.splitter = Splitter(
            (OPEN, CLOSE) if marks else None,
            thinking,
            self.answer.append,
            self.thinking.append,
        )
        for token in ids:
            self.splitter.push(token)
            self.steps.append(len(self.answer))


def oracle(ids: list[int], thinking: bool) -> tuple[list[int], list[int]]:
    """Answer and reasoning of the whole."""
    inside, parts = thinking, ([], [])
    for token in ids:
        if token in (OPEN, CLOSE):
            inside = token == OPEN
        else:
            parts[inside].append(token)
    return parts


@settings(deadline=None)
@given(ids=TOKENS, thinking=st.booleans())
def test_reasoning_marks_and_answer_are_all_there_is(ids: list[int], thinking: bool) -> None:
    split = Split(ids, thinking)
    assert (split.answer, split.thinking) == oracle(ids, thinking)
    marks = [token for token in ids if token in (OPEN, CLOSE)]
    assert sorted([*split.answer, *split.thinking, *marks]) == sorted(ids)
    assert split.splitter.n_answer == len(split.answer)
    assert split.splitter.n_thinking == len(split.thinking) + len(marks)
    assert split.splitter.n_tokens == len(ids)
    assert split.splitter.reasoned or not split.thinking


@settings(deadline=None)
@given(ids=TOKENS, thinking=st.booleans())
def test_what_is_given_out_as_the_answer_stays_the_answer(ids: list[int], thinking: bool) -> None:
    """Whatever comes later: nothing of the reasoning is ever among it."""
    split = Split(ids, thinking)
    for seen, step in enumerate(split.steps, start=1):
        for more in ([], [CLOSE], [OPEN], [CLOSE, 1], [OPEN, 1, CLOSE]):
            assert split.answer[:step] == oracle(ids[:seen] + more, thinking)[0][:step]


@settings(deadline=None)
@given(ids=TOKENS, thinking=st.booleans())
def test_an_answer_streams(ids: list[int], thinking: bool) -> None:
    for seen, step in enumerate(Split(ids, thinking).steps, start=1):
        assert step == len(oracle(ids[:seen], thinking)[0])


@settings(deadline=None)
@given(ids=TOKENS)
def test_without_marks_all_is_answer_at_once(ids: list[int]) -> None:
    split = Split(ids, False, marks=False)
    assert split.answer == ids
    assert split.steps == list(range(1, len(ids) + 1))
    assert (split.splitter.n_thinking, split.splitter.reasoned) == (0, False)
    assert split.splitter.warnings("length") == ()


@pytest.mark.parametrize(
    ("ids", "thinking", "answer", "reasoning"),
    [
        ([OPEN, 1, 2, CLOSE, 3], False, [3], [1, 2]),
        ([1, 2, CLOSE, 3], True, [3], [1, 2]),
        ([1, 2, CLOSE, 3], False, [1, 2, 3], None),
        ([1, 2], False, [1, 2], None),
        ([1, CLOSE, 2], False, [1, 2], None),
        ([1, 2], True, [], [1, 2]),
        ([], True, [], []),
        ([CLOSE, 1], True, [1], []),
        ([1, OPEN, 2, CLOSE, 3], False, [1, 3], [2]),
        ([OPEN, 1, CLOSE, 2, OPEN, 3, CLOSE, 4], False, [2, 4], [1, 3]),
    ],
)
def test_every_case(ids: list[int], thinking: bool, answer: list[int], reasoning: list[int] | None) -> None:
    split = Split(ids, thinking)
    assert split.answer == answer
    assert split.thinking == (reasoning or [])
    assert split.splitter.reasoned == (reasoning is not None)


@settings(deadline=None)
@given(pieces=st.lists(st.text(" \nab", max_size=4), max_size=8))
def test_trimmed_pieces_are_the_trimmed_text(pieces: list[str]) -> None:
    shown: list[str] = []
    trimmed = Trimmed(shown.append)
    for piece in pieces:
        trimmed(piece)
    assert "".join(shown) == "".join(pieces).strip()
    assert all(shown)


# Models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadedModel]:
    """By what the chat template knows of reasoning."""
    found = {}
    for kind in THINKING:
        folder = write_tiny_checkpoint(
            tmp_path_factory.mktemp("thinks"), n_layers=6, talker=False, dtype=torch.float32, thinking=kind
        )
        found[kind] = load(ModelOptions(model=str(folder), device="cpu", dtype="float32"))
    return found


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The likeliest token at each step is the next of these, and then the end."""

    def make(*ids: int) -> None:
        script = iter([*ids, END])

        def choose(_sampler: object, _logits: torch.Tensor) -> torch.Tensor:
            return torch.tensor([next(script)])

        monkeypatch.setattr("seats_cli.engine.decode.Sampler.choose", choose)

    return make


def ask(loaded: LoadedModel, **options: object) -> tuple[Report, list[str], list[str]]:
    """The report, and the pieces of the answer and of the reasoning."""
    clip, media = random_clip(*SHAPES["both"])
    asked = Settings(media, SelectionOptions(trr=0.3), GenerationOptions(**options))
    texts: list[str] = []
    thoughts: list[str] = []
    report = answer(loaded, lambda: clip, QUESTION, asked, texts.append, on_thinking=thoughts.append)
    return report, texts, thoughts


def test_marks_are_those_of_the_tokenizer(loaded: LoadedModel, models: dict[str, LoadedModel]) -> None:
    assert loaded.model.thinking_ids is None
    assert not loaded.model.can_skip_thinking
    for kind, one in models.items():
        assert one.model.thinking_ids == (OPEN, CLOSE)
        assert one.model.can_skip_thinking == ("switch" in kind)
        # They are not special: whoever looks at decoded text finds them there.
        assert one.model.tokenizer.decode([OPEN, CLOSE], skip_special_tokens=True) == "<think></think>"


@settings(deadline=None)
@given(
    ids=st.lists(st.sampled_from([OPEN, CLOSE, *range(60, 70), *SPACES]), max_size=20),
    opened=st.booleans(),
    data=st.data(),
)
def test_texts_are_apart_and_streamed_whole(models, ids: list[int], opened: bool, data: st.DataObject) -> None:
    model = models["opens" if opened else "switch"].model
    layout = layout_of(model, SOUND, "Hm?", GenerationOptions())
    n = data.draw(st.integers(1, 21))
    texts: list[str] = []
    thoughts: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        script = iter([*ids, END])
        patch.setattr("seats_cli.engine.decode.Sampler.choose", lambda *_: torch.tensor([next(script)]))
        patch.setattr("seats_cli.engine.decode.StaticSteps.advance", lambda *_: None)
        filled = SimpleNamespace(logits=None, cache=None)
        options = GenerationOptions(max_new_tokens=n)
        found = write_answer(SimpleNamespace(model=model), layout, filled, options, texts.append, thoughts.append)
    written = ids[:n]
    expected = oracle(written, opened)
    text = partial(model.tokenizer.decode, clean_up_tokenization_spaces=False)
    assert "".join(texts) == found.text == text(expected[0]).strip()
    assert "".join(thoughts) == (found.thinking or "") == text(expected[1]).strip()
    assert found.n_tokens == len(expected[0])
    assert found.n_tokens + found.n_thinking == len(written)
    assert found.finish_reason == ("stop" if len(ids) < n else "length")
    inside = next((token == OPEN for token in reversed(written) if token in (OPEN, CLOSE)), opened)
    assert bool(found.warnings) == inside


def test_a_prompt_says_whether_it_ends_in_reasoning(models: dict[str, LoadedModel]) -> None:
    model = models["neither"].model
    assert thinks(model, [1, OPEN, 2])
    assert not thinks(model, [OPEN, 1, CLOSE, 2])
    assert not thinks(model, [1, 2])
    assert not thinks(model, [OPEN, 1, END, 2])  # of an earlier turn
    assert not thinks(model, [])


@pytest.mark.parametrize("finish", ["length", "stop", "interrupted"])
def test_reasoning_that_is_not_over(models, says, monkeypatch: pytest.MonkeyPatch, finish: str) -> None:
    says(*[65] * (9 if finish == "length" else 6))
    if finish == "interrupted":
        steps = iter(range(5))

        def step(*_: object) -> None:
            if next(steps, None) is None:
                raise KeyboardInterrupt

        monkeypatch.setattr("seats_cli.engine.decode.StaticSteps.advance", step)
    report, texts, thoughts = ask(models["opens"], max_new_tokens=6 if finish == "length" else 20)
    assert (report.answer, report.answer_tokens, report.finish_reason) == ("", 0, finish)
    assert (report.thinking, report.thinking_tokens) == ("b" * 6, 6)
    assert (texts, "".join(thoughts)) == ([], "b" * 6)
    (line,) = report.warnings
    assert line.startswith("the reasoning took 6 tokens and was not over")
    assert ("raise --max-new-tokens" in line) == (finish == "length")


def test_nothing_changes_without_marks(loaded: LoadedModel) -> None:
    report, texts, thoughts = ask(loaded, max_new_tokens=8)
    assert (report.thinking, report.thinking_tokens, thoughts) == (None, 0, [])
    assert "".join(texts).strip() == report.answer
    assert len(texts) > 1
    assert prompt_of(loaded.model, "Hm?", GenerationOptions(choices=("A", "B")), "video") == loaded.model.prompt(
        "Hm?", None, "video"
    )


# Answers that are scored at once


@pytest.mark.parametrize("kind", THINKING)
def test_a_scored_answer_comes_after_an_empty_block(models: dict[str, LoadedModel], kind: str) -> None:
    """Where the prompt opens reasoning, it is the one that the switch gives; any other stays as it is."""
    model, tokenizer = models[kind].model, models[kind].model.tokenizer
    plain, scored = (
        tokenizer.decode(prompt_of(model, "Hm?", GenerationOptions(), "video", at_once=at_once)[1])
        for at_once in (False, True)
    )
    turn = "Hm?<|im_end|>\n<|im_start|>assistant\n"
    assert plain.endswith(turn + ("<think>\n" if "opens" in kind else ""))
    assert scored.endswith(turn + ("<think>\n\n</think>\n\n" if "opens" in kind else ""))
    assert skips_thinking(model) == ("opens" in kind)
    ids = prompt_of(model, "Hm?", GenerationOptions(choices=("A", "B")), "video")
    assert ids == prompt_of(model, "Hm?", GenerationOptions(), "video", at_once=True)
    off = prompt_of(models["switch"].model, "Hm?", GenerationOptions(thinking=False), "video")
    assert (ids == off) == ("opens" in kind)


def test_a_block_that_is_begun_is_closed_where_it_is(models, monkeypatch: pytest.MonkeyPatch) -> None:
    model = models["opens"].model
    begun = model.processor.chat_template.replace("<think>\\n", "<think>\\nWell")
    assert begun != model.processor.chat_template
    monkeypatch.setattr(model.processor, "chat_template", begun)
    _, after = prompt_of(model, "Hm?", GenerationOptions(), "video", at_once=True)
    assert model.tokenizer.decode(after).endswith("assistant\n<think>\nWell\n\n</think>\n\n")


@pytest.mark.parametrize("kind", THINKING)
def test_choices_say_that_the_model_could_not_reason(models: dict[str, LoadedModel], kind: str) -> None:
    report, texts, thoughts = ask(models[kind], choices=("A", "B", "C"))
    assert (report.finish_reason, report.thinking, report.thinking_tokens) == ("choice", None, 0)
    assert (texts, thoughts, report.answer_tokens) == ([report.answer], [], 1)
    assert report.warnings == ((SKIPPED,) if "opens" in kind else ())
    if kind == "opens, switch":
        told, *_ = ask(models[kind], choices=("A", "B", "C"), thinking=False)
        assert (told.warnings, told.choices) == ((), report.choices)


def test_a_model_that_would_reason_all_the_same_is_said_so(models, monkeypatch: pytest.MonkeyPatch) -> None:
    """A template that knows nothing of reasoning, and a model that begins with it."""
    thinker = models["neither"].model.thinker
    weight = torch.zeros_like(thinker.lm_head.weight)
    with torch.no_grad():
        monkeypatch.setitem(thinker.lm_head._parameters, "weight", torch.nn.Parameter(weight))
        assert ask(models["neither"], choices=("A", "B"))[0].warnings == ()
        # Of two rows with opposite signs one is above all the zeros.
        weight[OPEN] = 1.0
        up = ask(models["neither"], choices=("A", "B"))[0].warnings
        weight[OPEN] = -1.0
        down = ask(models["neither"], choices=("A", "B"))[0].warnings
    assert {up, down} == {(), (UNASKED,)}


@pytest.mark.parametrize("kind", THINKING)
def test_reasoning_switched_off(models: dict[str, LoadedModel], says, kind: str) -> None:
    says(65, 66)
    if "switch" not in kind:
        with pytest.raises(UsageError, match="--no-thinking: this model's chat template has no such switch"):
            ask(models[kind], thinking=False)
        return
    report, texts, _ = ask(models[kind], thinking=False, max_new_tokens=4)
    assert (report.answer, report.thinking, texts) == ("bc", None, ["b", "c"])


# Many questions


def work_of(loaded: LoadedModel, *, thinking: bool = True, **row: object) -> Evaluation:
    clip, media = random_clip(*SHAPES["both"])
    known = {"answers": ("c",), "choices": (), **row}
    question = Question(line=1, id="1", media="m", path="m", text=QUESTION, category=None, **known)
    return Evaluation(
        loaded=loaded,
        file="questions.jsonl",
        questions=[question],
        settings={"full": SelectionOptions(method="full", trr=1.0)},
        media=media,
        generation=GenerationOptions(max_new_tokens=4, thinking=thinking),
        open_clip=lambda *_: clip,
    )


def test_an_evaluation_compares_the_answer(models: dict[str, LoadedModel], says) -> None:
    says(65, CLOSE, 66)
    (outcome,) = evaluate(work_of(models["opens"]))["full"]
    assert (outcome.answer, outcome.correct, outcome.answer_tokens) == ("c", True, 1)
    assert (outcome.thinking, outcome.thinking_tokens, outcome.warnings) == ("b", 2, ())
    says(65, 65, 65, 65)
    (outcome,) = evaluate(work_of(models["opens"]))["full"]
    assert (outcome.answer, outcome.correct) == ("", False)
    assert outcome.warnings == ("the reasoning took 4 tokens and was not over: raise --max-new-tokens",)


def test_an_evaluation_of_labels_closes_the_block(models: dict[str, LoadedModel]) -> None:
    labels = {"choices": ("A", "B"), "answers": ("A",)}
    (opened,) = evaluate(work_of(models["opens"], **labels))["full"]
    (told,) = evaluate(work_of(models["switch"], thinking=False, **labels))["full"]
    assert opened.warnings == (SKIPPED,)
    assert told.warnings == ()
    assert opened.choices == told.choices  # the weights are the same, and so are the prompts
    blind = dataclasses.replace(work_of(models["opens"], **labels), media=MediaOptions(picture="off", audio="off"))
    assert evaluate(blind)["full"][0].warnings == (SKIPPED,)
    with pytest.raises(UsageError, match=r"^--no-thinking"):
        evaluate(work_of(models["opens"], thinking=False))


@pytest.mark.parametrize("row", [{}, {"choices": ("A", "B"), "answers": ("A",)}], ids=["written", "labels"])
def test_a_probe_scores_after_an_empty_block(models: dict[str, LoadedModel], row: dict[str, object]) -> None:
    outcomes = []
    for kind in ("opens", "opens, switch"):
        work = work_of(models[kind], **row)
        (found,) = probe(work)
        assert found.error is None
        outcomes.append(found.outcomes)
        report = report_of(work, [found], tolerance=0.01, categories=())
        assert report.warnings == (SKIPPED,)
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("row", [{}, {"choices": ("A", "B"), "answers": ("A",)}], ids=["written", "labels"])
@pytest.mark.parametrize("kind", ["neither", "switch"])
def test_a_probe_of_a_model_that_would_begin_to_reason_says_so(
    models: dict[str, LoadedModel], monkeypatch: pytest.MonkeyPatch, row: dict[str, object], kind: str
) -> None:
    """Its own first token is the opening mark, so nothing that is scored there means much."""
    loaded = models[kind]
    real = loaded.model.last_logits

    def eager(hidden: torch.Tensor) -> torch.Tensor:
        logits = real(hidden).clone()
        logits[OPEN] = logits.max() + 1
        return logits

    monkeypatch.setattr(loaded.model, "last_logits", eager)
    work = work_of(loaded, **row)
    report = report_of(work, probe(work), tolerance=0.01, categories=())
    (warning,) = report.warnings
    assert warning.startswith(UNASKED)
    assert ("--no-thinking" in warning) == (kind == "switch")


def test_a_layout_ends_where_the_answer_begins(models: dict[str, LoadedModel]) -> None:
    model = models["opens"].model
    plain, scored = (layout_of(model, SOUND, "Hm?", GenerationOptions(), at_once=once) for once in (False, True))
    assert thinks(model, plain.ids) is True
    assert thinks(model, scored.ids) is False

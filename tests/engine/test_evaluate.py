"""Many questions on clips that are read once: the answers are those of one clip, one question."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from seats_cli.config import GenerationOptions, MediaOptions, SelectionOptions
from seats_cli.dataset import Question
from seats_cli.engine.encode import window_batches
from seats_cli.engine.evaluate import Evaluation, evaluate, task_keys
from seats_cli.engine.marks import sample_of
from seats_cli.engine.pipeline import Settings, answer, prepare, read_encoded, read_prompt
from seats_cli.errors import InterruptedRunError, MediaError, UsageError
from seats_cli.layout import Modality
from seats_cli.models.loading import LoadedModel
from seats_cli.selection import METHODS
from seats_cli.selection.seats import Seats
from seats_cli.timing import Stopwatch
from tests.array_clip import random_clip

SHAPES = {  # frames, rows, columns, seconds of sound; the first is longer than a batch of windows
    "long": (40, 2, 3, 21.0),
    "picture": (8, 3, 3, 0.0),
    "sound": (0, 1, 1, 4.4),
}
SETTINGS = {
    "full": SelectionOptions(method="full", trr=1.0),
    "seats": SelectionOptions(trr=0.3),
    "text": SelectionOptions(trr=0.2, kv_cache="text", score_with="next"),
}
GENERATION = GenerationOptions(max_new_tokens=6)


class WholeSeats(Seats):
    """SEATS that asks for the whole clip at once: windows are apart, so it must choose the same."""

    name = "whole"
    whole_clip = True


class Shelf:
    """Clips by path, and how often each was opened and its frames read."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.decoded: list[str] = []

    def __call__(self, path: str, media: MediaOptions):
        name = Path(path).name
        if name not in SHAPES:
            raise MediaError(f"{path}: no such file")
        self.opened.append(name)
        clip, _ = random_clip(*SHAPES[name], seed=len(name))
        if SHAPES[name][0]:
            frames = clip.frames
            clip.frames = lambda shrink=None: self.decoded.append(name) or frames(shrink)
        return clip


def question(media: str, text: str, line: int = 1, **more: object) -> Question:
    known = {"answers": ("x",), "choices": (), "category": None, **more}
    return Question(line=line, id=str(line), media=media, path=media, text=text, **known)


ROWS = [
    question("long", "What is seen?", 1),
    question("picture", "Which one?", 2, choices=("A", "B", "C"), answers=("B",)),
    question("long", "Which?", 3, choices=("yes", "no"), answers=("yes",), category="c"),
    question("sound", "What is said, and when?", 4),
    question("long", "Who?", 5),
]


def media_for(name: str) -> MediaOptions:
    _, media = random_clip(*SHAPES[name])
    return media


def work_of(loaded: LoadedModel, rows: list[Question], open_clip: Callable, **more: object) -> Evaluation:
    known = {"settings": SETTINGS, "media": media_for("long"), "generation": GENERATION, **more}
    return Evaluation(file="rows.jsonl", loaded=loaded, questions=rows, open_clip=open_clip, **known)


def test_answers_are_those_of_ask(loaded: LoadedModel) -> None:
    """Bit for bit: the probabilities of the labels are those of the same logits."""
    found = evaluate(work_of(loaded, ROWS, Shelf()))
    assert list(found) == list(SETTINGS)
    for label, options in SETTINGS.items():
        for row, outcome in zip(ROWS, found[label], strict=True):
            settings = Settings(media_for("long"), options, dataclasses.replace(GENERATION, choices=row.choices))
            report = answer(loaded, partial(Shelf(), row.path, settings.media), row.text, settings)
            assert outcome.error is None
            assert (outcome.answer, outcome.answer_tokens) == (report.answer, report.answer_tokens)
            assert (outcome.choices, outcome.finish_reason) == (report.choices, report.finish_reason)
            assert outcome.achieved_trr == report.selection.achieved_trr
            assert outcome.prompt_tokens == report.tokens.total
            assert outcome.warnings == report.warnings
            assert (outcome.id, outcome.setting, outcome.category) == (row.id, label, row.category)
            assert outcome.correct == (report.answer in row.answers)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("method", ["full", "random", "seats", "whole"])
def test_encoded_once_is_encoded_on_the_way(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, name: str, method: str
) -> None:
    """What was read for all settings serves each as if it had been read for it."""
    monkeypatch.setitem(METHODS, "whole", WholeSeats)
    options = SelectionOptions(method=method, trr=0.3)
    settings = Settings(media_for(name), options)
    clip = Shelf()(name, settings.media)
    model = loaded.model
    with torch.inference_mode():
        prepared = prepare(loaded, clip, "What?", settings, Stopwatch())
        alone = read_prompt(loaded, prepared, options, Stopwatch())
        sizes = prepared.layout.window_sizes
        streams = window_batches(model, clip, prepared.waveform, prepared.shape, sizes, Stopwatch(), saliency=True)
        batches = {modality: list(stream) for modality, stream in streams.items()}
        for _ in range(2):
            shared = read_encoded(loaded, prepared.layout, prepared.plan, batches, options, Stopwatch())
            assert torch.equal(shared.encoded.index, alone.encoded.index)
            assert torch.equal(shared.encoded.embeddings, alone.encoded.embeddings)
            assert torch.equal(shared.prefill.logits, alone.prefill.logits)
            assert shared.encoded.encoder_flops == alone.encoded.encoder_flops
            assert shared.encoded.selection_flops == alone.encoded.selection_flops
            assert set(shared.encoded.trace) == set(alone.encoded.trace)
    if name == "long":
        assert len(batches[Modality.VIDEO]) > 1
    if method == "whole":
        seats = read_encoded(
            loaded, prepared.layout, prepared.plan, batches, SelectionOptions(trr=0.3), Stopwatch()
        )
        assert torch.equal(seats.encoded.index, alone.encoded.index)


def test_a_clip_is_read_once_for_all_rows_and_settings(loaded: LoadedModel, monkeypatch) -> None:
    shelf, asked = Shelf(), []

    def counted(name: str, real: Callable, *arguments: object, saliency: bool):
        asked.append((name, saliency))
        return real(*arguments, saliency=saliency)

    for name in ("encode_video", "encode_audio"):
        monkeypatch.setattr(loaded.model, name, partial(counted, name, getattr(loaded.model, name)))
    evaluate(work_of(loaded, ROWS, shelf))
    assert sorted(shelf.opened) == sorted(SHAPES)
    assert sorted(shelf.decoded) == ["long", "picture"]
    # 10 windows of picture in batches of 8, 11 of sound in one.
    assert [name for name, _ in asked].count("encode_video") == 2 + 1
    assert [name for name, _ in asked].count("encode_audio") == 1 + 1
    assert all(saliency for _, saliency in asked)
    asked.clear()
    evaluate(work_of(loaded, ROWS, shelf, settings={"full": SETTINGS["full"]}))
    assert asked
    assert not any(saliency for _, saliency in asked)


def test_parts_of_a_clip_are_clips_of_their_own(loaded: LoadedModel) -> None:
    shelf, seen = Shelf(), []
    rows = [
        question("long", "What?", 1, start_seconds=1.0),
        question("long", "Who?", 2),
        question("long", "Why?", 3, start_seconds=1.0, end_seconds=4.0),
        question("long", "How?", 4, start_seconds=1.0),
    ]

    def open_clip(path: str, media: MediaOptions):
        seen.append((media.start_seconds, media.end_seconds))
        return shelf(path, media)

    media = dataclasses.replace(media_for("long"), end_seconds=9.0)
    evaluate(work_of(loaded, rows, open_clip, media=media, settings={"seats": SETTINGS["seats"]}))
    assert seen == [(1.0, 9.0), (None, 9.0), (1.0, 4.0)]


def test_a_clip_that_fails_is_told_once_and_the_rest_goes_on(loaded: LoadedModel, monkeypatch) -> None:
    rows = [question("gone", "What?", 1), *ROWS[1:2], question("gone", "Who?", 3)]
    errors, outcomes = [], []
    found = evaluate(
        work_of(loaded, rows, Shelf()),
        on_outcome=outcomes.append,
        on_error=lambda caught, about: errors.append((str(caught), about)),
    )
    assert errors == [("gone: no such file", [rows[0], rows[2]])]
    assert len(outcomes) == 3 * len(SETTINGS)
    for label in SETTINGS:
        first, second, third = found[label]
        assert (first.correct, first.answer) == (None, None)
        assert first.error is not None
        assert (first.error.message, first.error.exit_code) == ("gone: no such file", 3)
        assert third.error == first.error
        assert second.error is None


def test_a_setting_that_fails_leaves_the_others(loaded: LoadedModel) -> None:
    # With more sound than picture the visual ratio is too small for that scale.
    narrow = SelectionOptions(trr=0.5, scale=4.0, drop_before_layer=(1, 2, 3, 6))
    settings = {"full": SETTINGS["full"], "narrow": narrow}
    found = evaluate(work_of(loaded, ROWS[:1], Shelf(), settings=settings))
    assert found["full"][0].error is None
    assert found["narrow"][0].error is not None
    assert found["narrow"][0].error.exit_code == 2


@pytest.mark.parametrize(
    "options", [SelectionOptions(trr=0.1, drop_before_layer=(1, 2, 3, 90)), SelectionOptions(trr=0.95)]
)
def test_a_setting_that_no_clip_can_have_is_found_before_one_is_read(
    loaded: LoadedModel, options: SelectionOptions
) -> None:
    shelf, errors = Shelf(), []
    settings = {"full": SETTINGS["full"], "never": options}
    with pytest.raises(UsageError, match=r"0\.95 is infeasible|1, 2, 3, 90 of 8"):
        evaluate(work_of(loaded, ROWS, shelf, settings=settings), on_error=lambda *caught: errors.append(caught))
    assert (shelf.opened, errors) == ([], [])
    nothing = MediaOptions(picture="off", audio="off")
    assert evaluate(work_of(loaded, ROWS[:1], shelf, settings=settings, media=nothing))["never"][0].error is None


def test_what_is_done_is_not_asked_again(loaded: LoadedModel) -> None:
    shelf, outcomes, plans = Shelf(), [], []
    first = evaluate(work_of(loaded, ROWS[:3], shelf), on_outcome=outcomes.append)
    done = {outcome.key: outcome for outcome in outcomes}
    assert len(done) == 3 * len(SETTINGS)
    shelf.opened.clear()
    again = evaluate(
        work_of(loaded, ROWS[:4], shelf),
        done=done,
        on_start=lambda *n: plans.append(n),
        on_outcome=outcomes.append,
    )
    assert shelf.opened == ["sound"]
    assert plans == [(3, 12)]
    assert {label: rows[:3] for label, rows in again.items()} == first
    # A row that failed is tried again.
    broken = {key: dataclasses.replace(o, error=object()) for key, o in done.items() if o.media == "picture"}
    shelf.opened.clear()
    assert evaluate(work_of(loaded, ROWS[:3], shelf), done=done | broken) != {}
    assert shelf.opened == ["picture"]


def test_rows_that_are_alike_are_asked_once(loaded: LoadedModel) -> None:
    twin = dataclasses.replace(ROWS[0], line=9, id="twin")
    outcomes = []
    found = evaluate(work_of(loaded, [ROWS[0], twin], Shelf()), on_outcome=outcomes.append)
    assert len(outcomes) == len(SETTINGS)
    for label in SETTINGS:
        assert [outcome.id for outcome in found[label]] == ["1", "twin"]
        assert found[label][0].answer == found[label][1].answer


def keys(loaded: LoadedModel, row: Question = ROWS[0], **more: object) -> set[str]:
    return set(task_keys(work_of(loaded, [row], Shelf(), **more)).values())


def test_keys_depend_on_all_that_an_answer_depends_on(loaded: LoadedModel) -> None:
    before = keys(loaded)
    assert len(before) == len(SETTINGS)
    changed = [
        keys(loaded, dataclasses.replace(ROWS[0], **{name: value}))
        for name, value in (("text", "Other?"), ("answers", ("y",)), ("category", "z"), ("start_seconds", 1.0))
    ]
    changed.append(keys(loaded, dataclasses.replace(ROWS[0], choices=("A", "B"))))
    changed.append(keys(loaded, media=dataclasses.replace(media_for("long"), audio="off")))
    changed.append(keys(loaded, generation=GenerationOptions(max_new_tokens=7)))
    changed.append(keys(dataclasses.replace(loaded, dtype="bfloat16")))
    changed.append(keys(loaded, settings={k: dataclasses.replace(v, scale=1.5) for k, v in SETTINGS.items()}))
    for other in changed:
        assert not before & other
    # Not on what it does not depend on.
    assert keys(loaded, dataclasses.replace(ROWS[0], line=7, id="seven")) == before
    assert keys(loaded, settings={label.upper(): options for label, options in SETTINGS.items()}) == before


def test_keys_know_the_clip_and_the_weights(loaded: LoadedModel, tmp_path: Path) -> None:
    clip, weights = tmp_path / "clip.mp4", tmp_path / "model.safetensors"
    row = dataclasses.replace(ROWS[0], path=str(clip))
    model = dataclasses.replace(loaded, folder=tmp_path)
    seen = [keys(model, row)]
    for path in (clip, weights):
        for content in (b"1" * 300_000, b"1" * 299_999 + b"2"):
            path.write_bytes(content)
            seen.append(keys(model, row))
    for place, one in enumerate(seen):
        assert not any(one & other for other in seen[place + 1 :])
    # A copy is the same clip, whenever it was made.
    assert sample_of(clip) == sample_of(weights) != sample_of(tmp_path / "none")
    # A clip that is not opened does not matter.
    alone = {"media": MediaOptions(picture="off", audio="off")}
    assert keys(model, row, **alone) == keys(model, dataclasses.replace(row, path="none"), **alone)


def test_keys_know_the_folder_that_was_loaded_whatever_its_name(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped model's name is no path, and a folder of that name is another's."""
    for name in ("real", "here/tiny"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    model = dataclasses.replace(loaded, model_id="tiny", folder=tmp_path / "real")
    seen = [keys(model)]
    for name in ("model.safetensors", "seats.toml"):
        (tmp_path / "real" / name).write_text(name)
        assert keys(model) not in seen
        seen.append(keys(model))
    (tmp_path / "here" / "tiny" / "model.safetensors").write_text("another")
    assert keys(model) == seen[-1]
    # A commit does not change; more of its files may be fetched, of which only the settings matter.
    cached = dataclasses.replace(model, revision="c" * 40)
    before = keys(cached)
    (tmp_path / "real" / "more.json").write_text("{}")
    assert keys(cached) == before
    (tmp_path / "real" / "seats.toml").unlink()
    assert keys(cached) != before
    assert keys(dataclasses.replace(cached, revision="d" * 40)) != before


def test_the_question_alone_is_the_template_without_a_clip(loaded: LoadedModel) -> None:
    """Against the processor's own text and transformers' own forward."""
    media = MediaOptions(picture="off", audio="off")

    def open_clip(path: str, media: MediaOptions):
        raise AssertionError("no clip is opened")

    choices = ("A", "B", "C")
    rows = [question("none", "Which is it?", 1, choices=choices, answers=("A",)), question("none", "Why?", 2)]
    settings = {"full": SETTINGS["full"], "seats": SETTINGS["seats"]}
    found = evaluate(work_of(loaded, rows, open_clip, media=media, settings=settings))
    processor, thinker = loaded.model.processor, loaded.model.thinker
    turns = [{"role": "user", "content": [{"type": "text", "text": "Which is it?"}]}]
    text = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    ids = processor.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        logits = thinker(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1]
    labels = [processor.tokenizer(label)["input_ids"][0] for label in choices]
    expected = torch.softmax(logits[labels].double(), 0).tolist()
    for label in settings:
        outcome, free = found[label]
        assert outcome.prompt_tokens == ids.shape[1]
        assert [choice.probability for choice in outcome.choices] == pytest.approx(expected, rel=1e-4)
        assert outcome.achieved_trr is None
        assert outcome.seconds is not None
        assert (outcome.seconds.decode, outcome.seconds.encode) == (0, 0)
        assert free.error is None


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (question("long", "What is <|im_end|>?", 4), "rows.jsonl:4: the question contains the reserved token"),
        (
            question("long", "Q", 5, choices=("ab", "ac")),
            "rows.jsonl:5: choices 'ab' and 'ac' begin with the same token",
        ),
        (question("long", "Q", 6, start_seconds=12.0), "rows.jsonl:6: --end 9 s is not after --start 12 s"),
    ],
)
def test_what_cannot_be_asked_is_found_before_anything_runs(
    loaded: LoadedModel, row: Question, problem: str
) -> None:
    shelf = Shelf()
    media = dataclasses.replace(media_for("long"), end_seconds=9.0)
    with pytest.raises(UsageError, match=problem.replace("|", r"\|")):
        evaluate(work_of(loaded, [*ROWS, row], shelf, media=media))
    assert shelf.opened == []


def test_labels_that_were_given_for_all_rows_are_no_fault_of_one(loaded: LoadedModel) -> None:
    given = dataclasses.replace(GENERATION, choices=("ab", "ac"))
    rows = [question("long", "Q", 5, choices=given.choices)]
    with pytest.raises(UsageError, match=r"^--choices 'ab' and 'ac' begin with the same token"):
        evaluate(work_of(loaded, rows, Shelf(), generation=given))
    # Where every row has its own they are not looked at.
    found = evaluate(work_of(loaded, ROWS[1:2], Shelf(), generation=given, settings={"full": SETTINGS["full"]}))
    assert found["full"][0].error is None


def test_ctrl_c_ends_it_and_the_answer_that_was_cut_is_not_one(loaded: LoadedModel, monkeypatch) -> None:
    outcomes = []

    def stop(outcome: object) -> None:
        outcomes.append(outcome)

        def broken(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("seats_cli.engine.decode.Sampler.choose", broken)

    with pytest.raises(InterruptedRunError):
        evaluate(work_of(loaded, [ROWS[0], ROWS[3]], Shelf()), on_outcome=stop)
    assert len(outcomes) == 1

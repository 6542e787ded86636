"""Many questions under several settings: a clip is decoded and encoded once for all that is asked about it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from seats_cli import __version__
from seats_cli.config import GenerationOptions, MediaOptions, SelectionOptions
from seats_cli.dataset import Question, place_of
from seats_cli.engine.analytic import FULL, check_settings, plan_of, token_counts
from seats_cli.engine.encode import WindowBatch, window_batches
from seats_cli.engine.marks import model_mark, sample_of
from seats_cli.engine.pipeline import (
    Prompted,
    Written,
    check_choices,
    layout_of,
    read_encoded,
    spare_for,
    write_answer,
)
from seats_cli.engine.prepare import ClipShape, lay_out_text, position_warning
from seats_cli.engine.reading import open_and_place
from seats_cli.engine.thinking import prompt_of
from seats_cli.errors import InterruptedRunError, SeatsError, UsageError, explain
from seats_cli.evaluation import Outcome, RowError, RowSeconds
from seats_cli.layout import Layout, Modality
from seats_cli.media.types import Clip
from seats_cli.models.loading import LoadedModel
from seats_cli.selection import get_method
from seats_cli.timing import Stopwatch

NAMES = {"line", "id", "named", "path"}
"""Of a row, what its answer does not depend on."""
OpenClip = Callable[[str, MediaOptions], Clip]
OnError = Callable[[Exception, Sequence[Question]], None]
Asked = TypeVar("Asked")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What is asked of whom, and how.

    Attributes:
        file: Of the questions, for errors and reports.
        loaded: The model.
        questions: Rows.
        settings: Options of the selection by label, at least one.
        media: What of the clips is seen and heard; a row's own part goes before that of the options.
        generation: How answers are written; the choices are the rows'.
        open_clip: Opens a path.
    """

    file: str
    loaded: LoadedModel
    questions: Sequence[Question]
    settings: Mapping[str, SelectionOptions]
    media: MediaOptions
    generation: GenerationOptions
    open_clip: OpenClip

    def media_of(self, question: Question) -> MediaOptions:
        """The options for one row."""
        own = {name: getattr(question, name) for name in ("start_seconds", "end_seconds")}
        return replace(self.media, **{name: value for name, value in own.items() if value is not None})

    def generation_of(self, question: Question) -> GenerationOptions:
        """The options for one row."""
        return replace(self.generation, choices=question.choices)


@dataclass(frozen=True, slots=True)
class _Task:
    """One question under one setting."""

    key: str
    label: str
    question: Question


@dataclass(frozen=True, slots=True)
class Source:
    """A clip read and encoded, to be asked about again and again; without windows the question stands alone.

    Attributes:
        shape: What is in the clip.
        batches: Encoded windows by modality.
        seconds: What took how long.
        warnings: What was cut, replaced or missing.
    """

    shape: ClipShape
    batches: dict[Modality, list[WindowBatch]]
    seconds: Mapping[str, float]
    warnings: tuple[str, ...]


def task_keys(work: Evaluation) -> dict[tuple[int, str], str]:
    """By place of the question and label: a hash of all that the outcome depends on.

    Rows that are alike have one key, whatever their ids; labels do not count, the options behind them do.
    """
    common = {"version": __version__, "model": model_mark(work.loaded), "generation": asdict(work.generation)}
    marks: dict[str, str] = {}
    keys = {}
    for place, question in enumerate(work.questions):
        media = work.media_of(question)
        if question.path not in marks and not media.nothing:
            marks[question.path] = sample_of(Path(question.path))
        row = {
            name: value for name, value in asdict(question).items() if name not in ("line", "id", "named", "path")
        }
        content = {**common, "row": row, "media": asdict(media), "file": marks.get(question.path)}
        for label, options in work.settings.items():
            text = json.dumps({**content, "selection": asdict(options)}, sort_keys=True)
            keys[place, label] = hashlib.sha256(text.encode()).hexdigest()[:32]
    return keys


def check_questions(work: Evaluation) -> None:
    """Find out before anything runs what cannot be asked of this model, or of the part that the options leave.

    Raises:
        UsageError: Reasoning cannot be switched off; or, with the row named, a question holds a special token,
            two labels begin with the same token, or a row's part ends before it starts.
    """
    model, given = work.loaded.model, work.generation.choices
    model.check_thinking(work.generation.thinking)
    if any(question.choices == given for question in work.questions):
        check_choices(model, given)
    seen = {given}
    for question in work.questions:
        try:
            work.media_of(question)
            model.prompt(question.text, work.generation.system, "video")
            if question.choices not in seen:
                check_choices(model, question.choices, "choices")
                seen.add(question.choices)
        except UsageError as error:
            raise UsageError(f"{place_of(work.file, [question])}: {error}", error.hint) from None


def by_clip(work: Evaluation, asked: Iterable[tuple[Question, Asked]]) -> list[list[Asked]]:
    """What is asked about the same part of a clip together, in the order of the first of each.

    Args:
        work: Whose options say which part.
        asked: Whatever belongs to a question.
    """
    groups: dict[tuple[str, MediaOptions], list[Asked]] = {}
    for question, one in asked:
        path = "" if work.media.nothing else os.path.abspath(question.path)
        groups.setdefault((path, work.media_of(question)), []).append(one)
    return list(groups.values())


@torch.inference_mode()
def evaluate(
    work: Evaluation,
    *,
    done: Mapping[str, Outcome] | None = None,
    on_start: Callable[[int, int], None] | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
    on_error: OnError | None = None,
) -> dict[str, list[Outcome]]:
    """Ask every question under every setting that is not done yet.

    Answers are those of ``pipeline.answer`` for the same clip, question and options. A clip that cannot be read,
    or a row that fails, becomes an outcome with an error, and the rest goes on.

    Args:
        work: What is asked.
        done: Outcomes of an earlier run by key; those that failed are tried again.
        on_start: Called with the number of outcomes to find, and of all.
        on_outcome: Called with each new outcome as soon as it is known.
        on_error: Called once with each exception and the rows that it made fail.

    Returns:
        By label, the outcomes in the order of the questions.

    Raises:
        UsageError: A question, its choices or a setting cannot be.
        InterruptedRunError: Ctrl-C while an answer was written.
    """
    check_questions(work)
    if not work.media.nothing:
        check_settings(work.loaded.model.spec, work.settings.values())
    keys = task_keys(work)
    found = {key: outcome for key, outcome in (done or {}).items() if outcome.error is None}
    open_tasks = {
        key: _Task(key, label, work.questions[place]) for (place, label), key in keys.items() if key not in found
    }
    if on_start is not None:
        on_start(len(open_tasks), len(set(keys.values())))
    for group in by_clip(work, [(task.question, task) for task in open_tasks.values()]):
        for outcome in _outcomes(work, group, on_error or (lambda *_: None)):
            found[outcome.key] = outcome
            if on_outcome is not None:
                on_outcome(outcome)
    return {
        label: [
            replace(found[keys[place, label]], id=question.id, setting=label)
            for place, question in enumerate(work.questions)
        ]
        for label in work.settings
    }


def _outcomes(work: Evaluation, tasks: Sequence[_Task], on_error: OnError) -> Iterator[Outcome]:
    """All that is asked about one clip."""
    media, path = work.media_of(tasks[0].question), tasks[0].question.path
    try:
        source = _read(work, path, media, tasks)
    except Exception as caught:
        on_error(caught, list(dict.fromkeys(task.question for task in tasks)))
        error = explain(caught)
        yield from (_failed(task, error) for task in tasks)
        return
    for task in tasks:
        try:
            outcome = _answer(work, source, task)
        except Exception as caught:
            on_error(caught, [task.question])
            outcome = _failed(task, explain(caught))
        if outcome.finish_reason == "interrupted":
            raise InterruptedRunError("interrupted")
        yield outcome


def read_clip(work: Evaluation, path: str, media: MediaOptions, *, saliency: bool) -> Source:
    """Decode and encode a clip.

    Args:
        work: Whose model encodes it.
        path: Of the clip.
        media: What of it is seen and heard.
        saliency: Whether a selection will ask for it.
    """
    model = work.loaded.model
    watch = Stopwatch(model.devices)
    opened = open_and_place(model, lambda: work.open_clip(path, media), media, watch)
    clip, shape, sizes = opened.clip, opened.shape, opened.layout.window_sizes
    streams = window_batches(model, clip, opened.waveform, shape, sizes, watch, saliency=saliency)
    batches = {modality: list(stream) for modality, stream in streams.items()}
    return Source(shape, batches, watch.seconds, tuple(clip.warnings))


def _read(work: Evaluation, path: str, media: MediaOptions, tasks: Sequence[_Task]) -> Source:
    """A clip for its tasks, with saliency if any of the settings asks for it."""
    if media.nothing:
        return Source(ClipShape(None, None, 0, 0), {}, {}, ())
    wanted = any(get_method(work.settings[task.label].method).needs_saliency for task in tasks)
    return read_clip(work, path, media, saliency=wanted)


def _answer(work: Evaluation, source: Source, task: _Task) -> Outcome:
    loaded, model, question = work.loaded, work.loaded.model, task.question
    generation, options = work.generation_of(question), work.settings[task.label]
    if source.batches:
        layout = layout_of(model, source.shape, question.text, generation)
    else:
        layout, options = lay_out_text(prompt_of(model, question.text, generation, "audio")), FULL
    watch = Stopwatch(model.devices)
    plan = plan_of(model.spec, layout, options)
    prompted = read_encoded(loaded, layout, plan, source.batches, options, watch, spare_for(generation))
    with watch("answer"):
        written = write_answer(loaded, layout, prompted.prefill, generation)
    saliency = source.seconds.get("select", 0.0) if prompted.encoded.trace else 0.0
    return _outcome(work, source, task, (layout, prompted, written), watch.seconds, saliency)


def _outcome(
    work: Evaluation,
    source: Source,
    task: _Task,
    found: tuple[Layout, Prompted, Written],
    seconds: Mapping[str, float],
    saliency_seconds: float,
) -> Outcome:
    question, (layout, prompted, written) = task.question, found
    too_far = position_warning(layout, work.loaded.model.spec.max_positions)
    return Outcome(
        **_asked(task),
        answer=written.text,
        correct=question.accepts(written.text),
        finish_reason=written.finish_reason,
        answer_tokens=written.n_tokens,
        thinking=written.thinking,
        thinking_tokens=written.n_thinking,
        choices=written.choices,
        achieved_trr=token_counts(layout, prompted.prefill.counts).achieved_trr,
        prompt_tokens=layout.n_tokens,
        seconds=RowSeconds(
            decode=source.seconds.get("decode", 0.0),
            encode=source.seconds.get("encode", 0.0),
            select=seconds.get("select", 0.0) + saliency_seconds,
            prefill=seconds["prefill"],
            answer=seconds["answer"],
        ),
        warnings=(*source.warnings, *([too_far] if too_far else []), *written.warnings),
    )


def _asked(task: _Task) -> dict[str, Any]:
    question = task.question
    return {
        "key": task.key,
        "id": question.id,
        "media": question.media,
        "question": question.text,
        "expected": question.answers,
        "category": question.category,
        "setting": task.label,
    }


def _failed(task: _Task, error: SeatsError) -> Outcome:
    return Outcome(**_asked(task), error=RowError(message=str(error), hint=error.hint, exit_code=error.exit_code))

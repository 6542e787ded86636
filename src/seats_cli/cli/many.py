"""A run over many clips: what is left to ask, answers as they come, and what became of it all."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from seats_cli.cli.answers import AnswerFile, Asked, Content, Stamp, line_of, renamed, row_of
from seats_cli.cli.batch import Output, show_report, written
from seats_cli.cli.console import cell, complain, fail, harmless, notice, whisper, write
from seats_cli.cli.inputs import Inputs
from seats_cli.cli.pending import Pending, changes, pending
from seats_cli.cli.progress import Progress, duration
from seats_cli.cli.run_options import RunOptions
from seats_cli.config import GenerationOptions, MediaOptions, ModelOptions, SelectionOptions
from seats_cli.errors import InterruptedRunError, SeatsError, SomeFailedError, counted
from seats_cli.tasks import Job, Task, jobs_of, longest_first

if TYPE_CHECKING:
    from seats_cli.engine.batch import Outcome

Start = Callable[[list[Job]], Iterator["Outcome"]]


@dataclass(slots=True)
class Tally:
    """What became of the tasks of a run.

    Attributes:
        total: Tasks.
        done: Answered in this run.
        skipped: Answered before, or failed before and not tried again.
        failed: In this run, by kind.
        failed_before: Failed before and not tried again.
        seconds_of_media: Of the clips that were read.
        began: On the monotonic clock.
    """

    total: int
    done: int = 0
    skipped: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    failed_before: int = 0
    seconds_of_media: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def line(self) -> str:
        """For people."""
        seconds = max(time.monotonic() - self.began, 1e-9)
        n_failed = sum(self.failed.values())
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(self.failed.items()))
        parts = [f"{self.done} answered"]
        if self.skipped:
            before = f" ({self.failed_before} of them failed)" if self.failed_before else ""
            parts.append(f"{self.skipped} skipped: there already{before}")
        parts.append(f"{n_failed} failed" + (f" ({kinds})" if kinds else ""))
        line = ", ".join(parts)
        if self.done:
            line += f" · {duration(seconds)} · {60 * (self.done + n_failed) / seconds:.3g} a minute"
            line += f" · {self.seconds_of_media / seconds:.3g} s of media a second"
        return line


@dataclass(frozen=True, slots=True)
class Work:
    """A run, before it begins.

    Attributes:
        loading: The model.
        media: What of a clip is seen and heard.
        selection: Which tokens stay.
        generation: How answers are written.
        inputs: What is asked about what.
        output: How it is shown.
        options: How the run goes.
    """

    loading: ModelOptions
    media: MediaOptions
    selection: SelectionOptions
    generation: GenerationOptions
    inputs: Inputs
    output: Output
    options: RunOptions

    def asked(self) -> Asked:
        """What its answers depend on beside clip and question.

        Raises:
            ModelError: There is no such model.
        """
        from seats_cli.engine.marks import mark_before_loading

        return Asked(mark_before_loading(self.loading), self.media, self.selection, self.generation)

    def chosen(self) -> list[Task]:
        """The tasks of this share, up to the limit."""
        shard, limit = self.options.shard, self.options.limit
        tasks = [task for task in self.inputs.tasks if shard is None or shard.has(task.path)]
        if limit is not None:
            paths = list(dict.fromkeys(task.path for task in tasks))[:limit]
            wanted = set(paths)
            tasks = [task for task in tasks if task.path in wanted]
        return tasks


class _Ledger:
    """Where outcomes go: stdout, the file, the tally; each as it comes."""

    def __init__(self, work: Work, tally: Tally, progress: Progress) -> None:
        self._work, self._tally, self._progress = work, tally, progress
        self._seen: set[tuple[str, MediaOptions]] = set()
        self._kept: tuple[AnswerFile, Asked, Pending] | None = None
        self._read: tuple[str, Content] | None = None

    def keep_in(self, file: AnswerFile, asked: Asked, found: Pending) -> None:
        """Also write lines to a file."""
        self._kept = file, asked, found

    def take(self, outcome: Outcome) -> None:
        """Show and keep an outcome, and those of the tasks that share it."""
        row, task = row_of(outcome), outcome.task
        if self._kept is None:
            self._show(outcome, row)
            return
        file, asked, found = self._kept
        key, content = found.keys.get(task) or self._key_of(task, asked, found)
        line = line_of(row, task, key, content, asked)
        file.put(line)
        self._show(outcome, row)
        for twin in found.twins.get(key, ()):
            self.copy(twin, line)

    def copy(self, task: Task, line: dict[str, Any]) -> None:
        """Write the answer to the same question about a clip of the same content."""
        if self._kept is None:
            return
        file, asked, found = self._kept
        key, content = found.keys[task]
        again = renamed(line, task)
        file.put(line_of(again, task, key, content, asked))
        if again.get("error") is None:
            self._tally.done += 1
        else:
            self._tally.failed[again["error"]["kind"]] += 1
        with self._progress.aside():
            if again.get("error") is not None:
                told = again["error"]
                complain(SeatsError(told["message"], told["hint"]), task.path, task.place)
            write(written(again, self._work.output))
        self._progress.advance()

    def _key_of(self, task: Task, asked: Asked, found: Pending) -> tuple[str, Content]:
        """The key of what was asked, of a clip that was not read to know that it must be."""
        from seats_cli.engine.marks import MISSING

        before = found.stamps[task.path]
        # Once for all that is asked about it.
        if self._read is None or self._read[0] != task.path or self._read[1].stamp != Stamp.of(task.path):
            self._read = task.path, Content.of(task.path)
        content = self._read[1]
        if content.stamp != before:
            # It was changed meanwhile: nobody knows what the answer is about, and it will be asked again.
            content = Content(MISSING, before)
        return asked.key(task, content), content

    def _show(self, outcome: Outcome, row: dict[str, Any]) -> None:
        output, report = self._work.output, outcome.report
        with self._progress.aside():
            if report is None:
                caught = outcome.caught or outcome.error
                if caught is not None:
                    fail(caught, verbose=output.verbose, about=outcome.task.path, place=outcome.task.place)
            elif output.show_thinking and report.thinking:
                whisper(f"{cell(outcome.task.path)}\n{harmless(report.thinking)}\n")
            write(written(row, output))
            if report is not None:
                detail = output.detail or ("short" if self._kept is None else "none")
                show_report(outcome.task.path, report, output, detail, many=True)
        if report is None:
            self._tally.failed[outcome.error.kind if outcome.error else "other"] += 1
        else:
            self._tally.done += 1
            clip = outcome.task.path, outcome.task.media(self._work.media)
            if clip not in self._seen:
                self._seen.add(clip)
                self._tally.seconds_of_media += max(report.media.seconds_video, report.media.seconds_audio)
        self._progress.advance()


def answer_many(work: Work, start: Start) -> int:
    """Ask all that is left to ask; returns the exit code.

    Args:
        work: The run.
        start: Begins with jobs; called only if there are any.

    Raises:
        SomeFailedError: At the end, if any failed; with ``--fail-fast`` at once.
        InterruptedRunError: Ctrl-C.
        SeatsError: What cannot be asked of any clip.
    """
    options, quiet = work.options, work.output.quiet
    tasks = work.chosen()
    tally = Tally(len(tasks))
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(Progress("answers", quiet=quiet, rate=True))
        ledger = _Ledger(work, tally, progress)
        found = Pending(ask=tasks)
        if not quiet:
            _announce(work, tasks)
        if options.shard_output is not None:
            file = stack.enter_context(AnswerFile(options.shard_output, work.inputs.files))
            asked = work.asked()
            found = pending(tasks, file, asked, resume=options.resume, retry_failed=options.retry_failed)
            ledger.keep_in(file, asked, found)
            tally.total = found.total
            tally.skipped, tally.failed_before = found.done + found.failed, found.failed
            if found.changed and not quiet:
                why = "; ".join(changes(found, asked)[:5])
                notice(f"{counted(len(found.changed), 'answer')} of before asked again: {why}")
            file.open()
        progress.start(found.to_do, tally.total, bar=False)
        for task, line in found.copies:
            ledger.copy(task, line)
        outcomes = start(_jobs(work, found.ask)) if found.ask else iter(())
        # Not before: what is said while a model is loaded would be written into the bar, and is not of the rate.
        progress.show_bar()
        tally.began = time.monotonic()
        _take_all(outcomes, ledger, tally, options)
    return _end(work, tally)


def _announce(work: Work, tasks: list[Task]) -> None:
    n_clips = len({task.path for task in tasks})
    asked = f", {counted(len(tasks), 'question')}" if work.output.several else ""
    shard = f" of share {work.options.shard}" if work.options.shard else ""
    notice(f"{counted(n_clips, 'clip')}{asked}{shard}")


def _jobs(work: Work, tasks: list[Task]) -> list[Job]:
    jobs = jobs_of(tasks, work.media)
    if not work.options.longest_first:
        return jobs
    from seats_cli.media.length import seconds_of

    return longest_first(jobs, lambda job: seconds_of(job.path, job.media))


def _take_all(outcomes: Iterable[Outcome], ledger: _Ledger, tally: Tally, options: RunOptions) -> None:
    try:
        for outcome in outcomes:
            ledger.take(outcome)
            if outcome.error is not None and options.fail_fast:
                raise SomeFailedError(
                    f"ended at the first failure, after {counted(tally.done, 'answer')}", "--fail-fast was given"
                )
    except (KeyboardInterrupt, InterruptedRunError):
        hint = "with -o it could have gone on"
        if options.output is not None:
            hint = "the same command goes on from there"
        raise InterruptedRunError(f"interrupted after {counted(tally.done, 'answer')}", hint) from None
    finally:
        close = getattr(outcomes, "close", None)
        if close is not None:
            close()


def _end(work: Work, tally: Tally) -> int:
    if not work.output.quiet:
        notice(tally.line())
    n_failed = sum(tally.failed.values()) + tally.failed_before
    if n_failed:
        what = "answer" if work.output.several else "clip"
        hint = "--retry-failed asks them again" if tally.failed_before else ""
        raise SomeFailedError(f"{n_failed} of {counted(tally.total, what)} failed", hint)
    return 0

"""How answers are shown: one clip streams its answer, several give a line or a paragraph each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from seats_cli.cli.console import NOBODY_READS, cell, harmless, notice, one_line, show, whisper, write
from seats_cli.errors import InterruptedRunError, SeatsError, explain
from seats_cli.tasks import Task
from seats_cli.timelimit import time_limit

if TYPE_CHECKING:
    from seats_cli.api import Seats
    from seats_cli.report import Report

Detail = Literal["full", "short", "none"]
Format = Literal["text", "tsv", "jsonl"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How answers and reports are shown.

    Attributes:
        format: Of the answers on stdout; None: text for one clip, tsv for several.
        detail: Of the report on stderr; None: full for one clip, short for several and with jsonl, none where
            answers go to a file.
        quiet: No report and no notices.
        verbose: The trace of errors that were not expected.
        trace: Where the kept rows go.
        show_thinking: Reasoning on stderr.
        several: A clip may have several questions: lines say which.
        named: Questions have ids: lines begin with them.
    """

    format: Format | None
    detail: Detail | None
    quiet: bool
    verbose: bool
    trace: Path | None = None
    show_thinking: bool = False
    several: bool = False
    named: bool = False


def failure_row(task: Task, error: SeatsError) -> str:
    """The JSON line of a clip that failed."""
    from seats_cli.cli.answers import failure, json_line

    return json_line(failure(task, error)) + "\n"


def written(row: Mapping[str, Any], output: Output) -> str:
    """An answer among many, as it goes to stdout; empty for a failure, but in JSON.

    Args:
        row: As ``row_of`` gives it, or a line of the file of answers.
        output: How it is shown.
    """
    if output.format == "jsonl":
        from seats_cli.cli.answers import LEAD, json_line

        return json_line({name: value for name, value in row.items() if name not in LEAD}) + "\n"
    if row.get("error") is not None:
        return ""
    path, question, answer = row["media"]["path"], row["question"], row["answer"]
    if output.format == "text":
        asked = f"{harmless(question)}\n" if output.several else ""
        return f"{cell(path)}\n{asked}{harmless(answer)}\n\n"
    named = f"{one_line(row.get('id') or '')}\t" if output.named else ""
    asked = f"{one_line(question)}\t" if output.several else ""
    return f"{named}{cell(path)}\t{asked}{one_line(answer)}\n"


class Stream:
    """Pieces of text to one place; ends the line that it began, however the text ends."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._open = False

    def __call__(self, piece: str) -> None:
        """Write a piece."""
        self._open = True
        self._write(harmless(piece))

    def close(self) -> None:
        """End the line, if one was begun."""
        if self._open:
            self._open = False
            self._write("\n")


def _ask(seats: Seats, task: Task, output: Output, timeout_seconds: float | None) -> Report:
    """Put one answer on stdout: as it comes, as a line, or as an object; the reasoning on stderr if wanted."""
    from seats_cli.engine.batch import Outcome

    thinking, answer = Stream(whisper), Stream(write)

    def on_text(piece: str) -> None:
        thinking.close()
        answer(piece)

    whole = output.format in ("tsv", "jsonl")
    try:
        with time_limit(timeout_seconds):
            report = seats.ask(
                task.path,
                task.question,
                on_text=None if whole else on_text,
                on_thinking=thinking if output.show_thinking else None,
                trace=output.trace,
            )
    finally:
        thinking.close()
        answer.close()
    if whole:
        from seats_cli.cli.answers import row_of

        write(written(row_of(Outcome(task, report)), output))
    return report


def show_report(path: str, report: Report, output: Output, detail: Detail, *, many: bool) -> None:
    """The report on stderr; a short one has no warnings in it, so they follow as notices."""
    if output.quiet:
        return
    if detail != "none":
        from rich.text import Text

        from seats_cli.render import render_report

        if many and detail == "short":
            show(Text(cell(path), style="bold"))
        show(render_report(report, detail))
    if detail != "full":
        for warning in report.warnings:
            notice(f"{cell(path)}: {warning}" if many else warning)


def answer_one(seats: Seats, task: Task, output: Output, timeout_seconds: float | None) -> int:
    """Ask about one clip; returns the exit code."""
    try:
        report = _ask(seats, task, output, timeout_seconds)
    except Exception as caught:
        if output.format == "jsonl" and not isinstance(caught, NOBODY_READS):
            write(failure_row(task, explain(caught)))
        raise
    show_report(
        task.path,
        report,
        output,
        output.detail or ("short" if output.format == "jsonl" else "full"),
        many=False,
    )
    return InterruptedRunError.exit_code if report.finish_reason == "interrupted" else 0

"""Answers as they come: one clip streams its answer, several give a line each and none stops the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from seats_cli.cli.console import NOBODY_READS, cell, fail, harmless, notice, one_line, show, whisper, write
from seats_cli.cli.inputs import Inputs
from seats_cli.errors import InterruptedRunError, SeatsError, SomeFailedError, counted, explain

if TYPE_CHECKING:
    from seats_cli.api import Seats
    from seats_cli.report import Report

Detail = Literal["full", "short", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How answers and reports are shown.

    Attributes:
        as_json: An object per clip in place of its answer.
        detail: Of the report on stderr; None: full for one clip, short for several and with JSON.
        quiet: No report and no notices.
        verbose: The trace of errors that were not expected.
        trace: Where the kept rows go.
        show_thinking: Reasoning on stderr.
    """

    as_json: bool
    detail: Detail | None
    quiet: bool
    verbose: bool
    trace: Path | None
    show_thinking: bool = False


def failure_line(path: str, error: SeatsError) -> str:
    """The JSON line of a clip that failed."""
    import json

    from seats_cli.report import SCHEMA_VERSION

    content = {
        "schema_version": SCHEMA_VERSION,
        "command": "ask",
        "media": {"path": _writable(path)},
        "error": {"message": _writable(str(error)), "hint": _writable(error.hint), "exit_code": error.exit_code},
    }
    return json.dumps(content, ensure_ascii=False) + "\n"


def _writable(text: str) -> str:
    """Bytes that were not UTF-8, written out as the report does."""
    return text.encode("utf-8", "backslashreplace").decode()


class _Stream:
    """Pieces of text to one place; ends the line that it began, however the text ends."""

    def __init__(self, write: Callable[[str], None], lead: str = "") -> None:
        self._write = write
        self._lead = lead
        self._open = False

    def __call__(self, piece: str) -> None:
        self._open = True
        self._write(self._lead + harmless(piece))
        self._lead = ""

    def close(self) -> None:
        if self._open:
            self._open = False
            self._write("\n")


def _ask(seats: Seats, path: str, question: str, output: Output, many: bool) -> Report:
    """Put one answer on stdout: as it comes, as a line, or as an object; the reasoning on stderr if wanted."""
    thinking, answer = _Stream(whisper, f"{cell(path)}\n" if many else ""), _Stream(write)

    def on_text(piece: str) -> None:
        thinking.close()
        answer(piece)

    whole = output.as_json or many
    try:
        report = seats.ask(
            path,
            question,
            on_text=None if whole else on_text,
            on_thinking=thinking if output.show_thinking else None,
            trace=output.trace,
        )
    finally:
        thinking.close()
        answer.close()
    if whole:
        write(report.to_json() + "\n" if output.as_json else f"{cell(path)}\t{one_line(report.answer)}\n")
    return report


def _show_report(path: str, report: Report, output: Output, many: bool) -> None:
    """The report on stderr; a short one has no warnings in it, so they follow as notices."""
    if output.quiet:
        return
    detail = output.detail or ("short" if many or output.as_json else "full")
    if detail != "none":
        from rich.text import Text

        from seats_cli.render import render_report

        if many and detail == "short":
            show(Text(cell(path), style="bold"))
        show(render_report(report, detail))
    if detail != "full":
        for warning in report.warnings:
            notice(f"{cell(path)}: {warning}" if many else warning)


def answer_one(seats: Seats, inputs: Inputs, output: Output) -> int:
    """Ask about one clip; returns the exit code."""
    (path,) = inputs.clips
    try:
        report = _ask(seats, path, inputs.question, output, many=False)
    except Exception as caught:
        if output.as_json and not isinstance(caught, NOBODY_READS):
            write(failure_line(path, explain(caught)))
        raise
    _show_report(path, report, output, many=False)
    return InterruptedRunError.exit_code if report.finish_reason == "interrupted" else 0


def answer_each(seats: Seats, inputs: Inputs, output: Output) -> int:
    """Ask about every clip in turn; one that fails is named and passed over.

    Raises:
        SomeFailedError: At the end, if any failed.
        InterruptedRunError: Ctrl-C ends the batch.
    """
    failed = 0
    if not output.quiet:
        notice(counted(len(inputs.clips), "clip"))
    for path in inputs.clips:
        try:
            report = _ask(seats, path, inputs.question, output, many=True)
        except NOBODY_READS:
            raise
        except Exception as caught:
            error = fail(caught, verbose=output.verbose, about=path)
            failed += 1
            if output.as_json:
                write(failure_line(path, error))
            continue
        _show_report(path, report, output, many=True)
        if report.finish_reason == "interrupted":
            raise InterruptedRunError("interrupted")
    if failed:
        raise SomeFailedError(f"{failed} of {counted(len(inputs.clips), 'clip')} failed")
    return 0

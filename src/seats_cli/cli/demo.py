"""``seats demo``: the whole path on a clip and a model that ship with the package."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from seats_cli.cli import options as opt
from seats_cli.cli.command import command
from seats_cli.cli.console import notice, show, write
from seats_cli.config import SHIPPED_MODEL
from seats_cli.errors import InterruptedRunError, UsageError
from seats_cli.outputs import cannot_write, check_output, whole

if TYPE_CHECKING:
    from rich.console import RenderableType

    from seats_cli.config import SelectionOptions
    from seats_cli.dataset import Question
    from seats_cli.report import Report

MAX_NEW_TOKENS = 24


def demo_folder() -> Path:
    """Holds the clip, and its questions in the form of ``seats eval``."""
    return Path(str(files("seats_cli") / "assets" / "demo"))


def _save(path: Path) -> None:
    """Leave the clip where the user wants it; whole or not at all."""
    if path.exists():
        raise UsageError(f"--save {path} is there already", "give a path where nothing is")
    if path.suffix.lower() != ".mp4":
        raise UsageError(f"--save {path} does not end in .mp4")
    check_output(path, "--save")
    try:
        with whole(path) as part:
            shutil.copyfile(demo_folder() / "clip.mp4", part)
    except OSError as error:
        raise cannot_write(path, "--save", error) from None


def _ask(questions: list[Question], few: SelectionOptions) -> list[tuple[Question, Report, Report]]:
    """Every question with all tokens and with few.

    Raises:
        InterruptedRunError: Ctrl-C; an answer that was cut off is none.
    """
    from seats_cli.api import Seats
    from seats_cli.config import GenerationOptions, SelectionOptions

    generation = GenerationOptions(max_new_tokens=MAX_NEW_TOKENS)
    seats = Seats(SHIPPED_MODEL, generation=generation, device="cpu", offline=True)
    if seats.loaded.note is not None:
        notice(seats.loaded.note)
    full = SelectionOptions(method="full")

    def ask(question: Question, selection: SelectionOptions) -> Report:
        report = seats.ask(question.path, question.text, selection=selection)
        if report.finish_reason == "interrupted":
            raise InterruptedRunError("interrupted")
        return report

    # The first run of anything is slow; it must not be held against either.
    ask(questions[0], full)
    return [(question, ask(question, full), ask(question, few)) for question in questions]


def _comparison(asked: list[tuple[Question, Report, Report]], trr: float) -> RenderableType:
    from rich.table import Table

    table = Table("question", "all tokens", f"R = {trr:g}", "true answer")
    for question, full, few in asked:
        table.add_row(question.text, full.answer, few.answer, question.answers[0])
    _, full, few = asked[-1]
    table.add_section()
    table.add_row("prefill", *(f"{1000 * (report.seconds.prefill or 0):.0f} ms" for report in (full, few)), "")
    table.add_row(
        "FLOPs of the prefill", *(f"{report.flops.executed.pruned / 1e9:.2f} G" for report in (full, few)), ""
    )
    return table


@command()
def demo(
    trr: opt.Trr = 0.1,
    save: Annotated[
        Path | None,
        opt.option(
            "--save", panel=opt.OUTPUT, **opt.PATH, metavar="<file>", help="Leave the demo clip here, an .mp4."
        ),
    ] = None,
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = False,
) -> int:
    """Ask the small model that ships with seats three things about a clip, with all tokens and with few.

    The answers go to stdout, a line each: question, answer with all tokens, answer with few.
    """
    from seats_cli.config import SelectionOptions
    from seats_cli.dataset import read_questions
    from seats_cli.render import render_report
    from seats_cli.report import SCHEMA_VERSION

    selection = SelectionOptions(trr=trr)
    if save is not None:
        _save(save)
    asked = _ask(read_questions(demo_folder() / "questions.jsonl"), selection)
    if as_json:
        reports = [json.loads(report.to_json()) for _, *both in asked for report in both]
        write(json.dumps({"schema_version": SCHEMA_VERSION, "command": "demo", "reports": reports}) + "\n")
    else:
        for question, full, few in asked:
            write(f"{question.text}\t{full.answer}\t{few.answer}\n")
        show(_comparison(asked, trr))
    show(render_report(asked[-1][2], "short" if as_json else "full"))
    return 0

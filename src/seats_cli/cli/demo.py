"""``seats demo``: the whole path on a clip and a model that ship with the package."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from seats_cli.cli import options as opt
from seats_cli.cli.command import command
from seats_cli.cli.console import harmless, notice, show, write
from seats_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from seats_cli.config import SelectionOptions
    from seats_cli.report import Report

QUESTION = "What is seen and heard?"
RANDOM = (
    "the model that ships with seats has RANDOM weights: its answer means nothing. "
    "It shows the path from a file to a report."
)
MAX_NEW_TOKENS = 24


def _check_keep(path: Path) -> None:
    if path.exists():
        raise UsageError(f"--keep {path} is there already", "give a path where nothing is")
    if path.suffix.lower() != ".mp4":
        raise UsageError(f"--keep {path} does not end in .mp4")
    if not path.parent.is_dir():
        raise UsageError(f"--keep {path}: there is no folder {path.parent}", "make it first")


def _answer(selection: SelectionOptions, keep: Path | None, on_text: Callable[[str], None] | None) -> Report:
    import tempfile
    from importlib.resources import as_file, files

    from seats_cli.api import Seats
    from seats_cli.config import GenerationOptions
    from seats_cli.media import write_demo_clip

    generation = GenerationOptions(max_new_tokens=MAX_NEW_TOKENS)
    with tempfile.TemporaryDirectory() as folder, as_file(files("seats_cli") / "assets" / "tiny") as tiny:
        clip = keep or Path(folder) / "demo.mp4"
        write_demo_clip(clip)
        seats = Seats(tiny, selection=selection, generation=generation, device="cpu", offline=True)
        return seats.ask(clip, QUESTION, on_text=on_text)


@command()
def demo(
    trr: opt.Trr = 0.1,
    keep: Annotated[
        Path | None,
        opt.option("--keep", panel=opt.OUTPUT, metavar="<file>", help="Leave the demo clip here, an .mp4."),
    ] = None,
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = False,
) -> int:
    """Ask the tiny model that ships with seats about a small clip."""
    from seats_cli.config import SelectionOptions
    from seats_cli.render import render_report

    selection = SelectionOptions(trr=trr)
    if keep is not None:
        _check_keep(keep)
    notice(RANDOM)
    report = _answer(selection, keep, None if as_json else lambda piece: write(harmless(piece)))
    if as_json:
        report = dataclasses.replace(report, warnings=(RANDOM, *report.warnings))
    write(report.to_json() + "\n" if as_json else "\n")
    show(render_report(report, "short" if as_json else "full"))
    return 130 if report.finish_reason == "interrupted" else 0

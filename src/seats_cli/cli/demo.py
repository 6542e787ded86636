"""``seats demo``: the whole path on a clip and a model that ship with the package."""

from __future__ import annotations

import tempfile
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

from seats_cli.cli import options as opt
from seats_cli.cli.console import harmless, notice, run, show, write

QUESTION = "What is seen and heard?"
RANDOM = (
    "the model that ships with seats has RANDOM weights: its answer means nothing. "
    "It shows the path from a file to a report."
)


def demo(
    trr: Annotated[
        float,
        typer.Option("--trr", "-r", envvar="SEATS_TRR", help="Token retention ratio R: the fraction KEPT."),
    ] = 0.1,
    keep: Annotated[
        Path | None, typer.Option("--keep", help="Also leave the demo clip here.", dir_okay=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    verbose: opt.Verbose = False,
) -> None:
    """Make a small clip with picture and sound, and ask the tiny embedded model about it."""

    def body() -> int:
        from seats_cli.api import Seats
        from seats_cli.config import GenerationOptions, SelectionOptions
        from seats_cli.media import write_demo_clip
        from seats_cli.render import render_report

        selection = SelectionOptions(trr=trr)
        notice(RANDOM)
        with tempfile.TemporaryDirectory() as folder, as_file(files("seats_cli") / "assets" / "tiny") as tiny:
            clip = keep or Path(folder) / "demo.mp4"
            write_demo_clip(clip)
            seats = Seats(
                tiny,
                selection=selection,
                generation=GenerationOptions(max_new_tokens=24),
                device="cpu",
                offline=True,
            )
            report = seats.ask(clip, QUESTION, on_text=None if as_json else lambda piece: write(harmless(piece)))
        write(report.to_json() + "\n" if as_json else "\n")
        show(render_report(report, "full"))
        return 0

    raise typer.Exit(run(body, verbose=verbose))

"""``seats probe FILE.jsonl``: what answers need of picture and sound, layer by layer, and a schedule from it."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seats_cli.cli import bundles
from seats_cli.cli import options as opt
from seats_cli.cli.command import command
from seats_cli.cli.console import notice, row_failure, show, write
from seats_cli.cli.progress import Progress
from seats_cli.config import GenerationOptions, MediaOptions, ModelOptions
from seats_cli.errors import SomeFailedError, UsageError, counted
from seats_cli.outputs import check_output

if TYPE_CHECKING:
    from seats_cli.api import Seats
    from seats_cli.probing import ProbeReport

PROBE = "Probe"
SETTINGS_NAME = "seats.toml"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Which rows are asked, and how the curves are read."""

    tolerance: float
    limit: int | None
    categories: tuple[str, ...]

    def __post_init__(self) -> None:
        if not (math.isfinite(self.tolerance) and 0 <= self.tolerance < 1):
            raise UsageError(
                f"--tolerance is {self.tolerance}; it lies in [0, 1)", "0.01 is one point of accuracy"
            )
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit is {self.limit}; it must be at least 1")


def _rows(
    tolerance: Annotated[
        float,
        opt.option(
            "--tolerance",
            panel=PROBE,
            **opt.NUMBER,
            help="How far below full accuracy still counts as full; 0.01 is one point.",
        ),
    ] = 0.01,
    limit: Annotated[
        int | None, opt.option("--limit", panel=PROBE, **opt.WHOLE, help="The first so many rows.")
    ] = None,
    category: Annotated[
        list[str] | None,
        opt.option("--category", panel=PROBE, metavar="<name>", help="Only rows of this one. Repeatable."),
    ] = None,
) -> _Rows:
    return _Rows(tolerance=tolerance, limit=limit, categories=tuple(category or ()))


def _generation(system: bundles.System = None, choices: bundles.Choices = None) -> GenerationOptions:
    return GenerationOptions(system=system, choices=bundles.split_labels(choices))


def _check_files(questions: Path, output: Path | None, chart: Path | None) -> None:
    """Find out before the work, not after it, what cannot be written."""
    for path, name, suffix in ((output, "--output", ".toml"), (chart, "--chart", ".png")):
        if path is None:
            continue
        if path.suffix.lower() != suffix and not path.is_dir():
            raise UsageError(f"{name} {path} does not end in {suffix}")
        if path.exists() and questions.exists() and os.path.samefile(path, questions):
            raise UsageError(f"{name} {path} is the file of questions", "give a path of its own")
        check_output(path, name)
    if output is not None and output.name == SETTINGS_NAME:
        raise UsageError(
            f"--output {output}: a model's {SETTINGS_NAME} has the schedule in a table",
            f"write schedule.toml and put its lines below [schedule] in {SETTINGS_NAME}",
        )


def _run(seats: Seats, path: Path, rows: _Rows, *, quiet: bool, verbose: bool) -> ProbeReport:
    with Progress("questions", quiet=quiet) as progress:
        return seats.probe(
            path,
            tolerance=rows.tolerance,
            limit=rows.limit,
            categories=rows.categories,
            on_start=lambda n: progress.start(n, n),
            on_row=progress.advance,
            on_error=row_failure(path, verbose=verbose),
        )


def _check_depth(seats: Seats) -> None:
    from seats_cli.selection.levels import boundaries_by_depth

    boundaries_by_depth(seats.loaded.model.spec.geometry.text.n_layers)


def _write_files(report: ProbeReport, output: Path | None, chart: Path | None, *, quiet: bool) -> None:
    if output is not None and report.schedule is not None:
        from seats_cli.render import plain
        from seats_cli.selection.schedule_file import write_schedule

        write_schedule(output, report.schedule, [plain(line) for line in report.comments])
    if chart is not None:
        from seats_cli.cli.chart import draw_chart

        draw_chart(report, chart)
    for path in (output, chart):
        if path is not None and not quiet:
            notice(f"written: {path}")


@command(loading=bundles.model_options, media=bundles.media_options, generation=_generation, rows=_rows)
def probe(
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE.jsonl", help="Questions with known answers, as seats eval takes them."),
    ],
    rows: _Rows,
    loading: ModelOptions,
    media: MediaOptions,
    *,
    generation: GenerationOptions,
    output: Annotated[
        Path | None,
        opt.option(
            "--output",
            "-o",
            panel=opt.OUTPUT,
            **opt.PATH,
            metavar="<file>",
            help="Write the proposed boundaries to this .toml file, for --schedule.",
        ),
    ] = None,
    chart: Annotated[
        Path | None,
        opt.option(
            "--chart", panel=opt.OUTPUT, **opt.PATH, metavar="<file>", help="Draw the curves into this .png file."
        ),
    ] = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> int:
    """Remove picture, sound, or both before every layer, and propose where to drop tokens.

    The curves, or with --json one object, go to stdout.
    """
    from seats_cli.dataset import read_questions
    from seats_cli.probing import of_categories

    _check_files(path, output, chart)
    of_categories(read_questions(path, generation.choices), rows.categories)
    seats = bundles.seats_of(loading, media=media, generation=generation)
    if output is not None:
        _check_depth(seats)
    report = _run(seats, path, rows, quiet=quiet, verbose=verbose)
    _write_files(report, output, chart, quiet=quiet)
    if as_json:
        write(report.to_json() + "\n")
    else:
        from seats_cli.cli.curves import render_probe

        show(render_probe(report), stderr=False)
    if report.failed:
        raise SomeFailedError(f"{report.failed} of {counted(report.rows, 'question')} failed")
    return 0

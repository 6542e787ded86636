"""``seats eval FILE.jsonl``: accuracy on questions whose answers are known, under one setting or several."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from seats_cli.cli import bundles
from seats_cli.cli import options as opt
from seats_cli.cli.command import command
from seats_cli.cli.configuration import source_of
from seats_cli.cli.console import notice, row_failure, show, write
from seats_cli.cli.progress import Progress
from seats_cli.cli.rows import OutcomeFile
from seats_cli.cli.settings import DEFAULT_METHOD, DEFAULT_TRR, settings_of, shared_options
from seats_cli.cli.workload import check_selection
from seats_cli.config import GenerationOptions, MediaOptions, ModelOptions, SelectionOptions
from seats_cli.errors import InterruptedRunError, SomeFailedError, UsageError, counted

if TYPE_CHECKING:
    from seats_cli.api import Seats
    from seats_cli.evaluation import EvalReport, Outcome

Without = Literal["none", "picture", "sound", "both"]


def blinded(media: MediaOptions, without: Without) -> MediaOptions:
    """The options with a part of every clip left out.

    Raises:
        UsageError: Another option asks for what is left out.
    """
    if without in ("sound", "both") and (media.require_audio or media.audio == "on"):
        asked = "--require-audio" if media.require_audio else "--audio on"
        raise UsageError(f"--without {without} contradicts {asked}", "leave one of them out")
    return dataclasses.replace(
        media,
        picture="off" if without in ("picture", "both") else media.picture,
        audio="off" if without in ("sound", "both") else media.audio,
    )


def _without_clips(settings: dict[str, SelectionOptions]) -> dict[str, SelectionOptions]:
    """Where there are no tokens to select all settings are one.

    Raises:
        UsageError: More than one is asked for.
    """
    if len(settings) > 1:
        raise UsageError(
            f"without picture and sound there is nothing to select: {' and '.join(settings)} would be the same",
            "give one setting, or none",
        )
    return {"full": SelectionOptions(method="full", trr=1.0)}


def _settings(
    context: typer.Context, method: str | None, trr: str | None, texts: list[str], shared: dict[str, Any]
) -> dict[str, SelectionOptions]:
    """What is compared. Methods and ratios of a file stand where the command line says none: they add no settings.

    Raises:
        UsageError: One of them cannot be.
    """
    said = {"method": method, "trr": trr}
    defaults = {
        name: text for name, text in said.items() if text is not None and source_of(context, name) == "DEFAULT_MAP"
    }
    listed = {name: None if name in defaults else text for name, text in said.items()}
    return settings_of(listed["method"], listed["trr"], texts, shared, defaults)


def _run(
    seats: Seats,
    path: Path,
    settings: dict[str, SelectionOptions],
    limit: int | None,
    rows: OutcomeFile | None,
    *,
    quiet: bool,
    verbose: bool,
) -> EvalReport:
    """Ask what is not done yet, and put it on file as it comes."""
    with Progress("answers", quiet=quiet) as progress:

        def on_start(to_do: int, total: int) -> None:
            if rows is not None:
                rows.open()
            progress.start(to_do, total)

        def on_outcome(outcome: Outcome) -> None:
            if rows is not None:
                rows.put(outcome)
            progress.advance()

        return seats.evaluate(
            path,
            settings,
            limit=limit,
            done=rows.done if rows is not None else None,
            on_start=on_start,
            on_outcome=on_outcome,
            on_error=row_failure(path, verbose=verbose),
        )


@command(
    loading=bundles.model_options,
    media=bundles.media_options,
    shared=shared_options(),
    generation=bundles.generation_options,
)
def evaluate(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.jsonl",
            help="A question on a line: media, question, answer, and if wanted choices, category, id, start, end. "
            "Or a .csv file with these columns.",
        ),
    ],
    loading: ModelOptions,
    media: MediaOptions,
    without: Annotated[
        Without,
        opt.option(
            "--without",
            panel=opt.MEDIA,
            help="Leave out of every clip: its picture, its sound, or both (the question alone).",
        ),
    ] = "none",
    method: Annotated[
        str | None,
        opt.option(
            "--method",
            panel=opt.SELECTION,
            metavar="<names>",
            show_default=DEFAULT_METHOD,
            help="Methods, with commas between: seats,full.",
        ),
    ] = None,
    trr: Annotated[
        str | None,
        opt.option(
            "--trr",
            "-R",
            panel=opt.SELECTION,
            metavar="<numbers>",
            show_default=str(DEFAULT_TRR),
            help="Ratios, with commas between: 0.35,0.1. Each method is run at each, full once.",
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        opt.option(
            "--setting",
            "-s",
            panel=opt.SELECTION,
            metavar="<text>",
            help='One more, such as "seats trr=0.1 kv-cache=text", of the options below. Repeatable.',
        ),
    ] = None,
    *,
    shared: dict[str, Any],
    generation: GenerationOptions,
    output: Annotated[
        Path | None,
        opt.option(
            "--output",
            "-o",
            panel=opt.OUTPUT,
            **opt.PATH,
            metavar="<file>",
            help="Write a line per row and setting to this .jsonl file; what it holds is not asked again.",
        ),
    ] = None,
    limit: Annotated[
        int | None, opt.option("--limit", panel=opt.OUTPUT, **opt.WHOLE, help="The first so many rows.")
    ] = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    context: typer.Context,
) -> int:
    """Measure accuracy on questions whose answers are known, under one setting or several.

    The tables, or with --json one object, go to stdout. Settings share decoding and encoding.
    """
    from seats_cli.dataset import read_questions

    if limit is not None and limit < 1:
        raise UsageError(f"--limit is {limit}; it must be at least 1")
    media = blinded(media, without)
    settings = _settings(context, method, trr, setting or [], shared)
    if media.nothing:
        settings = _without_clips(settings)
    read_questions(path, generation.choices)
    check_selection(loading, *settings.values())
    with contextlib.ExitStack() as stack:
        rows = stack.enter_context(OutcomeFile(output, path)) if output is not None else None
        seats = bundles.seats_of(loading, media=media, generation=generation)
        try:
            report = _run(seats, path, settings, limit, rows, quiet=quiet, verbose=verbose)
        except (InterruptedRunError, KeyboardInterrupt):
            hint = "the same command goes on from there" if rows is not None else "with -o it could have gone on"
            raise InterruptedRunError("interrupted", hint) from None
    return _show(report, as_json=as_json, quiet=quiet)


def _show(report: EvalReport, *, as_json: bool, quiet: bool) -> int:
    """The report to stdout.

    Raises:
        SomeFailedError: Rows failed.
    """
    if as_json:
        write(report.to_json() + "\n")
        if not quiet:
            for warning in report.warnings:
                notice(warning)
    else:
        from seats_cli.cli.scores import render_scores

        show(render_scores(report), stderr=False)
    if report.all_failed:
        asked = counted(report.rows * len(report.results), "answer")
        raise SomeFailedError(f"{report.all_failed} of {asked} failed")
    return 0

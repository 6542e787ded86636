"""``seats ask MEDIA... QUESTION``: one clip streams its answer; several give a line each."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from seats_cli.cli import bundles
from seats_cli.cli import options as opt
from seats_cli.cli.batch import Detail, Output, answer_each, answer_one, failure_line
from seats_cli.cli.command import command
from seats_cli.cli.console import notice, write
from seats_cli.cli.inputs import split_inputs
from seats_cli.cli.workload import check_selection
from seats_cli.config import GenerationOptions, MediaOptions, ModelOptions, SelectionOptions
from seats_cli.errors import MediaError, UsageError


def _check_clip(path: str, output: Output) -> None:
    """A typing mistake should not cost the time it takes to load a model.

    Raises:
        MediaError: There is nothing to open.
    """
    from seats_cli.media.source import check_path

    try:
        check_path(path)
    except MediaError as error:
        if output.as_json:
            write(failure_line(path, error))
        raise


@command(
    loading=bundles.model_options,
    media=bundles.media_options,
    selection=bundles.selection_options,
    generation=bundles.generation_options,
)
def ask(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="MEDIA... QUESTION",
            help="Clips, folders of them, patterns, or - for a list of paths on stdin; then the question.",
        ),
    ],
    loading: ModelOptions,
    media: MediaOptions,
    trr: opt.Trr = 0.1,
    *,
    selection: SelectionOptions,
    generation: GenerationOptions,
    as_json: opt.AsJson = False,
    report: Annotated[
        Detail | None,
        opt.option(
            "--report",
            panel=opt.OUTPUT,
            env="SEATS_REPORT",
            help="On stderr. Default: full for one clip, short for several and with --json.",
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        opt.option(
            "--trace",
            panel=opt.OUTPUT,
            **opt.PATH,
            metavar="<file>",
            help="Write kept rows, scores and budgets per stage to this .npz file. One clip only.",
        ),
    ] = None,
    show_thinking: Annotated[
        bool,
        opt.option(
            "--show-thinking", panel=opt.OUTPUT, help="Stream the reasoning before the answer, if any, to stderr."
        ),
    ] = False,
    null: Annotated[
        bool,
        opt.option("--null", "-0", panel=opt.OUTPUT, help="The list on stdin ends each path with NUL."),
    ] = False,
    recursive: Annotated[
        bool, opt.option("--recursive", "-r", panel=opt.OUTPUT, help="Look into folders of folders too.")
    ] = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> int:
    """Answer a question about one clip, or about each of several.

    The answer goes to stdout, the report to stderr. Several clips give one line each: path, tab, answer.
    """
    selection = dataclasses.replace(selection, trr=trr)
    inputs = split_inputs(arguments, null=null, recursive=recursive)
    output = Output(
        as_json=as_json,
        detail=report,
        quiet=quiet,
        verbose=verbose,
        trace=trace,
        show_thinking=show_thinking,
    )
    if trace is not None and inputs.many:
        raise UsageError("--trace describes one clip; ask about one at a time")
    if not inputs.many:
        _check_clip(inputs.clips[0], output)
    check_selection(loading, selection)
    if trace is not None:
        from seats_cli.engine.trace import check_trace_path

        check_trace_path(trace)
    seats = bundles.seats_of(loading, selection=selection, media=media, generation=generation)
    if seats.loaded.note is not None and not quiet:
        notice(seats.loaded.note)
    if not inputs.many:
        return answer_one(seats, inputs, output)
    # What is wrong with the question or the selection is wrong for every clip: it is said once.
    from seats_cli.engine.analytic import check_settings

    check_settings(seats.loaded.model.spec, [selection])
    seats.loaded.model.prompt(inputs.question, generation.system, "video", thinking=generation.thinking)
    return answer_each(seats, inputs, output)

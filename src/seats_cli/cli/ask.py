"""``seats ask MEDIA... QUESTION``: one clip streams its answer; several give a line each."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from seats_cli.cli import bundles
from seats_cli.cli import options as opt
from seats_cli.cli.batch import Detail, Format, Output, answer_one, failure_row
from seats_cli.cli.command import command
from seats_cli.cli.configuration import source_of
from seats_cli.cli.console import notice, write
from seats_cli.cli.engines import engine_of
from seats_cli.cli.inputs import split_inputs
from seats_cli.cli.many import Work, answer_many
from seats_cli.cli.run_options import BATCH, RunOptions, run_options
from seats_cli.cli.workload import check_selection
from seats_cli.config import GenerationOptions, MediaOptions, ModelOptions, SelectionOptions
from seats_cli.errors import MediaError, UsageError, counted
from seats_cli.tasks import Task


def _check_clip(task: Task, output: Output) -> None:
    """A typing mistake should not cost the time it takes to load a model.

    Raises:
        MediaError: There is nothing to open.
    """
    from seats_cli.media.source import check_path

    try:
        check_path(task.path)
    except MediaError as error:
        if output.format == "jsonl":
            write(failure_row(task, error))
        raise


def _format(given: Format | None, *, as_json: bool, context: typer.Context) -> Format | None:
    if not as_json or given in (None, "jsonl"):
        return "jsonl" if as_json else given
    said = {name for name in ("as_json", "format") if source_of(context, name) == "COMMANDLINE"}
    if len(said) == 1:
        # What a variable or a file says yields to the command line.
        return "jsonl" if said == {"as_json"} else given
    raise UsageError(f"--json contradicts --format {given}", "leave one of them out")


@command(
    loading=bundles.model_options,
    media=bundles.media_options,
    selection=bundles.selection_options,
    generation=bundles.generation_options,
    running=run_options,
)
def ask(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="MEDIA... QUESTION",
            help="Clips, folders of them, patterns, or - for a list of paths on stdin; then the question, or "
            "@FILE that holds it. A .jsonl or .csv file brings clips with questions of their own.",
        ),
    ],
    loading: ModelOptions,
    media: MediaOptions,
    trr: opt.Trr = 0.1,
    *,
    selection: SelectionOptions,
    generation: GenerationOptions,
    also: Annotated[
        list[str] | None,
        opt.option(
            "--also", panel=opt.GENERATION, metavar="<text>", help="One more question about the same. Repeatable."
        ),
    ] = None,
    as_json: opt.AsJson = False,
    format: Annotated[
        Format | None,
        opt.option(
            "--format",
            panel=opt.OUTPUT,
            env="SEATS_FORMAT",
            help="Of the answers. Default: text for one clip, tsv (path, tab, answer) for several.",
        ),
    ] = None,
    report: Annotated[
        Detail | None,
        opt.option(
            "--report",
            panel=opt.OUTPUT,
            env="SEATS_REPORT",
            help="On stderr. Default: full for one clip, short for several and in JSON, none with -o.",
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
        opt.option("--null", "-0", panel=BATCH, help="The list on stdin ends each path with NUL."),
    ] = False,
    recursive: Annotated[
        bool, opt.option("--recursive", "-r", panel=BATCH, help="Look into folders of folders too.")
    ] = False,
    running: RunOptions,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    context: typer.Context,
) -> int:
    """Answer a question about one clip, or about each of several.

    The answer goes to stdout, the report to stderr. Several clips give one line each: path, tab, answer.
    """
    selection = dataclasses.replace(selection, trr=trr)
    inputs = split_inputs(arguments, null=null, recursive=recursive, also=also or [])
    output = Output(
        format=_format(format, as_json=as_json, context=context),
        detail=report,
        quiet=quiet,
        verbose=verbose,
        trace=trace,
        show_thinking=show_thinking,
        several=inputs.several,
        named=any(task.id is not None for task in inputs.tasks),
    )
    if inputs.passed_over and not quiet:
        rows = counted(inputs.passed_over, "row")
        notice(f"{rows} with questions of their own: the one given holds for the others")
    many = inputs.many or running.of_many
    if trace is not None and many:
        raise UsageError("--trace describes one clip; ask about one at a time")
    if many:
        check_selection(loading, selection)
        work = Work(loading, media, selection, generation, inputs, output, running)
        return answer_many(work, engine_of(work))
    (task,) = inputs.tasks
    _check_clip(task, output)
    check_selection(loading, selection)
    if trace is not None:
        from seats_cli.engine.trace import check_trace_path

        check_trace_path(trace)
    seats = bundles.seats_of(
        loading,
        selection=selection,
        media=media,
        generation=generation,
        cache=running.cache,
        cache_bytes=running.cache_bytes,
    )
    if seats.loaded.note is not None and not quiet:
        notice(seats.loaded.note)
    return answer_one(seats, task, output, running.timeout_seconds)

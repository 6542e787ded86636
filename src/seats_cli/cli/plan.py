"""``seats plan MEDIA...``: what clips will take, before any weight is loaded."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import TYPE_CHECKING, Annotated

import typer

from seats_cli.cli import bundles
from seats_cli.cli import options as opt
from seats_cli.cli.command import command
from seats_cli.cli.console import NOBODY_READS, cell, fail, notice, show, write
from seats_cli.cli.inputs import resolve_clips
from seats_cli.cli.progress import Progress
from seats_cli.cli.workload import Prompt, check_selection
from seats_cli.config import GenerationOptions, MediaOptions, ModelOptions, SelectionOptions
from seats_cli.errors import SeatsError, SomeFailedError, UsageError, counted, explain

if TYPE_CHECKING:
    from seats_cli.cli.planner import Planner
    from seats_cli.planning import PlanReport

PROMPT = "Prompt"
EXAMPLE = "seats plan clip.mp4"
USUAL_TEXT_TOKENS = 80


def _prompt(
    question: Annotated[
        str | None,
        opt.option("--question", panel=PROMPT, metavar="<text>", help="What will be asked, to count its tokens."),
    ] = None,
    text_tokens: Annotated[
        int | None,
        opt.option(
            "--text-tokens",
            panel=PROMPT,
            show_default=str(USUAL_TEXT_TOKENS),
            **opt.WHOLE,
            help="Text tokens of the prompt, in place of a question.",
        ),
    ] = None,
) -> Prompt:
    if question is not None and text_tokens is not None:
        raise UsageError("--question and --text-tokens say the same", "leave one of them out")
    return Prompt(question=question, text_tokens=USUAL_TEXT_TOKENS if text_tokens is None else text_tokens)


def _failure_line(path: str, error: SeatsError) -> str:
    """The JSON line of a clip that cannot be planned for."""
    from seats_cli.report import SCHEMA_VERSION, writable

    told = {"message": writable(str(error)), "hint": writable(error.hint), "exit_code": error.exit_code}
    content = {
        "schema_version": SCHEMA_VERSION,
        "command": "plan",
        "media": {"path": writable(path)},
        "error": told,
    }
    return json.dumps(content, ensure_ascii=False) + "\n"


def _plan_one(planner: Planner, path: str, *, as_json: bool) -> int:
    try:
        report = planner.plan(path)
    except Exception as caught:
        if as_json and not isinstance(caught, NOBODY_READS):
            write(_failure_line(path, explain(caught)))
        raise
    if as_json:
        write(report.to_json() + "\n")
        return 0
    from seats_cli.cli.planned import render_plan

    show(render_plan(report), stderr=False)
    return 0


def _plan_each(planner: Planner, clips: tuple[str, ...], *, as_json: bool, quiet: bool, verbose: bool) -> int:
    """Every clip in turn; one that cannot be read is named and passed over.

    Raises:
        SomeFailedError: At the end, if any failed.
    """
    plans: list[PlanReport] = []
    failed, said = 0, set[str]()
    with Progress("clips", quiet=quiet) as progress:
        progress.start(len(clips), len(clips))
        for path in clips:
            try:
                report = planner.plan(path)
            except Exception as caught:
                error = fail(caught, verbose=verbose, about=path)
                failed += 1
                if as_json:
                    write(_failure_line(path, error))
                continue
            finally:
                progress.advance()
            plans.append(report)
            if as_json:
                write(report.to_json() + "\n")
            for warning in () if quiet else report.warnings:
                # What is wrong with the model is wrong for every clip.
                line = warning if warning in planner.model_warnings else f"{cell(path)}: {warning}"
                if line not in said:
                    notice(line)
                said.add(line)
    _show_total(plans, failed, as_json=as_json)
    if failed:
        raise SomeFailedError(f"{failed} of {counted(len(clips), 'clip')} failed")
    return 0


def _show_total(plans: list[PlanReport], failed: int, *, as_json: bool) -> None:
    from seats_cli.planning import total_of

    total = total_of(plans, failed)
    if as_json:
        write(total.to_json() + "\n")
    elif plans:
        from seats_cli.cli.planned import render_plans

        show(render_plans(plans, total), stderr=False)


@command(
    loading=bundles.model_options, media=bundles.media_options, selection=bundles.selection_options, prompt=_prompt
)
def plan(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MEDIA...", help="Clips, folders of them, patterns, or - for a list of paths on stdin."
        ),
    ] = None,
    *,
    prompt: Prompt,
    loading: ModelOptions,
    media: MediaOptions,
    trr: opt.Trr = 0.1,
    selection: SelectionOptions,
    max_new_tokens: bundles.MaxNewTokens = 256,
    no_time: Annotated[
        bool, opt.option("--no-time", "--quick", panel=opt.OUTPUT, help="Measure nothing, expect no times.")
    ] = False,
    as_json: opt.AsJson = False,
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
    """Say what clips will take: frames, tokens, FLOPs, memory, and roughly the time. No weights are loaded.

    Tables, or with --json an object per clip, go to stdout. What will not fit is a warning that names a way out.
    """
    last = (arguments or [""])[-1]
    if last.rstrip().endswith("?") and " " in last and not os.path.lexists(last):
        raise UsageError(f"plan takes clips, and {last!r} is a question", "give it by --question")
    clips, many = resolve_clips(arguments or [], null=null, recursive=recursive, example=EXAMPLE)
    selection = dataclasses.replace(selection, trr=trr)
    generation = GenerationOptions(max_new_tokens=max_new_tokens)
    if not many:
        from seats_cli.media.source import check_path

        try:
            check_path(clips[0])
        except SeatsError as error:
            if as_json:
                write(_failure_line(clips[0], error))
            raise
    check_selection(loading, selection)
    from seats_cli.cli.planner import make_planner

    planner = make_planner(loading, media, selection, prompt, generation.max_new_tokens, timed=not no_time)
    if not many:
        return _plan_one(planner, clips[0], as_json=as_json)
    return _plan_each(planner, clips, as_json=as_json, quiet=quiet, verbose=verbose)

"""``seats ask MEDIA... QUESTION``: one clip streams its answer; several give a line each."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seats_cli.cli import options as opt
from seats_cli.cli.console import complain, harmless, notice, one_line, run, show, write
from seats_cli.config import DEFAULT_MODEL, GenerationOptions, MediaOptions, ModelOptions, SelectionOptions
from seats_cli.errors import InterruptedRunError, MediaError, SeatsError, SomeFailedError, UsageError, explain

if TYPE_CHECKING:
    from seats_cli.api import Seats
    from seats_cli.report import Report

STDIN = "-"
DETAILS = ("full", "short", "none")
# Failures that would befall every clip alike end a batch at once.
FATAL = (InterruptedRunError,)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Output:
    """How answers and reports are shown."""

    as_json: bool
    detail: str
    many: bool
    trace: Path | None


def split_inputs(inputs: list[str], *, null: bool) -> tuple[list[str], str]:
    """Tell the clips from the question: the question comes last.

    ``-`` among the clips stands for a list of paths on stdin, one a line; with ``null`` they end with NUL, and a
    ``-`` is understood when no clip is named.

    Raises:
        UsageError: No clip, an empty question, or a list named twice.
    """
    *clips, question = inputs
    if null and STDIN not in clips:
        clips.append(STDIN)
    if not clips:
        raise UsageError("give at least one clip and a question", 'seats ask clip.mp4 "What happens?"')
    if not question.strip():
        raise UsageError("the question is empty", 'seats ask clip.mp4 "What happens?"')
    if clips.count(STDIN) > 1:
        raise UsageError("- is given twice; stdin can be read once")
    if STDIN in clips:
        place = clips.index(STDIN)
        clips[place : place + 1] = _read_list(null)
    return clips, question


def _read_list(null: bool) -> list[str]:
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError(
            "- reads a list of clips from stdin, which is a terminal", "pipe it: ls *.mp4 | seats ask - ..."
        )
    # The bytes of a file name need not be UTF-8; fsdecode keeps them.
    raw = sys.stdin.buffer.read().split(b"\0" if null else b"\n")
    names = [name if null else name.removesuffix(b"\r") for name in raw]
    import os

    found = [os.fsdecode(name) for name in names if name]
    if not found:
        raise UsageError("the list of clips on stdin is empty")
    return found


def _record(report: Report) -> str:
    return report.to_json() + "\n"


def _failure(path: str, error: SeatsError) -> str:
    """The line of a clip that failed, in a batch with --json."""
    from seats_cli.report import SCHEMA_VERSION

    content = {
        "schema_version": SCHEMA_VERSION,
        "command": "ask",
        "media": {"path": path.encode("utf-8", "backslashreplace").decode()},
        "error": {"message": str(error), "hint": error.hint, "exit_code": error.exit_code},
    }
    return json.dumps(content, ensure_ascii=False) + "\n"


def _show_report(report: Report, output: _Output) -> None:
    from seats_cli.render import render_report

    if output.detail != "none":
        show(render_report(report, output.detail))  # type: ignore[arg-type]


def _ask_one(seats: Seats, path: str, question: str, output: _Output) -> Report:
    """Ask, and put the answer on stdout: as it comes for one clip, as one line for several."""
    stream = not (output.as_json or output.many)
    report = seats.ask(
        path, question, on_text=(lambda piece: write(harmless(piece))) if stream else None, trace=output.trace
    )
    if output.as_json:
        write(_record(report))
    elif output.many:
        write(f"{one_line(path)}\t{one_line(report.answer)}\n")
    else:
        write("\n")
    return report


def _batch(seats: Seats, clips: list[str], question: str, output: _Output) -> int:
    """Every clip in turn; one that fails is named and passed over."""
    failed = 0
    for path in clips:
        try:
            report = _ask_one(seats, path, question, output)
        except BrokenPipeError:
            raise
        except (Exception, KeyboardInterrupt) as caught:
            error = explain(caught)
            if isinstance(error, FATAL):
                raise error from caught
            failed += 1
            complain(error, one_line(path))
            if output.as_json:
                write(_failure(path, error))
            continue
        _show_report(report, output)
        if report.finish_reason == "interrupted":
            raise InterruptedRunError("interrupted")
    if failed:
        raise SomeFailedError(f"{failed} of {len(clips)} clips failed")
    return 0


def _run(
    clips: list[str],
    question: str,
    output: _Output,
    model: ModelOptions,
    settings: tuple[SelectionOptions, MediaOptions, GenerationOptions],
) -> int:
    if not output.many and not Path(clips[0]).exists():
        # A typing mistake should not cost the time it takes to load a model.
        raise MediaError(f"{clips[0]}: no such file", "check the path")
    from seats_cli.api import Seats

    selection, media, generation = settings
    seats = Seats(
        selection=selection,
        media=media,
        generation=generation,
        **{k: v for k, v in dataclasses.asdict(model).items() if k != "weights"},
    )
    if output.many:
        return _batch(seats, clips, question, output)
    report = _ask_one(seats, clips[0], question, output)
    _show_report(report, output)
    return 130 if report.finish_reason == "interrupted" else 0


def ask(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="MEDIA... QUESTION", help="Clips (- for a list of paths on stdin), then the question."
        ),
    ],
    model: opt.Model = DEFAULT_MODEL,
    revision: opt.Revision = None,
    dtype: opt.DtypeName = "auto",
    device: opt.Device = "auto",
    device_map: opt.DeviceMap = None,
    attn: opt.Attn = "auto",
    offline: opt.Offline = False,
    fps: opt.Fps = 2.0,
    max_frames: opt.MaxFrames = 768,
    min_pixels: opt.MinPixels = None,
    max_pixels: opt.MaxPixels = None,
    start: opt.Start = None,
    end: opt.End = None,
    audio: opt.Audio = "auto",
    require_audio: opt.RequireAudio = False,
    method: opt.Method = "seats",
    trr: Annotated[
        float,
        typer.Option(
            "--trr",
            "-r",
            rich_help_panel=opt.SELECTION,
            envvar="SEATS_TRR",
            help="Token retention ratio R: the fraction KEPT, averaged over all layers.",
        ),
    ] = 0.1,
    video_trr: opt.VideoTrr = None,
    audio_trr: opt.AudioTrr = None,
    kv_cache: opt.KvCacheName = "staged",
    schedule: opt.Schedule = None,
    scale: opt.Scale = 1.4,
    window_temperature: opt.WindowTemperature = None,
    score_with: opt.ScoreWithName = "previous",
    score_norm: opt.ScoreNormName = "none",
    max_new_tokens: Annotated[
        int,
        typer.Option(
            "--max-new-tokens",
            rich_help_panel=opt.GENERATION,
            envvar="SEATS_MAX_NEW_TOKENS",
            help="Most tokens in the answer.",
        ),
    ] = 256,
    temperature: Annotated[
        float, typer.Option("--temperature", rich_help_panel=opt.GENERATION, help="0 is greedy.")
    ] = 0.0,
    top_p: Annotated[
        float, typer.Option("--top-p", rich_help_panel=opt.GENERATION, help="Nucleus, with a temperature.")
    ] = 1.0,
    seed: Annotated[
        int | None, typer.Option("--seed", rich_help_panel=opt.GENERATION, help="Of the sampler.")
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(
            "--system", rich_help_panel=opt.GENERATION, help="System prompt. Default: the chat template's."
        ),
    ] = None,
    choices: Annotated[
        str | None,
        typer.Option(
            "--choices",
            rich_help_panel=opt.GENERATION,
            help="Labels, such as A,B,C,D: the likeliest by first-token logits is the answer.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", rich_help_panel=opt.OUTPUT, help="One JSON object per clip on stdout.")
    ] = False,
    report: Annotated[
        str | None,
        typer.Option(
            "--report",
            rich_help_panel=opt.OUTPUT,
            help="On stderr: full, short or none. Default: full for one clip, short for several.",
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace",
            rich_help_panel=opt.OUTPUT,
            dir_okay=False,
            help="Write kept rows, scores and budgets per stage to this .npz file. One clip only.",
        ),
    ] = None,
    null: Annotated[
        bool,
        typer.Option("-0", "--null", rich_help_panel=opt.OUTPUT, help="The list on stdin ends names with NUL."),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", rich_help_panel=opt.OUTPUT, help="No report and no notices on stderr."),
    ] = False,
    verbose: opt.Verbose = False,
) -> None:
    """Answer a question about one clip, or about each of several.

    The answer goes to stdout, the report to stderr. Several clips give one line each: path, tab, answer.
    """

    def body() -> int:
        clips, question = split_inputs(inputs, null=null)
        detail = "none" if quiet else report or ("short" if len(clips) > 1 or as_json else "full")
        if detail not in DETAILS:
            raise UsageError(f"--report is {detail!r}; it must be one of {', '.join(DETAILS)}")
        # A list is a batch, however long it is: its readers want lines.
        many = len(clips) > 1 or STDIN in inputs[:-1] or null
        if trace is not None and many:
            raise UsageError("--trace describes one clip; ask about one at a time")
        settings = (
            opt.selection_options(
                method=method,
                trr=trr,
                video_trr=video_trr,
                audio_trr=audio_trr,
                kv_cache=kv_cache,
                scale=scale,
                window_temperature=window_temperature,
                score_with=score_with,
                score_norm=score_norm,
                schedule=schedule,
            ),
            opt.media_options(
                fps=fps,
                max_frames=max_frames,
                min_pixels=min_pixels,
                max_pixels=max_pixels,
                start=start,
                end=end,
                audio=audio,
                require_audio=require_audio,
            ),
            GenerationOptions(
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                top_p=top_p,
                seed=seed,
                system=system,
                choices=tuple(label.strip() for label in choices.split(",")) if choices is not None else (),
            ),
        )
        loading = opt.model_options(
            model=model,
            revision=revision,
            dtype=dtype,
            device=device,
            device_map=device_map,
            attn=attn,
            offline=offline,
        )
        output = _Output(as_json=as_json, detail=detail, many=many, trace=trace)
        if many and not quiet:
            notice(f"{len(clips)} clips")
        return _run(clips, question, output, loading, settings)

    raise typer.Exit(run(body, verbose=verbose))

"""``seats profile [MEDIA]``: what a prefill costs, full against SEATS, measured or computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from seats_cli.cli import bundles
from seats_cli.cli import options as opt
from seats_cli.cli.command import command
from seats_cli.cli.console import notice, show, write
from seats_cli.cli.workload import (
    SuiteOptions,
    Workload,
    check_selection,
    check_suite,
    load_for_profile,
    spec_without_weights,
)
from seats_cli.config import DEFAULT_TRRS, MediaOptions, ModelOptions, SelectionOptions, Suite, Weights
from seats_cli.errors import UsageError

if TYPE_CHECKING:
    from seats_cli.report import ProfileReport

# Of the suites, where none is asked for: what the paper's headline speaks of.
SUITE_TRR = 0.1
WORKLOAD, MEASUREMENT = "Workload", "Measurement"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Rounds:
    """How often everything is run."""

    runs: int | None
    warmup: int
    stock: bool
    suite: SuiteOptions | None

    def __post_init__(self) -> None:
        if self.runs is not None and self.runs < 1:
            raise UsageError(f"--runs is {self.runs}; it must be at least 1")
        if self.warmup < 0:
            raise UsageError(f"--warmup is {self.warmup}; it must be 0 or more")


def _rounds(
    runs: Annotated[
        int | None,
        opt.option(
            "--runs",
            panel=MEASUREMENT,
            show_default="10; 3 on a CPU",
            **opt.WHOLE,
            help="Rounds that count: medians are shown.",
        ),
    ] = None,
    warmup: Annotated[int, opt.option("--warmup", panel=MEASUREMENT, **opt.WHOLE, help="Rounds before them.")] = 1,
    stock: Annotated[
        bool,
        opt.option(
            "--stock",
            panel=MEASUREMENT,
            help="Also measure transformers' own forward; with --suite decode what it compiles, too (minutes).",
        ),
    ] = False,
    suite: Annotated[
        Suite | None,
        opt.option(
            "--suite",
            panel=MEASUREMENT,
            help="One claim with its ratios: prefill and encoders (paper), tokens per second (decode), "
            "file to first token (end-to-end), peak memory and time against length (memory, growth).",
        ),
    ] = None,
    minutes: Annotated[
        list[int] | None,
        opt.option(
            "--minutes",
            panel=MEASUREMENT,
            show_default="1 10 60; growth 1 2 4 8; less on a CPU",
            **opt.WHOLE,
            help="Clip lengths of --suite memory and growth. Repeatable.",
        ),
    ] = None,
    answer_tokens: Annotated[
        int, opt.option("--answer-tokens", panel=MEASUREMENT, **opt.WHOLE, help="Tokens of --suite decode.")
    ] = 128,
) -> _Rounds:
    if suite is None and minutes:
        raise UsageError("--minutes belongs to --suite memory and --suite growth", "leave it out")
    chosen = suite and SuiteOptions(
        name=suite, minutes=tuple(minutes or ()), answer_tokens=answer_tokens, stock=stock
    )
    return _Rounds(runs=runs, warmup=warmup, stock=stock, suite=chosen)


def settings_of(selection: SelectionOptions, trrs: list[float] | None) -> list[SelectionOptions]:
    """One setting per ratio; the pair of ratios, where it is given, stands in place of them."""
    if selection.video_trr is not None:
        return [selection]
    ratios = dict.fromkeys(trrs or DEFAULT_TRRS)
    return [dataclasses.replace(selection, trr=ratio) for ratio in ratios]


def _analytic(workload: Workload, options: ModelOptions, settings: list[SelectionOptions]) -> ProfileReport:
    from seats_cli.engine.analytic import analytic_profile
    from seats_cli.engine.prepare import clip_shape
    from seats_cli.media import SAMPLE_RATE_HZ

    family, spec = spec_without_weights(options)
    clip = workload.maker(spec.pixel_factor)()
    n_samples = round(clip.seconds_audio * SAMPLE_RATE_HZ)
    shape = clip_shape(clip, n_samples, family, spec, workload.options(spec.pixel_factor))
    return analytic_profile(
        family,
        spec,
        shape,
        settings,
        n_text=workload.text_tokens,
        workload=(
            workload.source,
            clip.plan.n_frames if clip.plan else 0,
            max(clip.seconds_video, clip.seconds_audio),
        ),
        clip=clip if workload.path else None,
        warnings=clip.warnings,
    )


def _progress(n_rounds: int) -> Callable[[str], None]:
    """Says which round begins; in each the full run comes first."""
    begun = 0

    def on_round(label: str) -> None:
        nonlocal begun
        if label == "full":
            begun += 1
            notice(f"round {begun} of {n_rounds}")

    return on_round


def _measured(
    workload: Workload, options: ModelOptions, settings: list[SelectionOptions], rounds: _Rounds, quiet: bool
) -> ProfileReport:
    from seats_cli.engine.benchmark import make_workbench, measured_profile

    loaded, note = load_for_profile(options)
    if note and not quiet:
        notice(note)
    factor = loaded.model.spec.pixel_factor
    bench = make_workbench(loaded, workload.maker(factor), workload.options(factor), workload.text_tokens)
    runs = rounds.runs or (3 if loaded.model.device.type == "cpu" else 10)
    return measured_profile(
        bench,
        settings,
        runs=runs,
        warmup=rounds.warmup,
        stock=rounds.stock,
        source=workload.source,
        note=note,
        on_round=None if quiet else _progress(runs + rounds.warmup),
    )


def _show_suite(
    suite: SuiteOptions,
    workload: Workload,
    options: ModelOptions,
    selection: SelectionOptions,
    *,
    runs: int | None,
    warmup: int,
    quiet: bool,
    as_json: bool,
) -> None:
    from seats_cli.cli.suite import render_suite, run_suite

    loaded, note = load_for_profile(options)
    if note and not quiet:
        notice(note)
    report = run_suite(suite, workload, loaded, note, selection, runs=runs, warmup=warmup, quiet=quiet)
    if as_json:
        write(report.to_json() + "\n")
    else:
        show(render_suite(report), stderr=False)


@command(
    loading=bundles.model_options, media=bundles.media_options, selection=bundles.selection_options, rounds=_rounds
)
def profile(
    path: Annotated[
        str | None, typer.Argument(metavar="[MEDIA]", help="A clip. Default: the paper's workload, made up.")
    ] = None,
    frames: Annotated[
        int,
        opt.option("--frames", panel=WORKLOAD, **opt.WHOLE, help="Made-up frames, 144 tokens per grid."),
    ] = 128,
    seconds: Annotated[float, opt.option("--seconds", panel=WORKLOAD, **opt.NUMBER, help="Made-up sound.")] = 64.0,
    text_tokens: Annotated[
        int, opt.option("--text-tokens", panel=WORKLOAD, **opt.WHOLE, help="Text tokens of the prompt.")
    ] = 80,
    analytic: Annotated[
        bool, opt.option("--analytic", panel=MEASUREMENT, help="Compute, run nothing: no model, instant.")
    ] = False,
    *,
    rounds: _Rounds,
    loading: ModelOptions,
    weights: Annotated[
        Weights, opt.option("--weights", panel=opt.MODEL, help="random: true dimensions with no download.")
    ] = "auto",
    media: MediaOptions,
    trr: Annotated[
        list[float] | None,
        opt.option(
            "--trr",
            "-R",
            panel=opt.SELECTION,
            show_default="0.35 0.25 0.15 0.1",
            **opt.NUMBER,
            help="Token retention ratio R in (0, 1]: the fraction KEPT. Repeatable.",
        ),
    ] = None,
    selection: SelectionOptions,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> int:
    """Compare the prefill of all tokens with that of SEATS.

    The table, or with --json one object, goes to stdout.
    """
    settings = settings_of(selection, trr or (None if rounds.suite is None else [SUITE_TRR]))
    options = dataclasses.replace(loading, weights=weights)
    if weights == "random" and loading.device_map is not None:
        raise UsageError("--device-map spreads a checkpoint, not --weights random", "leave one of them out")
    if weights == "random" and loading.quant != "none":
        raise UsageError("--quant quantises a checkpoint, not --weights random", "leave one of them out")
    workload = Workload(path=path, frames=frames, seconds=seconds, text_tokens=text_tokens, media=media)
    if path is not None:
        from seats_cli.media.source import check_path

        check_path(path)
    check_selection(options, *settings)
    if rounds.suite is not None:
        check_suite(rounds.suite, workload, settings, analytic=analytic)
        suite = (rounds.suite, workload, options, settings[0])
        _show_suite(*suite, runs=rounds.runs, warmup=rounds.warmup, quiet=quiet, as_json=as_json)
        return 0
    if analytic:
        report = _analytic(workload, options, settings)
    else:
        report = _measured(workload, options, settings, rounds, quiet)
    if as_json:
        write(report.to_json() + "\n")
        return 0
    from seats_cli.render import render_profile

    show(render_profile(report), stderr=False)
    return 0

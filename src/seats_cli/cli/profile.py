"""``seats profile [MEDIA]``: what a prefill costs, full against SEATS, measured or computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from seats_cli.cli import options as opt
from seats_cli.cli.console import notice, run, show, write
from seats_cli.config import DEFAULT_MODEL, DEFAULT_TRRS, MediaOptions, ModelOptions, SelectionOptions
from seats_cli.errors import ModelError, UsageError

if TYPE_CHECKING:
    from seats_cli.media import Clip
    from seats_cli.models.base import ModelSpec, OmniModel
    from seats_cli.models.loading import LoadedModel
    from seats_cli.report import ProfileReport

WORKLOAD = "Workload"
# The paper's workload: frames of 9 x 16 merged tokens.
GRID_ROWS, GRID_COLUMNS = 9, 16


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Workload:
    """A clip on disk, or frames and seconds made up."""

    media: str | None
    frames: int
    seconds: float
    text_tokens: int

    def __post_init__(self) -> None:
        if self.frames < 0 or self.seconds < 0:
            raise UsageError(f"--frames {self.frames} and --seconds {self.seconds:g} must be 0 or more")
        if self.media is None and self.frames == 0 and self.seconds == 0:
            raise UsageError("--frames 0 and --seconds 0 leave nothing to prefill")
        if self.text_tokens < 8:
            raise UsageError(f"--text-tokens is {self.text_tokens}; a prompt has at least 8")


def _clip_maker(workload: _Workload, media: MediaOptions, factor: int) -> Callable[[], Clip]:
    from seats_cli.media import NoiseClip, open_clip

    if workload.media is not None:
        path = workload.media
        return lambda: open_clip(path, media)
    span = workload.frames / media.fps if workload.frames else workload.seconds

    def make() -> Clip:
        return NoiseClip(
            n_frames=workload.frames,
            seconds=span,
            width=GRID_COLUMNS * factor,
            height=GRID_ROWS * factor,
            fps=media.fps,
            audio_seconds=workload.seconds,
        )

    return make


def _exact_grid(workload: _Workload, media: MediaOptions, factor: int) -> MediaOptions:
    """Made-up frames have the size they are wanted in; no pixel budget may change it."""
    if workload.media is not None:
        return media
    area = GRID_ROWS * GRID_COLUMNS * factor * factor
    return dataclasses.replace(media, min_pixels=area, max_pixels=area)


def _spec_without_weights(options: ModelOptions) -> tuple[type[OmniModel], ModelSpec]:
    """From a known name, a folder or the cache: the config is all that is needed."""
    from seats_cli.models import family_of, named_architecture

    try:
        family, config = named_architecture(options.model)
    except ModelError:
        from seats_cli.models.loading import find_config

        model_type, config = find_config(options)
        family = family_of(model_type)
    return family, family.spec_of(options.model, config)


def _analytic(
    workload: _Workload, options: ModelOptions, media: MediaOptions, settings: list[SelectionOptions]
) -> ProfileReport:
    from seats_cli.engine.analytic import analytic_profile
    from seats_cli.engine.prepare import clip_shape

    family, spec = _spec_without_weights(options)
    media = _exact_grid(workload, media, spec.pixel_factor)
    clip = _clip_maker(workload, media, spec.pixel_factor)()
    shape = clip_shape(clip, round(clip.seconds_audio * 16_000), family, spec, media)
    frames = clip.plan.n_frames if clip.plan else 0
    seconds = max(clip.seconds_video, clip.seconds_audio)
    source = "clip" if workload.media else "synthetic"
    return analytic_profile(
        family,
        spec,
        shape,
        settings,
        n_text=workload.text_tokens,
        workload=(source, frames, seconds),
        warnings=clip.warnings,
    )


def _stand_in(options: ModelOptions, why: str) -> tuple[LoadedModel, str]:
    from seats_cli.models import named_architecture
    from seats_cli.models.loading import build_random

    family, _ = named_architecture(options.model)
    name, config = family.stand_in
    small = dataclasses.replace(options, model=name, weights="random")
    return build_random(small, family, config), (
        f"measured on a {name}, random weights, instead of {options.model}: {why}; its times are not the 7B's"
    )


def _load(options: ModelOptions) -> tuple[LoadedModel, str]:
    """The model to measure, and a note on what it is instead of what was asked for."""
    from seats_cli.models import named_architecture
    from seats_cli.models.loading import choose_device, load

    on_cpu = choose_device(options.device).type == "cpu"
    if options.weights == "random":
        named_architecture(options.model)
        # Asking for the CPU by name is asking for the wait.
        if on_cpu and options.device == "auto":
            return _stand_in(options, "there is no GPU here (--device cpu insists)")
        return load(options), f"random weights of {options.model}'s dimensions: times are real, answers are not"
    try:
        return load(options), ""
    except ModelError as error:
        if not on_cpu:
            named_architecture(options.model)
            random = dataclasses.replace(options, weights="random")
            return load(random), f"random weights of {options.model}'s dimensions: {error}"
        try:
            return _stand_in(options, f"there is no GPU here and {error}")
        except ModelError:
            raise error from None


def _measured(
    workload: _Workload,
    options: ModelOptions,
    media: MediaOptions,
    settings: list[SelectionOptions],
    *,
    runs: int | None,
    warmup: int,
    stock: bool,
    quiet: bool,
) -> ProfileReport:
    from seats_cli.engine.benchmark import make_workbench, measured_profile

    loaded, note = _load(options)
    if note and not quiet:
        notice(note)
    factor = loaded.model.spec.pixel_factor
    media = _exact_grid(workload, media, factor)
    bench = make_workbench(loaded, _clip_maker(workload, media, factor), media, workload.text_tokens)
    default_runs = 3 if loaded.model.device.type == "cpu" else 10
    return measured_profile(
        bench,
        settings,
        runs=default_runs if runs is None else runs,
        warmup=warmup,
        stock=stock,
        source="clip" if workload.media else "synthetic",
        note=note,
        on_round=None if quiet else lambda label: notice(f"running {label}"),
    )


def profile(
    media: Annotated[
        str | None, typer.Argument(metavar="[MEDIA]", help="A clip. Default: the paper's workload, made up.")
    ] = None,
    model: opt.Model = DEFAULT_MODEL,
    revision: opt.Revision = None,
    dtype: opt.DtypeName = "auto",
    device: opt.Device = "auto",
    device_map: opt.DeviceMap = None,
    attn: opt.Attn = "auto",
    offline: opt.Offline = False,
    weights: Annotated[
        str,
        typer.Option(
            "--weights", rich_help_panel=opt.MODEL, help="auto, or random: true dimensions with no download."
        ),
    ] = "auto",
    frames: Annotated[
        int,
        typer.Option("--frames", rich_help_panel=WORKLOAD, help="Made-up frames of 144 merged tokens per grid."),
    ] = 128,
    seconds: Annotated[
        float, typer.Option("--seconds", rich_help_panel=WORKLOAD, help="Seconds of made-up sound.")
    ] = 64.0,
    text_tokens: Annotated[
        int, typer.Option("--text-tokens", rich_help_panel=WORKLOAD, help="Text tokens of the prompt.")
    ] = 80,
    fps: opt.Fps = 2.0,
    max_frames: opt.MaxFrames = 768,
    min_pixels: opt.MinPixels = None,
    max_pixels: opt.MaxPixels = None,
    start: opt.Start = None,
    end: opt.End = None,
    audio: opt.Audio = "auto",
    require_audio: opt.RequireAudio = False,
    trr: Annotated[
        list[float] | None,
        typer.Option(
            "--trr",
            "-r",
            rich_help_panel=opt.SELECTION,
            show_default="0.35 0.25 0.15 0.1",
            help="Token retention ratio R, the fraction KEPT. Repeatable.",
        ),
    ] = None,
    method: opt.Method = "seats",
    video_trr: opt.VideoTrr = None,
    audio_trr: opt.AudioTrr = None,
    kv_cache: opt.KvCacheName = "staged",
    schedule: opt.Schedule = None,
    scale: opt.Scale = 1.4,
    window_temperature: opt.WindowTemperature = None,
    score_with: opt.ScoreWithName = "previous",
    score_norm: opt.ScoreNormName = "none",
    runs: Annotated[
        int | None,
        typer.Option(
            "--runs",
            rich_help_panel=WORKLOAD,
            show_default="10; 3 on a CPU",
            help="Rounds that count; medians are shown.",
        ),
    ] = None,
    warmup: Annotated[int, typer.Option("--warmup", rich_help_panel=WORKLOAD, help="Rounds before them.")] = 1,
    stock: Annotated[
        bool,
        typer.Option("--stock", rich_help_panel=WORKLOAD, help="Also measure transformers' own forward."),
    ] = False,
    analytic: Annotated[
        bool,
        typer.Option("--analytic", rich_help_panel=WORKLOAD, help="Compute, run nothing: no model, instant."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", rich_help_panel=opt.OUTPUT, help="One JSON object on stdout.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", rich_help_panel=opt.OUTPUT, help="No progress on stderr.")
    ] = False,
    verbose: opt.Verbose = False,
) -> None:
    """Compare the prefill of all tokens with that of SEATS at each --trr.

    The table goes to stdout with --json as one object, otherwise to stderr.
    """

    def body() -> int:
        if (runs is not None and runs < 1) or warmup < 0:
            raise UsageError(f"--runs {runs} --warmup {warmup}: at least 1 run and 0 warm-ups")
        shared = {
            "video_trr": video_trr,
            "audio_trr": audio_trr,
            "kv_cache": kv_cache,
            "scale": scale,
            "window_temperature": window_temperature,
            "score_with": score_with,
            "score_norm": score_norm,
            "schedule": schedule,
        }
        ratios = trr or list(DEFAULT_TRRS)
        if video_trr is not None and not trr:
            ratios = ratios[-1:]
        settings = [opt.selection_options(method=method, trr=ratio, **shared) for ratio in ratios]  # type: ignore[arg-type]
        media_options = opt.media_options(
            fps=fps,
            max_frames=max_frames,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            start=start,
            end=end,
            audio=audio,
            require_audio=require_audio,
        )
        loading = opt.model_options(
            model=model,
            revision=revision,
            dtype=dtype,
            device=device,
            device_map=device_map,
            attn=attn,
            offline=offline,
            weights=weights,
        )
        workload = _Workload(media=media, frames=frames, seconds=seconds, text_tokens=text_tokens)
        if analytic:
            report = _analytic(workload, loading, media_options, settings)
        else:
            report = _measured(
                workload, loading, media_options, settings, runs=runs, warmup=warmup, stock=stock, quiet=quiet
            )
        if as_json:
            write(report.to_json() + "\n")
            return 0
        from seats_cli.render import render_profile

        show(render_profile(report))
        return 0

    raise typer.Exit(run(body, verbose=verbose))

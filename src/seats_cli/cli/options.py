"""Options that several commands share, each said once: flag, environment variable, help, panel."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from seats_cli.config import (
    DEFAULT_MODEL,
    MediaOptions,
    ModelOptions,
    SelectionOptions,
    parse_seconds,
)
from seats_cli.errors import UsageError

MODEL, MEDIA, SELECTION, GENERATION, OUTPUT = "Model", "Media", "Token selection", "Answer", "Output"


def _option(*names: str, panel: str, help: str, env: str | None = None, **more: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, help=help, envvar=env, **more)


Model = Annotated[
    str,
    _option("--model", "-m", panel=MODEL, env="SEATS_MODEL", help="Hugging Face Hub id or checkpoint folder."),
]
Revision = Annotated[
    str | None,
    _option("--revision", panel=MODEL, env="SEATS_REVISION", help="Branch, tag or commit of a Hub id."),
]
DtypeName = Annotated[
    str,
    _option(
        "--dtype",
        panel=MODEL,
        env="SEATS_DTYPE",
        help="auto, float32, float16 or bfloat16. auto: bfloat16 on a GPU, float32 on the CPU.",
    ),
]
Device = Annotated[str, _option("--device", panel=MODEL, env="SEATS_DEVICE", help="auto, cpu, cuda, cuda:1, ...")]
DeviceMap = Annotated[
    str | None,
    _option("--device-map", panel=MODEL, env="SEATS_DEVICE_MAP", help="Spread over devices: auto, balanced, ..."),
]
Attn = Annotated[
    str,
    _option(
        "--attn",
        panel=MODEL,
        env="SEATS_ATTN",
        help="Attention kernel: auto, sdpa, flash_attention_2 or eager.",
    ),
]
Offline = Annotated[
    bool, _option("--offline", panel=MODEL, env="SEATS_OFFLINE", help="Never reach for the network.")
]

Fps = Annotated[float, _option("--fps", panel=MEDIA, env="SEATS_FPS", help="Frames per second of clip time.")]
MaxFrames = Annotated[
    int,
    _option(
        "--max-frames",
        panel=MEDIA,
        env="SEATS_MAX_FRAMES",
        help="At most this many frames, spread uniformly when it binds.",
    ),
]
MinPixels = Annotated[
    int | None,
    _option("--min-pixels", panel=MEDIA, help="Least pixels per frame. Default: 128 merged tokens per grid."),
]
MaxPixels = Annotated[
    int | None,
    _option("--max-pixels", panel=MEDIA, help="Most pixels per frame. Default: 144 merged tokens per grid."),
]
Start = Annotated[str | None, _option("--start", panel=MEDIA, help="Begin here: seconds or hh:mm:ss.")]
End = Annotated[str | None, _option("--end", panel=MEDIA, help="End here: seconds or hh:mm:ss.")]
Audio = Annotated[
    str,
    _option(
        "--audio",
        panel=MEDIA,
        env="SEATS_AUDIO",
        help="auto: heard where it can be. on: a damaged track is an error. off: not heard.",
    ),
]
RequireAudio = Annotated[
    bool, _option("--require-audio", panel=MEDIA, help="A clip without an audible track is an error.")
]

Method = Annotated[
    str, _option("--method", panel=SELECTION, env="SEATS_METHOD", help="seats, or full to keep every token.")
]
VideoTrr = Annotated[
    float | None,
    _option("--video-trr", panel=SELECTION, help="Visual ratio R_v; with --audio-trr, in place of --trr."),
]
AudioTrr = Annotated[
    float | None, _option("--audio-trr", panel=SELECTION, help="Audio ratio R_a; with --video-trr.")
]
KvCacheName = Annotated[
    str,
    _option(
        "--kv-cache",
        panel=SELECTION,
        env="SEATS_KV_CACHE",
        help="staged: later answer tokens still see the clip. text: the published behaviour.",
    ),
]
Scale = Annotated[
    float, _option("--scale", panel=SELECTION, help="lambda: the ratio before the LLM over the average.")
]
WindowTemperature = Annotated[
    float | None,
    _option(
        "--window-temperature",
        panel=SELECTION,
        help="Of the window softmax. Default: the model's published one.",
    ),
]
ScoreWithName = Annotated[
    str,
    _option("--score-with", panel=SELECTION, help="Projections that score tokens: previous or next layer's."),
]
ScoreNormName = Annotated[
    str,
    _option("--score-norm", panel=SELECTION, help="none (published), or standard: window scores to mean 0, sd 1."),
]
Schedule = Annotated[
    str | None,
    _option(
        "--schedule",
        panel=SELECTION,
        help="Layers to drop before, 0-based: b1,b2,b3,b4, such as 16,18,20,23.",
    ),
]
Verbose = Annotated[bool, _option("--verbose", "-v", panel=OUTPUT, help="Show the trace of unexpected errors.")]


def parse_schedule(text: str | None) -> tuple[int, ...] | None:
    """Read ``16,18,20,23``.

    Raises:
        UsageError: It is not a list of whole numbers.
    """
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--schedule is {text!r}; give four layers such as 16,18,20,23") from None


def media_options(
    *,
    fps: float,
    max_frames: int,
    min_pixels: int | None,
    max_pixels: int | None,
    start: str | None,
    end: str | None,
    audio: str,
    require_audio: bool,
) -> MediaOptions:
    """Check the media flags."""
    return MediaOptions(
        fps=fps,
        max_frames=max_frames,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        start_seconds=None if start is None else parse_seconds(start, "--start"),
        end_seconds=None if end is None else parse_seconds(end, "--end"),
        audio=audio,  # type: ignore[arg-type]
        require_audio=require_audio,
    )


def model_options(
    *,
    model: str = DEFAULT_MODEL,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | None = None,
    attn: str = "auto",
    offline: bool = False,
    weights: str = "auto",
) -> ModelOptions:
    """Check the model flags, and cut the network before the hub library is imported."""
    options = ModelOptions(
        model=model,
        revision=revision,
        dtype=dtype,  # type: ignore[arg-type]
        device=device,
        device_map=device_map,
        attn=attn,  # type: ignore[arg-type]
        offline=offline,
        weights=weights,  # type: ignore[arg-type]
    )
    if options.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    return options


def selection_options(
    *,
    method: str,
    trr: float,
    video_trr: float | None,
    audio_trr: float | None,
    kv_cache: str,
    scale: float = 1.4,
    window_temperature: float | None = None,
    score_with: str = "previous",
    score_norm: str = "none",
    schedule: str | None = None,
) -> SelectionOptions:
    """Check the selection flags."""
    return SelectionOptions(
        method=method,
        trr=trr,
        video_trr=video_trr,
        audio_trr=audio_trr,
        kv_cache=kv_cache,  # type: ignore[arg-type]
        scale=scale,
        temperature=window_temperature,
        score_with=score_with,  # type: ignore[arg-type]
        score_norm=score_norm,  # type: ignore[arg-type]
        drop_before_layer=parse_schedule(schedule),
    )

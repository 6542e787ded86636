"""Options that several commands share, each said once: flag, environment variable, help, panel, values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from seats_cli.config import (
    DEFAULT_MODEL,
    SHIPPED_MODEL,
    SPREADING_MAPS,
    Attention,
    AudioMode,
    Decoder,
    Dtype,
    KvCache,
    Quant,
    ScoreNorm,
    ScoreWith,
    Stages,
    WindowBudgets,
)

MODEL, MEDIA, SELECTION, GENERATION, OUTPUT = "Model", "Media", "Token selection", "Answer", "Output"
CACHE = "Cache"

# The names that are completed. Tests hold them equal to what there is, which takes long to import.
MethodName = Literal["seats", "full", "random"]
KNOWN_MODELS = (
    DEFAULT_MODEL,
    "Qwen/Qwen2.5-Omni-3B",
    "Qwen/Qwen3-Omni-30B-A3B-Instruct",
    "Qwen/Qwen3-Omni-30B-A3B-Thinking",
    SHIPPED_MODEL,
)


def _number(text: str | float) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number") from None


def _whole_number(text: str | int) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a whole number") from None


def _path(text: str | Path) -> Path:
    # As a path nothing would be the working folder.
    if not str(text).strip():
        raise typer.BadParameter("the path is empty")
    return Path(text)


# Typer's own messages do not say what was given.
NUMBER: dict[str, Any] = {"parser": _number, "metavar": "<number>"}
PATH: dict[str, Any] = {"parser": _path}
WHOLE: dict[str, Any] = {"parser": _whole_number, "metavar": "<integer>"}


def option(*names: str, panel: str, help: str, env: str | None = None, **more: Any) -> Any:
    """An option in a panel of the help."""
    return typer.Option(*names, rich_help_panel=panel, help=help, envvar=env, **more)


def _complete_model(incomplete: str) -> list[str]:
    return [name for name in KNOWN_MODELS if name.startswith(incomplete)]


def _complete_device(incomplete: str) -> list[str]:
    return [name for name in ("auto", "cpu", "cuda", "cuda:0") if name.startswith(incomplete)]


def _complete_device_map(incomplete: str) -> list[str]:
    return [name for name in SPREADING_MAPS if name.startswith(incomplete)]


Model = Annotated[
    str,
    option(
        "--model",
        "-m",
        panel=MODEL,
        env="SEATS_MODEL",
        autocompletion=_complete_model,
        metavar="<id|folder>",
        help="Hugging Face Hub id, checkpoint folder, or tiny: the one inside.",
    ),
]
Revision = Annotated[
    str | None,
    option(
        "--revision",
        panel=MODEL,
        env="SEATS_REVISION",
        metavar="<name>",
        help="Branch, tag or commit of a Hub id.",
    ),
]
DtypeName = Annotated[
    Dtype, option("--dtype", panel=MODEL, env="SEATS_DTYPE", help="auto: bfloat16 on a GPU, float32 on the CPU.")
]
Device = Annotated[
    str,
    option(
        "--device",
        panel=MODEL,
        env="SEATS_DEVICE",
        autocompletion=_complete_device,
        metavar="<device>",
        help="auto (the first GPU, else the CPU), cpu, cuda, cuda:1, ...",
    ),
]
DeviceMap = Annotated[
    str | None,
    option(
        "--device-map",
        panel=MODEL,
        env="SEATS_DEVICE_MAP",
        autocompletion=_complete_device_map,
        metavar="<map>",
        help="Spread the model over devices: auto, balanced, ...",
    ),
]
MaxMemory = Annotated[
    str | None,
    option(
        "--max-memory",
        panel=MODEL,
        env="SEATS_MAX_MEMORY",
        metavar="<sizes>",
        help="Most weights per place, such as 0=20GiB,cpu=60GiB; with --device-map auto.",
    ),
]
OffloadFolder = Annotated[
    str | None,
    option(
        "--offload-folder",
        panel=MODEL,
        env="SEATS_OFFLOAD_FOLDER",
        metavar="<folder>",
        help="For weights that fit nowhere else, while the command runs; with --device-map auto.",
    ),
]
QuantName = Annotated[
    Quant,
    option("--quant", panel=MODEL, env="SEATS_QUANT", help="Quantise the decoder's linear layers while loading."),
]
Attn = Annotated[
    Attention,
    option("--attn", panel=MODEL, env="SEATS_ATTN", help="Attention kernel. auto: the best that imports."),
]
Offline = Annotated[
    bool, option("--offline", panel=MODEL, env="SEATS_OFFLINE", help="Never reach for the network.")
]

Fps = Annotated[float, option("--fps", panel=MEDIA, env="SEATS_FPS", **NUMBER, help="Frames per second.")]
MaxFrames = Annotated[
    int,
    option(
        "--max-frames",
        panel=MEDIA,
        env="SEATS_MAX_FRAMES",
        **WHOLE,
        help="At most this many frames, spread uniformly when it binds.",
    ),
]
MinPixels = Annotated[
    int | None,
    option(
        "--min-pixels",
        panel=MEDIA,
        env="SEATS_MIN_PIXELS",
        **WHOLE,
        help="Least pixels per frame. Default: the model's, or 128 merged tokens per grid.",
    ),
]
MaxPixels = Annotated[
    int | None,
    option(
        "--max-pixels",
        panel=MEDIA,
        env="SEATS_MAX_PIXELS",
        **WHOLE,
        help="Most pixels per frame. Default: the model's, or 144 merged tokens per grid.",
    ),
]
Start = Annotated[
    str | None, option("--start", panel=MEDIA, metavar="<time>", help="Begin here: seconds or hh:mm:ss.")
]
End = Annotated[str | None, option("--end", panel=MEDIA, metavar="<time>", help="End here: seconds or hh:mm:ss.")]
Audio = Annotated[
    AudioMode,
    option(
        "--audio",
        panel=MEDIA,
        env="SEATS_AUDIO",
        help="auto: heard where it can be. on: a damaged track is an error. off: not heard.",
    ),
]
RequireAudio = Annotated[
    bool, option("--require-audio", panel=MEDIA, help="A clip without an audible track is an error.")
]

DecoderName = Annotated[
    Decoder,
    option(
        "--decoder",
        panel=MEDIA,
        env="SEATS_DECODER",
        help="Of the picture. pyav: FFmpeg. torchcodec: if installed. nvdec: on an NVIDIA GPU.",
    ),
]

Method = Annotated[
    MethodName,
    option(
        "--method",
        panel=SELECTION,
        env="SEATS_METHOD",
        help="full keeps every token. random draws those that enter the first layer.",
    ),
]
Trr = Annotated[
    float,
    option(
        "--trr",
        "-R",
        panel=SELECTION,
        env="SEATS_TRR",
        **NUMBER,
        help="Token retention ratio R in (0, 1]: the fraction KEPT, averaged over all layers.",
    ),
]
VideoTrr = Annotated[
    float | None,
    option("--video-trr", panel=SELECTION, **NUMBER, help="Visual ratio R_v, with --audio-trr, in place of R."),
]
AudioTrr = Annotated[
    float | None, option("--audio-trr", panel=SELECTION, **NUMBER, help="Audio ratio R_a; with --video-trr.")
]
KvCacheName = Annotated[
    KvCache,
    option(
        "--kv-cache",
        panel=SELECTION,
        env="SEATS_KV_CACHE",
        help="staged: later answer tokens still see the clip. text: the published behaviour.",
    ),
]
Schedule = Annotated[
    str | None,
    option(
        "--schedule",
        panel=SELECTION,
        metavar="<layers|file>",
        help="Four layers to drop before, 0-based, such as 16,18,20,23, or a .toml file. Default: the model's.",
    ),
]
Scale = Annotated[
    float | None,
    option(
        "--scale",
        panel=SELECTION,
        **NUMBER,
        help="lambda: the ratio before the LLM over the average. Default: the schedule's, else 1.4.",
    ),
]
WindowTemperature = Annotated[
    float | None,
    option("--window-temperature", panel=SELECTION, **NUMBER, help="Of the window softmax. Default: the model's."),
]
ScoreWithName = Annotated[
    ScoreWith, option("--score-with", panel=SELECTION, help="The layer whose projections score tokens at a drop.")
]
ScoreNormName = Annotated[
    ScoreNorm,
    option("--score-norm", panel=SELECTION, help="standard: window scores to mean 0, deviation 1."),
]
StagesName = Annotated[
    Stages,
    option(
        "--stages",
        panel=SELECTION,
        help="1: choose before the LLM alone. 12: and by the question, for good. 123: text alone at the end.",
    ),
]
WindowBudgetsName = Annotated[
    WindowBudgets,
    option("--window-budgets", panel=SELECTION, help="query: more to windows that matter. uniform: all alike."),
]
SelectionSeed = Annotated[
    int, option("--selection-seed", panel=SELECTION, **WHOLE, help="Of --method random; each clip draws anew.")
]

Cache = Annotated[
    Path | None,
    option(
        "--cache",
        panel=CACHE,
        env="SEATS_CACHE",
        **PATH,
        metavar="<folder>",
        help="Folder of encoded clips: more questions about one cost no decoding and no encoding.",
    ),
]
CacheSize = Annotated[
    str,
    option(
        "--cache-size",
        panel=CACHE,
        env="SEATS_CACHE_SIZE",
        metavar="<size>",
        help="Most that is kept there, such as 500MB; clips that are longest unused go first.",
    ),
]

AsJson = Annotated[bool, option("--json", panel=OUTPUT, help="JSON on stdout, one object on a line.")]
Quiet = Annotated[bool, option("--quiet", "-q", panel=OUTPUT, help="Nothing but errors on stderr.")]
Verbose = Annotated[
    bool, option("--verbose", "-v", panel=OUTPUT, help="Show the trace of errors that were not expected.")
]

"""Options, frozen. User input is checked here, once; the rest of the house trusts it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from seats_cli.errors import UsageError

AudioMode = Literal["auto", "on", "off"]
PictureMode = Literal["auto", "off"]
KvCache = Literal["staged", "text"]
ScoreWith = Literal["previous", "next"]
ScoreNorm = Literal["none", "standard"]
Stages = Literal["1", "12", "123"]
WindowBudgets = Literal["query", "uniform"]
Attention = Literal["auto", "sdpa", "flash_attention_2", "eager"]
Weights = Literal["auto", "random"]
Suite = Literal["paper", "decode", "end-to-end", "memory", "growth"]
Decoder = Literal["pyav", "torchcodec", "nvdec"]
Dtype = Literal["auto", "float32", "float16", "bfloat16"]
Quant = Literal["none", "bnb-4bit", "bnb-8bit", "torchao-int8"]

SHIPPED_MODEL = "tiny"
"""Names the small model inside the package, for ``--model``."""
DEFAULT_MODEL = "Qwen/Qwen2.5-Omni-7B"
DEFAULT_TRRS = (0.35, 0.25, 0.15, 0.10)
SPREADING_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
"""Values of ``--device-map`` that spread a model over several places; any other is one device."""

DEFAULT_CACHE_SIZE = "20GB"
"""For ``--cache-size``."""

_SIZE = r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([kmgt]?)(i?)b"
_UNITS = {"b": 0, "kb": 1, "mb": 2, "gb": 3, "tb": 4}


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")


def _keep_ratio(name: str, value: float | None) -> None:
    if value is not None and not (math.isfinite(value) and 0.0 < value <= 1.0):
        raise UsageError(f"{name} is {value}; a token retention ratio lies in (0, 1]", "0.1 keeps a tenth")


def _positive(name: str, value: float | None) -> None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise UsageError(f"{name} is {value}; it must be greater than 0")


def parse_seconds(text: str, name: str = "time") -> float:
    """Read ``12.5``, ``1:02`` or ``1:02:03.5`` as seconds.

    Args:
        text: Seconds, ``mm:ss`` or ``hh:mm:ss``; the last part may have decimals.
        name: The option, for the error.

    Raises:
        UsageError: The text is neither, or is negative, or has minutes or seconds of 60 and more.
    """
    parts = text.strip().split(":")
    problem = UsageError(f"{name} is {text!r}; give seconds (12.5) or hh:mm:ss (0:01:02.5), not negative")
    # Python reads more as numbers than people write as times: 1_0, +3, digits of other scripts.
    if not 1 <= len(parts) <= 3 or any(not part or set(part) - set("0123456789.e-") for part in parts):
        raise problem
    if any(part.startswith("-") for part in parts):
        raise problem
    try:
        values = [*(float(int(part)) for part in parts[:-1]), float(parts[-1])]
    except ValueError:
        raise problem from None
    if not all(math.isfinite(v) and v >= 0 for v in values) or any(v >= 60 for v in values[1:]):
        raise problem
    return sum(v * 60.0**power for power, v in enumerate(reversed(values)))


def _n_bytes(found: re.Match[str]) -> int:
    """Of a match that ends with the three groups of ``_SIZE``."""
    amount, power, binary = found.groups()[-3:]
    return int(float(amount) * (1024 if binary else 1000) ** _UNITS[f"{power.lower()}b"])


def parse_size(text: str, name: str) -> int:
    """Read ``20GB`` or ``1.5 GiB`` as bytes.

    Args:
        text: A number and a unit.
        name: The option, for the error.

    Raises:
        UsageError: It is no such thing, or less than a byte.
    """
    found = re.fullmatch(rf"\s*{_SIZE}\s*", text, re.IGNORECASE)
    if found is None:
        raise UsageError(f"{name} is {text!r}; give how much, with a unit", "such as 20GB or 500MiB")
    if not (n_bytes := _n_bytes(found)):
        raise UsageError(f"{name} is {text!r}; it must be greater than 0")
    return n_bytes


def parse_max_memory(text: str) -> dict[int | str, int]:
    """Read ``0=20GiB,cpu=60GiB`` as bytes by GPU and for ``cpu``.

    Raises:
        UsageError: A part is no such thing, or names a place again.
    """
    limits: dict[int | str, int] = {}
    for part in text.split(","):
        found = re.fullmatch(rf"\s*(?:cuda:)?(cpu|[0-9]+)\s*=\s*{_SIZE}\s*", part, re.IGNORECASE)
        if found is None:
            raise UsageError(
                f"--max-memory has {part.strip()!r}; give the number of a GPU or cpu, and how much, with a unit",
                "such as 0=20GiB,cpu=60GiB",
            )
        place = found.group(1).lower()
        key = "cpu" if place == "cpu" else int(place)
        if key in limits:
            raise UsageError(f"--max-memory names {place} twice")
        limits[key] = _n_bytes(found)
    return limits


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaOptions:
    """What of a file is seen and heard.

    Attributes:
        fps: Frames sampled per second of clip time.
        max_frames: At most this many frames; when it binds they are spread uniformly. Rounded down to even.
        min_pixels: Least pixels per frame after resizing; None: the model's, or 128 merged tokens per grid.
        max_pixels: Most pixels per frame after resizing; None: the model's, or 144 merged tokens per grid.
        start_seconds: Begin of the part to use, from the start of the clip; None: the start.
        end_seconds: End of the part to use; None: the end.
        audio: ``auto``: heard when it can be; ``on``: a damaged track is an error; ``off``: not heard.
        require_audio: No audible track is an error.
        picture: ``auto``: seen when there is one; ``off``: not seen.
        decoder: Of the picture: FFmpeg in PyAV, torchcodec, or an NVIDIA GPU by PyAV. None stands in for another.
    """

    fps: float = 2.0
    max_frames: int = 768
    min_pixels: int | None = None
    max_pixels: int | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    audio: AudioMode = "auto"
    require_audio: bool = False
    picture: PictureMode = "auto"
    decoder: Decoder = "pyav"

    def __post_init__(self) -> None:
        _positive("--fps", self.fps)
        if self.max_frames < 2:
            raise UsageError(f"--max-frames is {self.max_frames}; two frames make one grid, so at least 2")
        _positive("--min-pixels", self.min_pixels)
        _positive("--max-pixels", self.max_pixels)
        low, high = self.min_pixels, self.max_pixels
        if low is not None and high is not None and low > high:
            raise UsageError(f"--min-pixels {low} is more than --max-pixels {high}")
        for name, value in (("--start", self.start_seconds), ("--end", self.end_seconds)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{name} is {value}; it must be 0 or more seconds")
        if self.end_seconds is not None and self.end_seconds <= (self.start_seconds or 0.0):
            raise UsageError(f"--end {self.end_seconds:g} s is not after --start {self.start_seconds or 0.0:g} s")
        _one_of("--audio", self.audio, get_args(AudioMode))
        _one_of("--decoder", self.decoder, get_args(Decoder))
        _one_of("picture", self.picture, get_args(PictureMode))
        if self.require_audio and self.audio == "off":
            raise UsageError("--require-audio contradicts --audio off")

    @property
    def nothing(self) -> bool:
        """Whether nothing of a clip is used: the question stands alone."""
        return self.audio == "off" and self.picture == "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionOptions:
    """Which tokens stay (METHOD: SEATS Sec. 4).

    Attributes:
        method: Name in ``selection.METHODS``.
        trr: Token retention ratio R in (0, 1]: tokens KEPT, averaged over all layers.
        video_trr: R_v, in place of the one that follows from ``trr``.
        audio_trr: R_a, likewise. Both or neither.
        scale: lambda, the Stage I ratio over R; None: the model's, or that of the schedule given.
        temperature: Of the window softmax in Stage II; None: the model's published one.
        score_with: Whose projections score the states: those of the layer they left, or of the next.
        score_norm: ``standard`` shifts and scales the windows' mean scores to mean 0, deviation 1.
        stages: Those of SEATS that run: ``1`` keeps R in every layer, ``12`` keeps the last level to the end.
        window_budgets: Of Stage II; ``uniform`` weighs all windows alike, ``query`` by their scores.
        selection_seed: Of the methods that draw; what is drawn depends on the clip too.
        kv_cache: ``staged`` keeps what each layer processed; ``text`` cuts every layer to what the last one
            processes, which is text unless ``stages`` or the method leaves more.
        drop_before_layer: b1 < b2 < b3 < b4, 0-based; None: the model's published ones, or by depth.
        schedule_layers: Depth of the model they are for; None: not said.
    """

    method: str = "seats"
    trr: float = 0.1
    video_trr: float | None = None
    audio_trr: float | None = None
    scale: float | None = None
    temperature: float | None = None
    score_with: ScoreWith = "previous"
    score_norm: ScoreNorm = "none"
    stages: Stages = "123"
    window_budgets: WindowBudgets = "query"
    selection_seed: int = 0
    kv_cache: KvCache = "staged"
    drop_before_layer: tuple[int, ...] | None = None
    schedule_layers: int | None = None

    def __post_init__(self) -> None:
        _keep_ratio("--trr", self.trr)
        _keep_ratio("--video-trr", self.video_trr)
        _keep_ratio("--audio-trr", self.audio_trr)
        if (self.video_trr is None) != (self.audio_trr is None):
            raise UsageError("--video-trr and --audio-trr go together", "give both, or --trr alone")
        if self.scale is not None and not (math.isfinite(self.scale) and self.scale >= 1.0):
            raise UsageError(f"--scale is {self.scale}; Stage I keeps at least the average, so 1 or more")
        _positive("--window-temperature", self.temperature)
        _one_of("--score-with", self.score_with, get_args(ScoreWith))
        _one_of("--score-norm", self.score_norm, get_args(ScoreNorm))
        _one_of("--stages", self.stages, get_args(Stages))
        _one_of("--window-budgets", self.window_budgets, get_args(WindowBudgets))
        if not 0 <= self.selection_seed < 2**63:
            raise UsageError(f"--selection-seed is {self.selection_seed}; it must be 0 or more and below 2**63")
        _one_of("--kv-cache", self.kv_cache, get_args(KvCache))

    @property
    def asks_for_all(self) -> bool:
        """Whether the ratios alone keep every token in every layer."""
        given = (self.trr,) if self.video_trr is None else (self.video_trr, self.audio_trr)
        return set(given) == {1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """How the answer is written.

    Attributes:
        max_new_tokens: Most tokens that are written, reasoning and answer together.
        temperature: 0 is greedy.
        top_p: Nucleus; only with a temperature.
        seed: Of the sampler; None: not fixed.
        system: System prompt; None: the chat template's own.
        choices: Labels to choose from; when given, the answer is the likeliest by first-token logits.
        thinking: Whether a model that reasons may; False: its chat template is told that it may not.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    system: str | None = None
    choices: tuple[str, ...] = ()
    thinking: bool = True

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UsageError(f"--max-new-tokens is {self.max_new_tokens}; it must be at least 1")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UsageError(f"--temperature is {self.temperature}; it must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"--top-p is {self.top_p}; it lies in (0, 1]")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed is {self.seed}; it must be 0 or more and below 2**63")
        if self.choices and len(self.choices) < 2:
            raise UsageError("--choices needs at least two labels, separated by commas")
        if len(set(self.choices)) != len(self.choices):
            raise UsageError(f"--choices has a label twice: {', '.join(self.choices)}")
        if any(not choice.strip() for choice in self.choices):
            raise UsageError("--choices has an empty label")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Which model, and how it is held.

    Attributes:
        model: Hugging Face Hub id or a folder.
        revision: Branch, tag or commit of a Hub id.
        dtype: ``auto``: bfloat16 on a GPU, float32 on the CPU.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
        device_map: Passed to accelerate (``auto``, ``balanced``, ...); None: one device.
        max_memory: Of weights, per place, for a map that spreads: ``0=20GiB,cpu=60GiB``; None: what is free.
        offload_folder: Where weights go that fit nowhere else; None: that is an error.
        quant: Of the decoder's linear layers, as they are loaded.
        attn: Attention kernel; ``auto`` takes the best that imports.
        offline: Never reach for the network.
        weights: ``random`` builds a named architecture with no download.
    """

    model: str = DEFAULT_MODEL
    revision: str | None = None
    dtype: Dtype = "auto"
    device: str = "auto"
    device_map: str | None = None
    max_memory: str | None = None
    offload_folder: str | None = None
    quant: Quant = "none"
    attn: Attention = "auto"
    offline: bool = False
    weights: Weights = "auto"

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise UsageError("--model is empty", f"give a Hub id such as {DEFAULT_MODEL}, or a folder")
        _one_of("--dtype", self.dtype, get_args(Dtype))
        _one_of("--quant", self.quant, get_args(Quant))
        _one_of("--attn", self.attn, get_args(Attention))
        _one_of("--weights", self.weights, get_args(Weights))
        if self.device_map is not None and self.device != "auto":
            raise UsageError(f"--device {self.device} contradicts --device-map {self.device_map}")
        for name, value in (("--max-memory", self.max_memory), ("--offload-folder", self.offload_folder)):
            if value is not None and self.device_map not in SPREADING_MAPS:
                raise UsageError(f"{name} is for a model in several places", "add --device-map auto")
        if self.max_memory is not None:
            parse_max_memory(self.max_memory)
        if self.offload_folder is not None and not self.offload_folder.strip():
            raise UsageError("--offload-folder is empty", "give a folder")

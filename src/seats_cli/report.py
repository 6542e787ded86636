"""The result of a run, frozen, and its JSON. docs/report.md gives every field its type, unit and meaning.

Raw units throughout: seconds, bytes, FLOPs. Anything a table shows is in here.
"""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, cast, get_args, get_origin, get_type_hints

from seats_cli.cost import Flops
from seats_cli.errors import SeatsError

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """The model that answered; ``weights`` is ``checkpoint``, ``random`` or ``none`` (nothing was run)."""

    id: str
    revision: str | None
    weights: str
    dtype: str
    device: str
    attention: str
    quant: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaInfo:
    """What of the file was seen and heard; ``fps`` is the true rate of the frames, ``cached``: encoded before."""

    path: str | None
    seconds_video: float
    seconds_audio: float
    frames: int
    fps: float | None
    audio_track: bool
    width: int | None = None
    height: int | None = None
    grids: int = 0
    windows: int = 0
    cached: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOne:
    """Tokens that enter the decoder."""

    video: int
    audio: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelsInfo:
    """Keep ratios of one modality between the drops, and the first step down (SEATS App. A)."""

    levels: tuple[float, ...]
    delta: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionInfo:
    """What was asked for and what came of it; ratios are fractions KEPT, averaged over the layers."""

    method: str
    trr: float | None
    video_trr: float | None
    audio_trr: float | None
    achieved_trr: float | None
    drop_before_layer: tuple[int, ...]
    kv_cache: str
    stage_one: StageOne | None = None
    stages: str | None = None
    window_budgets: str | None = None
    selection_seed: int | None = None
    video_levels: LevelsInfo | None = None
    audio_levels: LevelsInfo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTokens:
    """Tokens one decoder layer processes."""

    layer: int
    text: int
    video: int
    audio: int

    @property
    def total(self) -> int:
        """All modalities together."""
        return self.text + self.video + self.audio


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCounts:
    """The unpruned sequence, and what each layer processes of it."""

    text: int
    video: int
    audio: int
    per_layer: tuple[LayerTokens, ...]

    @property
    def total(self) -> int:
        """All modalities together, before anything is dropped."""
        return self.text + self.video + self.audio

    @property
    def achieved_trr(self) -> float | None:
        """Fraction of video and audio tokens kept, averaged over the layers; None without such tokens."""
        offered = (self.video + self.audio) * len(self.per_layer)
        return sum(layer.video + layer.audio for layer in self.per_layer) / offered if offered else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlopsInfo:
    """FLOPs of the decoder's prefill in two conventions; ``executed`` includes the selection's own work."""

    paper: Flops
    executed: Flops
    encoders_executed: int
    selection_executed: int
    paper_per_layer: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """Time per stage; 0 where there was nothing to do, None where it was not measured.

    The picture is decoded while what is there of it is encoded, so stages may add up to more than the way to the
    first token.
    """

    decode: float | None = None
    encode: float | None = None
    select: float | None = None
    prefill: float | None = None
    first_token: float | None = None
    answer: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One label of ``--choices`` and its share of the first token's probability."""

    label: str
    probability: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """Versions that made the report; None where a package was not needed."""

    seats: str
    torch: str | None
    transformers: str | None


def writable(text: str) -> str:
    """Text that any UTF-8 stream can carry: bytes of a file name that are not UTF-8 are written out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _json_safe(value: Any) -> Any:
    """Strict JSON values: no NaN or infinity, no lone surrogate, objects in field order."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _json_safe(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return fields | {"reduction": _json_safe(value.reduction)} if isinstance(value, Flops) else fields
    if isinstance(value, Mapping):
        return {_json_safe(str(key)): _json_safe(item) for key, item in value.items()}
    if isinstance(value, str):
        return writable(value)
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):  # numpy's too
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Sequence):
        return [_json_safe(item) for item in value]
    return value if value is None or isinstance(value, bool) else int(value)


def _build(kind: Any, value: Any, where: str) -> Any:
    """The reverse of ``_json_safe``, guided by the field types; ``where`` names the place in errors."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is types.UnionType:  # always ``X | None`` here
        return None if value is None else _build(arguments[0], value, where)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, _expect(dict, value, where), where)
    if origin is tuple:
        items = _expect(list, value, where)
        return tuple(_build(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if origin is dict:
        items = _expect(dict, value, where)
        return {key: _build(arguments[1], item, f"{where}.{key}") for key, item in items.items()}
    if isinstance(kind, type) and issubclass(kind, tuple):
        return kind(*(_expect((int, float), item, where) for item in _expect(list, value, where)))
    return _expect((int, float) if kind is float else kind, value, where)


def _build_dataclass(kind: Any, value: dict[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    prefix = f"{where}." if where else ""
    missing = [prefix + name for name in hints if name not in value]
    if missing:
        raise SeatsError(f"the report lacks {', '.join(missing)}", "was it written by another version?")
    return kind(**{name: _build(hint, value[name], prefix + name) for name, hint in hints.items()})


def _expect(kind: Any, value: Any, where: str) -> Any:
    if kind is Any or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool))):
        return value
    problem = f"the report's {where or 'top level'} is {value!r:.60}"
    raise SeatsError(problem, "docs/report.md gives its type")


class JsonRecord:
    """What is written as an object of JSON and read back; the subclasses are frozen dataclasses."""

    __slots__ = ()

    def to_json(self, indent: int | None = None) -> str:
        """Write strict JSON with the keys of docs/report.md.

        Numbers that are not finite become null, UTF-8 is not escaped, and bytes of a file name that are not
        text are written as a backslash, ``udc`` and two hexadecimal digits.

        Args:
            indent: Spaces per level; None: one line.
        """
        return json.dumps(_json_safe(self), ensure_ascii=False, allow_nan=False, indent=indent)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what ``to_json`` wrote; keys it does not know are passed over.

        Raises:
            SeatsError: Not JSON, another schema version, a missing key, or a value of the wrong kind.
        """
        try:
            value = json.loads(text)
        except ValueError as error:
            raise SeatsError(f"the report is not JSON: {error}") from None
        version = _expect(dict, value, "").get("schema_version")
        if version != SCHEMA_VERSION:
            problem = f"the report has schema_version {version!r}; this version reads {SCHEMA_VERSION}"
            raise SeatsError(problem)
        return cast("Self", _build(cls, value, ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(JsonRecord):
    """One clip, one question, one answer; ``thinking`` is the reasoning before it, None where there was none."""

    schema_version: int = SCHEMA_VERSION
    command: str = "ask"
    question: str
    answer: str
    finish_reason: str
    answer_tokens: int
    thinking: str | None = None
    thinking_tokens: int = 0
    decode_path: str | None = None
    choices: tuple[Choice, ...] = ()
    model: ModelInfo
    media: MediaInfo
    selection: SelectionInfo
    tokens: TokenCounts
    flops: FlopsInfo
    seconds: Seconds
    memory_bytes: int | None
    versions: Versions
    warnings: tuple[str, ...] = ()


class Spread(NamedTuple):
    """Least, greatest and interquartile range of a stage's runs, seconds; a list in the JSON."""

    minimum: float
    maximum: float
    iqr: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedup:
    """How many times faster than the full run, from medians; None where either was not measured."""

    prefill: float | None = None
    select_and_prefill: float | None = None
    encode_and_prefill: float | None = None

    @classmethod
    def between(cls, full: Seconds, other: Seconds) -> Self:
        """Compare two settings' medians.

        Args:
            full: The run that keeps every token.
            other: The run compared with it.
        """

        def ratio(*stages: str) -> float | None:
            before, after = ([getattr(seconds, stage) for stage in stages] for seconds in (full, other))
            known = None not in before and None not in after
            return float(sum(before) / sum(after)) if known and sum(after) else None

        return cls(
            prefill=ratio("prefill"),
            select_and_prefill=ratio("select", "prefill"),
            encode_and_prefill=ratio("encode", "select", "prefill"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What was prefilled; ``source`` is ``clip`` or ``synthetic``."""

    source: str
    frames: int
    seconds: float
    grids: int
    tokens_per_grid: int
    text_tokens: int
    video_tokens: int
    audio_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleInfo:
    """Where and how the decoder drops; the same for every setting of a profile."""

    layers: int
    drop_before_layer: tuple[int, ...]
    scale: float
    temperature: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingReport:
    """One variant of a profile: ``seconds`` are medians over the runs, ``memory_bytes`` the largest peak."""

    label: str
    selection: SelectionInfo
    tokens: TokenCounts
    flops: FlopsInfo
    seconds: Seconds
    spread: dict[str, Spread]
    memory_bytes: int | None
    speedup: Speedup


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileReport(JsonRecord):
    """Prefill of every setting on one workload; with ``--analytic`` nothing was run and times are None."""

    schema_version: int = SCHEMA_VERSION
    command: str = "profile"
    model: ModelInfo
    media: MediaInfo | None
    workload: Workload
    schedule: ScheduleInfo
    runs: int
    warmup: int
    note: str
    settings_measured: tuple[SettingReport, ...]
    versions: Versions
    warnings: tuple[str, ...] = ()

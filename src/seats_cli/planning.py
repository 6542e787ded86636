"""The result of a plan, frozen, and its JSON: what a clip will take, before any weight is loaded.

docs/report.md gives every field its type, unit and meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seats_cli.report import (
    SCHEMA_VERSION,
    FlopsInfo,
    JsonRecord,
    MediaInfo,
    ModelInfo,
    SelectionInfo,
    TokenCounts,
    Versions,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryInfo:
    """Bytes by what they are for; ``least`` is a bound, ``expected`` what a run is likely to peak at."""

    weights: int
    weights_decoder: int
    weights_encoders: int
    embeddings: int
    kv_cache: int
    answer_room: int
    libraries: int
    peak_stage: str
    least: int
    expected: int
    available: int | None
    fits: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSeconds:
    """Expected, rough; ``answer`` is with as many tokens as ``--max-new-tokens`` allows."""

    decode: float | None
    encode: float
    select: float
    prefill: float
    first_token: float | None
    answer_token: float
    answer: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What the times follow from: what was measured here for a moment, and what is assumed."""

    flops_per_second: float
    bytes_per_second: float
    pixels_per_second: float | None
    encode_efficiency: float
    prefill_efficiency: float
    host_seconds_per_layer: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport(JsonRecord):
    """One clip; nothing was run."""

    schema_version: int = SCHEMA_VERSION
    command: str = "plan"
    model: ModelInfo
    media: MediaInfo
    selection: SelectionInfo
    tokens: TokenCounts
    text_counted: str
    flops: FlopsInfo
    max_new_tokens: int
    memory: MemoryInfo
    seconds: PlannedSeconds | None
    rates: Rates | None
    versions: Versions
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTotal(JsonRecord):
    """Several clips together. Times add up, memory does not: ``expected_bytes`` is that of the largest clip."""

    schema_version: int = SCHEMA_VERSION
    command: str = "plan-total"
    clips: int
    failed: int
    frames: int
    tokens: int
    tokens_into_llm: int
    paper_full: int
    paper_pruned: int
    encoders_executed: int
    least_bytes: int | None
    expected_bytes: int | None
    do_not_fit: int
    seconds_first_token: float | None
    seconds_answer: float | None
    warnings: int


def total_of(plans: Sequence[PlanReport], failed: int) -> PlanTotal:
    """Add up.

    Args:
        plans: Of the clips that could be read; may be none.
        failed: Clips that could not.
    """

    def seconds(stage: str) -> float | None:
        found = [None if plan.seconds is None else getattr(plan.seconds, stage) for plan in plans]
        known = [value for value in found if value is not None]
        return sum(known) if known and len(known) == len(found) else None

    return PlanTotal(
        clips=len(plans) + failed,
        failed=failed,
        frames=sum(plan.media.frames for plan in plans),
        tokens=sum(plan.tokens.total for plan in plans),
        tokens_into_llm=sum(plan.tokens.per_layer[0].total for plan in plans),
        paper_full=sum(plan.flops.paper.full for plan in plans),
        paper_pruned=sum(plan.flops.paper.pruned for plan in plans),
        encoders_executed=sum(plan.flops.encoders_executed for plan in plans),
        least_bytes=max((plan.memory.least for plan in plans), default=None),
        expected_bytes=max((plan.memory.expected for plan in plans), default=None),
        do_not_fit=sum(plan.memory.fits is False for plan in plans),
        seconds_first_token=seconds("first_token"),
        seconds_answer=seconds("answer"),
        warnings=sum(len(plan.warnings) for plan in plans),
    )

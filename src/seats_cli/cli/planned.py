"""A plan -> what a terminal shows: one clip stage by stage, several with a row each and what they come to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from seats_cli.errors import counted
from seats_cli.render import (
    NOTHING,
    Page,
    flow,
    human_bytes,
    human_flops,
    human_seconds,
    human_times,
    media_parts,
    model_parts,
    plain,
    selection_parts,
    table,
    text_line,
    token_lines,
    warning_lines,
    without_empty,
)

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from seats_cli.planning import MemoryInfo, PlanReport, PlanTotal

ROUGH = "times are expected, rough: this machine measured for a moment, models assumed to reach a share of that"


def _memory_rows(memory: MemoryInfo) -> list[list[str]]:
    parts = {
        "weights": memory.weights,
        "embeddings kept": memory.embeddings,
        "keys and values": memory.kv_cache,
        "at least": memory.least,
        f"expected, at its peak in {memory.peak_stage}": memory.expected,
        "there is": memory.available,
    }
    return [[name, human_bytes(n_bytes)] for name, n_bytes in parts.items()]


def _flops_rows(report: PlanReport) -> list[list[str]]:
    pairs = (("paper", report.flops.paper), ("executed", report.flops.executed))
    rows = [[n, human_flops(p.full), human_flops(p.pruned), human_times(p.reduction)] for n, p in pairs]
    return [*rows, ["encoders", NOTHING, human_flops(report.flops.encoders_executed), NOTHING]]


def _time_lines(report: PlanReport, width: int) -> list[Text]:
    seconds = report.seconds
    if seconds is None:
        return []
    stages = ("decode", "encode", "select", "prefill", "first_token")
    parts = [f"{stage.replace('_', ' ')} {human_seconds(getattr(seconds, stage))}" for stage in stages]
    parts.append(f"answer token {human_seconds(seconds.answer_token)}")
    most = human_seconds(seconds.answer)
    parts.append(f"answer at most {most} with {counted(report.max_new_tokens, 'token')}")
    return [*flow(parts, width, "  "), text_line(ROUGH, style="dim")]


def _one(report: PlanReport, width: int) -> list[Text]:
    lines = flow(["seats plan", *_model_parts(report)], width, "  ")
    lines += flow(media_parts(report.media), width, "  ")
    lines += [*flow(selection_parts(report.selection), width, "  "), text_line()]
    lines += [*token_lines(report.tokens, width, report.flops.paper_per_layer), text_line()]
    lines += [*table(["prefill", "full", "pruned", "fewer"], _flops_rows(report), width), text_line()]
    lines += [*table(["memory", ""], _memory_rows(report.memory), width), text_line()]
    return lines + _time_lines(report, width) + warning_lines(report.warnings)


def _model_parts(report: PlanReport) -> list[str | Text]:
    model = report.model
    return [*model_parts(model), *(plain(part) for part in (model.device, model.dtype, model.quant) if part)]


def _row(report: PlanReport) -> list[str]:
    seconds, media = report.seconds, report.media
    first, last = (None, None) if seconds is None else (seconds.first_token, seconds.answer)
    return [
        plain(media.path or NOTHING),
        human_seconds(max(media.seconds_video, media.seconds_audio)),
        str(media.frames),
        f"{report.tokens.total}→{report.tokens.per_layer[0].total}",
        human_flops(report.flops.paper.pruned),
        human_bytes(report.memory.expected),
        human_seconds(first),
        human_seconds(last),
    ]


def _several(reports: Sequence[PlanReport], total: PlanTotal, width: int) -> list[Text]:
    lines = [*flow(["seats plan", *_model_parts(reports[0])], width, "  ")]
    lines += [*flow(_shared_parts(reports), width, "  "), text_line()]
    header = ["clip", "length", "frames", "tokens", "FLOPs", "memory", "first token", "answer at most"]
    summed = [
        counted(len(reports), "clip"),
        human_seconds(sum(max(r.media.seconds_video, r.media.seconds_audio) for r in reports)),
        str(total.frames),
        f"{total.tokens}→{total.tokens_into_llm}",
        human_flops(total.paper_pruned),
        human_bytes(total.expected_bytes),
        human_seconds(total.seconds_first_token),
        human_seconds(total.seconds_answer),
    ]
    lines += [*table(*without_empty(header, [*map(_row, reports), summed]), width), text_line()]
    least, there = human_bytes(total.least_bytes), human_bytes(reports[0].memory.available)
    lines.append(text_line(f"memory is that of the largest clip: at least {least}, of {there}", style="dim"))
    if total.do_not_fit:
        lines.append(text_line(f"do not fit: {counted(total.do_not_fit, 'clip')}", style="yellow"))
    if total.failed:
        lines.append(text_line(f"cannot be read: {counted(total.failed, 'clip')}", style="yellow"))
    return [*lines, text_line(ROUGH, style="dim")] if reports[0].seconds is not None else lines


def _shared_parts(reports: Sequence[PlanReport]) -> list[str | Text]:
    """What was asked of every clip alike."""
    chosen = reports[0].selection
    ratio = [] if chosen.trr is None else [f"R {chosen.trr:.3g}"]
    return [plain(chosen.method), *ratio, f"cache {plain(chosen.kv_cache)}"]


def render_plan(report: PlanReport) -> RenderableType:
    """Lay out the plan of one clip.

    Args:
        report: What to show.
    """
    return Page(lambda width: _one(report, width))


def render_plans(reports: Sequence[PlanReport], total: PlanTotal) -> RenderableType:
    """Lay out the plans of several clips, their warnings left out.

    Args:
        reports: At least one.
        total: Of them.
    """
    return Page(lambda width: _several(reports, total, width))

"""An evaluation -> what a terminal shows: the settings, the categories, and the settings compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from seats_cli.errors import counted
from seats_cli.render import (
    NOTHING,
    Page,
    flow,
    human_percent,
    human_seconds,
    model_parts,
    plain,
    table,
    text_line,
    warning_lines,
    without_empty,
)

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from seats_cli.evaluation import Comparison, EvalReport, SettingScore
    from seats_cli.statistics import Interval


def _span(interval: Interval | None, *, signed: bool = False) -> str:
    """``68.6 to 80.5`` in per cent."""
    if interval is None:
        return NOTHING
    low, high = (f"{100 * end:+.1f}" if signed else f"{100 * end:.1f}" for end in interval)
    return f"{low} to {high}"


def _setting_row(score: SettingScore) -> list[str]:
    return [
        plain(score.label),
        str(score.n),
        str(score.failed) if score.failed else NOTHING,
        human_percent(score.accuracy),
        _span(score.ci95),
        human_percent(score.achieved_trr),
        human_seconds(score.seconds),
    ]


def _category_rows(results: Sequence[SettingScore]) -> list[list[str]]:
    """A row per category; the rows that count may differ where some failed, so the largest number is shown."""
    rows = []
    for name in results[0].by_category:
        scores = [result.by_category[name] for result in results]
        cells = [NOTHING if s.ci95 is None else f"{human_percent(s.accuracy)} ({_span(s.ci95)})" for s in scores]
        rows.append([plain(name), str(max(score.n for score in scores)), *cells])
    return rows


def _pair_row(pair: Comparison) -> list[str]:
    return [
        plain(pair.setting),
        str(pair.n),
        f"{100 * pair.difference:+.1f}",
        _span(pair.ci95, signed=True),
        f"{pair.only} : {pair.only_reference}",
        f"{pair.mcnemar_p:.2g}",
        human_percent(pair.kept),
        _span(pair.kept_ci95),
    ]


def _without(report: EvalReport) -> list[str]:
    left_out = [what for what, key in (("picture", "picture"), ("sound", "audio")) if report.media[key] == "off"]
    return [f"without {' and '.join(left_out)}"] if left_out else []


def _lines(report: EvalReport, width: int) -> list[Text]:
    lines = flow(["seats eval", *model_parts(report.model)], width, "  ")
    rows = counted(report.rows, "row")
    lines += [*flow([plain(report.file), rows, *_without(report)], width, "  "), text_line()]
    header = ["setting", "n", "failed", "right", "95 %", "kept R", "seconds"]
    lines += [*table(*without_empty(header, [_setting_row(r) for r in report.results]), width), text_line()]
    if report.by_category:
        header = ["category", "n", *(plain(result.label) for result in report.results)]
        lines += [*table(header, _category_rows(report.results), width), text_line()]
    if report.paired:
        header = ["in pairs", "n", "difference", "95 %", "only : only", "p", "accuracy kept", "95 %"]
        lines += [*table(header, [_pair_row(pair) for pair in report.paired], width), text_line()]
        reference = plain(report.paired[0].reference)
        about = f"against {reference}, in points; only : only are right under one alone, p is McNemar's, exact"
        lines.append(text_line(about, style="dim"))
    if any(result.seconds is not None for result in report.results):
        lines.append(text_line("seconds: median of selection, prefill and answer of a row", style="dim"))
    return lines + warning_lines(report.warnings)


def render_scores(report: EvalReport) -> RenderableType:
    """Lay out an evaluation.

    Args:
        report: What to show.
    """
    return Page(lambda width: _lines(report, width))

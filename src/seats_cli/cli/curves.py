"""A probe -> what a terminal shows: the curves, a row per layer, and the boundaries they propose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from seats_cli.errors import counted
from seats_cli.probing import CURVES, DECISIVE
from seats_cli.render import (
    NOTHING,
    Page,
    flow,
    human_percent,
    model_parts,
    plain,
    table,
    text_line,
    warning_lines,
)

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from seats_cli.probing import Point, ProbeReport

MARKS = {"video": "v", "audio": "a", "both": "o"}
STYLES = {"video": "blue", "audio": "yellow", "both": "bold red"}
CHART_ROWS, MARGIN, WIDEST_STEP = 10, 6, 4
"""Steps of accuracy in the chart, columns left of it, and columns from one layer to the next."""


def _cells(curves: Mapping[str, Sequence[Point]], drops: Sequence[int], step: int) -> list[list[tuple[str, str]]]:
    """Characters and their styles, the highest row first; where curves meet, ``both`` is seen."""
    width = step * (len(curves[DECISIVE]) - 1) + 1
    grid = [[(" ", "")] * width for _ in range(CHART_ROWS + 1)]
    for layer in drops:
        for row in grid:
            row[step * layer] = ("|", "dim")
    for name in CURVES:
        for point in curves[name]:
            height = CHART_ROWS - round(CHART_ROWS * point.accuracy)
            grid[height][step * point.layer] = (MARKS[name], STYLES[name])
    return grid


def _numbers(n_layers: int, step: int) -> str:
    """Layer numbers below the chart, as many as there is room for; the last one always."""
    every = next(n for n in (1, 2, 4, 5, 10, 20, 50, 100, 1000) if n * step >= len(str(n_layers)) + 1)
    line = [" "] * (step * n_layers + 1 + len(str(n_layers)))
    shown = [layer for layer in range(0, n_layers, every) if n_layers - layer >= every]
    for layer in (*shown, n_layers):
        for place, digit in enumerate(str(layer)):
            line[step * layer + place] = digit
    return "".join(line).rstrip()


def chart_lines(curves: Mapping[str, Sequence[Point]], drops: Sequence[int], width: int) -> list[Text]:
    """A chart of the curves, accuracy upwards and layers to the right; nothing where it does not fit.

    Args:
        curves: By what is removed.
        drops: b1..b4, as vertical lines.
        width: Columns there are.
    """
    n_layers = len(curves[DECISIVE]) - 1
    step = min(WIDEST_STEP, (width - MARGIN - 2) // n_layers)
    if step < 1:
        return []
    lines = []
    for index, row in enumerate(_cells(curves, drops, step)):
        label = f"{100 - 100 * index // CHART_ROWS} %" if index % 2 == 0 else ""
        line = text_line(f"{label:>{MARGIN - 1}} ", style="")
        for char, style in row:
            line.append(char, style=style)
        line.rstrip()
        lines.append(line)
    lines.append(text_line(" " * MARGIN + _numbers(n_layers, step), style="dim"))
    legend = [text_line().append(MARKS[name], style=STYLES[name]).append(f" {name}") for name in CURVES]
    if drops:
        legend.append(text_line().append("|", style="dim").append(" b1 to b4"))
    return [*lines, *flow(["accuracy without, from that layer on", *legend], width, "  ")]


def _rows(report: ProbeReport) -> list[list[str]]:
    names = {layer: f"b{place}" for place, layer in enumerate(report.proposal.drop_before_layer, start=1)}
    rows = []
    for points in zip(*(report.curves[name] for name in CURVES), strict=True):
        layer, (low, high) = points[-1].layer, points[-1].ci95
        name = f"{layer}, nothing" if layer == report.layers else f"{layer}  {names.get(layer, '')}".rstrip()
        span = f"{100 * low:.1f} to {100 * high:.1f}"
        rows.append([name, *(human_percent(point.accuracy) for point in points), span])
    return rows


def _layers(drops: Sequence[int]) -> str:
    return ", ".join(map(str, drops)) or NOTHING


def _probe(report: ProbeReport, width: int) -> list[Text]:
    found = report.proposal
    lines = flow(["seats probe", *model_parts(report.model)], width, "  ")
    about = [
        counted(report.n, "question"),
        counted(report.clips, "clip"),
        counted(report.layers, "layer"),
    ]
    about += [f"{report.failed} failed"] if report.failed else []
    about += [f"category {plain(name)}" for name in report.categories]
    lines += [*flow([plain(report.file), *about], width, "  "), text_line()]
    chart = chart_lines(report.curves, found.drop_before_layer, width)
    lines += [*chart, text_line()] if chart else []
    header = ["removed before", *CURVES, f"95 % of {DECISIVE}"]
    fractions = [point.accuracy for point in report.curves[DECISIVE]]
    lines += [*table(header, _rows(report), width, fractions), text_line()]
    proposed = text_line().append(f"proposed b1 to b4: {_layers(found.drop_before_layer)}", style="bold")
    scale = [f"scale {found.scale:g}"] if found.scale is not None else []
    lines += flow([proposed, *scale, f"the model's: {_layers(report.model_drop_before_layer)}"], width, "  ")
    lines += [text_line(f"note: {plain(note)}", style="yellow") for note in found.notes]
    return lines + warning_lines(report.warnings)


def render_probe(report: ProbeReport) -> RenderableType:
    """Lay out a probe: a chart where there is room, a row per layer, the boundaries.

    Args:
        report: What to show.
    """
    return Page(lambda width: _probe(report, width))

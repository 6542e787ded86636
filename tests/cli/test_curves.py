"""A probe on a terminal: every figure at every width, points where they belong, nothing but ASCII in the chart."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from seats_cli.cli.curves import MARGIN, MARKS, chart_lines, render_probe
from seats_cli.probing import ProbeReport
from tests.test_probing import outcomes_of, report_of

RISE = outcomes_of(28, [16, 17, 18, 20, 22, 23, 29, 29], always=2)


def shown(report: ProbeReport, width: int, encoding: str = "utf-8") -> list[str]:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=out, width=width, highlight=False).print(render_probe(report))
    out.flush()
    return out.buffer.getvalue().decode(encoding).splitlines()


@pytest.mark.parametrize("width", [30, 50, 80, 120, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_all_figures_at_every_width(width: int, encoding: str) -> None:
    report = report_of(RISE, rows=11, warnings=["something odd"], categories=["a [b]"])
    lines = shown(report, width, encoding)
    assert all(cell_len(line) <= width for line in lines)
    text = " ".join(" ".join(lines).split())
    for point in report.curves["both"]:
        assert f"{100 * point.accuracy:.1f} %" in text
        assert f"{100 * point.ci95[0]:.1f} to {100 * point.ci95[1]:.1f}" in text
    for words in ("10 questions", "1 failed", "something odd", "a [b]", "16, 18, 20, 23"):
        assert words in text
    assert ", ".join(map(str, report.proposal.drop_before_layer)) in text


@pytest.mark.parametrize("width", [40, 60, 130])
def test_points_stand_where_they_belong(width: int) -> None:
    outcomes = [
        {name: tuple((layer >= first) for layer in range(29)) for name, first in zip(MARKS, firsts, strict=True)}
        for firsts in [(10, 5, 20)] * 3 + [(29, 29, 29)] * 2
    ]
    report = report_of(outcomes)
    lines = [line.plain for line in chart_lines(report.curves, (), width)][:11]
    step = min(4, (width - MARGIN - 2) // 28)
    for name, mark in MARKS.items():
        for point in report.curves[name]:
            seen = lines[10 - round(10 * point.accuracy)].ljust(width)[MARGIN + step * point.layer]
            here = {MARKS[n] for n in MARKS if report.curves[n][point.layer].accuracy == point.accuracy}
            assert seen in here
            assert (seen == mark) or len(here) > 1
    assert all(line.isascii() for line in lines)


def test_a_terminal_too_narrow_for_the_chart_has_the_table() -> None:
    report = report_of(RISE)
    assert chart_lines(report.curves, (), 28 + MARGIN + 1) == []
    assert chart_lines(report.curves, (), 28 + MARGIN + 2) != []


@pytest.mark.parametrize("n_layers", [1, 3, 12, 28, 48, 120])
@pytest.mark.parametrize("width", [60, 100, 200])
def test_the_axis_names_the_first_and_the_last_layer_below_their_points(n_layers: int, width: int) -> None:
    report = report_of(outcomes_of(n_layers, [1]))
    lines = chart_lines(report.curves, (), width)
    if not lines:
        assert width < n_layers + MARGIN + 2
        return
    axis = lines[11].plain
    step = min(4, (width - MARGIN - 2) // n_layers)
    numbers = {MARGIN + step * layer: str(layer) for layer in map(int, axis.split())}
    assert {"0", str(n_layers)} <= set(numbers.values())
    for place, number in numbers.items():
        assert axis[place : place + len(number)] == number


def test_notes_are_shown() -> None:
    flat = report_of(outcomes_of(28, [], always=3))
    assert any(line.startswith("note: the clips do not help") for line in shown(flat, 200))

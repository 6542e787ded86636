"""Figures and ratios: medians, spreads, rounds compared with themselves, and the way to JSON and back."""

from __future__ import annotations

import json
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seats_cli.figures import Figure, Ratio, SuiteReport
from seats_cli.report import ModelInfo, Spread, Versions
from tests.test_report import documented

VALUES = st.lists(st.floats(0.001, 1000), min_size=1, max_size=9)


@given(VALUES)
def test_a_figure_is_the_median_with_its_spread(values: list[float]) -> None:
    figure = Figure.of("full", "prefill", "s", values)
    assert figure.median == pytest.approx(statistics.median(values))
    assert (figure.spread.minimum, figure.spread.maximum) == (min(values), max(values))
    assert 0 <= figure.spread.iqr <= max(values) - min(values)


@given(st.lists(st.tuples(st.floats(0.001, 1000), st.floats(0.001, 1000)), min_size=1, max_size=9))
def test_a_ratio_compares_each_round_with_itself(pairs: list[tuple[float, float]]) -> None:
    over, under = zip(*pairs, strict=True)
    ratio = Ratio.of("a / b", over, under)
    assert ratio is not None
    assert ratio.median == pytest.approx(statistics.median(a / b for a, b in pairs))
    assert ratio.spread.minimum <= ratio.median <= ratio.spread.maximum


def test_a_machine_that_slows_down_changes_no_ratio() -> None:
    ratio = Ratio.of("a / b", [4.0, 8.0, 40.0], [1.0, 2.0, 10.0])
    assert ratio == Ratio(name="a / b", median=4.0, spread=Spread(4.0, 4.0, 0.0))


def test_without_a_divisor_there_is_no_ratio() -> None:
    assert Ratio.of("a / b", [1.0, 2.0], [0.0, 1.0]) is None
    with pytest.raises(ValueError, match="shorter"):
        Ratio.of("a / b", [1.0, 2.0], [1.0])


INFO = ModelInfo(
    id="m", revision=None, weights="random", dtype="float32", device="cpu", attention="sdpa", quant=None
)
REPORT = SuiteReport(
    suite="paper",
    model=INFO,
    machine="2 CPU cores",
    workload="128 frames",
    runs=3,
    warmup=1,
    note="",
    figures=(Figure.of("full", "prefill", "s", [1.0, 3.0, 2.0]),),
    ratios=(Ratio(name="a / b", median=2.0, spread=Spread(1.0, 3.0, 1.0)),),
    versions=Versions(seats="0", torch="2", transformers="5"),
)


def test_to_json_and_back() -> None:
    assert SuiteReport.from_json(REPORT.to_json()) == REPORT
    assert REPORT.figure("full", "prefill") is REPORT.figures[0]
    assert REPORT.figure("full", "encode") is None


def keys(value: object, prefix: str = "") -> set[str]:
    """Every key, as docs/report.md writes it."""
    if isinstance(value, dict):
        inside = {name: keys(item, f"{prefix}.{name}" if prefix else name) for name, item in value.items()}
        return {f"{prefix}.{name}" if prefix else name for name in value}.union(*inside.values())
    if isinstance(value, list):
        return set().union(*(keys(item, f"{prefix}[]") for item in value))
    return set()


def test_keys_and_documentation_agree() -> None:
    as_in_ask = {name for name in keys(json.loads(REPORT.to_json())) if name.startswith(("model.", "versions."))}
    assert keys(json.loads(REPORT.to_json())) - as_in_ask == set(documented("profile --suite"))

"""Levels and boundaries against published numbers, a bisection, and their laws."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from seats_cli.config import Stages
from seats_cli.errors import UsageError
from seats_cli.selection.schedule import (
    boundaries_by_depth,
    largest_keep_ratio,
    solve_levels,
    validate_boundaries,
)
from tests.oracles import selection as oracle

CHECKED = settings(deadline=None, max_examples=200, derandomize=True)
QWEN2_5 = (16, 18, 20, 23)
QWEN3 = (27, 31, 35, 39)
depths = st.integers(5, 80)
ratios = st.floats(0.001, 1.0)
every_stages = st.sampled_from(["1", "12", "123"])


@st.composite
def schedules(draw: st.DrawFn) -> tuple[int, tuple[int, ...]]:
    n_layers = draw(depths)
    drops = draw(st.lists(st.integers(1, n_layers - 1), min_size=4, max_size=4, unique=True))
    return n_layers, tuple(sorted(drops))


def test_published_schedule_of_qwen2_5_omni_7b() -> None:
    levels = solve_levels(0.3, 28, (16, 18, 20, 23))
    assert levels.delta == pytest.approx(0.0295, abs=5e-5)
    assert 0.3 * (28 - 1.4 * 23) / levels.delta == pytest.approx(-42.759, abs=5e-4)
    assert levels.fractions == pytest.approx((0.9298, 0.7949, 0.2986), abs=5e-5)
    assert levels.levels[0] == pytest.approx(0.42)


@CHECKED
@given(schedules(), ratios, st.floats(1.0, 3.0), every_stages)
def test_average_over_the_layers_is_the_ratio(
    schedule: tuple[int, tuple[int, ...]], ratio: float, scale: float, stages: Stages
) -> None:
    n_layers, drops = schedule
    try:
        levels = solve_levels(ratio, n_layers, drops, scale, stages)
    except UsageError:
        assume(False)
    per_layer = [levels.at_layer(i) for i in range(n_layers)]
    assert sum(per_layer) / n_layers == pytest.approx(ratio, rel=1e-9)
    assert per_layer == sorted(per_layer, reverse=True)
    assert all(0 <= level <= 1 for level in per_layer)
    assert levels.delta >= 0
    if ratio < 1:
        expected = oracle.level_in_layers(ratio, n_layers, drops, scale, stages)
        assert per_layer == pytest.approx(expected, abs=1e-9)
        assert levels.drop_before_layer == drops[: {"1": 0, "12": 3, "123": 4}[stages]]
        assert (set(per_layer[drops[3] :]) == {0.0}) == (stages == "123" or levels.levels[3] == 0)


@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.35, 0.6, 0.714, 0.75, 0.8])
@pytest.mark.parametrize("preset", [(28, QWEN2_5), (48, QWEN3)])
def test_published_schedules_reach_every_ratio(preset: tuple[int, tuple[int, ...]], ratio: float) -> None:
    n_layers, published = preset
    levels = solve_levels(ratio, n_layers, published)
    expected = oracle.level_in_layers(ratio, n_layers, published, 1.4)
    assert [levels.at_layer(i) for i in range(n_layers)] == pytest.approx(expected, abs=1e-12)
    assert levels.levels[0] == min(1.4 * ratio, 1.0)


def test_fractions_do_not_depend_on_the_ratio() -> None:
    reference = solve_levels(0.3, 28, QWEN2_5).fractions
    for ratio in (0.02, 0.1, 0.35, 0.7):
        assert solve_levels(ratio, 28, QWEN2_5).fractions == pytest.approx(reference)


def test_everything_kept_means_late_layers_too() -> None:
    levels = solve_levels(1.0, 28, QWEN2_5)
    assert [levels.at_layer(i) for i in range(28)] == [1.0] * 28
    assert levels.fractions == (1.0, 1.0, 1.0)
    assert levels.drop_before_layer == ()


def test_largest_ratio_is_feasible_and_drops_only_at_the_end() -> None:
    largest = largest_keep_ratio(28, QWEN2_5)
    assert largest == 23 / 28
    assert solve_levels(largest, 28, QWEN2_5).levels == (1.0, 1.0, 1.0, 1.0)
    with pytest.raises(UsageError):
        solve_levels(largest + 1e-6, 28, QWEN2_5)


@pytest.mark.parametrize("preset", [(28, QWEN2_5), (48, QWEN3)])
@pytest.mark.parametrize("stages", ["1", "12"])
def test_without_the_third_stage_every_ratio_is_feasible_at_the_published_scale(
    preset: tuple[int, tuple[int, ...]], stages: Stages
) -> None:
    n_layers, published = preset
    for ratio in (0.001, 0.1, 0.5, 0.72, 0.9, 0.999, 1.0):
        levels = solve_levels(ratio, n_layers, published, 1.4, stages)
        assert sum(levels.at_layer(i) for i in range(n_layers)) / n_layers == pytest.approx(ratio)
        assert levels.at_layer(n_layers - 1) > 0


def test_a_scale_too_large_without_the_third_stage_names_the_drops_there_are() -> None:
    with pytest.raises(UsageError, match="before layers 16, 18, 20 of 28 and --scale 2") as caught:
        solve_levels(0.1, 28, QWEN2_5, 2.0, "12")
    assert "or 1 to keep" not in caught.value.hint
    assert solve_levels(0.1, 28, QWEN2_5, 2.0, "1").levels == (0.1,) * 4


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.1, math.nan])
def test_ratio_out_of_range(ratio: float) -> None:
    with pytest.raises(UsageError, match="keep ratio"):
        solve_levels(ratio, 28, QWEN2_5)


@CHECKED
@given(schedules(), ratios, st.floats(1.0, 3.0), every_stages)
def test_hint_of_an_infeasible_request_is_feasible(
    schedule: tuple[int, tuple[int, ...]], ratio: float, scale: float, stages: Stages
) -> None:
    n_layers, drops = schedule
    try:
        solve_levels(ratio, n_layers, drops, scale, stages)
    except UsageError as error:
        hint = error.hint
    else:
        return
    if found := re.search(r"ratio in ([\[(])([\d.e-]+), ([\d.]+)\]", hint):
        low = float(found[2]) if found[1] == "[" else 1e-3
        high = float(found[3])
        # Rounded inwards to four decimals, an interval narrower than that has nothing left in it.
        for allowed in (low, high) if low <= high else ():
            solve_levels(allowed, n_layers, drops, scale, stages)
    if found := re.search(r"--scale from ([\d.e+]+) to ([\d.e+]+)", hint):
        for allowed in (float(found[1]), float(found[2])):
            solve_levels(1e-3, n_layers, drops, allowed, stages)
    assert stages != "1"
    assert "ratio" in hint or "--scale" in hint


# Boundaries


def test_boundaries_by_depth_are_those_published_or_next_to_them() -> None:
    assert boundaries_by_depth(28) == QWEN2_5
    pairs = zip(boundaries_by_depth(48), QWEN3, strict=True)
    assert all(abs(ours - published) <= 1 for ours, published in pairs)


@pytest.mark.parametrize("n_layers", range(5, 129))
def test_boundaries_by_depth_are_feasible_at_every_depth(n_layers: int) -> None:
    drops = boundaries_by_depth(n_layers)
    assert validate_boundaries(drops, n_layers) == drops
    solve_levels(0.1, n_layers, drops)
    depth_of_last = drops[3] / n_layers
    assert depth_of_last == pytest.approx(0.82, abs=0.5 / n_layers + 1e-9)


@pytest.mark.parametrize("n_layers", [0, 1, 4])
def test_shallow_models_have_no_boundaries(n_layers: int) -> None:
    with pytest.raises(UsageError, match="at least 5"):
        boundaries_by_depth(n_layers)


@pytest.mark.parametrize(
    "drops",
    [
        (),
        (16, 18, 20),
        (16, 18, 20, 23, 25),
        (0, 1, 2, 3),
        (16, 16, 20, 23),
        (18, 16, 20, 23),
        (16, 18, 20, 28),
        (-4, 18, 20, 23),
        (16.0, 18, 20, 23),
        (True, 18, 20, 23),
    ],
)
def test_bad_boundaries_are_refused_with_an_example(drops: tuple[int, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        validate_boundaries(drops, 28)
    assert "from 1 to 27" in caught.value.hint
    assert "16, 18, 20, 23" in caught.value.hint


def test_bad_boundaries_of_a_shallow_model() -> None:
    with pytest.raises(UsageError) as caught:
        validate_boundaries((1, 2, 3, 4), 4)
    assert "at least 5 layers" in caught.value.hint

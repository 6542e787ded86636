"""Boundaries from curves: the published shapes, the laws of the rule, and that a schedule can always have them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seats_cli.config import DEFAULT_TRRS
from seats_cli.selection.levels import solve_levels, validate_boundaries
from seats_cli.selection.proposal import even_parts, propose
from seats_cli.selection.schedule import boundaries_by_depth


def curve(n_layers: int, collapsed: int, flat: int, low: float = 0.3, full: float = 0.7) -> list[float]:
    """Low before layer ``collapsed``, full from ``flat`` on, between them a straight rise from a half."""
    rise = [low + (full - low) * (0.5 + 0.4 * i / max(flat - collapsed, 1)) for i in range(flat - collapsed)]
    return [low] * collapsed + rise + [full] * (n_layers + 1 - flat)


@pytest.mark.parametrize(
    ("n_layers", "boundaries"),
    [(28, (16, 18, 20, 23)), (48, (27, 31, 35, 39))],
    ids=["Qwen2.5-Omni", "Qwen3-Omni"],
)
def test_curves_as_published_give_the_published_boundaries(n_layers: int, boundaries: tuple[int, ...]) -> None:
    found = propose(curve(n_layers, boundaries[0], boundaries[3]))
    assert found.drop_before_layer == boundaries
    assert found.scale == 1.4
    assert (found.recovers, found.flat, found.notes) == (boundaries[0], boundaries[3], ())


def test_the_parts_differ_by_at_most_one_layer_and_do_not_shrink() -> None:
    for span in range(3, 60):
        b1, b2, b3, b4 = even_parts(5, 5 + span)
        parts = [b2 - b1, b3 - b2, b4 - b3]
        assert sum(parts) == span
        assert parts == sorted(parts)
        assert parts[2] - parts[0] <= 1
        assert parts[0] >= 1


def test_a_dip_after_the_recovery_counts() -> None:
    smooth = curve(28, 16, 23)
    dipped = smooth.copy()
    dipped[24] -= 0.1
    assert propose(dipped).flat == 25
    spiked = smooth.copy()
    spiked[3] = 0.9
    assert propose(spiked) == propose(smooth)


@pytest.mark.parametrize("tolerance", [0.0, 0.05, 0.2])
def test_the_tolerance_is_how_far_below_full_is_full(tolerance: float) -> None:
    accuracy = [0.2] * 14 + [0.5, 0.5, 0.6, 0.7, 0.8, 0.88, 0.96, 0.97] + [1.0] * 7
    found = propose(accuracy, tolerance)
    assert accuracy[found.flat] >= 1 - tolerance - 1e-9
    assert accuracy[found.flat - 1] < 1 - tolerance


def possible(b1: int, b4: int, n_layers: int) -> bool:
    """Whether four drops have their layers, and every usual ratio leaves enough before the last."""
    return 1 <= b1 <= b4 - 3 and b4 < n_layers and max(DEFAULT_TRRS) * n_layers <= b4


@pytest.mark.parametrize("n_layers", [5, 8, 12, 28])
def test_boundaries_move_no_further_than_they_must(n_layers: int) -> None:
    for collapsed in range(1, n_layers):
        for flat in range(collapsed, n_layers + 1):
            found = propose(curve(n_layers, collapsed, flat)).drop_before_layer
            moved = abs(found[0] - collapsed) + abs(found[3] - flat)
            for b4 in range(max(4, flat - moved), min(n_layers, flat + moved + 1)):
                reach = moved - abs(b4 - flat)
                for b1 in range(max(1, collapsed - reach + 1), min(b4 - 3, collapsed + reach - 1) + 1):
                    assert not possible(b1, b4, n_layers), (collapsed, flat, found)


shares = st.floats(0, 1, allow_nan=False)


@given(st.integers(5, 40).flatmap(lambda n: st.lists(shares, min_size=n + 1, max_size=n + 1)), st.floats(0, 0.2))
def test_a_schedule_can_always_have_them(accuracy: list[float], tolerance: float) -> None:
    n_layers = len(accuracy) - 1
    found = propose(accuracy, tolerance)
    assert found.drop_before_layer is not None
    assert validate_boundaries(found.drop_before_layer, n_layers) == found.drop_before_layer
    for ratio in (*DEFAULT_TRRS, 0.06, 0.01):
        levels = solve_levels(ratio, n_layers, found.drop_before_layer, found.scale)
        assert levels.keep_ratio == ratio
        # Neither edge of what is possible: every drop leaves something, and drops something.
        assert found.scale == 1.4 or levels.levels[0] == 1.0 or 1 > levels.fractions[0] > levels.fractions[2] > 0
    assert min(accuracy[found.flat :]) >= accuracy[-1] - tolerance - 1e-9
    b1, _, _, b4 = found.drop_before_layer
    by_curve = (found.recovers, found.flat) == (b1, b4)
    assert by_curve == (not found.notes)


@pytest.mark.parametrize("n_layers", [*range(5, 20), 28, 36, 48, 64, 80])
def test_every_depth_has_some(n_layers: int) -> None:
    for place in {1, n_layers // 2, n_layers}:
        found = propose(curve(n_layers, place, place)).drop_before_layer
        assert validate_boundaries(found, n_layers) == found


def test_what_is_moved_is_said_and_moved_least() -> None:
    # An early end of the clip's use: no ratio of 0.35 could be had if all left before.
    found = propose(curve(28, 2, 7))
    b1, _, _, b4 = found.drop_before_layer
    assert (b1, b4) == (2, 10)
    assert 28 / 10 < found.scale < 10
    assert [note.split()[0] for note in found.notes] == ["b4"]
    assert found.notes[0].startswith("b4 is 10 where the curve says 7: ")
    assert "a ratio of 0.35" in found.notes[0]
    # Earlier than the published scale allows, but not impossible.
    assert propose(curve(28, 5, 12)).drop_before_layer == (5, 7, 9, 12)
    assert propose(curve(28, 5, 12)).notes == ()
    # Of moves as small as each other, the one that drops later.
    assert propose(curve(28, 18, 20)).drop_before_layer == (18, 19, 20, 21)
    # No layer is left for a later one.
    assert propose(curve(12, 9, 11)).drop_before_layer == (8, 9, 10, 11)
    # The clip is needed to the last layer.
    late = propose(curve(28, 20, 28))
    assert late.drop_before_layer[3] == 27
    assert late.flat == 28


def test_notes_say_why_boundaries_moved_not_that_there_are_none_nearer() -> None:
    three = "b4 must lie at least three layers after b1, and "
    both = propose(curve(12, 9, 9))
    # 6, 7, 8, 9 is a schedule too; it would lose more.
    assert both.drop_before_layer == (8, 9, 10, 11)
    assert both.notes == (
        f"b1 is 8 where the curve says 9: {three}b4 can be no later than 11 of 12",
        f"b4 is 11 where the curve says 9: {three}to drop later loses less than earlier",
    )
    later = propose(curve(28, 18, 20))
    assert later.notes == (f"b4 is 21 where the curve says 20: {three}to drop later loses less than earlier",)
    assert propose(curve(28, 20, 28)).notes == (
        "b4 is 27 where the curve says 28: after the last drop there must be a layer",
    )
    for n_layers in (5, 12, 28):
        for collapsed in range(1, n_layers):
            for flat in range(collapsed, n_layers + 1):
                found = propose(curve(n_layers, collapsed, flat))
                assert not any("nearest" in note for note in found.notes)
                b1, _, _, b4 = found.drop_before_layer
                assert b4 - b1 == 3 or not any("three layers" in note for note in found.notes)


def test_curves_that_say_nothing_give_boundaries_by_depth() -> None:
    for accuracy in ([0.5] * 29, [0.9] + [0.4] * 28, [0.0] * 29):
        found = propose(accuracy)
        assert found.drop_before_layer == boundaries_by_depth(28)
        assert (found.recovers, found.scale) == (None, 1.4)
        assert len(found.notes) == 1


def test_a_shallow_model_has_curves_but_no_boundaries() -> None:
    found = propose([0.2, 0.4, 0.9, 1.0, 1.0])
    assert (found.drop_before_layer, found.scale) == (None, None)
    assert found.flat == 3
    with pytest.raises(ValueError, match="no curve"):
        propose([0.5])

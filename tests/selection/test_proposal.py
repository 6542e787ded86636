"""Boundaries from curves: the published shapes, the laws of the rule, and that a schedule can always have them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seats_cli.config import DEFAULT_TRRS
from seats_cli.errors import UsageError
from seats_cli.selection.levels import solve_levels, validate_boundaries
from seats_cli.selection.proposal import even_parts, propose
from seats_cli.selection.schedule import boundaries_by_depth

RATIOS = [0.30, 0.65, 0.20, 0.55, 0.10, 0.45, 0.06, 0.35]


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
    found = propose(curve(n_layers, boundaries[0], boundaries[3]), RATIOS)
    assert found.drop_before_layer == boundaries
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
    assert propose(dipped, RATIOS).flat == 25
    spiked = smooth.copy()
    spiked[3] = 0.9
    assert propose(spiked, RATIOS) == propose(smooth, RATIOS)


@pytest.mark.parametrize("tolerance", [0.0, 0.05, 0.2])
def test_the_tolerance_is_how_far_below_full_is_full(tolerance: float) -> None:
    accuracy = [0.2] * 14 + [0.5, 0.5, 0.6, 0.7, 0.8, 0.88, 0.96, 0.97] + [1.0] * 7
    found = propose(accuracy, RATIOS, tolerance)
    assert accuracy[found.flat] >= 1 - tolerance - 1e-9
    assert accuracy[found.flat - 1] < 1 - tolerance


def feasible(b1: int, b4: int, n_layers: int) -> bool:
    try:
        for ratio in (*RATIOS, *DEFAULT_TRRS):
            solve_levels(ratio, n_layers, even_parts(b1, b4))
    except UsageError:
        return False
    return True


@pytest.mark.parametrize("n_layers", [5, 8, 12, 28])
def test_boundaries_move_no_further_than_they_must(n_layers: int) -> None:
    for collapsed in range(1, n_layers):
        for flat in range(collapsed, n_layers + 1):
            found = propose(curve(n_layers, collapsed, flat), RATIOS).drop_before_layer
            moved = abs(found[0] - collapsed) + abs(found[3] - flat)
            for b4 in range(max(4, flat - moved), min(n_layers, flat + moved + 1)):
                reach = moved - abs(b4 - flat)
                for b1 in range(max(1, collapsed - reach + 1), min(b4 - 3, collapsed + reach - 1) + 1):
                    assert not feasible(b1, b4, n_layers), (collapsed, flat, found)


shares = st.floats(0, 1, allow_nan=False)


@given(st.integers(5, 40).flatmap(lambda n: st.lists(shares, min_size=n + 1, max_size=n + 1)), st.floats(0, 0.2))
def test_a_schedule_can_always_have_them(accuracy: list[float], tolerance: float) -> None:
    n_layers = len(accuracy) - 1
    found = propose(accuracy, RATIOS, tolerance)
    assert found.drop_before_layer is not None
    assert validate_boundaries(found.drop_before_layer, n_layers) == found.drop_before_layer
    for ratio in (*RATIOS, *DEFAULT_TRRS):
        assert solve_levels(ratio, n_layers, found.drop_before_layer).keep_ratio == ratio
    assert min(accuracy[found.flat :]) >= accuracy[-1] - tolerance - 1e-9
    b1, _, _, b4 = found.drop_before_layer
    by_curve = (found.recovers, found.flat) == (b1, b4)
    assert by_curve == (not found.notes)


@pytest.mark.parametrize("n_layers", [*range(5, 20), 28, 36, 48, 64, 80])
def test_every_depth_has_some(n_layers: int) -> None:
    """Also for ratios that no boundaries allow a modality to have: they are cut down to the largest there is."""
    for place in {1, n_layers // 2, n_layers}:
        found = propose(curve(n_layers, place, place), [*RATIOS, 0.9, 0.99, 1.0]).drop_before_layer
        assert validate_boundaries(found, n_layers) == found


def test_what_is_moved_is_said_and_moved_least() -> None:
    # An early end of the clip's use: the levels must average R, so the last drop comes late enough.
    found = propose(curve(28, 5, 12), RATIOS)
    b1, _, _, b4 = found.drop_before_layer
    assert b1 == 5
    assert b4 >= 28 / 1.4
    assert [note.split()[0] for note in found.notes] == ["b4"]
    assert "12" in found.notes[0]
    assert str(b4) in found.notes[0]
    # Of moves as small as each other, the one that drops later.
    assert propose(curve(28, 18, 20), RATIOS).drop_before_layer == (18, 19, 20, 21)
    # The clip is needed to the last layer.
    late = propose(curve(28, 20, 28), RATIOS)
    assert late.drop_before_layer[3] == 27
    assert late.flat == 28


def test_curves_that_say_nothing_give_boundaries_by_depth() -> None:
    for accuracy in ([0.5] * 29, [0.9] + [0.4] * 28, [0.0] * 29):
        found = propose(accuracy, RATIOS)
        assert found.drop_before_layer == boundaries_by_depth(28)
        assert found.recovers is None
        assert len(found.notes) == 1


def test_a_shallow_model_has_curves_but_no_boundaries() -> None:
    found = propose([0.2, 0.4, 0.9, 1.0, 1.0], RATIOS)
    assert found.drop_before_layer is None
    assert found.flat == 3
    with pytest.raises(ValueError, match="no curve"):
        propose([0.5], RATIOS)

"""From curves of accuracy to boundaries b1..b4 (SEATS Sec. 3 and 4.2, as a rule). Plain Python.

With ``a[l]`` the accuracy when picture and sound leave before layer ``l`` (``a[0]``: never seen; ``a[L]``: full):

- b4 is the first layer from which on ``a`` stays within a tolerance of ``a[L]``: later layers do not need them.
- b1 is the first layer from which on ``a`` stays above the middle between ``a[0]`` and ``a[L]``: before it most of
  what the answer needs of the clip is unread, and so is, to the last token, what to look for.
- b2 and b3 cut the layers between into three parts as even as the published ones, the longer ones last.
- The scale is the published one if these boundaries have levels at it, else the middle of those at which they do.

Boundaries that no schedule can have are moved: b4 later as far as there is room, as that loses less, and b1
earlier by what is still missing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from seats_cli.config import DEFAULT_TRRS
from seats_cli.selection.levels import (
    DEFAULT_SCALE,
    MIN_LAYERS,
    Boundaries,
    boundaries_by_depth,
    feasible_scale,
)

RECOVERED_SHARE = 0.5
"""Of the way from never seen to full; above it the clip has begun to be read."""
DEFAULT_TOLERANCE = 0.01
APART = 3
"""Layers from b1 to b4, at the least: one before each of the later drops."""
_THREE = "b4 must lie at least three layers after b1"
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Proposal:
    """Boundaries, and how they came about.

    Attributes:
        drop_before_layer: b1..b4; None: the model is too shallow for four drops.
        scale: lambda for them; None like them.
        recovers: First layer from which on the curve stays above the recovered share; None: it has no rise.
        flat: First layer from which on it stays within the tolerance of full.
        notes: What was moved or assumed, a line each.
    """

    drop_before_layer: Boundaries | None
    scale: float | None
    recovers: int | None
    flat: int
    notes: tuple[str, ...] = ()


def propose(accuracy: Sequence[float], tolerance: float = DEFAULT_TOLERANCE) -> Proposal:
    """Read boundaries off the curve of both modalities.

    Args:
        accuracy: L + 1 shares: both removed before layer 0, 1, ... L.
        tolerance: How far below full still counts as full.

    Raises:
        ValueError: Fewer than two points.
    """
    if len(accuracy) < 2:
        raise ValueError(f"{len(accuracy)} points make no curve")
    n_layers, full, unseen = len(accuracy) - 1, accuracy[-1], accuracy[0]
    flat = _stays_from(accuracy, full - tolerance)
    if n_layers < MIN_LAYERS:
        note = f"a model of {n_layers} layers is too shallow for four drops"
        return Proposal(None, None, None, flat, (note,))
    if full - unseen <= tolerance + _ROUNDING:
        note = (
            f"the clips do not help with these questions ({100 * unseen:.1f} % right without, {100 * full:.1f} % "
            "with them), so the curves say nothing: boundaries by depth"
        )
        return Proposal(boundaries_by_depth(n_layers), DEFAULT_SCALE, None, flat, (note,))
    recovers = _stays_from(accuracy, unseen + RECOVERED_SHARE * (full - unseen))
    # The late layers keep nothing, so an average of R needs at least the share R of the layers before them.
    b4 = min(max(flat, recovers + APART, 4, math.ceil(max(DEFAULT_TRRS) * n_layers)), n_layers - 1)
    found = even_parts(max(min(recovers, b4 - APART), 1), b4)
    notes = (*_move_of_b1(recovers, found[0], b4, n_layers), *_move_of_b4(recovers, flat, b4, n_layers))
    return Proposal(found, feasible_scale(n_layers, found), recovers, flat, notes)


def _stays_from(accuracy: Sequence[float], least: float) -> int:
    """First layer from which on the accuracy is never below ``least``."""
    below = [layer for layer, value in enumerate(accuracy) if value < least - _ROUNDING]
    return below[-1] + 1 if below else 0


def even_parts(b1: int, b4: int) -> Boundaries:
    """b1..b4 with b2 and b3 in between as the published ones lie: 2, 2, 3 layers of 7, 4, 4, 4 of 12."""
    first = (b4 - b1) // 3
    second = (b4 - b1 - first) // 2
    return b1, b1 + first, b1 + first + second, b4


def _move_of_b1(recovers: int, b1: int, b4: int, n_layers: int) -> tuple[str, ...]:
    """What is said if b1 is not where the curve has it; it only ever moves when b4 has no room left."""
    if b1 == recovers:
        return ()
    why = f"{_THREE}, and b4 can be no later than {b4} of {n_layers}"
    return (f"b1 is {b1} where the curve says {recovers}: {why}",)


def _move_of_b4(recovers: int, flat: int, b4: int, n_layers: int) -> tuple[str, ...]:
    """What is said if b4 is not where the curve has it, and why."""
    if b4 == flat:
        return ()
    if b4 < flat:
        why = "after the last drop there must be a layer"
    elif b4 <= recovers + APART:
        why = f"{_THREE}, and to drop later loses less than earlier"
    else:
        why = f"nothing is left after it, so a ratio of {max(DEFAULT_TRRS):g} needs as much of the depth before it"
    return (f"b4 is {b4} where the curve says {flat}: {why}",)

"""The keep ratio of one modality, layer by layer (Sec. 4.2.1, App. A).

Layers are 0-based and a drop happens before its layer. With the boundaries ``b1 < b2 < b3 < b4`` the levels
are ``r0`` in layers ``[0, b1)``, ``r1`` in ``[b1, b2)``, ``r2`` in ``[b2, b3)``, ``r3`` in ``[b3, b4)``, 0
from ``b4`` on. A keep ratio is the fraction of tokens kept, averaged over all layers.

Without Stage III (``stages`` 12) ``r3`` holds to the last layer, as if ``b4 = L``. With Stage I alone (1) the
ratio itself holds in every layer. Either way the average is the ratio.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seats_cli.config import Stages
from seats_cli.errors import UsageError

Boundaries = tuple[int, int, int, int]
LEVEL_STEPS = (1.0, math.e, math.e**2)
"""``r_k = r_{k-1} - delta * e^(k-1)``."""
BOUNDARY_DEPTHS = (0.57, 0.64, 0.71, 0.82)
"""b1..b4 as fractions of the depth, for models without published ones."""
MIN_LAYERS = 5
DEFAULT_SCALE = 1.4
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Levels:
    """The keep ratio of one modality in each block of layers.

    Attributes:
        keep_ratio: The average over all layers.
        levels: r0, r1, r2, r3, not increasing.
        delta: Size of the first step down.
        n_layers: Depth of the model.
        drop_before_layer: b1..b4, or b1..b3 without Stage III; empty when the ratio never changes.
    """

    keep_ratio: float
    levels: tuple[float, float, float, float]
    delta: float
    n_layers: int
    drop_before_layer: tuple[int, ...]

    @property
    def fractions(self) -> tuple[float, float, float]:
        """``(r1/r0, r2/r1, r3/r2)``: what each drop keeps of what it finds."""
        r0, r1, r2, r3 = self.levels
        return r1 / r0, r2 / r1, r3 / r2

    def at_layer(self, layer: int) -> float:
        """The keep ratio in that layer."""
        passed = sum(layer >= boundary for boundary in self.drop_before_layer)
        return (*self.levels, 0.0)[passed]


def validate_boundaries(drop_before_layer: Sequence[int], n_layers: int) -> Boundaries:
    """Check b1..b4, and give them back.

    Raises:
        UsageError: They are not four integers ``1 <= b1 < b2 < b3 < b4 <= n_layers - 1``: before the first
            drop and after the last there must be a layer.
    """
    given = tuple(drop_before_layer)
    whole = all(isinstance(b, int) and not isinstance(b, bool) for b in given)
    rising = all(low < high for low, high in zip((0, *given), (*given, n_layers), strict=True))
    if len(given) != 4 or not whole or not rising:
        raise UsageError(
            f"tokens cannot be dropped before layers {', '.join(map(str, given)) or '(none)'} of {n_layers}",
            f"give four layers b1 < b2 < b3 < b4 from 1 to {n_layers - 1}, "
            f"such as {', '.join(map(str, boundaries_by_depth(n_layers)))}"
            if n_layers >= MIN_LAYERS
            else f"four drops need at least {MIN_LAYERS} layers; keep every token (--trr 1)",
        )
    return given[0], given[1], given[2], given[3]


def boundaries_by_depth(n_layers: int) -> Boundaries:
    """b1..b4 for a model of that depth: about 57, 64, 71 and 82 % of it, and feasible at the default scale.

    Raises:
        UsageError: Fewer than 5 layers: no room for four drops.
    """
    if n_layers < MIN_LAYERS:
        raise UsageError(
            f"a model of {n_layers} layers is too shallow: four drops need at least {MIN_LAYERS}",
            "keep every token (--trr 1) or take a deeper model",
        )
    ceiling, found = n_layers, []
    for depth in reversed(BOUNDARY_DEPTHS):
        ceiling = min(round(depth * n_layers), ceiling - 1)
        found.append(ceiling)
    b4, b3, b2, b1 = found
    # In a few shallow models the blocks are so short that the last level would fall below 0.
    while b1 > 1 and _scale_range(n_layers, (b1, b2, b3, b4))[1] < DEFAULT_SCALE:
        b1 -= 1
    return b1, b2, b3, b4


def usual_boundaries(n_layers: int, published: Mapping[int, Boundaries]) -> Boundaries | None:
    """The published ones of that depth, else by depth; None for a model too shallow for four drops."""
    if n_layers < MIN_LAYERS:
        return None
    return published.get(n_layers) or boundaries_by_depth(n_layers)


def largest_keep_ratio(n_layers: int, drop_before_layer: Sequence[int]) -> float:
    """The largest feasible average below 1: everything stays until b4, nothing after."""
    return validate_boundaries(drop_before_layer, n_layers)[3] / n_layers


def solve_levels(
    keep_ratio: float,
    n_layers: int,
    drop_before_layer: Sequence[int],
    scale: float = DEFAULT_SCALE,
    stages: Stages = "123",
) -> Levels:
    """The levels whose average over the layers is exactly ``keep_ratio`` (App. A).

    ``r0 = min(scale * R, 1)``; the step ``delta`` follows from
    ``L R = n0 r0 + n1 r1 + n2 r2 + n3 r3``. With a ratio of 1 nothing is dropped anywhere, late layers
    included.

    Args:
        keep_ratio: R in (0, 1].
        n_layers: L.
        drop_before_layer: b1..b4; without Stage III b4 plays no part, with Stage I alone none of them does.
        scale: lambda; without a part when Stage I is alone.
        stages: Those that run.

    Raises:
        UsageError: No schedule of this form has that average; the message says which ratios or scales do.
    """
    if not 0.0 < keep_ratio <= 1.0:
        raise UsageError(f"a keep ratio of {keep_ratio} is not in (0, 1]")
    if keep_ratio == 1.0 or stages == "1":
        return Levels(keep_ratio, (keep_ratio, keep_ratio, keep_ratio, keep_ratio), 0.0, n_layers, ())
    b1, b2, b3, b4 = validate_boundaries(drop_before_layer, n_layers)
    drops = (b1, b2, b3, b4) if stages == "123" else (b1, b2, b3)
    boundaries = (b1, b2, b3, b4 if stages == "123" else n_layers)
    _check_feasible(keep_ratio, n_layers, boundaries, scale)
    r0 = min(scale * keep_ratio, 1.0)
    # Right at the edge of the feasible range rounding may leave delta or r3 a hair below 0.
    delta = max((n_layers * keep_ratio - boundaries[3] * r0) / _slope(boundaries), 0.0)
    levels = [r0]
    for step in LEVEL_STEPS:
        levels.append(max(levels[-1] - delta * step, 0.0))
    return Levels(keep_ratio, (levels[0], levels[1], levels[2], levels[3]), delta, n_layers, drops)


def _slope(boundaries: Boundaries) -> float:
    """C of App. A: how the sum of the levels over the layers moves with delta."""
    b1, b2, b3, b4 = boundaries
    first, second, third = LEVEL_STEPS
    return -((b4 - b1) * first + (b4 - b2) * second + (b4 - b3) * third)


def _scale_range(n_layers: int, boundaries: Boundaries) -> tuple[float, float]:
    """Least and most ``r0 / R`` with ``delta >= 0`` and ``r3 >= 0``, whatever R is."""
    b4, steps = boundaries[3], sum(LEVEL_STEPS)
    return n_layers / b4, steps * n_layers / (steps * b4 + _slope(boundaries))


def feasible_scale(n_layers: int, boundaries: Boundaries) -> float:
    """The published scale if these boundaries can have it, else the middle of those they can have, rounded."""
    least, most = _scale_range(n_layers, boundaries)
    if least <= DEFAULT_SCALE <= most:
        return DEFAULT_SCALE
    middle = (least + most) / 2
    return next(near for digits in range(2, 17) if least <= (near := round(middle, digits)) <= most)


def _check_feasible(keep_ratio: float, n_layers: int, boundaries: Boundaries, scale: float) -> None:
    """The range of ``r0 / R`` bounds the scale; as ``r0`` is clipped at 1, it bounds R as well."""
    least, most = _scale_range(n_layers, boundaries)
    ratio = min(scale, 1.0 / keep_ratio)
    if least - _ROUNDING <= ratio <= most + _ROUNDING:
        return
    drops = [layer for layer in boundaries if layer < n_layers]
    where = f"with drops before layers {', '.join(map(str, drops))} of {n_layers}"
    usual = ", ".join(map(str, boundaries_by_depth(n_layers)))
    scales = f"--scale from {round_up(least)} to {round_down(most)}, or other layers such as {usual}"
    if scale < least:
        raise UsageError(
            f"--scale {scale:g} is too small {where}: no keep ratio below 1 is feasible", f"give {scales}"
        )
    lowest = f"[{round_up(1 / most)}" if scale > most else "(0"
    raise UsageError(
        f"a keep ratio of {keep_ratio:g} is infeasible {where} and --scale {scale:g}",
        f"give a ratio in {lowest}, {round_down(1 / least)}]{', or 1 to keep everything' if least > 1 else ''}"
        + (f", or {scales}" if ratio > most else ""),
    )


def round_down(value: float) -> str:
    """Text with four decimals, never above the value: a bound that is shown must itself be feasible."""
    return f"{math.floor(value * 1e4) / 1e4:g}"


def round_up(value: float) -> str:
    """Text with four decimals, never below the value."""
    return f"{math.ceil(value * 1e4) / 1e4:g}"

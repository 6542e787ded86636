"""The greedy max-min choice of Stage I, in Triton: many windows in one launch, one program each.

The same float32 comparisons of the same numbers as ``selection.diversity`` makes in torch, so the same picks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import triton
import triton.language as tl

from seats_cli.kernels.transfer import to_device

TILE = 4096
"""Distances looked at together when the first token is sought."""


@triton.jit
def _distance(products, own, others, saliency):
    """``D(i, j) = (1 - cos(x_i, x_j)) * a_j``, rounded after each step: compiled without fused multiply-adds."""
    return (1.0 - products * own * others) * saliency


@triton.jit(do_not_specialize=["width"])
def choose(products, inverse, saliency, kept, windows, width, SIZE: tl.constexpr, ROWS: tl.constexpr):
    """Picks of one window, ascending, to their place in ``kept``; its row of ``windows`` says which and where."""
    row = windows + 5 * tl.program_id(0)
    place, start, size = tl.load(row), tl.load(row + 1), tl.load(row + 2)
    keep, at = tl.load(row + 3), tl.load(row + 4)
    products += place.to(tl.int64) * width * width
    inverse += place * width
    steps = tl.where(keep < size, keep, 0)
    j = tl.arange(0, SIZE)
    here = j < size
    span = tl.where(steps > 0, size, 0)
    others = tl.load(inverse + j, mask=j < span, other=0.0)
    weight = tl.load(saliency + start + j, mask=here, other=0.0)

    nearest = tl.full([SIZE], float("inf"), tl.float32)
    for first in range(0, span, ROWS):
        i = first + tl.arange(0, ROWS)
        own = tl.load(inverse + i, mask=i < size, other=0.0)
        apart = (i < size)[:, None] & here[None, :] & (i[:, None] != j[None, :])
        some = tl.load(products + i[:, None] * width + j[None, :], mask=apart, other=0.0)
        distance = _distance(some, own[:, None], others[None, :], weight[None, :])
        nearest = tl.minimum(nearest, tl.min(tl.where(apart, distance, float("inf")), 0))

    # A window that is kept whole is taken from the start.
    taken = j >= tl.where(keep < size, size, 0)
    for step in range(0, steps):
        # What is no number counts as far, and nothing is as near as what is taken: a pick is always a new token.
        open_to = tl.where(nearest == nearest, tl.maximum(nearest, -3.0e38), float("inf"))
        pick = tl.argmax(tl.where(taken, -float("inf"), open_to), 0)
        taken = taken | (j == pick)
        some = tl.load(products + pick * width + j, mask=here, other=0.0)
        distance = _distance(some, tl.load(inverse + pick), others, weight)
        nearest = tl.where(step == 0, distance, tl.minimum(nearest, distance))
    chosen = taken & here
    order = tl.cumsum(chosen.to(tl.int32), 0) - 1
    tl.store(kept + at + order, (start + j).to(tl.int64), mask=chosen)


def choose_tokens(
    products: torch.Tensor,
    inverse: torch.Tensor,
    saliency: torch.Tensor,
    windows: Sequence[tuple[int, int, int, int, int]],
    kept: torch.Tensor,
) -> None:
    """Write the picks of some windows into ``kept``.

    Args:
        products: Float32 ``[W, n, n]``, dot products of the windows' tokens, side by side.
        inverse: Float32 ``[W, n]``, one over the tokens' lengths.
        saliency: Float32 ``[n_tokens]``.
        windows: Of each: its place in ``products``, its first token, tokens (at most ``LONGEST_WINDOW``),
            picks, and where in ``kept`` they go. A window that keeps all its tokens has no place in ``products``.
        kept: Int64, changed: as many ascending tokens as there are picks, from the window's place on.
    """
    size = max(16, triton.next_power_of_2(max(window[2] for window in windows)))
    table = to_device(np.array(windows, dtype=np.int32), products.device)
    # Triton launches on the current device, whatever its arguments are on.
    with torch.cuda.device_of(products):
        choose[(len(windows),)](
            products,
            inverse,
            saliency,
            kept,
            table,
            products.shape[2],
            SIZE=size,
            ROWS=max(1, TILE // size),
            num_warps=8,
            enable_fp_fusion=False,
        )

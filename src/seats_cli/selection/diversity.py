"""Stage I, winDivPrune (Sec. 4.1): in each window, tokens that are salient and unlike those already picked.

All windows run side by side, padded to the longest; the only loop is over the greedy steps. Everything that
depends on sizes is worked out on the host, so nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_INF = float("inf")
DISTANCE_BYTES = 256 << 20
"""The distances of one run of windows stay below this."""


def select_diverse(
    embeddings: Tensor, saliency: Tensor, window_sizes: Sequence[int], keep_counts: Sequence[int]
) -> Tensor:
    """Pick tokens of each window by saliency-weighted max-min distance.

    With ``d(i, j) = 1 - cos(x_i, x_j)`` and ``D(i, j) = d(i, j) * a_j``: first
    ``argmax_j min_{i != j} D(i, j)``, then again and again ``argmax_j min_{i picked} D(i, j)``. Of equals,
    the lowest index. Arithmetic in float32.

    Args:
        embeddings: ``[n, d]``, any float type; the windows one after another.
        saliency: ``[n]``.
        window_sizes: Tokens per window.
        keep_counts: Tokens to keep per window, from 0 to its size. A full window costs nothing.

    Returns:
        ``[sum(keep_counts)]`` int64, ascending.

    Raises:
        ValueError: A count exceeds its window, or the sizes do not sum to ``n``.
    """
    _check(embeddings, window_sizes, keep_counts)
    device = embeddings.device
    sizes, keeps = np.array(window_sizes, dtype=np.int64), np.array(keep_counts, dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    whole = _to_device(np.flatnonzero(np.repeat(sizes == keeps, sizes)), device)
    unit = F.normalize(embeddings.float(), dim=-1)
    picked = [
        _pick(unit, saliency.float(), sizes[group], keeps[group], starts[group])
        for group in _groups(window_sizes, keep_counts)
    ]
    return torch.cat([*picked, whole]).sort().values


def _pick(unit: Tensor, saliency: Tensor, sizes: np.ndarray, keeps: np.ndarray, starts: np.ndarray) -> Tensor:
    """Picks of some windows side by side: int64, window by window, in the order of picking."""
    device = unit.device
    position = np.arange(sizes.max())
    padding = position >= sizes[:, None]
    # Padded places read the window's first token: any token would do, they are masked.
    gather = _to_device(starts[:, None] + np.where(padding, 0, position), device)
    steps = int(keeps.max())
    wanted = np.flatnonzero(np.arange(steps) < keeps[:, None])

    distance = _weighted_distance(unit[gather], saliency[gather])
    picks = _greedy(distance, _to_device(padding, device), steps) + _to_device(starts[:, None], device)
    return picks.flatten()[_to_device(wanted, device)]


def diversity_matmul_macs(window_sizes: Sequence[int], keep_counts: Sequence[int], dim: int) -> int:
    """Multiply-adds of the matrix product ``select_diverse`` does, padding included.

    Args:
        window_sizes: Tokens per window, of the batch of windows given in one call.
        keep_counts: Tokens kept per window.
        dim: Width of the embeddings.
    """
    groups = _groups(window_sizes, keep_counts)
    return sum(len(group) * max(window_sizes[w] for w in group) ** 2 * dim for group in groups)


def _check(embeddings: Tensor, window_sizes: Sequence[int], keep_counts: Sequence[int]) -> None:
    if sum(window_sizes) != embeddings.shape[0]:
        raise ValueError(f"the windows hold {sum(window_sizes)} tokens, {embeddings.shape[0]} were given")
    for size, keep in zip(window_sizes, keep_counts, strict=True):
        if not 0 <= keep <= size:
            raise ValueError(f"{keep} tokens cannot be kept of a window of {size}")


def _pruned(window_sizes: Sequence[int], keep_counts: Sequence[int]) -> list[int]:
    """Windows in which there is something to choose."""
    pairs = zip(window_sizes, keep_counts, strict=True)
    return [w for w, (size, keep) in enumerate(pairs) if 0 < keep < size]


def _groups(window_sizes: Sequence[int], keep_counts: Sequence[int]) -> list[list[int]]:
    """The windows with something to choose, in runs whose padded distances stay below ``DISTANCE_BYTES``.

    A window that is larger than that by itself makes a run of its own.
    """
    groups: list[list[int]] = []
    longest = 0
    for window in _pruned(window_sizes, keep_counts):
        longest = max(longest, window_sizes[window])
        if groups and 4 * (len(groups[-1]) + 1) * longest**2 <= DISTANCE_BYTES:
            groups[-1].append(window)
        else:
            groups.append([window])
            longest = window_sizes[window]
    return groups


def _to_device(host: np.ndarray, device: torch.device) -> Tensor:
    # A blocking copy would wait for all the work queued on the device.
    return torch.from_numpy(host).to(device, non_blocking=True)


def _weighted_distance(x: Tensor, saliency: Tensor) -> Tensor:
    """``[W, i, j]`` distances weighted by the candidate ``j``, of unit vectors ``x`` ``[W, n, d]``."""
    return (1.0 - torch.bmm(x, x.transpose(1, 2))) * saliency[:, None, :]


def _greedy(distance: Tensor, padding: Tensor, steps: int) -> Tensor:
    """``[W, steps]`` picks in order; past a window's size they mean nothing.

    Args:
        distance: ``[W, i, j]``, weighted.
        padding: ``[W, n]`` bool.
        steps: The longest pick.
    """
    n_windows, n_max = padding.shape
    oneself = torch.eye(n_max, dtype=torch.bool, device=distance.device)
    nearest = distance.masked_fill(padding[:, :, None] | oneself, _INF).amin(dim=1)
    taken = padding.clone()
    rows = torch.arange(n_windows, device=distance.device)
    picks = []
    for step in range(steps):
        # argmax gives the first of equals.
        pick = nearest.masked_fill(taken, -_INF).argmax(dim=1)
        picks.append(pick)
        taken.scatter_(1, pick[:, None], True)
        to_pick = distance[rows, pick]
        nearest = to_pick if step == 0 else torch.minimum(nearest, to_pick)
    return torch.stack(picks, dim=1)

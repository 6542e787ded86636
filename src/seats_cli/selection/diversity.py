"""Stage I, winDivPrune (Sec. 4.1): in each window, tokens that are salient and unlike those already picked.

All windows run side by side, padded to the longest; the only loop is over the greedy steps. Everything that
depends on sizes is worked out on the host, so nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seats_cli import kernels
from seats_cli.kernels.transfer import to_device

_INF = float("inf")
_LEAST_SQUARE = 1e-24
"""A shorter token counts as longer than it is, so that a zero vector has cosines of 0."""
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
    sizes, keeps = np.array(window_sizes, dtype=np.int64), np.array(keep_counts, dtype=np.int64)
    groups = [_Group.of(group, sizes, keeps) for group in _groups(window_sizes, keep_counts)]
    whole = np.flatnonzero(np.repeat(sizes == keeps, sizes))
    if not groups:
        return to_device(whole, embeddings.device)
    saliency = saliency.float()
    if kernels.available(embeddings.device) and all(group.width <= kernels.LONGEST_WINDOW for group in groups):
        return _by_kernel(embeddings, saliency, groups, sizes, keeps)
    picked = [_pick(embeddings, saliency, group) for group in groups]
    return torch.cat([*picked, to_device(whole, embeddings.device)]).sort().values


@dataclass(frozen=True, slots=True)
class _Group:
    """Windows whose distances are held at the same time.

    Attributes:
        windows: Their indices.
        sizes: Tokens of each.
        keeps: Picks of each.
        starts: First token of each.
    """

    windows: Sequence[int]
    sizes: np.ndarray
    keeps: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, windows: Sequence[int], sizes: np.ndarray, keeps: np.ndarray) -> _Group:
        return cls(windows, sizes[windows], keeps[windows], (np.cumsum(sizes) - sizes)[windows])

    @property
    def width(self) -> int:
        """Tokens of the longest."""
        return int(self.sizes.max())

    @property
    def padding(self) -> np.ndarray:
        """Bool ``[W, width]``."""
        padding: np.ndarray = np.arange(self.width) >= self.sizes[:, None]
        return padding

    def side_by_side(self, tokens: Tensor) -> Tensor:
        """``[n, ...]`` -> ``[W, width, ...]``. Padded places hold the window's first token: they are masked."""
        n_windows, first = len(self.windows), int(self.starts[0])
        if (self.starts == first + self.width * np.arange(n_windows)).all() and not self.padding.any():
            return tokens[first : first + n_windows * self.width].reshape(n_windows, self.width, *tokens.shape[1:])
        rows = self.starts[:, None] + np.where(self.padding, 0, np.arange(self.width))
        return tokens[to_device(rows, tokens.device)]


def _by_kernel(
    embeddings: Tensor, saliency: Tensor, groups: Sequence[_Group], sizes: np.ndarray, keeps: np.ndarray
) -> Tensor:
    """All picks, ascending, a launch for each group; windows that are kept whole go with the first."""
    from seats_cli.kernels.greedy import choose_tokens

    starts, places = np.cumsum(sizes) - sizes, np.cumsum(keeps) - keeps
    kept = torch.empty(int(keeps.sum()), dtype=torch.int64, device=embeddings.device)
    whole = [(0, w) for w in np.flatnonzero((sizes == keeps) & (sizes > 0)).tolist()]
    for i, group in enumerate(groups):
        listed = [*enumerate(group.windows), *(whole if i == 0 else [])]
        table = [(row, int(starts[w]), int(sizes[w]), int(keeps[w]), int(places[w])) for row, w in listed]
        products, inverse = _products(group.side_by_side(embeddings))
        choose_tokens(products, inverse, saliency, table, kept)
    return kept


def _pick(embeddings: Tensor, saliency: Tensor, group: _Group) -> Tensor:
    """Picks of some windows side by side: int64, window by window, in the order of picking."""
    device = embeddings.device
    steps = int(group.keeps.max())
    wanted = np.flatnonzero(np.arange(steps) < group.keeps[:, None])
    products, inverse = _products(group.side_by_side(embeddings))
    distance = _weighted_distance(products, inverse, group.side_by_side(saliency))
    picks = _greedy(distance, to_device(group.padding, device), steps) + to_device(group.starts[:, None], device)
    return picks.flatten()[to_device(wanted, device)]


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


def _products(x: Tensor) -> tuple[Tensor, Tensor]:
    """Of ``x`` ``[W, n, d]``: float32 dot products ``[W, n, n]``, and one over the lengths ``[W, n]``.

    Of values of half precision every product is exact in float32, where they are summed.
    """
    if x.device.type == "cuda" and x.dtype in (torch.bfloat16, torch.float16):
        products = torch.bmm(x, x.transpose(1, 2), out_dtype=torch.float32)
    else:
        x = x.float()
        products = torch.bmm(x, x.transpose(1, 2))
    return products, products.diagonal(dim1=1, dim2=2).clamp(min=_LEAST_SQUARE).rsqrt()


def _weighted_distance(products: Tensor, inverse: Tensor, saliency: Tensor) -> Tensor:
    """``[W, i, j]`` distances weighted by the candidate ``j``; ``products`` are gone after it."""
    cosines = products.mul_(inverse[:, :, None]).mul_(inverse[:, None, :])
    return torch.rsub(cosines, 1.0).mul_(saliency[:, None, :])


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

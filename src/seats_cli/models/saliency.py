"""Attention received in an encoder's last layer (SEATS Sec. 4.1), for every family.

The published pictures of it build the whole map; here the maps of some windows and heads exist for a moment, and
on a GPU none (``kernels.attention``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from seats_cli import kernels
from seats_cli.models.chunks import Chunks

MAP_BYTES = 256 << 20
"""Attention maps that are held at a time stay below this."""
CPU_MAP_BYTES = 1 << 20
"""Likewise on a CPU, for each of its threads: a core's cache holds them through softmax and sum."""
_OF_KERNEL = (torch.float32, torch.bfloat16, torch.float16)


def _maps_bytes(device: torch.device) -> int:
    return CPU_MAP_BYTES * torch.get_num_threads() if device.type == "cpu" else MAP_BYTES


def _received(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """What keys receive in maps that fit ``_maps_bytes``, or in one that does not.

    Args:
        query: [B, m, d], scaled.
        key: [B, m, d].

    Returns:
        float32 [B, m]
    """
    n, width, _ = query.shape
    step = max(1, _maps_bytes(query.device) // (4 * n * width))  # queries whose map is held at a time
    keys = key.transpose(1, 2)
    total = torch.zeros(n, width, device=query.device, dtype=torch.float32)
    for first in range(0, width, step):
        total += torch.softmax((query[:, first : first + step] @ keys).float(), dim=-1).sum(1)
    return total


def attention_received(
    query: torch.Tensor, key: torch.Tensor, window_sizes: Sequence[int], scale: float
) -> torch.Tensor:
    """Attention each position receives from the positions of its own window.

    Args:
        query: [n, H, head_dim], already rotated where the encoder does so.
        key: [n, H, head_dim].
        window_sizes: Positions in each window, host integers that sum to n.
        scale: Factor on the dot products.

    Returns:
        float32 [n]: softmax over the window's keys, mean over heads, sum over the window's queries.
    """
    if kernels.available(query.device) and query.dtype in _OF_KERNEL:
        from seats_cli.kernels import attention

        return attention.attention_received(query, key, window_sizes, scale)
    if query.device.type == "cpu":
        query, key = query.float(), key.float()  # half precision is emulated there
    n_heads = query.shape[1]
    received = torch.empty(len(query), device=query.device, dtype=torch.float32)
    for n, length, rows in Chunks(window_sizes, query.device).groups:
        # A map per window and head.
        each = (n, length, *query.shape[1:])
        queries, keys = (part[rows].reshape(each).transpose(1, 2).flatten(0, 1) for part in (query * scale, key))
        step = max(1, _maps_bytes(query.device) // (4 * length**2))
        parts = [_received(queries[i : i + step], keys[i : i + step]) for i in range(0, len(queries), step)]
        received[rows] = torch.cat(parts).reshape(n, n_heads, length).mean(1).flatten()
    return received

"""Attention received in an encoder's last layer (SEATS Sec. 4.1), for every family.

The published pictures of it build the whole map; here each window's map exists for a moment, head by head, and on
a GPU not at all (``kernels.attention``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from seats_cli import kernels
from seats_cli.kernels.transfer import to_device

MAP_BYTES = 256 << 20
"""One batch of attention maps stays below this."""
_OF_KERNEL = (torch.float32, torch.bfloat16, torch.float16)


@contextmanager
def last_input(block: torch.nn.Module) -> Iterator[dict[str, Any]]:
    """Catch what ``block`` is called with while the context lasts; nothing stays on the module after it.

    Yields:
        A dict that holds ``hidden`` (the first argument) and the keyword arguments once the block has run.
    """
    caught: dict[str, Any] = {}

    def catch(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        caught.update(kwargs)
        caught["hidden"] = args[0] if args else kwargs["hidden_states"]

    handle = block.register_forward_pre_hook(catch, with_kwargs=True)
    try:
        yield caught
    finally:
        handle.remove()


def _window_index(sizes: Sequence[int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Row of every slot, int64 [W, width] (slots past a window's end repeat its last row), and lengths [W].

    Built from host integers, so nothing is asked of the device.
    """
    lengths = np.array(sizes, dtype=np.int64)
    slots = np.minimum(np.arange(lengths.max()), lengths[:, None] - 1)
    return to_device((np.cumsum(lengths) - lengths)[:, None] + slots, device), to_device(lengths, device)


def _received(query: torch.Tensor, key: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """One batch of windows: [W, H, m, d] twice, true lengths [W] -> float32 [W, m]."""
    width = query.shape[2]
    inside = torch.arange(width, device=query.device) < lengths[:, None]
    total = torch.zeros(query.shape[0], width, device=query.device, dtype=torch.float32)
    step = max(1, MAP_BYTES // (4 * query.shape[0] * width))  # queries whose map is held at a time
    for head in range(query.shape[1]):
        keys = key[:, head].transpose(1, 2)
        for first in range(0, width, step):
            some = slice(first, first + step)
            logits = (query[:, head, some] @ keys).float()
            logits.masked_fill_(~inside[:, None, :], float("-inf"))
            total += (torch.softmax(logits, dim=-1) * inside[:, some, None]).sum(1)
    return total / query.shape[1]


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
    rows, lengths = _window_index(window_sizes, query.device)
    width = rows.shape[1]
    step = max(1, MAP_BYTES // (4 * width * width))
    parts = [
        _received(
            (query[rows[i : i + step]] * scale).transpose(1, 2),
            key[rows[i : i + step]].transpose(1, 2),
            lengths[i : i + step],
        )
        for i in range(0, len(window_sizes), step)
    ]
    # Each row once: the slots of a window are its rows in order, and the spare ones come last.
    flat = np.concatenate([np.arange(size) + i * width for i, size in enumerate(window_sizes)])
    return torch.cat(parts).reshape(-1)[to_device(flat, query.device)]

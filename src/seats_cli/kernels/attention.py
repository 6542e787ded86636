"""Attention received, in Triton: what ``models.saliency.attention_received`` gives, without any map in memory.

As flash attention does it, in two passes over the tiles of each window's map: first the log of the sum of every
row (a query's softmax), then the sum of every column (what a key receives). A program has one block of one head,
the heads are averaged by a reduction afterwards: nothing is added atomically, so a run repeats itself to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import triton
import triton.language as tl

from seats_cli.kernels.transfer import to_device

TILES = {True: (64, 32, 4, 2), False: (128, 64, 8, 3)}
"""For float32 or not: positions a program answers for, positions it meets at a time, warps, stages."""


@triton.jit
def _load(base, rows, size, stride, FIRST: tl.constexpr, WIDTH: tl.constexpr, DIM: tl.constexpr):
    """Rows of one head, ``[rows, WIDTH]``; 0 past the window and past the head."""
    columns = FIRST + tl.arange(0, WIDTH)
    inside = (rows < size)[:, None] & (columns < DIM)[None, :]
    return tl.load(base + rows[:, None] * stride + columns[None, :], mask=inside, other=0.0)


@triton.jit
def _products(main, rest, base, rows, size, stride, DIM, MAIN, REST, PRECISION):
    """Dot products of the block with ``rows`` of the other side: float32 ``[block, rows]``."""
    other = _load(base, rows, size, stride, 0, MAIN, DIM)
    products = tl.dot(main, tl.trans(other), input_precision=PRECISION)
    if REST > 0:
        other = _load(base, rows, size, stride, MAIN, REST, DIM)
        products = tl.dot(rest, tl.trans(other), acc=products, input_precision=PRECISION)
    return products


@triton.jit(do_not_specialize=["n"])
def row_sums(
    query, key, log_sums, blocks, n, query_stride, key_stride, query_head, key_head, scale,
    DIM: tl.constexpr, MAIN: tl.constexpr, REST: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK: tl.constexpr, OTHER: tl.constexpr,
):  # fmt: skip
    """Log2 of the sum of every query's row, ``log_sums`` ``[H, n]``; ``scale`` brings products to base 2."""
    place, head = blocks + 3 * tl.program_id(0), tl.program_id(1).to(tl.int64)
    first, start, size = tl.load(place), tl.load(place + 1).to(tl.int64), tl.load(place + 2)
    own, others = query + start * query_stride + head * query_head, key + start * key_stride + head * key_head
    rows = first + tl.arange(0, BLOCK)
    main = _load(own, rows, size, query_stride, 0, MAIN, DIM)
    rest = main
    if REST > 0:
        rest = _load(own, rows, size, query_stride, MAIN, REST, DIM)
    top = tl.full([BLOCK], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for at in range(0, size, OTHER):
        columns = at + tl.arange(0, OTHER)
        logits = _products(main, rest, others, columns, size, key_stride, DIM, MAIN, REST, PRECISION) * scale
        logits = tl.where((columns < size)[None, :], logits, -float("inf"))
        higher = tl.maximum(top, tl.max(logits, 1))
        total = total * tl.exp2(top - higher) + tl.sum(tl.exp2(logits - higher[:, None]), 1)
        top = higher
    tl.store(log_sums + head * n + start + rows, top + tl.log2(total), mask=rows < size)


@triton.jit(do_not_specialize=["n"])
def column_sums(
    query, key, log_sums, received, blocks, n, query_stride, key_stride, query_head, key_head, scale,
    DIM: tl.constexpr, MAIN: tl.constexpr, REST: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK: tl.constexpr, OTHER: tl.constexpr,
):  # fmt: skip
    """What every key receives from the queries of its window, ``received`` ``[H, n]``."""
    place, head = blocks + 3 * tl.program_id(0), tl.program_id(1).to(tl.int64)
    first, start, size = tl.load(place), tl.load(place + 1).to(tl.int64), tl.load(place + 2)
    own, others = key + start * key_stride + head * key_head, query + start * query_stride + head * query_head
    rows = first + tl.arange(0, BLOCK)
    main = _load(own, rows, size, key_stride, 0, MAIN, DIM)
    rest = main
    if REST > 0:
        rest = _load(own, rows, size, key_stride, MAIN, REST, DIM)
    total = tl.zeros([BLOCK], tl.float32)
    for at in range(0, size, OTHER):
        columns = at + tl.arange(0, OTHER)
        logits = _products(main, rest, others, columns, size, query_stride, DIM, MAIN, REST, PRECISION) * scale
        # A query past the window gives nothing: two to the power of minus infinity.
        lows = tl.load(log_sums + head * n + start + columns, mask=columns < size, other=float("inf"))
        total += tl.sum(tl.exp2(logits - lows[None, :]), 1)
    tl.store(received + head * n + start + rows, total, mask=rows < size)


def head_parts(head_dim: int) -> tuple[int, int]:
    """A head's width as tiles have it: a power of two, and what covers the rest (0: nothing is left).

    80 is 64 and 16, where padding to 128 would waste more than a third of the products.
    """
    main = max(16, 1 << (head_dim.bit_length() - 1))
    rest = head_dim - main
    return main, max(16, triton.next_power_of_2(rest)) if rest > 0 else 0


def block_table(window_sizes: Sequence[int], block: int) -> np.ndarray:
    """Blocks of ``block`` positions of all windows, int32 ``[n_blocks, 3]``.

    Of each its first row in the window, and the window's start and size.
    """
    sizes = np.array(window_sizes, dtype=np.int64)
    starts, counts = np.cumsum(sizes) - sizes, -(-sizes // block)
    window = np.repeat(np.arange(len(sizes)), counts)
    first = (np.arange(len(window)) - np.repeat(np.cumsum(counts) - counts, counts)) * block
    return np.stack([first, starts[window], sizes[window]], axis=1).astype(np.int32)


def attention_received(
    query: torch.Tensor, key: torch.Tensor, window_sizes: Sequence[int], scale: float
) -> torch.Tensor:
    """Attention each position receives from the positions of its own window.

    Args:
        query: ``[n, H, head_dim]`` float32, bfloat16 or float16; the head's values lie side by side.
        key: Likewise.
        window_sizes: Positions in each window, host integers that sum to n.
        scale: Factor on the dot products.

    Returns:
        float32 ``[n]``: softmax over the window's keys, mean over heads, sum over the window's queries.
    """
    n, n_heads, head_dim = query.shape
    exact = query.dtype == torch.float32
    block, other, num_warps, num_stages = TILES[exact]
    blocks = block_table(window_sizes, block)
    if not len(blocks):
        return torch.zeros(n, dtype=torch.float32, device=query.device)
    query, key = (part if part.stride(2) == 1 else part.contiguous() for part in (query, key))
    table = to_device(blocks, query.device)
    log_sums = torch.empty(n_heads, n, dtype=torch.float32, device=query.device)
    received = torch.empty_like(log_sums)
    main, rest = head_parts(head_dim)
    strides = (query.stride(0), key.stride(0), query.stride(1), key.stride(1))
    constants = {
        **{"DIM": head_dim, "MAIN": main, "REST": rest, "PRECISION": "ieee" if exact else "tf32"},
        **{"BLOCK": block, "OTHER": other, "num_warps": num_warps, "num_stages": num_stages},
        "enable_fp_fusion": True,
    }
    shared = (table, n, *strides, scale / math.log(2))
    # Triton launches on the current device, whatever its arguments are on.
    with torch.cuda.device_of(query):
        row_sums[len(blocks), n_heads](query, key, log_sums, *shared, **constants)
        column_sums[len(blocks), n_heads](query, key, log_sums, received, *shared, **constants)
    return received.mean(dim=0)

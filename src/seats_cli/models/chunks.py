"""An encoder's attention: pieces of a sequence that attend to themselves alone, all of a layer's in a few calls.

With sdpa transformers cuts the sequence in every layer and calls the kernel once per piece, after a wait for the
pieces' lengths. Only kernels with "flash" in their name get the whole sequence, with the pieces' bounds. So an
attention function with such a name is registered, and an encoder's config names it while our call of it lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import pairwise
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from seats_cli.kernels.transfer import to_device

NAME = "seats_flash_chunks"
MAP_BYTES = 1 << 30
"""One call's maps stay below this should no fused kernel take it."""
_LEAST_CAPABILITY = (8, 0)


class Group(NamedTuple):
    """Chunks of one length.

    Attributes:
        n: How many.
        length: Positions in each.
        rows: Where they are in the sequence: a range, or int64 [n * length] where others lie between them.
    """

    n: int
    length: int
    rows: slice | torch.Tensor


class Chunks:
    """Consecutive pieces of a sequence. Made of host integers, so nothing is asked of the device.

    Args:
        lengths: Positions in each; they sum to those of the sequence.
        device: Where the sequence is.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.lengths = tuple(int(length) for length in lengths)
        self.device = device

    @cached_property
    def bounds(self) -> torch.Tensor:
        """Where each begins, and the end: int32 [n + 1]."""
        return to_device(np.cumsum([0, *self.lengths], dtype=np.int32), self.device)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Those of one length together, a view of the sequence where nothing lies between them."""
        lengths = np.array(self.lengths, dtype=np.int64)
        starts, found = np.cumsum(lengths) - lengths, []
        for length in sorted({*self.lengths} - {0}):
            of_length = np.flatnonzero(lengths == length)
            n, first = len(of_length), int(starts[of_length[0]])
            rows: slice | torch.Tensor = slice(first, first + n * length)
            if of_length[-1] - of_length[0] != n - 1:
                rows = to_device((starts[of_length, None] + np.arange(length)).reshape(-1), self.device)
            found.append(Group(n, length, rows))
        return tuple(found)


def grouped(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, chunks: Chunks, scale: float
) -> torch.Tensor:
    """Attention within every chunk, one call of sdpa per distinct length.

    Args:
        query: [S, H, head_dim].
        key: Likewise.
        value: Likewise.
        chunks: Of S positions.
        scale: Factor on the dot products.

    Returns:
        [S, H, head_dim].
    """
    out = torch.empty_like(query)
    for n, length, rows in chunks.groups:
        each = (n, length, *query.shape[1:])
        q, k, v = (part[rows].reshape(each).transpose(1, 2) for part in (query, key, value))
        some = max(1, MAP_BYTES // (4 * query.shape[1] * length**2))
        mixed = [
            scaled_dot_product_attention(q[i : i + some], k[i : i + some], v[i : i + some], scale=scale)
            for i in range(0, n, some)
        ]
        whole = mixed[0] if len(mixed) == 1 else torch.cat(mixed)
        whole = whole.transpose(1, 2).flatten(0, 1)
        if len(chunks.groups) == 1:
            return whole
        out[rows] = whole
    return out


def _ragged(query: torch.Tensor, scale: float) -> Callable[..., torch.Tensor] | None:
    """Torch's kernel for chunks of any lengths, where it takes such queries [S, H, head_dim]."""
    head_dim = query.shape[2]
    if query.device.type != "cuda" or query.dtype not in (torch.bfloat16, torch.float16) or head_dim % 8:
        return None
    if head_dim > 256 or scale != head_dim**-0.5 or torch.version.cuda is None:
        return None
    if torch.cuda.get_device_capability(query.device) < _LEAST_CAPABILITY or torch.is_grad_enabled():
        return None
    return _tried(query.device, query.dtype, head_dim)


@cache
def _tried(device: torch.device, dtype: torch.dtype, head_dim: int) -> Callable[..., torch.Tensor] | None:
    """``varlen_attn`` after one small launch; None where this torch or GPU has no such kernel."""
    try:
        from torch.nn.attention.varlen import varlen_attn

        with torch.cuda.device(device):
            some = torch.zeros(16, 1, head_dim, device=device, dtype=dtype)
            bounds = torch.arange(0, 17, 8, device=device, dtype=torch.int32)
            varlen_attn(some, some, some, bounds, bounds, 8, 8)
    except (ImportError, RuntimeError, NotImplementedError):
        return None
    return cast("Callable[..., torch.Tensor]", varlen_attn)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, chunks: Chunks, scale: float
) -> torch.Tensor:
    """``grouped``, or the same in one launch where torch has a kernel for it."""
    ragged = _ragged(query, scale)
    if ragged is None:
        return grouped(query, key, value, chunks, scale)
    longest = max(chunks.lengths)
    query, key, value = (part if part.stride(2) == 1 else part.contiguous() for part in (query, key, value))
    return ragged(query, key, value, chunks.bounds, chunks.bounds, longest, longest)


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


@dataclass(slots=True)
class Inside:
    """What is seen of an encoder's last block, once it has run.

    Attributes:
        heads: Its queries and keys, [S, H, head_dim] each, rotated where the encoder does so; None where another
            attention function runs, which does not show them.
        caught: Otherwise what the block was called with: ``hidden`` and keyword arguments.
    """

    heads: tuple[torch.Tensor, torch.Tensor] | None = None
    caught: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Running:
    """The encoder call that a thread is in."""

    by_number: dict[int, Chunks]
    last: torch.nn.Module | None
    inside: Inside


_running: ContextVar[_Running | None] = ContextVar("seats_encoder_call", default=None)


def _forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    cu_seq_lens_q: torch.Tensor,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers calls it: [1, H, S, head_dim] thrice -> [1, S, H, head_dim]."""
    running = _running.get()
    if running is None or attention_mask is not None:
        raise RuntimeError(f"{NAME} serves encoders within in_chunks alone")
    heads = [part[0].transpose(0, 1) for part in (query, key, value)]
    if module is running.last:
        running.inside.heads = heads[0], heads[1]
    # By their number: tensors may have come here by way of another device. Two cuts of a sequence into as many
    # pieces are the same one, since a grid has one window or more.
    chunks = running.by_number[len(cu_seq_lens_q) - 1]
    return attend(heads[0], heads[1], heads[2], chunks, scaling)[None], None


@cache
def _register() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _forward)


@contextmanager
def in_chunks(
    tower: Any, cuts: Sequence[Chunks], *, block: torch.nn.Module, attention: torch.nn.Module, look: bool
) -> Iterator[Inside]:
    """Let an encoder's layers attend all chunks at once while the context lasts.

    Who chose another kernel than sdpa keeps it. The config is everybody's, so the caller holds ``encoding``.

    Args:
        tower: The encoder.
        cuts: Into what its layers cut the sequence; as many chunks in two of them mean the same chunks.
        block: Its last block.
        attention: The attention of that block.
        look: Whether to see what goes on in it.

    Yields:
        What is seen; empty without ``look``, and before the encoder has run.
    """
    inside, config = Inside(), tower.config
    before = config._attn_implementation
    with ExitStack() as stack:
        if before == "sdpa":
            _register()
            running = _Running({len(cut.lengths): cut for cut in cuts}, attention if look else None, inside)
            stack.callback(_running.reset, _running.set(running))
            stack.callback(setattr, config, "_attn_implementation", before)
            config._attn_implementation = NAME
        elif look:
            inside.caught = stack.enter_context(last_input(block))
        yield inside


def lengths_of(bounds: torch.Tensor) -> list[int]:
    """Lengths of what lies between ``bounds``, int [n + 1] on the host."""
    return [after - before for before, after in pairwise(bounds.tolist())]

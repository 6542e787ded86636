"""One decoding step with shapes that the host knows beforehand, so that a CUDA graph can hold all of it.

Where a token's key and value go, which rotary angles it has and how far it may look back follow from a counter on
the device. The step asks the device for nothing, and on a GPU all its addresses stay as they are until the cache
is full.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Protocol

import torch
from torch.nn import functional

from seats_cli.engine.cache import RaggedCache
from seats_cli.models.base import OmniModel

BLOCK = 64
"""Where there is no graph attention looks at the places written so far, in blocks: masks are remade as seldom."""
SPLIT = 256
"""Places per product of weights and values on a GPU. One product over thousands of them would keep a few of its
cores busy for long; many short ones, summed at the end, are done side by side."""
PLAIN_STEPS = 8
"""Steps before a graph is captured. They load every kernel and give cuBLAS its workspace, as a warm-up would, and
an answer that is over by then never pays for a graph, which costs about as much as some of them."""
PLAIN_STEPS_AGAIN = 2
"""The same after the cache grew: shapes are new."""
WORTH_A_GRAPH = 16
"""Fewer steps to come than this, and capturing would take more than it gives."""
GROWTH = 256
"""Least tokens by which the cache grows, if as many may come."""


class Post(Protocol):
    """Tokens on their way from a device to the host, oldest first."""

    def post(self, token: torch.Tensor) -> None:
        """Send int64 [1], without waiting."""

    def take(self) -> int:
        """Wait for the oldest that was not taken."""


class Lane(Protocol):
    """Where a device that runs by itself does its work."""

    def used(self) -> AbstractContextManager[None]:
        """While this lasts, work goes there; when it ends, all of it is done."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Do not run ``work`` but record it; what is returned runs it, as often as it is called.

        Raises:
            RuntimeError: It cannot be recorded.
        """

    def mail(self) -> Post:
        """For the tokens of one answer."""


class StaticSteps:
    """A model, what it remembers of a prompt, and a step that adds one token to it.

    Args:
        model: The thinker, ``in_one_place``.
        cache: From the prefill. Grows by one token a step, and is given more room when it is full.
        next_position: Position of the first token that is added.
        n_steps: Most steps that may come.
        lane: Of a GPU; None: the host waits for every operation anyway.
        graphs: Record the step there, once it has run some times.

    Attributes:
        lane: As given.
        replayed: Steps that a recording ran.
        warnings: Why nothing was recorded although it should have been; empty otherwise.
    """

    def __init__(
        self,
        model: OmniModel,
        cache: RaggedCache,
        next_position: float,
        n_steps: int,
        lane: Lane | None = None,
        *,
        graphs: bool = False,
    ) -> None:
        self._model, self._cache, self.lane = model, cache, lane
        self._graphs = graphs and n_steps >= PLAIN_STEPS + WORTH_A_GRAPH
        self._next_position, self._left = float(next_position), n_steps
        self._layers = [model.token_layer(i) for i in range(len(model.layers))]
        self._attention = attention_at_once if lane is None else attention_side_by_side
        device = model.device
        self._token = torch.zeros(1, dtype=torch.long, device=device)
        self._counter = torch.zeros(1, dtype=torch.long, device=device)
        self._zero = torch.zeros((), device=device)
        self._lowest = torch.full((), -torch.inf, device=device)
        self._logits = self._zero
        self._replay: Callable[[], None] | None = None
        self._plain_steps_left = PLAIN_STEPS
        self._room = self._done = self._seen = 0
        self.replayed = 0
        self.warnings: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """``graph`` when a recording ran a step, otherwise ``static``."""
        return "graph" if self.replayed else "static"

    def used(self) -> AbstractContextManager[None]:
        """Entered around all steps."""
        return nullcontext() if self.lane is None else self.lane.used()

    def advance(self, token: torch.Tensor) -> torch.Tensor:
        """Add a token.

        Args:
            token: int64 [1].

        Returns:
            Logits [vocab] of the token after it; they hold until the next call.
        """
        if self._done == self._room:
            self._make_room()
        if self._done == self._seen:
            self._look_back(min(self._seen + BLOCK, self._room))
        self._token.copy_(token)
        if self._replay is None and self._is_worth_a_graph():
            self._record()
        if self._replay is None:
            self._step()
            self._plain_steps_left -= 1
        else:
            self._replay()
            self.replayed += 1
        self._done += 1
        self._left -= 1
        self._cache.note(1)
        return self._logits

    def _is_worth_a_graph(self) -> bool:
        to_come = min(self._left, self._room - self._done)
        return self._graphs and self._plain_steps_left <= 0 and to_come >= WORTH_A_GRAPH

    def _record(self) -> None:
        if self.lane is None:
            return
        try:
            self._replay = self.lane.record(self._step)
        except RuntimeError as error:  # the answer goes on without
            self._graphs = False
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            self.warnings = (f"answer tokens took longer, since no CUDA graph could be made: {reason}",)

    def _make_room(self) -> None:
        """Places for what may come, at new addresses: a recording with the old ones is of no use."""
        again, self._next_position = self._room > 0, self._next_position + self._done
        wanted = max(self._cache.room, min(self._left, max(GROWTH, 2 * self._room)), 1)
        self._cache.reserve(wanted, 1 if self.lane is None else SPLIT)
        self._lengths, self._room = self._cache.lengths, self._cache.room
        self._done = self._seen = 0
        self._counter.zero_()
        # All tables at once: a step then picks a row. Positions are rounded once, as everywhere.
        positions = (torch.arange(self._room, dtype=torch.float64) + self._next_position).float()
        hidden = self._model.embed(self._token)[None]
        self._cos, self._sin = self._model.rope(hidden, positions.expand(3, -1).to(hidden.device))
        self._replay = None
        if again:
            self._plain_steps_left = max(self._plain_steps_left, PLAIN_STEPS_AGAIN)
        if self.lane is not None:
            self._look_back(self._room)

    def _look_back(self, room: int) -> None:
        """Let attention look at ``room`` places behind the prompt, and on a GPU at whatever places there are."""
        self._seen = room
        buffers = [self._cache.buffers(i) for i in range(len(self._layers))]
        self._keys, self._values = [keys for keys, _ in buffers], [values for _, values in buffers]
        widths = [
            n + room if self.lane is None else keys.shape[1]
            for n, keys in zip(self._lengths, self._keys, strict=True)
        ]
        self._visible = [
            (keys[:, :width], values[:, :width]) for (keys, values), width in zip(buffers, widths, strict=True)
        ]
        # Layers that are alike share a mask, and few differ.
        self._alike = list(zip(self._lengths, widths, strict=True))
        self._places = {one: torch.arange(one[1], device=self._token.device) for one in self._alike}

    def _step(self) -> None:
        """The token in its place through all layers; nothing here is decided by what is on the device."""
        rope = (self._cos.index_select(1, self._counter), self._sin.index_select(1, self._counter))
        self._own = {one: self._counter + one[0] for one in self._places}
        self._masks = {
            one: torch.where(places <= self._own[one], self._zero, self._lowest)
            for one, places in self._places.items()
        }
        hidden = self._model.embed(self._token)[None]
        for i, layer in enumerate(self._layers):
            # Bound anew: kept, it would be a circle, and the cache would stay until Python looks for such.
            hidden = layer(hidden, rope, partial(self._attend, i))
        self._logits = self._model.last_logits(hidden)
        self._counter.add_(1)

    def _attend(
        self, index: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """What ``token_layer`` calls: the token joins the layer's cache, and its queries look at all of that."""
        kind = self._alike[index]
        self._keys[index].index_copy_(1, self._own[kind], key)
        self._values[index].index_copy_(1, self._own[kind], value)
        return self._attention(query, *self._visible[index], self._masks[kind], scaling)


def attention_at_once(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Attention of one token, queries grouped by the head they share, so that no key is repeated.

    Args:
        query: [n_kv_heads, group, head_dim].
        keys: [n_kv_heads, n, head_dim].
        values: Likewise.
        mask: Added to the scores, float32 [n].
        scaling: Of the scores.

    Returns:
        [n_kv_heads, group, head_dim].
    """
    added = mask.to(query.dtype).expand(1, 1, query.shape[1], -1)
    return functional.scaled_dot_product_attention(query[None], keys[None], values[None], added, scale=scaling)[0]


def attention_side_by_side(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, scaling: float
) -> torch.Tensor:
    """The same in pieces that fill a GPU although there are few heads; ``SPLIT`` divides n."""
    if query.is_cuda and query.dtype != torch.float32:
        scores = torch.bmm(query, keys.transpose(1, 2), out_dtype=torch.float32)
    else:
        scores = torch.bmm(query, keys.transpose(1, 2))
    weights = torch.softmax(torch.add(mask, scores, alpha=scaling), dim=-1)
    heads, group, _ = weights.shape
    parts = weights.view(heads, group, -1, SPLIT).transpose(1, 2)
    parts = parts.to(values.dtype, memory_format=torch.contiguous_format)
    each = torch.bmm(parts.reshape(-1, group, SPLIT), values.reshape(-1, SPLIT, values.shape[2]))
    return each.view(heads, -1, group, values.shape[2]).sum(1)

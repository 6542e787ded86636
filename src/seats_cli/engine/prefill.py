"""The prompt through the decoder layers, dropping rows where the method says so (SEATS Sec. 4.2).

A plain loop over the model's own layers. Inside it nothing is asked of the device: every shape follows from the
plan, so the host runs ahead of the GPU. Counts and traces are for whoever reads them afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch.nn import functional

from seats_cli.config import KvCache, ScoreWith
from seats_cli.engine.cache import RaggedCache
from seats_cli.engine.stage_one import EncodedClip
from seats_cli.kernels.transfer import to_device
from seats_cli.layout import Layout, Modality
from seats_cli.models.base import OmniModel, place_of
from seats_cli.selection.base import LayerState, SelectionMethod
from seats_cli.timelimit import check_time
from seats_cli.timing import Stopwatch


@dataclass(frozen=True, slots=True)
class Rows:
    """The sequence as it stands before a layer: ``S`` tokens on one device.

    Attributes:
        hidden: [1, S, D].
        cos: Rotary table [1, S, head_dim]; ``sin`` likewise.
        index: int64 [S], row of each token in the unpruned layout.
        modality: int64 [S].
        window: int64 [S].
        deepstack: [L', m + 1, D], added behind the first L' layers; its last row is 0, for all that has none.
            None: nothing is added.
        slot: int64 [S], row of each token in it.
    """

    hidden: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor
    index: torch.Tensor
    modality: torch.Tensor
    window: torch.Tensor
    deepstack: torch.Tensor | None = None
    slot: torch.Tensor | None = None

    def take(self, kept: torch.Tensor) -> Rows:
        """Only the rows at ``kept``, int64 ascending."""
        return Rows(
            self.hidden[:, kept],
            self.cos[:, kept],
            self.sin[:, kept],
            self.index[kept],
            self.modality[kept],
            self.window[kept],
            self.deepstack,
            None if self.slot is None else self.slot[kept],
        )

    def to(self, device: torch.device) -> Rows:
        """All of it on ``device``; itself when it is there already."""
        if self.hidden.device == device:
            return self
        here = {one.name: getattr(self, one.name) for one in fields(self)}
        there: dict[str, Any] = {
            name: value if value is None else value.to(device) for name, value in here.items()
        }
        return Rows(**there)

    def after(self, layer: int, hidden: torch.Tensor) -> Rows:
        """With what left that layer; what is to be added to visual tokens behind it is."""
        if self.deepstack is None or self.slot is None:
            return replace(self, hidden=hidden)
        if layer < len(self.deepstack):
            hidden = hidden + self.deepstack[layer][self.slot]
        if layer + 1 < len(self.deepstack):
            return replace(self, hidden=hidden)
        return replace(self, hidden=hidden, deepstack=None, slot=None)


@dataclass(frozen=True, slots=True)
class Prefill:
    """What the first pass leaves.

    Attributes:
        logits: float [vocab], for the first token of the answer.
        cache: Keys and values per layer.
        modalities: Int64 [S] per layer, ``Modality`` of the tokens it processed.
        scored: Tokens in the sequence at each scoring, for the cost report.
        trace: Per drop, what the method noted: ``before_layer_16/kept_rows``, ``.../scores``, ...
    """

    logits: torch.Tensor
    cache: RaggedCache
    modalities: list[torch.Tensor]
    scored: list[int]
    trace: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def counts(self) -> list[tuple[int, int, int]]:
        """Per layer, tokens it processed: (text, video, audio). Waits for the device, once."""
        different = {id(one): one for one in self.modalities}
        there = self.logits.device
        shares = [[(one == kind).sum() for kind in Modality] for one in different.values()]
        table = torch.stack([share.to(there) for row in shares for share in row]).view(-1, 3).tolist()
        rows = dict(zip(different, table, strict=True))
        return [(text, video, audio) for text, video, audio in (rows[id(one)] for one in self.modalities)]


def layer_device(model: OmniModel, index: int) -> torch.device:
    """Where a decoder layer computes."""
    return place_of(model.layers[index])


def causal_mask(model: OmniModel, hidden: torch.Tensor) -> torch.Tensor | None:
    """Additive [1, 1, S, S] for eager attention; the other kernels are causal without one."""
    if model.thinker.config._attn_implementation != "eager":
        return None
    n = hidden.shape[1]
    lowest = torch.finfo(hidden.dtype).min
    return torch.full((1, 1, n, n), lowest, dtype=hidden.dtype, device=hidden.device).triu(1)


def first_rows(model: OmniModel, layout: Layout, encoded: EncodedClip) -> Rows:
    """The sequence before layer 0.

    Args:
        model: The thinker.
        layout: The unpruned sequence.
        encoded: What Stage I left of it.
    """
    index, device = encoded.index, encoded.embeddings.device
    hidden = encoded.embeddings[None]
    positions = to_device(layout.positions, device)[:, index]
    cos, sin = model.rope(hidden, positions)
    modality = to_device(layout.modality, device)[index]
    window = to_device(layout.window, device)[index]
    rows = Rows(hidden, cos, sin, index, modality, window)
    if encoded.deepstack is None:
        return rows
    n_visual = encoded.deepstack.shape[1]
    is_visual = modality == Modality.VIDEO
    slot = torch.where(is_visual, is_visual.cumsum(0) - 1, n_visual)
    return replace(rows, deepstack=functional.pad(encoded.deepstack, (0, 0, 0, 1)), slot=slot)


def _drop(
    model: OmniModel, layer: int, rows: Rows, layout: Layout, method: SelectionMethod, score_with: ScoreWith
) -> tuple[Rows, dict[str, torch.Tensor]]:
    """Ask the method who stays before ``layer``."""
    scorer = layer - 1 if score_with == "previous" else layer
    seen: list[torch.Tensor] = []

    def scores() -> torch.Tensor:
        there = rows.to(layer_device(model, scorer))
        scored = model.query_attention(scorer, there.hidden, (there.cos, there.sin)).to(rows.hidden.device)
        seen.append(scored)
        return scored

    kept = method.before_layer(_state(layer, rows, layout, scores))
    after = rows.take(kept.indices)
    trace = {"kept_rows": after.index, **({"scores": seen[0]} if seen else {}), **kept.trace}
    return after, {f"before_layer_{layer}/{name}": value for name, value in trace.items()}


def _state(layer: int, rows: Rows, layout: Layout, scores: Callable[[], torch.Tensor]) -> LayerState:
    largest = max(max(sizes, default=0) for sizes in layout.window_sizes.values())
    return LayerState(
        layer=layer,
        modality=rows.modality,
        window=rows.window,
        n_windows=layout.n_windows,
        max_window_tokens=largest,
        scores=scores,
    )


def _only_last(cache: RaggedCache, per_layer: list[torch.Tensor]) -> None:
    """Cut every layer's cache to the rows that the last layer processed, which is text after Stage III.

    Args:
        cache: Of a whole prompt.
        per_layer: Rows of the layout in each layer, ascending; those of a layer are among those before it.
    """
    last = per_layer[-1]
    for layer, rows in enumerate(per_layer):
        cache.keep(layer, torch.searchsorted(rows, last.to(rows.device)))


def prefill(
    model: OmniModel,
    layout: Layout,
    encoded: EncodedClip,
    method: SelectionMethod,
    *,
    kv_cache: KvCache = "staged",
    score_with: ScoreWith = "previous",
    spare: int = 0,
    watch: Stopwatch | None = None,
) -> Prefill:
    """Run the prompt.

    Args:
        model: The thinker.
        layout: The unpruned sequence of N tokens.
        encoded: What Stage I left of it.
        method: Says who stays before which layer.
        kv_cache: ``staged`` keeps in every layer what it processed; ``text`` cuts all at the end to what the
            last layer processed.
        score_with: Projections of the layer the states left (``previous``) or of the ``next``.
        spare: Room in the cache for answer tokens.
        watch: Stage ``relevance`` (Stages II and III) is added to it, beside the stage all this is in.

    Returns:
        Logits of the first token, the cache, and what each layer processed.
    """
    rows = first_rows(model, layout, encoded)
    cache = RaggedCache(len(model.layers), spare)
    per_layer: list[torch.Tensor] = []
    rows_in_layer: list[torch.Tensor] = []
    trace: dict[str, torch.Tensor] = {"before_layer_0/kept_rows": rows.index}
    drops = frozenset(method.drop_before_layer)
    mask = causal_mask(model, rows.hidden)
    for i in range(len(model.layers)):
        check_time()
        if i in drops:
            with nullcontext() if watch is None else watch("relevance"):
                rows, noted = _drop(model, i, rows, layout, method, score_with)
            trace.update(noted)
            mask = causal_mask(model, rows.hidden)
        rows = rows.to(layer_device(model, i))
        hidden = model.run_layer(i, rows.hidden, (rows.cos, rows.sin), _on(mask, rows.hidden), cache)
        rows = rows.after(i, hidden)
        per_layer.append(rows.modality)
        rows_in_layer.append(rows.index)
    logits = model.last_logits(rows.hidden)
    if kv_cache == "text" and drops:
        _only_last(cache, rows_in_layer)
    scored = [len(value) for name, value in trace.items() if name.endswith("/scores")]
    return Prefill(logits, cache, per_layer, scored, trace)


def _on(mask: torch.Tensor | None, hidden: torch.Tensor) -> Any:
    return None if mask is None else mask.to(hidden.device)

"""A pruned run as a full-length one: nothing is dropped, but what would be is hidden from attention as a key.

Written against transformers' decoder layers alone; it shares no code with the engine.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def language_model(thinker):
    """The decoder of either transformers layout."""
    return getattr(thinker.model, "language_model", thinker.model)


@torch.no_grad()
def masked_logits(
    thinker,
    embeddings: torch.Tensor,
    positions: torch.Tensor,
    kept_per_layer: Sequence[Sequence[int]],
    answer_ids: Sequence[int] = (),
    answer_keys: Sequence[Sequence[int]] | None = None,
    deepstack: torch.Tensor | None = None,
    visual_rows: Sequence[int] = (),
) -> torch.Tensor:
    """Logits after the prompt and after every answer token.

    Args:
        thinker: A tiny model, float32.
        embeddings: [N, D] of the whole, unpruned prompt.
        positions: float32 [3, N].
        kept_per_layer: Per layer, prompt rows that count as keys there.
        answer_ids: T tokens that follow.
        answer_keys: Per layer, prompt rows that the answer may attend to; default: ``kept_per_layer``.
        deepstack: [L', V, D], added to the visual rows behind the first L' layers.
        visual_rows: V prompt rows.

    Returns:
        [1 + T, vocab].
    """
    text = language_model(thinker)
    n, t = len(embeddings), len(answer_ids)
    tail = text.embed_tokens(torch.tensor(list(answer_ids), dtype=torch.long))
    hidden = torch.cat([embeddings, tail])[None]
    more = (float(positions.max()) + 1 + torch.arange(t)).expand(3, t)
    cos_sin = text.rotary_emb(hidden, torch.cat([positions, more], dim=1)[:, None])
    answer_keys = kept_per_layer if answer_keys is None else answer_keys
    parts = zip(text.layers, kept_per_layer, answer_keys, strict=True)
    for index, (layer, kept, for_answer) in enumerate(parts):
        allowed = torch.zeros(n + t, n + t, dtype=torch.bool)
        allowed[:n, list(kept)] = True
        allowed[n:, list(for_answer)] = True
        allowed[:, n:] = True
        allowed &= torch.ones(n + t, n + t, dtype=torch.bool).tril()
        allowed |= torch.eye(n + t, dtype=torch.bool)  # a hidden row sees itself, so its softmax is defined
        mask = torch.zeros(n + t, n + t).masked_fill(~allowed, torch.finfo(torch.float32).min)
        hidden = layer(hidden, attention_mask=mask[None, None], position_embeddings=cos_sin)
        if deepstack is not None and index < len(deepstack):
            hidden[0, list(visual_rows)] += deepstack[index]
    return thinker.lm_head(text.norm(hidden[0, n - 1 :]))

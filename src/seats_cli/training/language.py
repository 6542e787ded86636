"""Second stage: the language model learns to answer, on the tokens of encoders that stay as they are.

Every token of every clip is there in every layer: no selection has any part in training.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from seats_cli.models.base import OmniModel
from seats_cli.training.labels import IGNORED, STORY_HEADS
from seats_cli.training.model import LOOK_LAYERS, STORY_LAYER
from seats_cli.training.optimizer import Optimizer
from seats_cli.training.pool import PoolSpec, read_clip
from seats_cli.training.referents import NAME, REFERENT_HEADS
from seats_cli.training.sequences import (
    HEARD,
    SEEN,
    Batch,
    Features,
    Looks,
    Prompts,
    TrainingSequence,
    choose_questions,
    collate,
    make_sequence,
)
from seats_cli.training.towers import encode_grids, parts_of, rotate_half, to_patches
from seats_cli.training.warmup import Heads, figures_of, learning_rate
from seats_cli.world.questions import FAMILIES

_SHARE_HEARD_ONLY, _SHARE_SEEN_ONLY = 0.08, 0.04
_STORY_WEIGHT = 0.3
_LOOK_WEIGHT = 0.2


@torch.no_grad()
def encode_pool(thinker: Any, spec: PoolSpec, folder: Path, indices: range) -> list[Features]:
    """Every clip of a pool through the encoders."""
    _, vision, audio = parts_of(thinker)
    found = []
    for index in indices:
        scene, _ = spec.scene(index)
        frames, mel = read_clip(folder, index)
        grids = torch.from_numpy(frames).view(scene.seconds, 2, *frames.shape[1:])
        seen = encode_grids(vision, to_patches(grids), scene.rows * 2, scene.columns * 2)
        length = torch.tensor([mel.shape[1]])
        heard = audio(
            torch.from_numpy(mel).float(), feature_lens=length, aftercnn_lens=(length - 1) // 2 + 1
        ).last_hidden_state
        found.append(Features(scene, seen.flatten(0, 1).half().clone(), heard.half().clone()))
    return found


def _heads(linear: nn.Module, hidden: Tensor, head_dim: int, rope: tuple[Tensor, Tensor] | None) -> Tensor:
    heads: Tensor = linear(hidden).view(*hidden.shape[:2], -1, head_dim).transpose(1, 2)
    if rope is None:
        return heads
    cos, sin = (table[:, None] for table in rope)
    return heads * cos + rotate_half(heads) * sin


def _attend(
    layer: Any,
    clip: Tensor,
    asked: Tensor,
    ropes: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]],
    mask: Tensor,
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """One decoder layer: the clip attends causally to itself, questions to the clip and to themselves.

    Returns:
        The clip's states, the questions' states, and the first queries of the questions with the first keys of
        the clip: [B, heads of one group, Q, head_dim] and [B, C, head_dim].
    """
    attention, dim = layer.self_attn, layer.self_attn.head_dim
    keys, values, queries = [], [], []
    for hidden, rope in zip((clip, asked), ropes, strict=True):
        normed = layer.input_layernorm(hidden)
        queries.append(_heads(attention.q_proj, normed, dim, rope))
        keys.append(_heads(attention.k_proj, normed, dim, rope))
        values.append(_heads(attention.v_proj, normed, dim, None))
    groups = queries[0].shape[1] // keys[0].shape[1]
    first = queries[1][:, :groups], keys[0][:, 0]
    keys, values = ([x.repeat_interleave(groups, 1) for x in both] for both in (keys, values))
    inside = functional.scaled_dot_product_attention(queries[0], keys[0], values[0], is_causal=True)
    across = functional.scaled_dot_product_attention(
        queries[1], torch.cat(keys, 2), torch.cat(values, 2), attn_mask=mask
    )
    out = []
    for hidden, mixed in ((clip, inside), (asked, across)):
        attended = hidden + attention.o_proj(mixed.transpose(1, 2).flatten(2))
        out.append(attended + layer.mlp(layer.post_attention_layernorm(attended)))
    return out[0], out[1], first


def _share_found(first: tuple[Tensor, Tensor], looks: Looks, wanted: Tensor, there: Tensor) -> Tensor:
    """Logarithm of the attention over the clip that falls where it should: [heads of one group, looks wanted].

    Args:
        first: Queries and keys, as ``_attend`` returns them.
        looks: Of the batch.
        wanted: int64, which of them.
        there: bool [B, C], false for padding.
    """
    queries, keys = first
    clip = looks.clip[wanted]
    scores = torch.einsum("lhd,lcd->hlc", queries[clip, :, looks.token[wanted]], keys[clip])
    scores = (scores / queries.shape[-1] ** 0.5).masked_fill(~there[clip], -torch.inf).log_softmax(-1)
    found: Tensor = scores.masked_fill(~looks.found[wanted], -torch.inf).logsumexp(-1)
    return found


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What a forward leaves.

    Attributes:
        logits: [B, Q, vocab] of the questions' tokens.
        story: [B, C, D], the clips' states after the story layer.
        named: [L, D], the states of the looks' tokens after the first layer of looks.
        share_found: Per kind of look, logarithm of the attention that falls where it should.
    """

    logits: Tensor
    story: Tensor
    named: Tensor
    share_found: tuple[Tensor, ...]


def forward(model: OmniModel, batch: Batch) -> Forwarded:
    """The whole language model on a batch, every token of every clip in every layer."""
    language, _, _ = parts_of(model.thinker)
    clip = language.embed_tokens(batch.clip_ids)
    clip = clip.masked_scatter(batch.is_media[..., None], batch.embeddings.to(clip.dtype))
    asked = language.embed_tokens(batch.ids)
    ropes = (
        language.rotary_emb(clip, batch.clip_positions),
        language.rotary_emb(asked, batch.positions),
    )
    looks, states, shares = batch.looks, {}, []
    for index, layer in enumerate(language.layers):
        clip, asked, first = _attend(layer, clip, asked, ropes, batch.mask)
        states[index] = clip if index == STORY_LAYER else asked
        if index in LOOK_LAYERS:
            wanted = (looks.kind == LOOK_LAYERS.index(index)).nonzero().flatten()
            shares.append(_share_found(first, looks, wanted, batch.mask[:, 0, 0, : clip.shape[1]]))
    named = states[LOOK_LAYERS[NAME]][looks.clip, looks.token]
    return Forwarded(model.thinker.lm_head(language.norm(asked)), states[STORY_LAYER], named, tuple(shares))


def _families(rng: np.random.Generator) -> tuple[tuple[str, ...], bool, bool]:
    """Which families are asked, whether the picture is there, and the sound."""
    draw = rng.random()
    if draw < _SHARE_HEARD_ONLY:
        return HEARD, False, True
    if draw < _SHARE_HEARD_ONLY + _SHARE_SEEN_ONLY:
        return SEEN, True, False
    return tuple(FAMILIES), True, True


def _draw_batch(
    pool: Sequence[Features],
    order: Sequence[int],
    prompts: Prompts,
    n_tokens: int,
    n_questions: int,
    rng: np.random.Generator,
) -> list[TrainingSequence]:
    """Clips of similar length, as many as make ``n_tokens``."""
    place = int(rng.integers(len(order)))
    longest = pool[order[place]].n_tokens
    n_clips = max(1, n_tokens // (longest + 18 * n_questions))
    around = order[max(0, place - 8 * n_clips) : place + 1]
    chosen = rng.choice(around, min(n_clips, len(around)), replace=False)
    made = []
    for index in chosen:
        features = pool[int(index)]
        families, see, hear = _families(rng)
        questions = choose_questions(features.scene, families, n_questions, rng)
        if not questions:
            families, see, hear = tuple(FAMILIES), True, True
            questions = choose_questions(features.scene, families, n_questions, rng)
        made.append(make_sequence(features, questions, prompts, see=see, hear=hear))
    return made


def new_story_heads(hidden_size: int) -> nn.ModuleDict:
    """Heads for what a clip's token knows, and for what a name's token knows."""
    return nn.ModuleDict({"story": Heads(hidden_size, STORY_HEADS), "named": Heads(hidden_size, REFERENT_HEADS)})


def _right(logits: Tensor, batch: Batch, sequences: Sequence[TrainingSequence]) -> list[tuple[str, bool]]:
    """Per question: its family, and whether every token of the answer is the likeliest."""
    wrong = (logits.argmax(-1) != batch.targets) & (batch.targets != IGNORED)
    found = []
    for i, one in enumerate(sequences):
        bad = set(batch.block[i][wrong[i]].tolist())
        found += [(question.category, number not in bad) for number, question in enumerate(one.questions)]
    return found


@torch.no_grad()
def validate(
    model: OmniModel, pool: Sequence[Features], prompts: Prompts, n_questions: int = 12
) -> dict[str, float]:
    """Exact match per family with teacher forcing, which equals greedy decoding; ``all`` is their mean."""
    rng = np.random.default_rng(0)
    found: dict[str, list[bool]] = defaultdict(list)
    for start in range(0, len(pool), 8):
        sequences = [
            make_sequence(
                one, choose_questions(one.scene, tuple(FAMILIES), n_questions, rng), prompts, story=False
            )
            for one in pool[start : start + 8]
        ]
        batch = collate(sequences)
        for family, right in _right(forward(model, batch).logits, batch, sequences):
            found[family].append(right)
    means = {family: sum(found[family]) / len(found[family]) for family in FAMILIES if found[family]}
    return {"all": sum(means.values()) / len(means), **means}


def losses(model: OmniModel, heads: nn.ModuleDict, batch: Batch) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Loss of a batch, logits of the questions' tokens, and how well the heads and the looks do.

    Args:
        model: Its language model is used.
        heads: Of ``new_story_heads``.
        batch: With story labels and looks.
    """
    out = forward(model, batch)
    loss = functional.cross_entropy(out.logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED)
    told, right = cast(Heads, heads["story"]).losses(out.story.flatten(0, 1), batch.story)
    known, right_named = cast(Heads, heads["named"]).losses(out.named, batch.looks.labels)
    total = loss + _STORY_WEIGHT * (told + known)
    figures = {"loss": float(loss.detach())}
    for name, share in zip(("named", "held"), out.share_found, strict=True):
        if share.numel():
            total = total - _LOOK_WEIGHT * share.mean()
            figures[name] = float(share.detach().exp().mean())
    figures |= {f"{name} named": value for name, value in right_named.items()}
    return total, out.logits, figures | right


def _learn(
    model: OmniModel,
    heads: nn.ModuleDict,
    optimizer: Optimizer,
    sequences: Sequence[TrainingSequence],
    rate: float,
) -> dict[str, float]:
    """One step; its loss, the share of questions answered, and the accuracy of each head."""
    batch = collate(sequences)
    loss, logits, figures = losses(model, heads, batch)
    optimizer.step(loss, rate)
    answered = _right(logits.detach(), batch, sequences)
    return {"exact": sum(ok for _, ok in answered) / len(answered), **figures}


def train(
    model: OmniModel,
    story_heads: nn.ModuleDict,
    pool: Sequence[Features],
    held_out: Sequence[Features],
    *,
    stop: Callable[[], bool] = lambda: False,
    n_steps: int,
    first_step: int = 0,
    peak_rate: float = 1.5e-3,
    n_tokens: int = 10_000,
    n_questions: int = 12,
    validate_every: int = 100,
    seed: int = 0,
    optimizer_state: dict[str, Any] | None = None,
    log: Callable[[str], None] = print,
    save: Callable[[int, dict[str, Any]], None] = lambda *_: None,
) -> int:
    """Train the language model until its steps are done or it is told to stop.

    Args:
        model: Its language model is trained in place.
        story_heads: Trained with it.
        pool: To learn from.
        held_out: To validate on.
        stop: Asked before each step.
        n_steps: Steps the learning rate is planned for.
        first_step: Where to go on.
        peak_rate: Learning rate.
        n_tokens: Tokens in a batch.
        n_questions: Questions about each clip.
        validate_every: Steps.
        seed: Of the batches.
        optimizer_state: As saved.
        log: Told how it goes.
        save: Called with the next step and the optimizer's state, after each validation and at the end.

    Returns:
        The next step.
    """
    language, _, _ = parts_of(model.thinker)
    optimizer = Optimizer([language.layers], [language, model.thinker.lm_head, story_heads], optimizer_state)
    prompts, began = Prompts(model), time.monotonic()
    order = sorted(range(len(pool)), key=lambda index: pool[index].n_tokens)
    mean: dict[str, float] = {}
    step = first_step
    while step < n_steps and not stop():
        rng = np.random.default_rng([seed, step])
        sequences = _draw_batch(pool, order, prompts, n_tokens, n_questions, rng)
        rate = learning_rate(step, n_steps, peak_rate)
        for name, value in _learn(model, story_heads, optimizer, sequences, rate).items():
            mean[name] = 0.95 * mean.get(name, value) + 0.05 * value
        step += 1
        if step % 20 == 0:
            log(f"step {step:5d}  {time.monotonic() - began:6.0f} s  {len(sequences)} clips  {figures_of(mean)}")
        if step % validate_every == 0:
            log(f"held out {step:5d}  {figures_of(validate(model, held_out, prompts))}")
            save(step, optimizer.state_dict())
    save(step, optimizer.state_dict())
    return step

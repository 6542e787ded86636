"""First stage: the encoders alone, told what each token shows or sounds like.

From random weights hardly any gradient of an answer reaches the encoders, so they learn to see and hear first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from seats_cli.training.labels import (
    AUDIO_HEADS,
    AUDIO_TOKENS_PER_SECOND,
    IGNORED,
    VIDEO_HEADS,
    audio_labels,
    sounds_in_tokens,
    things_in_tokens,
    video_labels,
)
from seats_cli.training.optimizer import Optimizer
from seats_cli.training.pool import PoolSpec, read_clip
from seats_cli.training.towers import encode_chunks, encode_grids, parts_of, to_patches

CHUNK_FRAMES, CHUNK_TOKENS = 200, 50
_NOTHING_WEIGHT = 0.15
_SHARE_EMPTY = 0.15


class Heads(nn.Module):
    """Linear readings of the encoders' tokens."""

    def __init__(self, hidden_size: int, kinds: Mapping[str, int]) -> None:
        super().__init__()
        self.kinds = dict(kinds)
        self.linear = nn.Linear(hidden_size, sum(kinds.values()))

    def losses(self, hidden: Tensor, labels: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Cross entropy summed over the heads, and the accuracy of each where there is something.

        Args:
            hidden: [n, D].
            labels: Per head int64 [n].
        """
        total = hidden.new_zeros(())
        right: dict[str, float] = {}
        for (name, _), logits in zip(
            self.kinds.items(), self.linear(hidden).split(list(self.kinds.values()), -1), strict=True
        ):
            target = labels[name]
            weight = torch.ones(logits.shape[-1])
            weight[0] = _NOTHING_WEIGHT
            if (target != IGNORED).any():
                total = total + functional.cross_entropy(logits, target, weight=weight, ignore_index=IGNORED)
            shown = target > 0
            if shown.any():
                right[name] = float((logits[shown].argmax(-1) == target[shown]).float().mean())
        return total, right


@dataclass(frozen=True, slots=True)
class Pieces:
    """All grids of one size, or all chunks of sound, with a label per token."""

    data: Tensor
    labels: dict[str, Tensor]
    busy: Tensor
    idle: Tensor

    def draw(self, n: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """``n`` pieces, most of them with something in them."""
        n_idle = min(len(self.idle), int(n * _SHARE_EMPTY))
        chosen = np.concatenate(
            [rng.choice(self.busy.numpy(), n - n_idle), rng.choice(self.idle.numpy(), n_idle) if n_idle else []]
        )
        index = torch.from_numpy(chosen.astype(np.int64))
        return self.data[index], {name: value[index].flatten() for name, value in self.labels.items()}


def _pieces(data: list[Any], labels: list[dict[str, Any]], key: str) -> Pieces:
    stacked = {name: torch.from_numpy(np.concatenate([one[name] for one in labels])) for name in labels[0]}
    busy = (stacked[key] > 0).any(1)
    return Pieces(
        torch.from_numpy(np.concatenate(data)), stacked, busy.nonzero().flatten(), (~busy).nonzero().flatten()
    )


def read_pieces(pools: Sequence[tuple[PoolSpec, Path]]) -> tuple[dict[tuple[int, int], Pieces], Pieces]:
    """Grids by (rows, columns) in merged tokens, and chunks of sound.

    Args:
        pools: Which clips, and the folder they are in.
    """
    grids: dict[tuple[int, int], tuple[list[Any], list[dict[str, Any]]]] = {}
    chunks: tuple[list[Any], list[dict[str, Any]]] = ([], [])
    clips = [(spec, folder, index) for spec, folder in pools for index in range(spec.n_clips)]
    for spec, folder, index in clips:
        scene, _ = spec.scene(index)
        frames, mel = read_clip(folder, index)
        data, labels = grids.setdefault((scene.rows, scene.columns), ([], []))
        data.append(frames.reshape(scene.seconds, 2, *frames.shape[1:]))
        found = video_labels(scene, things_in_tokens(scene))
        labels.append({name: value.reshape(scene.seconds, -1) for name, value in found.items()})
        n = scene.seconds // 2
        chunks[0].append(np.stack(np.split(mel[:, : n * CHUNK_FRAMES].astype(np.float32), n, 1)))
        heard = audio_labels(scene, sounds_in_tokens(scene, scene.seconds * AUDIO_TOKENS_PER_SECOND))
        chunks[1].append({k: v[: n * CHUNK_TOKENS].reshape(n, -1) for k, v in heard.items()})
    return {size: _pieces(*both, "shape") for size, both in grids.items()}, _pieces(*chunks, "sound")


def learning_rate(step: int, n_steps: int, peak: float, warm: int = 100) -> float:
    """Linear warm-up, then a half cosine down to a twentieth."""
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, n_steps - warm))))


def figures_of(values: Mapping[str, float]) -> str:
    """Names and values on one line."""
    return "  ".join(f"{name} {value:.2f}" for name, value in values.items())


def _losses(
    towers: tuple[Any, Any],
    heads: nn.ModuleDict,
    pieces: tuple[dict[tuple[int, int], Pieces], Pieces],
    counts: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[Tensor, dict[str, float]]:
    """Loss and accuracies on so many grids of one size, and so many chunks of sound."""
    grids, chunks = pieces
    sizes = list(grids)
    shares = np.array([len(grids[size].data) for size in sizes], dtype=float)
    size = sizes[rng.choice(len(sizes), p=shares / shares.sum())]
    frames, labels = grids[size].draw(counts[0], rng)
    tokens = encode_grids(towers[0], to_patches(frames), size[0] * 2, size[1] * 2)
    seen, right = cast(Heads, heads["video"]).losses(tokens.flatten(0, 1), labels)
    mel, labels = chunks.draw(counts[1], rng)
    heard, right_heard = cast(Heads, heads["audio"]).losses(encode_chunks(towers[1], mel).flatten(0, 1), labels)
    return seen + heard, {**right, **right_heard}


def warm_up(
    thinker: Any,
    heads: nn.ModuleDict,
    pieces: tuple[dict[tuple[int, int], Pieces], Pieces],
    n_steps: int,
    *,
    stop: Callable[[], bool] = lambda: False,
    first_step: int = 0,
    counts: tuple[int, int] = (64, 16),
    peak_rate: float = 5e-4,
    seed: int = 0,
    optimizer_state: dict[str, Any] | None = None,
    log: Callable[[str], None] = print,
    save: Callable[[int, dict[str, Any]], None] = lambda *_: None,
) -> int:
    """Train both encoders on what their tokens show, until the steps are done or it is told to stop.

    Args:
        thinker: Its encoders are trained in place.
        heads: ``video`` and ``audio``.
        pieces: Of ``read_pieces``.
        n_steps: Steps the learning rate is planned for.
        stop: Asked before each step.
        first_step: Where to go on.
        counts: Grids and chunks of sound in a batch.
        peak_rate: Learning rate.
        seed: Of the batches.
        optimizer_state: As saved.
        log: Told how it goes.
        save: Called with the next step and the optimizer's state, now and then and at the end.

    Returns:
        The next step.
    """
    _, vision, audio = parts_of(thinker)
    optimizer = Optimizer([vision.blocks, audio.layers], [vision, audio, heads], optimizer_state)
    began = time.monotonic()
    mean: dict[str, float] = {}
    step = first_step
    while step < n_steps and not stop():
        rng = np.random.default_rng([seed, step])
        loss, right = _losses((vision, audio), heads, pieces, counts, rng)
        optimizer.step(loss, learning_rate(step, n_steps, peak_rate))
        for name, value in {**right, "loss": float(loss.detach())}.items():
            mean[name] = 0.95 * mean.get(name, value) + 0.05 * value
        step += 1
        if step % 25 == 0:
            log(f"encoders {step:5d}  {time.monotonic() - began:6.0f} s  {figures_of(mean)}")
        if step % 200 == 0:
            save(step, optimizer.state_dict())
    save(step, optimizer.state_dict())
    return step


def new_heads(hidden_size: int) -> nn.ModuleDict:
    """Heads for what is seen and what is heard."""
    return nn.ModuleDict({"video": Heads(hidden_size, VIDEO_HEADS), "audio": Heads(hidden_size, AUDIO_HEADS)})

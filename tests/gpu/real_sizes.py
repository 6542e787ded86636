"""Inputs of the kernels in real sizes, and what they take: ``python -m tests.gpu.real_sizes``."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch

from seats_cli.models.saliency import attention_received
from seats_cli.selection.diversity import select_diverse
from seats_cli.selection.relevance import select_relevant

WINDOWS = 32
PATCHES, VISUAL, SOUND = 1152, 288, 50
"""Of a window of 2 s: patches and tokens of two grids, audio tokens."""


def heads(
    sizes: list[int], n_heads: int, head_dim: int, device: torch.device, dtype: torch.dtype = torch.bfloat16
) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys out of a fused projection: rows lie apart."""
    generator = torch.Generator(device).manual_seed(head_dim)
    fused = torch.randn(sum(sizes), 3, n_heads, head_dim, generator=generator, device=device)
    query, key, _ = fused.to(dtype).unbind(1)
    return query, key


def features(n: int, dim: int, device: torch.device, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings in bfloat16, some of them twice, and their saliency."""
    generator = torch.Generator(device).manual_seed(seed)
    x = torch.randn(n, dim, generator=generator, device=device).bfloat16()
    x[n // 2 :: 7] = x[: len(x[n // 2 :: 7])].clone()
    return x, torch.rand(n, generator=generator, device=device)


def sequence(
    n_windows: int, per_window: tuple[int, int], n_text: int, device: torch.device, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores, modality and window of a sequence that is Stage I's."""
    before, behind = n_text // 2, n_text - n_text // 2
    modality, window = [0] * before, [-1] * before
    for t in range(n_windows):
        modality += [1] * per_window[0] + [2] * per_window[1]
        window += [t] * sum(per_window)
    modality, window = modality + [0] * behind, window + [-1] * behind
    generator = torch.Generator().manual_seed(seed)
    scores = torch.softmax(3 * torch.randn(len(modality), generator=generator), 0)
    return (
        scores.to(device),
        torch.tensor(modality, dtype=torch.int8, device=device),
        torch.tensor(window, device=device),
    )


def relevance(
    parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    n_windows: int,
    n_text: int,
    budgets: tuple[int, int],
    **more: Any,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """One drop of Stage II."""
    options = {"temperature": 0.1, "score_norm": "none", "weigh_by": "query", **more}
    return select_relevant(
        *parts,
        n_windows=n_windows,
        max_window_tokens=VISUAL,
        budget_video=budgets[0],
        budget_audio=budgets[1],
        n_text=n_text,
        **options,
    )


def milliseconds(work: Callable[[], object], repeats: int = 20) -> float:
    """Median on the device, after three runs that do not count."""
    for _ in range(3):
        work()
    taken = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        taken.append(start.elapsed_time(end))
    return statistics.median(taken)


def main() -> None:
    """Print what each takes: with the kernels, and with torch alone."""
    from seats_cli import kernels

    device = torch.device("cuda", 0)
    picture = heads([PATCHES] * WINDOWS, 16, 80, device)
    sound = heads([2 * SOUND] * WINDOWS, 20, 64, device)
    x, saliency = features(VISUAL * WINDOWS, 3584, device)
    y, loudness = features(SOUND * WINDOWS, 3584, device)
    parts = sequence(WINDOWS, (24, 24), 80, device)
    works: dict[str, Callable[[], object]] = {
        "saliency, picture": lambda: attention_received(*picture, [PATCHES] * WINDOWS, 80**-0.5),
        "saliency, sound": lambda: attention_received(*sound, [2 * SOUND] * WINDOWS, 64**-0.5),
        "stage I, picture": lambda: select_diverse(x, saliency, [VISUAL] * WINDOWS, [24] * WINDOWS),
        "stage I, sound": lambda: select_diverse(y, loudness, [SOUND] * WINDOWS, [24] * WINDOWS),
        "stage II, a drop": lambda: relevance(parts, WINDOWS, 80, (720, 700)),
    }
    found = kernels.available
    for name, work in works.items():
        with_kernels = milliseconds(work)
        kernels.available = lambda _: False
        alone = milliseconds(work, 5)
        kernels.available = found
        sys.stdout.write(f"{name}: {with_kernels:.3f} ms, torch alone {alone:.3f} ms\n")


if __name__ == "__main__":
    with torch.inference_mode():
        main()

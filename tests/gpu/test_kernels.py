"""The compiled kernels against the torch implementations, in the sizes of the published models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from seats_cli import kernels
from seats_cli.models.saliency import attention_received
from seats_cli.selection import diversity
from seats_cli.selection.diversity import select_diverse
from tests.gpu.real_sizes import PATCHES, SOUND, VISUAL, WINDOWS, features, heads, relevance, sequence

pytestmark = pytest.mark.usefixtures("poisoned")


def by_torch(work: Callable[[], Any]) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "available", lambda _: False)
        return work()


def test_the_kernels_are_what_runs(gpu) -> None:
    assert kernels.why_not(gpu) is None
    assert kernels.why_not(torch.device("cuda")) is None


RAGGED = [PATCHES, 1, 577, 64, 3, 2304, 128, 129]
CASES = {
    "picture of Qwen2.5": ([PATCHES] * WINDOWS, 16, 80),
    "picture of Qwen3": ([PATCHES] * 8, 16, 72),
    "sound": ([2 * SOUND] * WINDOWS, 20, 64),
    "ragged": (RAGGED, 16, 80),
    "small heads": ([40, 7], 2, 8),
    "one position": ([1], 2, 64),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("strength", [1.0, 4.0])
def test_attention_received(gpu, name: str, dtype: torch.dtype, strength: float) -> None:
    sizes, n_heads, head_dim = CASES[name]
    query, key = heads(sizes, n_heads, head_dim, gpu, dtype)
    scale = strength * head_dim**-0.5
    got = attention_received(query, key, sizes, scale)
    # Of what is in half precision every product is exact in float32: so it is held against float32.
    expected = by_torch(lambda: attention_received(query.float(), key.float(), sizes, scale))
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)
    for part, size in zip(got.split(sizes), sizes, strict=True):
        torch.testing.assert_close(part.sum().item(), float(size), rtol=1e-4, atol=1e-4)
    assert torch.equal(got, attention_received(query, key, sizes, scale)), "a run repeats itself to the bit"


PICKS = {
    "picture": ([VISUAL] * WINDOWS, [24] * WINDOWS, 3584),
    "sound": ([SOUND] * WINDOWS, [24] * WINDOWS, 2048),
    "ragged": ([VISUAL, 1, 0, 50, 800, 144], [24, 1, 0, 49, 100, 3], 512),
    "some whole": ([VISUAL, 50, VISUAL], [VISUAL, 50, 10], 512),
    "as long as a program holds": ([kernels.LONGEST_WINDOW], [40], 256),
    "longer than that": ([kernels.LONGEST_WINDOW + 1], [10], 64),
}


@pytest.mark.parametrize("name", PICKS)
def test_picks_are_those_of_torch(gpu, name: str) -> None:
    sizes, keeps, dim = PICKS[name]
    x, saliency = features(sum(sizes), dim, gpu)
    got = select_diverse(x, saliency, sizes, keeps)
    expected = by_torch(lambda: select_diverse(x, saliency, sizes, keeps))
    assert torch.equal(got, expected)
    assert len(got) == sum(keeps)
    assert torch.equal(got, select_diverse(x, saliency, sizes, keeps))


def test_picks_are_those_of_float32(gpu) -> None:
    """Products of half precision, summed in float32, against all of it in float32: but for near ties the same."""
    sizes, keeps = [VISUAL] * 4, [24] * 4
    x, saliency = features(sum(sizes), 3584, gpu)
    got = set(select_diverse(x, saliency, sizes, keeps).tolist())
    exact = set(select_diverse(x.float(), saliency, sizes, keeps).tolist())
    assert len(got & exact) >= 0.9 * len(got)


def test_groups_bounded_in_memory_choose_the_same(gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, keeps = [VISUAL] * 6, [24] * 6
    x, saliency = features(sum(sizes), 256, gpu)
    # Eighths: whatever the order of the sums, they are exact.
    x = (8 * x.float()).round().clamp(-16, 16).div(8).bfloat16()
    together = select_diverse(x, saliency, sizes, keeps)
    monkeypatch.setattr(diversity, "DISTANCE_BYTES", 4 * VISUAL**2 * 2)
    assert torch.equal(select_diverse(x, saliency, sizes, keeps), together)


SEQUENCES = {
    "64 s": (32, (24, 24), 80, (720, 700)),
    "a little": (32, (24, 24), 80, (20, 9)),
    "silent": (32, (24, 0), 80, (300, 0)),
    "one window": (1, (100, 20), 10, (40, 10)),
    "an hour": (1800, (20, 6), 100, (20_000, 5_000)),
    "too long to compare all": (1800, (30, 8), 100, (20_000, 5_000)),
}


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize(
    "how",
    [{}, {"score_norm": "standard"}, {"weigh_by": "uniform"}, {"score_norm": "standard", "temperature": 1e-308}],
    ids=str,
)
def test_budgets_and_ranks(gpu, name: str, how: dict[str, Any]) -> None:
    n_windows, per_window, n_text, budgets = SEQUENCES[name]
    parts = sequence(n_windows, per_window, n_text, gpu)
    got, trace = relevance(parts, n_windows, n_text, budgets, **how)
    # On the CPU, where sums have an order.
    there = sequence(n_windows, per_window, n_text, torch.device("cpu"))
    expected, expected_trace = relevance(there, n_windows, n_text, budgets, **how)
    assert torch.equal(got.cpu(), expected)
    for key, value in expected_trace.items():
        found = trace[key].cpu()
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        if value.is_floating_point():
            torch.testing.assert_close(found, value, rtol=1e-9, atol=1e-12)
        else:
            assert torch.equal(found, value), key


def variants() -> dict[str, int]:
    """How often each kernel was compiled."""
    from seats_cli.kernels import attention, greedy
    from seats_cli.kernels import relevance as stage_two

    jitted = [attention.row_sums, attention.column_sums, greedy.choose]
    jitted += [stage_two.measure, stage_two.share, stage_two.stay, stage_two.collect]
    return {one.fn.__name__: sum(len(held[0]) for held in one.device_caches.values()) for one in jitted}


def test_another_clip_compiles_nothing(gpu) -> None:
    """Lengths, counts and budgets of all kinds: odd, even, 1, multiples of 16."""

    def clip(n_windows: int, size: int, keep: int, budgets: tuple[int, int], n_text: int) -> None:
        query, key = heads([4 * size] * n_windows, 16, 80, gpu)
        attention_received(query, key, [4 * size] * n_windows, 80**-0.5)
        x, saliency = features(size * n_windows, 512, gpu)
        select_diverse(x, saliency, [size] * n_windows, [keep] * n_windows)
        parts = sequence(n_windows, (keep, 7), n_text, gpu)
        relevance(parts, n_windows, n_text, budgets)

    clip(32, 288, 24, (320, 160), 64)
    before = variants()
    clip(31, 287, 23, (321, 101), 63)
    clip(17, 260, 1, (1, 1), 17)
    clip(20, 300, 160, (1600, 64), 1)
    assert variants() == before

"""The Triton kernels on the CPU, in Triton's interpreter, against the torch implementations and loops.

Run by ``test_kernels.py`` in a process of its own: the interpreter is chosen before Triton is imported. It is
slow, and does not multiply bfloat16, so sizes are small and what is real is left to ``tests/gpu``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from triton.runtime import interpreter

from seats_cli import kernels
from seats_cli.kernels import attention
from seats_cli.models.saliency import attention_received
from seats_cli.selection import diversity
from seats_cli.selection.diversity import select_diverse
from seats_cli.selection.relevance import select_relevant
from tests.models.test_saliency import random_heads, received_by_loops
from tests.oracles import selection as oracle

# Infinity and what is no number are made on purpose; numpy, which computes here, would complain.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")

_patch = interpreter._patch_lang_tensor


def _patch_with_index(tensor: type, *more: object) -> None:
    """Triton 3.6 makes the end of a range of an array with one element, which numpy 2.4 refuses."""
    _patch(tensor, *more)
    tensor.__index__ = lambda self: int(self.handle.data.squeeze())  # type: ignore[attr-defined]


interpreter._patch_lang_tensor = _patch_with_index


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Memory that nobody has written is full of what nobody would write."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


@contextmanager
def plain_torch() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "available", lambda _: False)
        yield


def test_the_interpreter_is_what_runs() -> None:
    assert kernels.available(torch.device("cpu"))


# Attention received


@pytest.mark.parametrize("head_dim", [80, 64, 72, 8])
@pytest.mark.parametrize("sizes", [[40], [1], [3, 1, 40, 17]])
def test_attention_received_equals_torch(head_dim: int, sizes: list[int]) -> None:
    # Queries and keys as a fused projection leaves them: rows lie apart.
    fused = torch.randn(sum(sizes), 3, 2, head_dim, generator=torch.Generator().manual_seed(head_dim))
    query, key, _ = fused.unbind(1)
    got = attention_received(query, key, sizes, head_dim**-0.5)
    with plain_torch():
        expected = attention_received(query, key, sizes, head_dim**-0.5)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    for part, size in zip(got.split(sizes), sizes, strict=True):
        torch.testing.assert_close(part.sum(), torch.tensor(float(size)))


@pytest.mark.parametrize("scale", [0.3, 4.0])
def test_attention_received_equals_loops(scale: float) -> None:
    sizes = [7, 1, 12]
    query, key = random_heads(sum(sizes), heads=2, dim=16)
    got = attention_received(query.float(), key.float(), sizes, scale)
    torch.testing.assert_close(got.double(), received_by_loops(query, key, sizes, scale), rtol=1e-4, atol=1e-5)


def test_attention_received_over_more_than_a_block() -> None:
    query, key = torch.randn(2, 150, 1, 16, generator=torch.Generator().manual_seed(0)).half()
    got = attention_received(query, key, [150], 0.5)
    with plain_torch():
        expected = attention_received(query.float(), key.float(), [150], 0.5)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(got, attention_received(query, key, [150], 0.5))


def test_no_sound_receives_nothing() -> None:
    nothing = torch.empty(0, 2, 64)
    assert attention.attention_received(nothing, nothing, [], 0.1).shape == (0,)
    assert attention.attention_received(nothing, nothing, [0, 0], 0.1).shape == (0,)


def test_logits_too_large_for_exp() -> None:
    query, key = 300 * torch.randn(2, 20, 1, 16, generator=torch.Generator().manual_seed(1))
    got = attention_received(query, key, [20], 1.0)
    with plain_torch():
        torch.testing.assert_close(got, attention_received(query, key, [20], 1.0))


# The greedy choice


def by_kernel_and_torch(
    x: torch.Tensor, saliency: torch.Tensor, sizes: list[int], keeps: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    got = select_diverse(x, saliency, sizes, keeps)
    with plain_torch():
        return got, select_diverse(x, saliency, sizes, keeps)


@pytest.mark.parametrize(
    ("sizes", "keeps"),
    [
        ([40], [11]),
        ([12, 12, 12], [3, 3, 3]),
        ([1, 0, 40, 7, 5, 17], [1, 0, 13, 0, 5, 16]),
        ([5, 20], [5, 2]),
        ([2, 2], [1, 1]),
        ([4, 3], [4, 3]),
    ],
)
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_picks_equal_torch(sizes: list[int], keeps: list[int], kind: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(sum(sizes))
    x = torch.randn(sum(sizes), 6, generator=generator).to(kind)
    got, expected = by_kernel_and_torch(x, torch.rand(sum(sizes), generator=generator), sizes, keeps)
    assert got.dtype == torch.int64
    assert torch.equal(got, expected)


@pytest.mark.parametrize("seed", range(4))
def test_ties_duplicates_and_zero_vectors_equal_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = np.concatenate([np.eye(4), np.full((1, 4), 0.5), np.zeros((1, 4))]).astype(np.float32)
    x, saliency = rows[rng.integers(0, 6, 30)], rng.choice([0.0, 0.5, 1.0], 30).astype(np.float32)
    sizes, keeps = [18, 12], [9, 4]
    got, expected = by_kernel_and_torch(torch.tensor(x), torch.tensor(saliency), sizes, keeps)
    parts = [oracle.stage_one(x[:18], saliency[:18], 9), oracle.stage_one(x[18:], saliency[18:], 4)]
    assert got.tolist() == expected.tolist() == [*sorted(parts[0]), *sorted(18 + i for i in parts[1])]


def test_groups_bounded_in_memory_choose_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(4)
    sizes, keeps = [7, 0, 30, 12, 12, 5, 1], [3, 0, 11, 12, 4, 2, 1]
    x, saliency = torch.randn(67, 6, generator=generator), torch.rand(67, generator=generator)
    together = select_diverse(x, saliency, sizes, keeps)
    monkeypatch.setattr(diversity, "DISTANCE_BYTES", 4 * 12 * 12 * 2)
    got, expected = by_kernel_and_torch(x, saliency, sizes, keeps)
    assert torch.equal(got, together)
    assert torch.equal(expected, together)


def test_a_window_longer_than_a_program_is_chosen_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "LONGEST_WINDOW", 10)
    monkeypatch.setattr(diversity, "_by_kernel", None)
    assert len(select_diverse(torch.randn(12, 4), torch.rand(12), [11, 1], [3, 1])) == 4


def test_features_that_are_no_numbers_still_give_tokens_of_their_windows() -> None:
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(5))
    x[3], x[15] = torch.nan, torch.inf
    kept = select_diverse(x, torch.full((20,), torch.nan), [12, 8], [5, 3]).tolist()
    assert kept == sorted(set(kept))
    assert [sum(i < 12 for i in kept), sum(12 <= i < 20 for i in kept)] == [5, 3]


# Budgets and ranks

WINDOWS = {
    "usual": ([(5, 3)] * 5, 7, 4),
    "uneven": ([(5, 3), (0, 2), (3, 0), (0, 0), (1, 1), (9, 2)], 4, 3),
    "one window": ([(7, 3)], 3, 2),
    "silent": ([(6, 0)] * 3, 5, 1),
    "sound only": ([(0, 4)] * 2, 1, 3),
    "fewer than windows": ([(2, 1)] * 5, 2, 1),
    "more than there are": ([(4, 2)] * 3, 30, 9),
    "nothing": ([(4, 2)] * 3, 0, 0),
    "over a block": ([(40, 12)] * 3, 60, 13),
}
SCORES: dict[str, Callable[[int, torch.Generator], torch.Tensor]] = {
    "any": lambda n, generator: torch.rand(n, generator=generator) / n,
    "equal": lambda n, _: torch.full((n,), 1 / n),
    "tied": lambda n, generator: (4 * torch.rand(n, generator=generator)).floor(),
}
HOW = [("none", "query", 0.1), ("standard", "query", 0.1), ("standard", "query", 1e-308), ("none", "uniform", 0.1)]


def relevance_case(name: str, scores: torch.Tensor | None, kind: str, how: tuple[str, str, float]):
    windows, budget_video, budget_audio = WINDOWS[name]
    modality, window = [0, 0], [-1, -1]
    for t, counts in enumerate(windows):
        # Turn by turn, as Qwen3 has them.
        for i in range(max(counts)):
            mine = [m for m, n in zip((1, 2), counts, strict=True) if i < n]
            modality, window = [*modality, *mine], [*window, *[t] * len(mine)]
    modality, window = [*modality, 0, 0, 0], [*window, -1, -1, -1]
    if scores is None:
        scores = SCORES[kind](len(modality), torch.Generator().manual_seed(len(modality)))
    norm, weigh_by, temperature = how
    return select_relevant(
        scores,
        torch.tensor(modality, dtype=torch.int8),
        torch.tensor(window),
        n_windows=len(windows),
        max_window_tokens=max(max(pair) for pair in windows),
        budget_video=budget_video,
        budget_audio=budget_audio,
        temperature=temperature,
        score_norm=norm,  # type: ignore[arg-type]
        n_text=5,
        weigh_by=weigh_by,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("how", HOW, ids=str)
def test_budgets_and_ranks_equal_torch(name: str, kind: str, how: tuple[str, str, float]) -> None:
    got, trace = relevance_case(name, None, kind, how)
    with plain_torch():
        expected, expected_trace = relevance_case(name, None, kind, how)
    assert torch.equal(got, expected)
    assert trace.keys() == expected_trace.keys()
    for key, value in expected_trace.items():
        assert trace[key].dtype == value.dtype
        assert trace[key].shape == value.shape
        if value.is_floating_point():
            torch.testing.assert_close(trace[key], value, rtol=1e-12, atol=1e-15)
        else:
            assert torch.equal(trace[key], value), key


def test_scores_that_are_no_numbers_still_leave_what_was_planned() -> None:
    got, _ = relevance_case("usual", torch.full((45,), torch.nan), "any", HOW[0])
    assert len(got) == 5 + 11
    assert got.tolist() == sorted(set(got.tolist()))
    assert {0, 1, 42, 43, 44} < set(got.tolist()) < set(range(45))

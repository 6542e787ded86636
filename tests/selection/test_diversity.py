"""Stage I against the loop, its laws, and what it costs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from seats_cli.selection.diversity import diversity_matmul_macs, select_diverse
from tests.oracles import selection as oracle

EXACT = settings(deadline=None, max_examples=150, derandomize=True)
# Unit or zero vectors whose cosines are exact in float32, so that ties are ties.
EXACT_ROWS = [
    *np.eye(4).tolist(),
    [0.5, 0.5, 0.5, 0.5],
    [-0.5, 0.5, 0.5, -0.5],
    [0.5, -0.5, 0.5, 0.5],
    [0.0, 0.0, 0.0, 0.0],
]


def by_loop(x: np.ndarray, saliency: np.ndarray, sizes: list[int], keeps: list[int]) -> list[int]:
    kept, start = [], 0
    for size, keep in zip(sizes, keeps, strict=True):
        part = slice(start, start + size)
        kept += [start + i for i in sorted(oracle.stage_one(x[part], saliency[part], keep))]
        start += size
    return kept


def by_package(x: np.ndarray, saliency: np.ndarray, sizes: list[int], keeps: list[int]) -> list[int]:
    return select_diverse(torch.tensor(x), torch.tensor(saliency), sizes, keeps).tolist()


@st.composite
def exact_windows(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[int], list[int]]:
    sizes = draw(st.lists(st.integers(0, 7), min_size=1, max_size=4))
    keeps = [draw(st.integers(0, size)) for size in sizes]
    n = sum(sizes)
    rows = draw(st.lists(st.sampled_from(EXACT_ROWS), min_size=n, max_size=n))
    saliency = draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 4.0]), min_size=n, max_size=n))
    return (
        np.array(rows, dtype=np.float32).reshape(n, 4),
        np.array(saliency, dtype=np.float32),
        sizes,
        keeps,
    )


@EXACT
@given(exact_windows())
def test_equals_loop_on_ties_duplicates_and_zero_vectors(
    windows: tuple[np.ndarray, np.ndarray, list[int], list[int]],
) -> None:
    assert by_package(*windows) == by_loop(*windows)


@pytest.mark.parametrize("seed", range(12))
def test_equals_loop_on_random_windows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 30, size=5).tolist()
    keeps = [int(rng.integers(1, size + 1)) for size in sizes]
    x = rng.standard_normal((sum(sizes), 16)).astype(np.float32)
    saliency = rng.random(sum(sizes)).astype(np.float32)
    assert by_package(x, saliency, sizes, keeps) == by_loop(x, saliency, sizes, keeps)


def test_first_pick_is_the_token_farthest_from_its_nearest() -> None:
    # Tokens 0 and 1 are twins, 2 is alone: only 2 is far from its nearest other.
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert select_diverse(x, torch.ones(3), [3], [1]).tolist() == [2]


def test_saliency_of_the_candidate_weights_its_distance() -> None:
    x = torch.eye(4)
    assert select_diverse(x, torch.tensor([1.0, 1.0, 5.0, 2.0]), [4], [2]).tolist() == [2, 3]


def test_identical_tokens_and_zero_vectors_go_by_index() -> None:
    assert select_diverse(torch.ones(5, 4), torch.ones(5), [5], [2]).tolist() == [0, 1]
    assert select_diverse(torch.zeros(5, 4), torch.zeros(5), [5], [3]).tolist() == [0, 1, 2]


def test_single_tokens_and_full_windows_compute_nothing() -> None:
    x, saliency = torch.randn(6, 8), torch.rand(6)
    with FlopCounterMode(display=False) as counter:
        kept = select_diverse(x, saliency, [1, 0, 5], [1, 0, 5])
    assert kept.tolist() == list(range(6))
    assert counter.get_total_flops() == 0 == diversity_matmul_macs([1, 0, 5], [1, 0, 5], 8)


def test_no_tokens() -> None:
    kept = select_diverse(torch.zeros(0, 8), torch.zeros(0), [0, 0], [0, 0])
    assert kept.dtype == torch.int64
    assert kept.tolist() == []


@EXACT
@given(exact_windows())
def test_laws(windows: tuple[np.ndarray, np.ndarray, list[int], list[int]]) -> None:
    _, _, sizes, keeps = windows
    kept = by_package(*windows)
    assert kept == sorted(set(kept))
    bounds = np.cumsum([0, *sizes])
    inside = [sum(low <= i < high for i in kept) for low, high in pairwise(bounds)]
    assert inside == keeps


def test_a_larger_pick_contains_the_smaller() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(40, 12, generator=generator)
    saliency = torch.rand(40, generator=generator)
    smaller: set[int] = set()
    for keep in range(13):
        larger = set(select_diverse(x, saliency, [25, 15], [2 * keep, keep]).tolist())
        assert smaller <= larger
        smaller = larger


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_arithmetic_is_float32_whatever_comes_in(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(4)
    # Crowded directions: rounding the cosines to the type that came in would change the picks.
    x = torch.randn(200, 8, generator=generator).to(dtype)
    expected = select_diverse(x.float(), torch.ones(200), [200], [50])
    assert select_diverse(x, torch.ones(200), [200], [50]).tolist() == expected.tolist()


def test_matmul_cost_is_what_is_executed() -> None:
    sizes, keeps, dim = [10, 7, 3, 0, 12], [4, 7, 1, 0, 2], 24
    with FlopCounterMode(display=False) as counter:
        select_diverse(torch.randn(32, dim), torch.rand(32), sizes, keeps)
    assert counter.get_total_flops() == 2 * diversity_matmul_macs(sizes, keeps, dim) > 0


def test_never_asks_the_device() -> None:
    """Tensors without data refuse operations that need a value on the host, and those that mix devices."""
    with FakeTensorMode():
        x, saliency = torch.empty(32, 8, device="cuda"), torch.empty(32, device="cuda")
        with pytest.raises(DataDependentOutputException):
            saliency.sum().item()
        kept = select_diverse(x, saliency, [10, 7, 3, 0, 12], [4, 7, 1, 0, 2])
        assert tuple(kept.shape) == (14,)
        assert kept.device.type == "cuda"


@pytest.mark.parametrize(
    ("sizes", "keeps"), [([3, 2], [4, 1]), ([3, 2], [-1, 1]), ([3, 3], [1, 1]), ([5], [1, 1])]
)
def test_contradictory_counts_are_refused(sizes: list[int], keeps: list[int]) -> None:
    with pytest.raises(ValueError):
        select_diverse(torch.randn(5, 4), torch.rand(5), sizes, keeps)


def test_memory_bounded_runs_of_windows_choose_the_same(monkeypatch):
    """However few bytes the distances may take, the picks are those of all windows side by side."""
    from torch.utils.flop_counter import FlopCounterMode

    from seats_cli.selection import diversity

    generator = torch.Generator().manual_seed(4)
    sizes, keeps = (7, 0, 30, 12, 12, 5, 1), (3, 0, 11, 12, 4, 2, 1)
    x = torch.randn(sum(sizes), 6, generator=generator)
    a = torch.rand(sum(sizes), generator=generator)
    together = diversity.select_diverse(x, a, sizes, keeps)
    for n_bytes in (1, 4 * 12 * 12 * 2, 4 * 30 * 30 * 2):
        monkeypatch.setattr(diversity, "DISTANCE_BYTES", n_bytes)
        counter = FlopCounterMode(display=False)
        with counter:
            apart = diversity.select_diverse(x, a, sizes, keeps)
        assert torch.equal(apart, together)
        assert counter.get_total_flops() == 2 * diversity.diversity_matmul_macs(sizes, keeps, 6)

"""The random baseline: exact counts, every token as likely, and draws that follow from the seed and the clip."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seats_cli.config import SelectionOptions
from seats_cli.layout import Modality
from seats_cli.selection.base import EncodedWindows, LayerState
from seats_cli.selection.random import SKETCH_FEATURES, Random, sketch
from seats_cli.selection.schedule import make_plan

CHECKED = settings(deadline=None, max_examples=200, derandomize=True)
N_LAYERS = 12


def windows_of(sizes: list[int], content: int = 0, modality: Modality = Modality.VIDEO) -> EncodedWindows:
    rng = np.random.default_rng(content)
    x = torch.tensor(rng.standard_normal((sum(sizes), 24)) * rng.lognormal(size=24) + rng.standard_normal(24))
    return EncodedWindows(modality, x.float(), None, tuple(sizes), 0)


def method_of(windows: EncodedWindows, trr: float, seed: int = 0) -> Random:
    options = SelectionOptions(method="random", trr=trr, selection_seed=seed)
    sizes, none = windows.window_sizes, [0] * len(windows.window_sizes)
    of_video = windows.modality is Modality.VIDEO
    return Random(
        make_plan(options, None, N_LAYERS, *((sizes, none) if of_video else (none, sizes))), options, 0.1
    )


def drawn(windows: EncodedWindows, trr: float, seed: int = 0) -> list[int]:
    return method_of(windows, trr, seed).before_llm(windows).indices.tolist()


sizes_strategy = st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any)
modalities = st.sampled_from([Modality.VIDEO, Modality.AUDIO])


@CHECKED
@given(sizes_strategy, st.floats(0.001, 1.0), st.integers(0, 2**63 - 1), modalities)
def test_exactly_the_ratio_in_order_and_the_same_again(
    sizes: list[int], trr: float, seed: int, modality: Modality
) -> None:
    windows = windows_of(sizes, 1, modality)
    n = sum(sizes)
    kept = method_of(windows, trr, seed).before_llm(windows)
    indices = kept.indices.tolist()
    assert kept.indices.dtype == torch.int64
    assert indices == sorted(set(indices))
    assert set(indices) <= set(range(n))
    assert abs(len(indices) - trr * n) <= 0.5 or len(indices) == 1
    ends = np.cumsum(sizes)
    assert kept.counts == tuple(
        sum(end - size <= i < end for i in indices) for size, end in zip(sizes, ends, strict=True)
    )
    assert kept.embeddings is None
    assert kept.macs == 0
    assert drawn(windows, trr, seed) == indices


@pytest.mark.parametrize("trr", [0.1, 0.35, 0.8])
def test_every_token_is_as_likely_and_so_is_every_pair(trr: float) -> None:
    """Over many seeds: how often a token, and how often two together, stay. Bounds of five deviations."""
    windows, runs = windows_of([13, 0, 20, 7]), 4000
    n = 40
    together = np.zeros((n, n))
    for seed in range(runs):
        stays = np.zeros(n)
        stays[drawn(windows, trr, seed)] = 1
        together += np.outer(stays, stays)
    m = round(trr * n)
    one, two = m / n, m * (m - 1) / (n * (n - 1))
    pairs = together[np.triu_indices(n, 1)]
    assert np.abs(np.diag(together) / runs - one).max() < 5 * math.sqrt(one * (1 - one) / runs)
    assert np.abs(pairs / runs - two).max() < 5 * math.sqrt(two * (1 - two) / runs)


def test_clips_have_draws_of_their_own() -> None:
    """Every token is as likely over clips of one shape, too, with one seed."""
    runs, n = 2000, 40
    counts = np.zeros(n)
    for content in range(runs):
        counts[drawn(windows_of([20, 20], content), 0.25)] += 1
    assert np.abs(counts / runs - 0.25).max() < 5 * math.sqrt(0.25 * 0.75 / runs)


@CHECKED
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_seeds_and_contents_and_modalities_part(one: int, other: int) -> None:
    """Two draws of half of 200 tokens agree with a chance of one in 10^58."""
    sizes = [100, 100]
    base = drawn(windows_of(sizes, one), 0.5, one)
    if one != other:
        assert drawn(windows_of(sizes, one), 0.5, other) != base
        assert drawn(windows_of(sizes, other), 0.5, one) != base
    assert drawn(windows_of(sizes, one, Modality.AUDIO), 0.5, one) != base


@CHECKED
@given(st.integers(0, 10**6), st.data())
def test_a_little_of_another_clip_is_another_clip(content: int, data: st.DataObject) -> None:
    """One window of eight that is another, and two windows in turn."""
    whole = windows_of([50] * 8, content)
    place = data.draw(st.integers(0, 7))
    new = windows_of([50], content + 1).embeddings
    x = whole.embeddings
    changed = torch.cat([x[: 50 * place], new, x[50 * (place + 1) :]])
    turned = torch.cat([x[50:100], x[:50], x[100:]])
    for other in (changed, turned):
        assert sketch(other) != sketch(x)


def test_rounding_errors_hardly_ever_change_the_draw() -> None:
    """Relative errors of 1e-6 in every number: the same draw for nearly all clips."""
    same = 0
    for content in range(200):
        windows = windows_of([30, 30], content)
        noise = torch.tensor(np.random.default_rng(content).uniform(-1e-6, 1e-6, size=(60, 24)))
        near = EncodedWindows(
            Modality.VIDEO, (windows.embeddings.double() * (1 + noise)).float(), None, (30, 30), 0
        )
        same += drawn(near, 0.5) == drawn(windows, 0.5)
    assert same >= 195


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(0, 24), (1, 24), (7, 3), (7, 24)])
def test_a_sketch_is_of_numbers_that_can_be_a_seed(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    for x in (torch.randn(shape, generator=torch.Generator().manual_seed(1)), torch.zeros(shape)):
        found = sketch(x.to(dtype))
        assert len(found) == min(shape[1], SKETCH_FEATURES)
        assert all(isinstance(value, int) and 0 <= value < 2**32 for value in found)
    assert sketch(torch.full(shape, torch.nan)) == sketch(torch.full(shape, torch.inf)) == [0] * len(found)


def test_part_of_a_clip_is_refused() -> None:
    windows = windows_of([5, 5])
    with pytest.raises(ValueError, match="5 tokens were given; the plan is for 10"):
        method_of(windows, 0.5).before_llm(windows_of([5]))


def test_nothing_is_dropped_later() -> None:
    method = method_of(windows_of([5, 5]), 0.5)
    assert method.drop_before_layer == ()

    def unreachable() -> torch.Tensor:
        raise AssertionError("the scores were asked for")

    state = LayerState(3, torch.tensor([0, 1]), torch.tensor([-1, 0]), 1, 1, unreachable)
    assert method.before_layer(state).indices.tolist() == [0, 1]

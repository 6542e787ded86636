"""Stage II against the loop, and its laws."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from seats_cli.selection.relevance import PerModality, modality_budgets, select_relevant, window_budgets
from tests.oracles import selection as oracle

CHECKED = settings(deadline=None, max_examples=200, derandomize=True)


@dataclass(frozen=True)
class Case:
    """A sequence and a budget."""

    scores: list[float]
    modality: list[int]
    window: list[int]
    n_windows: int
    budget_video: int
    budget_audio: int
    temperature: float = 0.1
    score_norm: str = "none"
    weigh_by: str = "query"

    @property
    def n_text(self) -> int:
        return self.modality.count(oracle.TEXT)

    @property
    def n_others(self) -> int:
        return len(self.modality) - self.n_text

    def sizes(self, kind: int) -> list[int]:
        return oracle.sizes(self.modality, self.window, kind, self.n_windows)

    def by_package(self) -> tuple[list[int], dict[str, torch.Tensor]]:
        indices, trace = select_relevant(
            torch.tensor(self.scores, dtype=torch.float32),
            torch.tensor(self.modality, dtype=torch.int8),
            torch.tensor(self.window, dtype=torch.int64),
            n_windows=self.n_windows,
            max_window_tokens=max([0, *self.sizes(oracle.VIDEO), *self.sizes(oracle.AUDIO)]),
            budget_video=self.budget_video,
            budget_audio=self.budget_audio,
            temperature=self.temperature,
            score_norm=self.score_norm,  # type: ignore[arg-type]
            n_text=self.n_text,
            weigh_by=self.weigh_by,  # type: ignore[arg-type]
        )
        assert indices.dtype == torch.int64
        return indices.tolist(), trace

    def weights_by_loop(self, kind: int) -> list[float]:
        if self.weigh_by == "uniform":
            return oracle.even_weights(self.modality, self.window, kind=kind, n_windows=self.n_windows)
        scores = np.array(self.scores, dtype=np.float32).tolist()
        return oracle.window_weights(
            scores,
            self.modality,
            self.window,
            kind=kind,
            n_windows=self.n_windows,
            temperature=self.temperature,
            norm=self.score_norm,
        )

    def by_loop(self, weights_video: list[float], weights_audio: list[float]) -> list[int]:
        return oracle.stage_two(
            self.scores,
            self.modality,
            self.window,
            n_windows=self.n_windows,
            budget_video=self.budget_video,
            budget_audio=self.budget_audio,
            weights_video=weights_video,
            weights_audio=weights_audio,
        )


def sequence(
    sizes: list[tuple[int, int]], n_text: int = 3, *, interleave: bool = False
) -> tuple[list[int], list[int]]:
    """Modality and window: some text, the windows (video, then audio, or the two mixed), the rest."""
    modality, window = [oracle.TEXT] * (n_text // 2), [-1] * (n_text // 2)
    for t, (video, audio) in enumerate(sizes):
        kinds = [oracle.VIDEO] * video + [oracle.AUDIO] * audio
        modality += kinds[::2] + kinds[1::2] if interleave else kinds
        window += [t] * len(kinds)
    rest = n_text - n_text // 2
    return modality + [oracle.TEXT] * rest, window + [-1] * rest


@st.composite
def cases(draw: st.DrawFn) -> Case:
    sizes = draw(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), max_size=5))
    modality, window = sequence(sizes, draw(st.integers(0, 5)), interleave=draw(st.booleans()))
    n = len(modality)
    # Few distinct values: ties everywhere, zeros among them; or the whole range of a softmax.
    values = draw(st.sampled_from([st.sampled_from([0.0, 0.125, 0.5, 1.0]), st.floats(0, 1, width=32)]))
    return Case(
        draw(st.lists(values, min_size=n, max_size=n)),
        modality,
        window,
        len(sizes),
        draw(st.integers(0, 1 + sum(v for v, _ in sizes))),
        draw(st.integers(0, 1 + sum(a for _, a in sizes))),
        draw(st.sampled_from([1e-308, 1e-4, 0.1, 1.0, 1e6])),
        draw(st.sampled_from(["none", "standard"])),
        draw(st.sampled_from(["query", "uniform"])),
    )


@CHECKED
@given(cases())
def test_equals_loop(case: Case) -> None:
    """Given the same weights, token for token. (Half-way budgets would turn on the last bit of a weight.)"""
    kept, trace = case.by_package()
    assert kept == case.by_loop(trace["weights_video"].tolist(), trace["weights_audio"].tolist())


@CHECKED
@given(cases())
def test_even_windows_do_not_look_at_the_scores_of_others(case: Case) -> None:
    """Their weights are one share each; a window keeps as much whatever its tokens and the others score."""
    even = replace(case, weigh_by="uniform")
    kept, trace = even.by_package()
    if case.budget_video + case.budget_audio:
        for kind, name in ((oracle.VIDEO, "weights_video"), (oracle.AUDIO, "weights_audio")):
            assert trace[name].tolist() == even.weights_by_loop(kind)
    assert kept == even.by_loop(even.weights_by_loop(oracle.VIDEO), even.weights_by_loop(oracle.AUDIO))
    turned, other = replace(even, scores=even.scores[::-1], temperature=3.0).by_package()
    assert len(turned) == len(kept)
    if not bool(trace["plain"]):
        for name in ("budgets_video", "budgets_audio"):
            assert torch.equal(other[name], trace[name])


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("norm", "weigh_by"), [("none", "query"), ("standard", "query"), ("none", "uniform")])
@pytest.mark.parametrize("temperature", [1e-4, 0.1, 1.0])
def test_equals_loop_end_to_end_on_random_scores(seed: int, norm: str, weigh_by: str, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    sizes = [(int(v), int(a)) for v, a in rng.integers(0, 20, size=(6, 2))]
    modality, window = sequence(sizes, 7)
    scores = rng.dirichlet(np.full(len(modality), 0.3)).astype(np.float32).tolist()
    n_video, n_audio = modality.count(oracle.VIDEO), modality.count(oracle.AUDIO)
    case = Case(scores, modality, window, 6, n_video // 3, n_audio // 2, temperature, norm, weigh_by)
    kept, trace = case.by_package()
    by_loop = {kind: case.weights_by_loop(kind) for kind in (oracle.VIDEO, oracle.AUDIO)}
    np.testing.assert_allclose(trace["weights_video"], by_loop[oracle.VIDEO], rtol=1e-8, atol=1e-300)
    np.testing.assert_allclose(trace["weights_audio"], by_loop[oracle.AUDIO], rtol=1e-8, atol=1e-300)
    assert kept == case.by_loop(by_loop[oracle.VIDEO], by_loop[oracle.AUDIO])


@CHECKED
@given(cases())
def test_laws(case: Case) -> None:
    kept, trace = case.by_package()
    assert kept == sorted(set(kept))
    assert [j for j in kept if case.modality[j] == oracle.TEXT] == [
        j for j, m in enumerate(case.modality) if m == oracle.TEXT
    ]
    assert len(kept) == case.n_text + min(case.budget_video + case.budget_audio, case.n_others)
    for kind, name in ((oracle.VIDEO, "video"), (oracle.AUDIO, "audio")):
        budgets = trace[f"budgets_{name}"].tolist()
        stayed = [case.modality[j] for j in kept], [case.window[j] for j in kept]
        assert budgets == oracle.sizes(*stayed, kind, case.n_windows)
        assert all(b <= size for b, size in zip(budgets, case.sizes(kind), strict=True))
        weights = trace[f"weights_{name}"]
        assert weights.isfinite().all()
        assert all(w == 0 for w, size in zip(weights.tolist(), case.sizes(kind), strict=True) if size == 0)


@CHECKED
@given(cases())
def test_present_modalities_keep_a_token_where_the_budget_allows(case: Case) -> None:
    video, audio = case.sizes(oracle.VIDEO), case.sizes(oracle.AUDIO)
    present = sum(v > 0 for v in video) + sum(a > 0 for a in audio)
    _, trace = case.by_package()
    if bool(trace["plain"]) or case.budget_video + case.budget_audio < present:
        return
    for sizes, name in ((video, "video"), (audio, "audio")):
        budgets = trace[f"budgets_{name}"].tolist()
        assert all(b >= 1 for b, size in zip(budgets, sizes, strict=True) if size)


@st.composite
def budget_cases(draw: st.DrawFn) -> tuple[list[float], list[int], list[int], int]:
    n = draw(st.integers(1, 7))
    weights = draw(st.lists(st.sampled_from([0.0, 0.03, 0.125, 0.25, 0.5, 1.0]), min_size=n, max_size=n))
    video = draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))
    audio = draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))
    return weights, video, audio, draw(st.integers(0, sum(video) + sum(audio)))


@settings(CHECKED, max_examples=400)
@given(budget_cases())
@example(([0.0, 0.0, 1.0], [9, 9, 9], [0, 0, 0], 3))
@example(([1.0, 1.0, 1.0], [9, 1, 9], [9, 1, 9], 20))
@example(([0.5, 0.5], [3, 3], [0, 0], 3))
@example(([0.4, 0.4, 0.4], [3, 3, 3], [3, 0, 0], 5))
def test_water_level_equals_one_at_a_time(case: tuple[list[float], list[int], list[int], int]) -> None:
    weights, video, audio, budget = case
    sizes = PerModality(torch.tensor(video), torch.tensor(audio))
    level = max(v + a for v, a in zip(video, audio, strict=True))
    found = window_budgets(torch.tensor(weights, dtype=torch.float64), sizes, budget, level)
    assert found.tolist() == oracle.window_budgets(weights, video, audio, budget)


@CHECKED
@given(st.data())
def test_sharing_a_window_equals_loop(data: st.DataObject) -> None:
    weight = st.sampled_from([0.0, 1e-200, 0.1, 0.25, 0.5, 1.0])
    w_video, w_audio = data.draw(weight), data.draw(weight)
    video, audio = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 9))
    windows = data.draw(st.integers(0, video + audio))
    budgets = data.draw(st.tuples(st.integers(1, 9), st.integers(0, 9)))
    found = modality_budgets(
        torch.tensor([windows]),
        PerModality(*(torch.tensor([w], dtype=torch.float64) for w in (w_video, w_audio))),
        PerModality(torch.tensor([video]), torch.tensor([audio])),
        *budgets,
    )
    expected = oracle.share_window(
        windows,
        w_video=w_video,
        w_audio=w_audio,
        video=video,
        audio=audio,
        budget_video=budgets[0],
        budget_audio=budgets[1],
    )
    assert (found.video.item(), found.audio.item()) == expected


def case_of(sizes: list[tuple[int, int]], scores: list[float] | None = None, **options: Any) -> Case:
    modality, window = sequence(sizes)
    n = len(modality)
    return Case(scores or [1 / n] * n, modality, window, len(sizes), **options)


def test_equal_scores_keep_the_first_of_each_group() -> None:
    kept, _ = case_of([(4, 2), (4, 2)], budget_video=4, budget_audio=2).by_package()
    # One text token, then per window four of video and two of audio.
    assert kept == [0, 1, 2, 5, 7, 8, 11, 13, 14]


def test_one_window_is_plain_top_k() -> None:
    scores = [0.0, 0.1, 0.4, 0.2, 0.3, 0.0, 0.0, 0.0]
    modality, window = sequence([(3, 2)])
    kept, trace = Case(scores, modality, window, 1, 1, 1).by_package()
    assert kept == [0, 2, 4, 6, 7]
    assert bool(trace["plain"])


def test_only_one_window_left_with_tokens_is_plain_too() -> None:
    _, trace = case_of([(0, 0), (3, 3), (0, 0)], budget_video=2, budget_audio=1).by_package()
    assert bool(trace["plain"])
    assert trace["budgets_video"].tolist() == [0, 2, 0]
    assert trace["budgets_audio"].tolist() == [0, 1, 0]


@pytest.mark.parametrize("sizes", [[(3, 0), (3, 0)], [(0, 3), (0, 3)]])
def test_absent_modality_gives_its_budget_to_the_other(sizes: list[tuple[int, int]]) -> None:
    scores = [0.0, 0.1, 0.9, 0.8, 0.2, 0.7, 0.6, 0.0, 0.0]
    kept, trace = case_of(sizes, scores, budget_video=2, budget_audio=1).by_package()
    assert kept == [0, 2, 3, 5, 7, 8]
    assert bool(trace["plain"])


def test_budget_above_what_is_there_keeps_everything() -> None:
    case = case_of([(3, 1), (0, 2)], budget_video=7, budget_audio=9)
    assert case.by_package()[0] == list(range(9))


@pytest.mark.parametrize("sizes", [[], [(0, 0)], [(0, 0), (0, 0)]])
def test_text_alone_stays_as_it_is(sizes: list[tuple[int, int]]) -> None:
    assert case_of(sizes, budget_video=1, budget_audio=1).by_package()[0] == [0, 1, 2]


def test_small_temperature_gives_one_window_all_but_the_least() -> None:
    scores = [0.0, *[0.01] * 6, *[0.02] * 6, 0.0, 0.0]
    case = case_of([(4, 2), (4, 2)], scores, budget_video=4, budget_audio=3, temperature=1e-6)
    _, trace = case.by_package()
    assert (trace["budgets_video"] + trace["budgets_audio"]).tolist() == [2, 5]


def test_even_windows_share_evenly_what_the_scores_would_not() -> None:
    scores = [0.0, *[0.01] * 6, *[0.02] * 6, 0.0, 0.0]
    case = case_of([(4, 2), (4, 2)], scores, budget_video=4, budget_audio=2, temperature=1e-6)
    kept, trace = replace(case, weigh_by="uniform").by_package()
    assert (trace["budgets_video"].tolist(), trace["budgets_audio"].tolist()) == ([2, 2], [1, 1])
    assert kept == [0, 1, 2, 5, 7, 8, 11, 13, 14]


def test_tiny_temperature_does_not_overflow() -> None:
    scores = [0.0, *[1.0] * 3, *[0.0] * 14]
    case = case_of([(2, 1)] * 5, scores, budget_video=5, budget_audio=2, temperature=1e-308)
    weights = replace(case, score_norm="standard").by_package()[1]["weights"]
    assert weights.tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]


def test_large_temperature_is_even_and_small_budgets_go_by_index() -> None:
    case = case_of([(4, 2)] * 5, budget_video=2, budget_audio=1, temperature=1e9)
    _, trace = case.by_package()
    assert (trace["budgets_video"] + trace["budgets_audio"]).tolist() == [0, 0, 1, 1, 1]


def test_standard_norm_does_not_see_the_scale_of_the_scores() -> None:
    rng = np.random.default_rng(0)
    sizes = [(5, 3)] * 4
    scores = rng.random(35)
    spread = []
    for factor in (1.0, 2.0**-12):
        case = case_of(sizes, (scores * factor).tolist(), budget_video=8, budget_audio=5, score_norm="standard")
        spread.append(case.by_package()[1]["weights"])
    torch.testing.assert_close(spread[0], spread[1], rtol=1e-5, atol=1e-9)
    assert spread[0].max() > 0.3


def test_published_temperature_on_raw_attention_is_almost_flat() -> None:
    rng = np.random.default_rng(1)
    case = case_of([(28, 5)] * 8, (rng.random(267) / 267).tolist(), budget_video=40, budget_audio=10)
    weights = case.by_package()[1]["weights"]
    assert weights.max() - weights.min() < 0.01


def test_never_asks_the_device() -> None:
    """Tensors without data refuse operations that need a value on the host, and those that mix devices."""
    for norm, weigh_by in (("none", "query"), ("standard", "query"), ("none", "uniform")):
        with FakeTensorMode():
            kept, trace = select_relevant(
                torch.empty(29, device="cuda"),
                torch.empty(29, dtype=torch.int8, device="cuda"),
                torch.empty(29, dtype=torch.int64, device="cuda"),
                n_windows=4,
                max_window_tokens=6,
                budget_video=7,
                budget_audio=4,
                temperature=0.1,
                score_norm=norm,  # type: ignore[arg-type]
                n_text=3,
                weigh_by=weigh_by,  # type: ignore[arg-type]
            )
            assert tuple(kept.shape) == (14,)
            assert kept.device.type == "cuda"
            assert tuple(trace["weights"].shape) == (4,)

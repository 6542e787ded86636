"""The methods behind their contract: SEATS from end to end against the loops, and who is found by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import seats_cli.selection
from seats_cli.config import SelectionOptions
from seats_cli.errors import UsageError
from seats_cli.layout import Modality
from seats_cli.selection import (
    METHODS,
    EncodedWindows,
    Kept,
    LayerKept,
    LayerState,
    SelectionMethod,
    get_method,
)
from seats_cli.selection.full import Full
from seats_cli.selection.random import Random
from seats_cli.selection.schedule import DRAWN_FROM_CLIP, SelectionPreset, TokenPlan, make_plan
from seats_cli.selection.seats import Seats
from tests.oracles import selection as oracle

PRESET = SelectionPreset((6, 8, 9, 10), 0.05, ((0.35, 0.3, 0.65), (0.1, 0.06, 0.35)))
N_LAYERS = 12
CLIPS = {
    "usual": [(24, 8)] * 5,
    "uneven": [(24, 8), (0, 8), (13, 0), (0, 0), (1, 1), (24, 3)],
    "one window": [(40, 12)],
    "silent": [(24, 0)] * 4,
    "sound only": [(0, 8)] * 4,
    "one token": [(1, 0)],
    "tiny windows": [(1, 1)] * 6,
}


def plan_of(windows: list[tuple[int, int]], options: SelectionOptions) -> TokenPlan:
    return make_plan(options, PRESET, N_LAYERS, [v for v, _ in windows], [a for _, a in windows])


def encoded(modality: Modality, sizes: list[int], first_window: int, rng: np.random.Generator) -> EncodedWindows:
    n = sum(sizes)
    return EncodedWindows(
        modality,
        torch.tensor(rng.standard_normal((n, 16)), dtype=torch.float32),
        torch.tensor(rng.random(n), dtype=torch.float32),
        tuple(sizes),
        first_window,
    )


def state_of(
    layer: int, modality: list[int], window: list[int], windows: list[tuple[int, int]], scores: np.ndarray
) -> LayerState:
    return LayerState(
        layer=layer,
        modality=torch.tensor(modality, dtype=torch.int8),
        window=torch.tensor(window, dtype=torch.int64),
        n_windows=len(windows),
        max_window_tokens=max(max(pair) for pair in windows),
        scores=lambda: torch.tensor(scores),
    )


def unreachable() -> torch.Tensor:
    raise AssertionError("the scores were asked for")


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("trr", [0.02, 0.1, 0.35, 0.8])
def test_stage_one_equals_loop_batch_by_batch(name: str, trr: float) -> None:
    windows, rng = CLIPS[name], np.random.default_rng(5)
    plan = plan_of(windows, SelectionOptions(trr=trr))
    method = Seats(plan, SelectionOptions(trr=trr), PRESET.temperature)
    for modality, side, planned in (
        (Modality.VIDEO, 0, plan.stage_one_video),
        (Modality.AUDIO, 1, plan.stage_one_audio),
    ):
        for first in range(0, len(windows), 2):
            sizes = [pair[side] for pair in windows[first : first + 2]]
            batch = encoded(modality, sizes, first, rng)
            kept = method.before_llm(batch)
            assert kept.counts == planned[first : first + 2]
            assert kept.embeddings is None
            assert batch.saliency is not None
            expected, start = [], 0
            for size, keep in zip(sizes, kept.counts, strict=True):
                part = slice(start, start + size)
                x, a = batch.embeddings[part].numpy(), batch.saliency[part].numpy()
                expected += [start + i for i in sorted(oracle.stage_one(x, a, keep))]
                start += size
            assert kept.indices.tolist() == expected


def test_stage_one_alone_keeps_the_ratio_and_drops_nothing_later() -> None:
    windows = CLIPS["usual"]
    options = SelectionOptions(video_trr=0.25, audio_trr=0.5, stages="1", scale=9.0)
    method = Seats(plan_of(windows, options), options, PRESET.temperature)
    kept = method.before_llm(encoded(Modality.VIDEO, [v for v, _ in windows], 0, np.random.default_rng(5)))
    assert kept.counts == (6,) * 5
    assert method.drop_before_layer == ()


def test_stage_one_does_not_depend_on_the_batches() -> None:
    windows = CLIPS["uneven"]
    plan = plan_of(windows, SelectionOptions(trr=0.3))
    method = Seats(plan, SelectionOptions(trr=0.3), PRESET.temperature)
    whole = encoded(Modality.VIDEO, [v for v, _ in windows], 0, np.random.default_rng(6))
    assert whole.saliency is not None
    at_once = method.before_llm(whole).indices.tolist()
    one_by_one, start = [], 0
    for t, (size, _) in enumerate(windows):
        part = slice(start, start + size)
        batch = EncodedWindows(Modality.VIDEO, whole.embeddings[part], whole.saliency[part], (size,), t)
        one_by_one += [start + i for i in method.before_llm(batch).indices.tolist()]
        start += size
    assert one_by_one == at_once


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"score_norm": "standard"},
        {"window_budgets": "uniform"},
        {"stages": "12"},
        {"stages": "12", "window_budgets": "uniform"},
    ],
    ids=str,
)
@pytest.mark.parametrize("trr", [0.02, 0.1, 0.35, 0.8])
def test_layers_equal_loop_and_leave_what_was_planned(name: str, variant: dict[str, str], trr: float) -> None:
    windows, rng = CLIPS[name], np.random.default_rng(7)
    options = SelectionOptions(trr=trr, **variant)  # type: ignore[arg-type]
    plan = plan_of(windows, options)
    method = Seats(plan, options, PRESET.temperature)
    assert method.drop_before_layer == (6, 8, 9, 10)[: len(options.stages) + 1]
    modality, window = [0, 0], [-1, -1]
    for t, counts in enumerate(zip(plan.stage_one_video, plan.stage_one_audio, strict=True)):
        for kind, n in zip((1, 2), counts, strict=True):
            modality += [kind] * n
            window += [t] * n
    modality, window = [*modality, 0, 0, 0], [*window, -1, -1, -1]

    for layer, budgets in zip(method.drop_before_layer, plan.stage_budgets, strict=False):
        scores = rng.dirichlet(np.full(len(modality), 0.5)).astype(np.float32)
        kept = method.before_layer(state_of(layer, modality, window, windows, scores)).indices.tolist()
        arguments = (scores.tolist(), modality, window)
        weights = [
            oracle.even_weights(modality, window, kind=kind, n_windows=len(windows))
            if options.window_budgets == "uniform"
            else oracle.window_weights(
                *arguments,
                kind=kind,
                n_windows=len(windows),
                temperature=PRESET.temperature,
                norm=options.score_norm,
            )
            for kind in (1, 2)
        ]
        expected = oracle.stage_two(
            *arguments,
            n_windows=len(windows),
            budget_video=budgets[0],
            budget_audio=budgets[1],
            weights_video=weights[0],
            weights_audio=weights[1],
        )
        assert kept == expected
        assert len(kept) == 5 + sum(budgets)
        modality, window = [modality[j] for j in kept], [window[j] for j in kept]

    last = state_of(10, modality, window, windows, np.zeros(0))
    if options.stages == "12":
        with pytest.raises(ValueError, match="nothing is dropped before layer 10"):
            method.before_layer(last)
        return
    assert method.before_layer(last).indices.tolist() == [j for j, m in enumerate(modality) if m == 0]


def test_the_last_drop_needs_no_scores() -> None:
    windows = CLIPS["one token"]
    method = Seats(plan_of(windows, SelectionOptions()), SelectionOptions(), 0.1)
    modality, window = torch.tensor([0, 1, 0]), torch.tensor([-1, 0, -1])
    state = LayerState(10, modality, window, 1, 1, unreachable)
    assert method.before_layer(state).indices.tolist() == [0, 2]


def test_a_full_plan_makes_seats_keep_everything() -> None:
    windows = CLIPS["uneven"]
    options = SelectionOptions(trr=1.0)
    method = Seats(plan_of(windows, options), options, 0.1)
    batch = encoded(Modality.VIDEO, [v for v, _ in windows], 0, np.random.default_rng(8))
    kept = method.before_llm(batch)
    assert kept.indices.tolist() == list(range(batch.embeddings.shape[0]))
    assert kept.macs == 0
    assert method.drop_before_layer == ()


def test_full_keeps_everything_and_asks_nothing() -> None:
    method = Full(plan_of(CLIPS["usual"], SelectionOptions()), SelectionOptions(), 0.1)
    batch = EncodedWindows(Modality.AUDIO, torch.zeros(5, 4), None, (2, 0, 3), 1)
    kept = method.before_llm(batch)
    assert kept.indices.tolist() == [0, 1, 2, 3, 4]
    assert kept.counts == (2, 0, 3)
    assert kept.embeddings is None
    assert method.drop_before_layer == ()
    state = LayerState(3, torch.tensor([0, 1]), torch.tensor([-1, 0]), 1, 1, unreachable)
    assert method.before_layer(state).indices.tolist() == [0, 1]


def test_seats_refuses_what_it_did_not_plan() -> None:
    windows = CLIPS["usual"]
    method = Seats(plan_of(windows, SelectionOptions()), SelectionOptions(), 0.1)
    rng = np.random.default_rng(9)
    with pytest.raises(ValueError, match="the plan has 5"):
        method.before_llm(encoded(Modality.VIDEO, [24, 24], 4, rng))
    unsalient = EncodedWindows(Modality.VIDEO, torch.zeros(24, 4), None, (24,), 0)
    with pytest.raises(ValueError, match="saliency"):
        method.before_llm(unsalient)
    state = LayerState(7, torch.tensor([0]), torch.tensor([-1]), 5, 24, unreachable)
    with pytest.raises(ValueError, match="layer 7"):
        method.before_layer(state)
    short = LayerState(8, torch.tensor([0]), torch.tensor([-1]), 5, 24, unreachable)
    with pytest.raises(ValueError, match="fewer than planned"):
        method.before_layer(short)


@pytest.mark.parametrize(
    "make",
    [
        lambda: EncodedWindows(Modality.TEXT, torch.zeros(2, 4), None, (2,), 0),
        lambda: EncodedWindows(Modality.VIDEO, torch.zeros(2, 4), None, (3,), 0),
        lambda: EncodedWindows(Modality.VIDEO, torch.zeros(2), None, (2,), 0),
        lambda: EncodedWindows(Modality.VIDEO, torch.zeros(2, 4), torch.zeros(3), (2,), 0),
        lambda: Kept(torch.zeros(2, dtype=torch.int64), None, (1,)),
        lambda: Kept(torch.zeros(1, dtype=torch.int64), torch.zeros(2, 4), (1,)),
    ],
)
def test_contradictory_shapes_are_refused(make: object) -> None:
    with pytest.raises(ValueError):
        make()  # type: ignore[operator]


def test_every_method_says_what_it_is() -> None:
    assert list(METHODS.values()) == [Seats, Full, Random]
    # The plan, which knows no methods, has no counts per window for those that see the whole clip.
    assert {name for name, method in METHODS.items() if method.whole_clip} == DRAWN_FROM_CLIP
    for name, method in METHODS.items():
        assert issubclass(method, SelectionMethod)
        assert method.name == name
        assert method.summary
        assert "\n" not in method.summary
        assert get_method(name) is method
    assert LayerKept(torch.zeros(0)).trace == {}


def test_unknown_method_lists_those_there_are() -> None:
    with pytest.raises(UsageError, match="'sheets'") as caught:
        get_method("sheets")
    assert "seats, full, random" in caught.value.hint


def test_unknown_name_in_the_room() -> None:
    with pytest.raises(AttributeError, match="chairs"):
        seats_cli.selection.chairs  # noqa: B018

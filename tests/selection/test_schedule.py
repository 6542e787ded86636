"""Ratios and counts against published numbers, and their laws."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from seats_cli.config import SelectionOptions
from seats_cli.errors import UsageError
from seats_cli.selection.schedule import (
    SelectionPreset,
    TokenPlan,
    boundaries_by_depth,
    make_plan,
    split_ratio,
)

CHECKED = settings(deadline=None, max_examples=200, derandomize=True)
QWEN2_5 = SelectionPreset(
    drop_before_layer=(16, 18, 20, 23),
    temperature=0.1,
    ratios=((0.35, 0.30, 0.65), (0.25, 0.20, 0.55), (0.15, 0.10, 0.45), (0.10, 0.06, 0.35)),
)
QWEN3 = SelectionPreset(
    drop_before_layer=(27, 31, 35, 39),
    temperature=0.3,
    ratios=((0.35, 0.32, 0.70), (0.25, 0.22, 0.60), (0.15, 0.12, 0.50), (0.10, 0.07, 0.45)),
)
ratios = st.floats(0.001, 1.0)


# R to (R_v, R_a)


@pytest.mark.parametrize(("preset", "audio"), [(QWEN2_5, 50), (QWEN3, 26)])
def test_published_pairs(preset: SelectionPreset, audio: int) -> None:
    for row in preset.ratios:
        exact = (row[1] * 288 + row[2] * audio) / (288 + audio)
        assert exact == pytest.approx(row[0], abs=0.005)
        found = split_ratio(exact, 288, audio, preset, 0.82)
        assert found == pytest.approx(row[1:], abs=0.005)


@CHECKED
@given(
    ratios,
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.sampled_from([QWEN2_5, QWEN3, None]),
    st.sampled_from([23 / 28, 39 / 48, 0.2, 1.0]),
)
def test_the_pair_makes_the_ratio(
    trr: float, n_video: int, n_audio: int, preset: SelectionPreset | None, largest: float
) -> None:
    assume(n_video + n_audio)
    if largest < trr < 1:
        with pytest.raises(UsageError, match="infeasible"):
            split_ratio(trr, n_video, n_audio, preset, largest)
        return
    video, audio = split_ratio(trr, n_video, n_audio, preset, largest)
    assert (video * n_video + audio * n_audio) / (n_video + n_audio) == pytest.approx(trr, abs=1e-12)
    assert trr == 1 or (0 < video <= largest + 1e-12 and 0 < audio <= largest + 1e-12)


def test_between_and_beyond_the_rows() -> None:
    def rho(trr: float) -> float:
        video, audio = split_ratio(trr, 10**6, 1, QWEN2_5, 0.999)
        return audio / video

    # With a million visual tokens to one of audio, no cap is near.
    assert rho(0.05) == pytest.approx(0.35 / 0.06)
    assert rho(0.20) == pytest.approx(math.sqrt(0.45 / 0.10 * 0.55 / 0.20))
    assert rho(0.675) == pytest.approx(math.sqrt(0.65 / 0.30))
    assert split_ratio(0.3, 7, 7, None, 0.8) == pytest.approx((0.3, 0.3))
    assert split_ratio(1.0, 7, 7, QWEN2_5, 0.8) == (1.0, 1.0)


def test_a_capped_modality_gives_the_rest_to_the_other() -> None:
    video, audio = split_ratio(0.6, 288, 50, QWEN2_5, 0.7)
    assert audio == 0.7
    assert video == pytest.approx((0.6 * 338 - 0.7 * 50) / 288)
    # More audio than video is published nowhere; the rule is symmetric all the same.
    upside_down = SelectionPreset((1, 2, 3, 4), 1.0, ((0.5, 0.9, 0.1),))
    assert split_ratio(0.5, 10, 30, upside_down, 0.8) == pytest.approx((0.8, 0.4))


@pytest.mark.parametrize("counts", [(288, 0), (0, 50)])
def test_an_absent_modality_has_the_ratio_of_the_other(counts: tuple[int, int]) -> None:
    assert split_ratio(0.3, *counts, QWEN2_5, 0.8) == (0.3, 0.3)
    with pytest.raises(UsageError):
        split_ratio(0.9, *counts, QWEN2_5, 0.8)


# Counts


def plan_of(
    trr: float = 0.1, n_windows: int = 64, video: int = 288, audio: int = 50, **options: object
) -> TokenPlan:
    settings_ = SelectionOptions(trr=trr, **options)  # type: ignore[arg-type]
    return make_plan(settings_, QWEN2_5, 28, [video] * n_windows, [audio] * n_windows)


def test_the_papers_workload() -> None:
    plan = plan_of(video_trr=0.06, audio_trr=0.35)
    assert plan.n_video == 18432
    assert plan.n_audio == 3200
    # round(0.084 * 288) and half of 49 (0.49 * 50 = 24.5, to even).
    assert set(plan.stage_one_video) == {24}
    assert set(plan.stage_one_audio) == {24}
    assert plan.stage_budgets == ((1428, 1428), (1135, 1135), (339, 339))
    counts = plan.tokens_per_layer(80)
    assert counts[0] == counts[15] == (80, 1536, 1536)
    assert counts[16] == counts[17] == (80, 1428, 1428)
    assert counts[20] == counts[22] == (80, 339, 339)
    assert counts[23] == counts[27] == (80, 0, 0)
    assert plan.achieved_trr == pytest.approx(0.103, abs=0.002)


def rounding_bound(plan: TokenPlan, windows: list[tuple[int, int]]) -> float:
    """How far rounding may take the sum over all layers from the exact one."""
    bound = 0.0
    drops = plan.drop_before_layer
    ends = drops if len(drops) == 4 else (*drops, plan.video.n_layers)
    blocks = [b - a for a, b in zip((0, *drops), ends, strict=False)]
    for levels, each in ((plan.video, [v for v, _ in windows]), (plan.audio, [a for _, a in windows])):
        sizes = each if plan.stage_one_video else [sum(each)]
        error = sum(max(0.5, 1 - levels.levels[0] * n) for n in sizes if n)
        bound += blocks[0] * error
        for block, fraction in zip(blocks[1:], levels.fractions, strict=False):
            error = fraction * error + (1.0 if sum(sizes) else 0.0)
            bound += block * error
    return bound


VARIANTS = [{}, {"stages": "12"}, {"stages": "1"}, {"method": "random"}]


windows_strategy = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 60)), min_size=1, max_size=8)


@CHECKED
@given(windows_strategy, st.floats(0.001, 1.0), st.sampled_from([6, 8, 12, 28, 36]), st.sampled_from(VARIANTS))
def test_the_layer_average_is_the_ratio_within_rounding(
    windows: list[tuple[int, int]], trr: float, n_layers: int, variant: dict[str, str]
) -> None:
    assume(any(v + a for v, a in windows))
    preset = QWEN2_5 if n_layers == 28 else None
    try:
        plan = make_plan(
            SelectionOptions(trr=trr, **variant),  # type: ignore[arg-type]
            preset,
            n_layers,
            [v for v, _ in windows],
            [a for _, a in windows],
        )
    except UsageError:
        assert not variant or variant == {"stages": "12"}
        assume(False)
    whole = n_layers * (plan.n_video + plan.n_audio)
    assert abs(plan.achieved_trr - trr) * whole <= rounding_bound(plan, windows) + 1e-6


@CHECKED
@given(windows_strategy, st.floats(0.001, 0.8), st.sampled_from(VARIANTS))
def test_counts_never_rise_and_never_exceed_what_is_there(
    windows: list[tuple[int, int]], trr: float, variant: dict[str, str]
) -> None:
    assume(any(v + a for v, a in windows))
    options = SelectionOptions(trr=trr, **variant)  # type: ignore[arg-type]
    plan = make_plan(options, QWEN2_5, 28, [v for v, _ in windows], [a for _, a in windows])
    if "method" in variant:
        assert plan.stage_one_video == plan.stage_one_audio == ()
        assert plan.stage_totals == (plan.entering,)
        windows = []
    for kept, (video, audio) in zip(
        zip(plan.stage_one_video, plan.stage_one_audio, strict=True), windows, strict=True
    ):
        assert min(video, 1) <= kept[0] <= video
        assert min(audio, 1) <= kept[1] <= audio
    for modality, total in ((0, plan.n_video), (1, plan.n_audio)):
        counts = [total, *(pair[modality] for pair in plan.stage_totals)]
        assert counts == sorted(counts, reverse=True)
        assert all(c >= 1 for c in counts) if total else not any(counts)
    assert len(plan.tokens_per_layer(5)) == 28
    assert {text for text, _, _ in plan.tokens_per_layer(5)} == {5}


@CHECKED
@given(windows_strategy, st.floats(0.001, 0.8), st.floats(0.001, 0.8))
def test_more_asked_for_is_never_less_kept(windows: list[tuple[int, int]], one: float, other: float) -> None:
    """Given per modality: from R the pair follows a table, whose ratio may move against R."""
    low, high = sorted((one, other))
    plans = [
        make_plan(
            SelectionOptions(video_trr=trr, audio_trr=trr),
            QWEN2_5,
            28,
            [v for v, _ in windows],
            [a for _, a in windows],
        )
        for trr in (low, high)
    ]
    for field in ("stage_one_video", "stage_one_audio"):
        fewer, more = getattr(plans[0], field), getattr(plans[1], field)
        assert all(a <= b for a, b in zip(fewer, more, strict=True))


@pytest.mark.parametrize(
    "options",
    [
        SelectionOptions(trr=1.0),
        SelectionOptions(video_trr=1.0, audio_trr=1.0),
        SelectionOptions(trr=1.0, drop_before_layer=(1, 2, 3, 4)),
    ],
)
def test_a_full_plan_drops_nothing(options: SelectionOptions) -> None:
    plan = make_plan(options, QWEN2_5, 28, [288, 0, 7], [50, 50, 0])
    assert plan.drop_before_layer == ()
    assert plan.stage_budgets == ()
    assert plan.stage_one_video == (288, 0, 7)
    assert plan.stage_one_audio == (50, 50, 0)
    assert plan.tokens_per_layer(9) == [(9, 295, 100)] * 28
    assert plan.achieved_trr == 1.0


def test_a_shallow_model_can_be_run_whole() -> None:
    assert make_plan(SelectionOptions(trr=1.0), None, 2, [5], [5]).tokens_per_layer(1) == [(1, 5, 5)] * 2
    with pytest.raises(UsageError, match="too shallow"):
        make_plan(SelectionOptions(trr=0.1), None, 2, [5], [5])


def test_fewer_stages_at_the_papers_workload() -> None:
    """The same tokens times layers, but for whole tokens of a window, spent otherwise."""
    pair = {"video_trr": 0.06, "audio_trr": 0.35}
    usual = plan_of(**pair)
    first = plan_of(**pair, stages="1")
    # round(0.06 * 288) and half of 35 (0.35 * 50 = 17.5, to even).
    assert (set(first.stage_one_video), set(first.stage_one_audio)) == ({17}, {18})
    assert first.tokens_per_layer(80) == [(80, 64 * 17, 64 * 18)] * 28
    two = plan_of(**pair, stages="12")
    assert two.drop_before_layer == (16, 18, 20)
    assert two.stage_one_video == usual.stage_one_video
    assert two.tokens_per_layer(80)[27] == (80, *two.stage_budgets[2])
    assert min(two.stage_budgets[2]) >= 1
    drawn = plan_of(**pair, method="random")
    assert drawn.tokens_per_layer(80) == [(80, round(0.06 * 18432), 1120)] * 28
    for plan in (first, two, drawn):
        assert plan.achieved_trr == pytest.approx((0.06 * 288 + 0.35 * 50) / 338, abs=0.002)
        assert plan_of(trr=1.0, stages="1").keeps_everything
        assert not plan.keeps_everything


@pytest.mark.parametrize("variant", VARIANTS[1:])
def test_what_only_the_third_stage_rules_out(variant: dict[str, str]) -> None:
    """Ratios between b4 / L and 1, and one modality whole."""
    assert plan_of(trr=0.9, **variant).achieved_trr == pytest.approx(0.9, abs=1e-3)
    plan = plan_of(video_trr=0.3, audio_trr=1.0, **variant)
    assert {audio for _, _, audio in plan.tokens_per_layer(0)} == {3200}
    assert plan.achieved_trr == pytest.approx((0.3 * 18432 + 3200) / (18432 + 3200), abs=2e-3)
    # The published ratio of the two would give audio more than there is of it.
    assert plan_of(trr=0.5, **variant).audio_trr < 1
    assert plan_of(trr=0.95, **variant).audio_trr <= 1


@pytest.mark.parametrize("variant", [{"stages": "1"}, {"method": "random"}])
def test_a_shallow_model_can_start_with_fewer(variant: dict[str, str]) -> None:
    options = SelectionOptions(trr=0.4, **variant)  # type: ignore[arg-type]
    assert make_plan(options, None, 2, [5], [5]).tokens_per_layer(1) == [(1, 2, 2)] * 2
    with pytest.raises(UsageError, match="too shallow"):
        make_plan(SelectionOptions(trr=0.4, stages="12"), None, 2, [5], [5])
    # A schedule that is given is checked all the same.
    with pytest.raises(UsageError, match="cannot be dropped"):
        plan_of(drop_before_layer=(16, 18, 20), **variant)


@pytest.mark.parametrize("windows", [[], [0, 0]])
def test_a_clip_without_tokens_has_nothing_to_drop(windows: list[int]) -> None:
    plan = make_plan(SelectionOptions(trr=0.1), QWEN2_5, 28, windows, windows)
    assert plan.drop_before_layer == ()
    assert plan.tokens_per_layer(4) == [(4, 0, 0)] * 28
    assert plan.achieved_trr == 1.0


def test_an_absent_modality_takes_no_part() -> None:
    plan = make_plan(SelectionOptions(trr=0.1), QWEN2_5, 28, [288] * 3, [0] * 3)
    assert plan.stage_one_audio == (0, 0, 0)
    assert {audio for _, audio in plan.stage_budgets} == {0}
    assert plan.video_trr == 0.1
    silent = SelectionOptions(video_trr=0.2, audio_trr=1.0)
    assert make_plan(silent, QWEN2_5, 28, [288] * 3, [0] * 3).audio_trr == 0.2
    full = SelectionOptions(video_trr=1.0, audio_trr=0.3)
    assert make_plan(full, QWEN2_5, 28, [288] * 3, [0] * 3).drop_before_layer == ()


@pytest.mark.parametrize("pair", [(1.0, 0.3), (0.3, 1.0)])
def test_only_one_modality_whole_is_infeasible(pair: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="late layers") as caught:
        plan_of(video_trr=pair[0], audio_trr=pair[1])
    assert "0.8214" in caught.value.hint


def test_infeasible_ratio_says_what_is_feasible() -> None:
    with pytest.raises(UsageError) as caught:
        plan_of(trr=0.9)
    assert "0.8214" in caught.value.hint
    assert plan_of(trr=0.8214).achieved_trr == pytest.approx(0.8214, abs=1e-3)


def test_where_the_boundaries_come_from() -> None:
    assert plan_of().drop_before_layer == (16, 18, 20, 23)
    assert plan_of(drop_before_layer=(15, 17, 20, 22)).drop_before_layer == (15, 17, 20, 22)
    sizes = [4], [4]
    by_depth = make_plan(SelectionOptions(), None, 12, *sizes)
    assert by_depth.drop_before_layer == boundaries_by_depth(12)
    too_deep = make_plan(SelectionOptions(), QWEN2_5, 12, *sizes)
    assert too_deep.drop_before_layer == boundaries_by_depth(12)
    with pytest.raises(UsageError, match="cannot be dropped"):
        plan_of(drop_before_layer=(16, 18, 20))


def test_lists_of_windows_must_match() -> None:
    with pytest.raises(ValueError):
        make_plan(SelectionOptions(), QWEN2_5, 28, [1, 2], [1])


def test_scheduling_needs_no_tensors() -> None:
    code = (
        "import sys; import seats_cli.selection.schedule; "
        "print([m for m in ('torch', 'numpy', 'transformers') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"

"""A profile: every setting on the same clip, and transformers' own forward on the very same inputs."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from seats_cli.config import MediaOptions, SelectionOptions
from seats_cli.engine.analytic import FULL, analytic_profile, label_of, plan_of, synthetic_prompt
from seats_cli.engine.benchmark import (
    STAGES,
    STOCK,
    Workbench,
    _whole,
    make_workbench,
    measured_profile,
    stock_lap,
)
from seats_cli.engine.pipeline import Prepared, read_prompt
from seats_cli.engine.prepare import lay_out
from seats_cli.errors import UsageError
from seats_cli.layout import Modality
from seats_cli.media import NoiseClip
from seats_cli.models.loading import LoadedModel
from seats_cli.report import ProfileReport
from seats_cli.timing import Stopwatch
from tests import tiny
from tests.array_clip import clip_for
from tests.engine.test_laws import SHAPES, VARIANTS

SETTINGS = [SelectionOptions(trr=0.3), SelectionOptions(trr=0.1), SelectionOptions(video_trr=0.2, audio_trr=0.4)]


def workbench(loaded: LoadedModel, shape: tuple[int, int, int, float], n_text: int = 40) -> Workbench:
    clip, media = clip_for(loaded, *shape, seed=6)
    return make_workbench(loaded, lambda: clip, media, n_text)


def noise(loaded: LoadedModel) -> tuple[NoiseClip, MediaOptions]:
    """6 s of grids of 3 x 4 tokens."""
    height, width = (n * loaded.model.spec.pixel_factor for n in (3, 4))
    options = MediaOptions(min_pixels=height * width, max_pixels=height * width)
    return NoiseClip(12, 6.0, height, width, audio_seconds=6.0), options


@pytest.fixture(scope="module")
def profile(loaded: LoadedModel) -> ProfileReport:
    clip, media = noise(loaded)
    bench = make_workbench(loaded, lambda: clip, media, 40)
    rounds: list[str] = []
    report = measured_profile(
        bench, SETTINGS, runs=2, warmup=1, stock=True, source="synthetic", note="a note", on_round=rounds.append
    )
    labels = ["full", "seats R=0.3", "seats R=0.1", "seats R_v=0.2 R_a=0.4", STOCK]
    assert rounds == labels * 3, "in turn, warm-up first"
    assert [one.label for one in report.settings_measured] == labels
    return report


def test_workload(profile: ProfileReport, loaded: LoadedModel) -> None:
    work = profile.workload
    assert (work.source, work.frames, work.seconds, work.grids, work.tokens_per_grid) == (
        "synthetic",
        12,
        6.0,
        6,
        12,
    )
    n_audio = 6 * loaded.model.spec.layout.positions_per_second
    assert (work.text_tokens, work.video_tokens, work.audio_tokens) == (40, 72, n_audio)
    assert (profile.runs, profile.warmup, profile.note, profile.media) == (2, 1, "a note", None)
    assert profile.schedule.layers == 8
    assert profile.schedule.drop_before_layer == profile.settings_measured[1].selection.drop_before_layer


def test_every_setting_is_whole(profile: ProfileReport, loaded: LoadedModel) -> None:
    full, n_audio = profile.settings_measured[0], 6 * loaded.model.spec.layout.positions_per_second
    for one in profile.settings_measured:
        assert (one.tokens.text, one.tokens.video, one.tokens.audio) == (40, 72, n_audio)
        assert one.tokens.achieved_trr == one.selection.achieved_trr
        assert one.flops.paper.full == full.flops.paper.full
        assert one.flops.encoders_executed == full.flops.encoders_executed
        assert set(one.spread) == {
            stage for stage in STAGES if stage != "select" or one.label not in ("full", STOCK)
        } | ({"select"} if "select" in one.spread else set())
        for stage in STAGES:
            seconds = getattr(one.seconds, stage)
            assert seconds >= 0
            if stage in one.spread:
                assert one.spread[stage].minimum <= seconds <= one.spread[stage].maximum
        assert one.memory_bytes > 0
    assert full.speedup.prefill == 1.0
    ratios = [one.selection.achieved_trr for one in profile.settings_measured]
    assert ratios[0] == ratios[-1] == 1.0
    assert ratios[1] == pytest.approx(0.3, abs=0.03)
    assert ratios[2] == pytest.approx(0.1, abs=0.03)


def test_the_stock_row_costs_a_head_on_every_token(profile: ProfileReport, loaded: LoadedModel) -> None:
    full, stock = profile.settings_measured[0], profile.settings_measured[-1]
    text = loaded.model.spec.geometry.text
    extra = 2 * text.hidden * text.vocab * (full.tokens.total - 1)
    assert stock.flops.executed.pruned == full.flops.executed.pruned + extra
    assert stock.flops.paper == full.flops.paper
    assert stock.flops.selection_executed == 0
    assert stock.seconds.select == 0


def test_it_survives_json(profile: ProfileReport) -> None:
    again = ProfileReport.from_json(profile.to_json())
    assert again.to_json() == profile.to_json()


def test_counts_are_those_of_the_analytic_profile(profile: ProfileReport, loaded: LoadedModel) -> None:
    (clip, media), spec = noise(loaded), loaded.model.spec
    shape = make_workbench(loaded, lambda: clip, media, 40).shape
    computed = analytic_profile(
        type(loaded.model), spec, shape, SETTINGS, n_text=40, workload=("synthetic", 12, 6.0)
    )
    assert computed.workload == profile.workload
    assert computed.schedule == profile.schedule
    measured = {one.label: one for one in profile.settings_measured}
    assert [one.label for one in computed.settings_measured] == [label for label in measured if label != STOCK]
    for one in computed.settings_measured:
        other = measured[one.label]
        assert [layer.total for layer in one.tokens.per_layer] == [layer.total for layer in other.tokens.per_layer]
        assert one.selection.stage_one == other.selection.stage_one
        assert one.selection.achieved_trr == pytest.approx(other.selection.achieved_trr)
        assert one.flops.paper == other.flops.paper
        assert one.seconds.prefill is None


@pytest.mark.parametrize("shape", SHAPES.values(), ids=[name.replace(" ", "-") for name in SHAPES])
@pytest.mark.parametrize("n_text", [8, 41])
def test_stock_gives_the_logits_of_a_full_prefill(
    loaded: LoadedModel, shape: tuple[int, int, int, float], n_text: int
) -> None:
    """Same ids, patches, log-mel and positions: so the two rows of a profile do the same work."""
    bench, model = workbench(loaded, shape, n_text), loaded.model
    clip = bench.make_clip()
    with torch.inference_mode():
        patches, mel = _whole(bench, clip)
        inputs = model.stock_inputs(torch.from_numpy(bench.layout.ids), patches, mel, bench.shape.video)
        stock = model.thinker(**inputs).logits[0, -1]
        plan = plan_of(model.spec, bench.layout, FULL)
        prepared = Prepared(clip, clip.waveform(), bench.shape, bench.layout, plan)
        ours = read_prompt(loaded, prepared, FULL, Stopwatch()).prefill.logits
    torch.testing.assert_close(ours, stock)
    assert bench.layout.count(Modality.TEXT) == n_text


def test_the_towers_are_as_they_were(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = workbench(loaded, SHAPES["both"])

    def hooks() -> list[int]:
        return [len(tower._forward_hooks) + len(tower._forward_pre_hooks) for tower in loaded.model.towers]

    lap = stock_lap(bench)
    assert lap.seconds["encode"] > 0
    assert lap.seconds["encode"] + lap.seconds["prefill"] <= lap.seconds["first_token"]
    assert hooks() == [0, 0]

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(loaded.model.towers[0], "forward", fail)
    with pytest.raises(RuntimeError, match="no"):
        stock_lap(bench)
    assert hooks() == [0, 0]


def test_a_clip_on_disk_is_described(loaded: LoadedModel) -> None:
    bench = workbench(loaded, SHAPES["odd"])
    bench.make_clip().warnings.append("a notice")
    report = measured_profile(bench, [], runs=1, warmup=0, stock=False, source="clip", note="")
    assert report.media.path == "<arrays>"
    assert report.media.seconds_audio == pytest.approx(5.3)
    assert report.workload.seconds == pytest.approx(5.3)
    assert [one.label for one in report.settings_measured] == ["full"]
    assert report.warnings == ("a notice",)


def test_infeasible_before_anything_runs(loaded: LoadedModel) -> None:
    bench = workbench(loaded, SHAPES["one window"])
    with pytest.raises(UsageError):
        measured_profile(
            bench, [SelectionOptions(trr=0.99)], runs=1, warmup=0, stock=False, source="clip", note=""
        )


def test_labels() -> None:
    assert [label_of(options) for options in (FULL, *SETTINGS)] == [
        "full",
        "seats R=0.3",
        "seats R=0.1",
        "seats R_v=0.2 R_a=0.4",
    ]
    assert label_of(dataclasses.replace(FULL, trr=0.2)) == "full"
    labels = [label_of(SelectionOptions(trr=0.3, **variant)) for variant in VARIANTS.values()]
    assert labels == [
        "random R=0.3",
        "seats R=0.3 stages=1",
        "seats R=0.3 stages=12",
        "seats R=0.3 window-budgets=uniform",
        "seats R=0.3 stages=12 window-budgets=uniform",
    ]
    assert (
        label_of(SelectionOptions(method="random", trr=0.3, selection_seed=4)) == "random R=0.3 selection-seed=4"
    )
    # What has no part in it is not said.
    idle = SelectionOptions(trr=0.3, stages="1", window_budgets="uniform", selection_seed=4)
    assert label_of(idle) == "seats R=0.3 stages=1"


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_a_variant_measured_is_the_variant_computed(loaded: LoadedModel, variant: dict[str, str]) -> None:
    media = MediaOptions(min_pixels=84 * 112, max_pixels=84 * 112)
    settings = [SelectionOptions(trr=0.3, **variant), SelectionOptions(trr=0.9, **variant)]
    if variant.get("stages", "123") == "123" and "method" not in variant:
        settings.pop()  # the late layers are free of the clip
    bench = make_workbench(loaded, lambda: NoiseClip(12, 6.0, 84, 112, audio_seconds=6.0), media, 40)
    measured = measured_profile(bench, settings, runs=1, warmup=0, stock=False, source="synthetic", note="")
    computed = analytic_profile(
        type(loaded.model),
        loaded.model.spec,
        bench.shape,
        settings,
        n_text=40,
        workload=("synthetic", 12, 6.0),
    )
    assert computed.schedule == measured.schedule
    for one, other, options in zip(
        computed.settings_measured[1:], measured.settings_measured[1:], settings, strict=True
    ):
        assert one.label == other.label == label_of(options)
        assert [layer.total for layer in one.tokens.per_layer] == [layer.total for layer in other.tokens.per_layer]
        assert one.flops == other.flops
        assert one.selection.drop_before_layer == other.selection.drop_before_layer
        assert one.selection.achieved_trr == pytest.approx(other.selection.achieved_trr)
        assert one.selection.achieved_trr == pytest.approx(options.trr, abs=0.03)
        assert (one.selection.stages, one.selection.window_budgets, one.selection.selection_seed) == (
            (None, None, 0)
            if options.method == "random"
            else (options.stages, None if options.stages == "1" else options.window_budgets, None)
        )
    schedule, drops = measured.schedule, measured.settings_measured[1].selection.drop_before_layer
    assert schedule.drop_before_layer == drops
    alone = options.method == "random" or options.stages == "1"
    assert len(drops) == (0 if alone else len(options.stages) + 1)
    assert (schedule.scale == 1.0) == alone
    assert (schedule.temperature is None) == (alone or options.window_budgets == "uniform")


@pytest.mark.parametrize("shape", [SHAPES["both"], SHAPES["picture alone"], SHAPES["sound alone"]])
@pytest.mark.parametrize("n_text", [8, 9, 80, 500])
def test_synthetic_prompt_has_the_length_asked_for(
    loaded: LoadedModel, shape: tuple[int, int, int, float], n_text: int
) -> None:
    bench = workbench(loaded, shape)
    spec = loaded.model.spec
    layout = lay_out(bench.shape, synthetic_prompt(spec, n_text, bench.shape), spec)
    assert layout.count(Modality.TEXT) == n_text
    words = layout.ids[layout.modality == Modality.TEXT].tolist()
    markers = {"video": 4, "sound": 2}["video" if bench.shape.video and bench.shape.n_audio_tokens else "sound"]
    assert sum(word in set(tiny.token_ids().values()) for word in words) == markers, "the rest is plain"
    assert max(words) < spec.geometry.text.vocab

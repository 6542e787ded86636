"""One clip, one question: a report whose parts agree with each other and with the clip."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from seats_cli.config import GenerationOptions, MediaOptions, SelectionOptions
from seats_cli.engine import trace as trace_module
from seats_cli.engine.decode import next_logits
from seats_cli.engine.pipeline import Settings, answer, prepare, read_prompt
from seats_cli.engine.prepare import clip_shape, position_warning
from seats_cli.engine.reading import method_for
from seats_cli.engine.stage_one import encode
from seats_cli.engine.trace import check_trace_path, write_trace
from seats_cli.errors import UsageError
from seats_cli.layout import Layout, Modality
from seats_cli.media.types import SamplingPlan, Shrink
from seats_cli.models.loading import LoadedModel
from seats_cli.report import Report
from seats_cli.timing import Stopwatch
from tests.array_clip import ArrayClip, clip_for, random_clip
from tests.engine.test_laws import SHAPES, kept_rows
from tests.oracles.masked_forward import masked_logits

QUESTION = "What happens?"
TRRS = (1.0, 0.5, 0.3, 0.1)


def ask(loaded: LoadedModel, shape: tuple[int, int, int, float], **options: object) -> Report:
    """Ask about a random clip; ``options`` go to whichever part knows them."""
    clip, media = clip_for(loaded, *shape, seed=4)
    parts = {
        kind: kind(**{f.name: options.pop(f.name) for f in dataclasses.fields(kind) if f.name in options})
        for kind in (SelectionOptions, GenerationOptions)
    }
    assert not options
    settings = Settings(media, parts[SelectionOptions], parts[GenerationOptions])
    return answer(loaded, lambda: clip, QUESTION, settings)


@pytest.fixture(params=SHAPES, ids=lambda name: name.replace(" ", "-"))
def shape(request: pytest.FixtureRequest) -> tuple[int, int, int, float]:
    return SHAPES[request.param]


def audio_tokens(loaded: LoadedModel, seconds: float) -> int:
    """What a sound of so many whole hundredths becomes."""
    return type(loaded.model).audio_tokens(round(seconds * 100)) if seconds else 0


@pytest.mark.parametrize("trr", TRRS)
def test_report_is_consistent(loaded: LoadedModel, shape: tuple[int, int, int, float], trr: float) -> None:
    n_frames, rows, columns, sound = shape
    report = ask(loaded, shape, trr=trr, max_new_tokens=3)
    n_grids, n_layers = math.ceil(n_frames / 2), len(loaded.model.layers)
    tokens = report.tokens
    assert tokens.video == n_grids * rows * columns
    assert tokens.audio == audio_tokens(loaded, sound)
    assert [layer.layer for layer in tokens.per_layer] == list(range(n_layers))
    assert {layer.text for layer in tokens.per_layer} == {tokens.text}
    for name in ("video", "audio", "total"):
        counts = [getattr(layer, name) for layer in tokens.per_layer]
        assert max(counts) <= getattr(tokens, name)
        assert name != "total" or counts == sorted(counts, reverse=True)
    offered, kept = tokens.video + tokens.audio, sum(one.video + one.audio for one in tokens.per_layer)
    selection = report.selection
    assert selection.achieved_trr == pytest.approx(kept / offered / n_layers)
    # Counts are rounded per window and modality, and each keeps at least one.
    slack = (report.media.windows * 2 + 4) / offered
    assert abs(selection.achieved_trr - trr) <= slack
    assert (selection.stage_one.video, selection.stage_one.audio) == (
        tokens.per_layer[0].video,
        tokens.per_layer[0].audio,
    )
    assert (selection.video_trr is None) == (tokens.video == 0)
    assert (selection.audio_trr is None) == (tokens.audio == 0)
    if trr == 1.0:
        assert selection.drop_before_layer == ()
        assert report.flops.selection_executed == 0
        assert report.flops.executed.pruned == report.flops.executed.full
        assert report.flops.paper.reduction == 1.0
    else:
        before = selection.drop_before_layer[-1]
        assert all(one.video + one.audio == 0 for one in tokens.per_layer[before:])
        assert all(one.video + one.audio > 0 for one in tokens.per_layer[:before])
        assert report.flops.paper.pruned < report.flops.paper.full
        assert report.flops.selection_executed > 0


def test_report_says_what_was_seen_and_heard(loaded: LoadedModel, shape: tuple[int, int, int, float]) -> None:
    n_frames, rows, columns, sound = shape
    media = ask(loaded, shape, max_new_tokens=1).media
    assert (media.path, media.frames, media.grids) == ("<arrays>", n_frames, math.ceil(n_frames / 2))
    assert media.seconds_video == n_frames / 2
    assert media.seconds_audio == sound
    assert media.audio_track == bool(sound)
    side = loaded.model.spec.pixel_factor
    assert (media.height, media.width) == ((rows * side, columns * side) if n_frames else (None, None))
    assert media.fps == (2.0 if n_frames else None)
    per_window = loaded.model.spec.layout.positions_per_window
    assert media.windows == max(math.ceil(n_frames / 4), math.ceil(audio_tokens(loaded, sound) / per_window))


def test_times_and_memory(loaded: LoadedModel) -> None:
    report = ask(loaded, SHAPES["both"], trr=0.3, max_new_tokens=4)
    seconds = report.seconds
    stages = (seconds.decode, seconds.encode, seconds.select, seconds.prefill)
    assert all(stage > 0 for stage in stages)
    assert sum(stages) <= seconds.first_token <= seconds.answer
    assert report.memory_bytes > sum(value.nbytes for value in loaded.model.thinker.parameters())
    assert ask(loaded, SHAPES["both"], trr=1.0, max_new_tokens=1).seconds.select < seconds.answer


def test_report_survives_json(loaded: LoadedModel, shape: tuple[int, int, int, float]) -> None:
    report = ask(loaded, shape, trr=0.2, max_new_tokens=2)
    again = Report.from_json(report.to_json())
    assert dataclasses.replace(again, flops=report.flops) == report
    assert again.flops == report.flops


def test_what_was_asked_for_is_in_the_report(loaded: LoadedModel) -> None:
    report = ask(loaded, SHAPES["both"], video_trr=0.2, audio_trr=0.4, kv_cache="text", max_new_tokens=2)
    selection = report.selection
    assert (selection.trr, selection.video_trr, selection.audio_trr) == (None, 0.2, 0.4)
    assert (selection.method, selection.kv_cache) == ("seats", "text")
    full = ask(loaded, SHAPES["both"], method="full", trr=0.1, max_new_tokens=2)
    assert (full.selection.method, full.selection.trr, full.selection.achieved_trr) == ("full", 1.0, 1.0)
    chosen = ask(loaded, SHAPES["both"], drop_before_layer=(2, 3, 4, 6), trr=0.2, max_new_tokens=2)
    assert chosen.selection.drop_before_layer == (2, 3, 4, 6)
    assert report.question == QUESTION
    assert report.model.id == loaded.model_id
    assert report.versions.torch == torch.__version__


def test_the_answer_is_the_pieces(loaded: LoadedModel) -> None:
    pieces: list[str] = []
    clip, media = clip_for(loaded, *SHAPES["both"])
    settings = Settings(media, generation=GenerationOptions(max_new_tokens=12))
    report = answer(loaded, lambda: clip, QUESTION, settings, pieces.append)
    assert "".join(pieces).strip() == report.answer
    assert report.answer
    assert report.answer_tokens <= 12
    assert report.finish_reason in ("stop", "length")


def test_ctrl_c_gives_a_report(loaded: LoadedModel) -> None:
    pieces: list[str] = []

    def interrupt(piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == 3:
            raise KeyboardInterrupt

    clip, media = clip_for(loaded, *SHAPES["both"])
    settings = Settings(media, generation=GenerationOptions(max_new_tokens=12))
    report = answer(loaded, lambda: clip, QUESTION, settings, interrupt)
    assert report.finish_reason == "interrupted"
    assert report.answer == "".join(pieces).strip()
    assert report.answer_tokens == 3


def test_choices(loaded: LoadedModel) -> None:
    pieces: list[str] = []
    clip, media = clip_for(loaded, *SHAPES["both"])
    settings = Settings(media, generation=GenerationOptions(choices=("A", "B", "C")))
    report = answer(loaded, lambda: clip, QUESTION, settings, pieces.append)
    shares = {choice.label: choice.probability for choice in report.choices}
    assert list(shares) == ["A", "B", "C"]
    assert sum(shares.values()) == pytest.approx(1.0)
    assert report.answer == max(shares, key=shares.__getitem__)
    assert (pieces, report.finish_reason, report.answer_tokens) == ([report.answer], "choice", 1)
    assert Report.from_json(report.to_json()).choices == report.choices


def test_choices_are_checked_before_the_work(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seats_cli.engine.pipeline.encode", None)
    with pytest.raises(UsageError, match="begin with the same token"):
        ask(loaded, SHAPES["both"], choices=("yes", "yet"))


def test_warnings_of_the_clip_reach_the_report(loaded: LoadedModel) -> None:
    class Damaged(ArrayClip):
        def frames(self, shrink: Shrink | None = None) -> Iterator[object]:
            yield from super().frames(shrink)
            self.warnings.append("the last frames were damaged")

    template, media = clip_for(loaded, *SHAPES["both"])
    clip = Damaged(template._images, template._waveform)
    clip.warnings.append("no rotation")
    report = answer(
        loaded, lambda: clip, QUESTION, Settings(media, generation=GenerationOptions(max_new_tokens=1))
    )
    assert report.warnings == ("no rotation", "the last frames were damaged")


def test_past_the_trained_positions(loaded: LoadedModel) -> None:
    longest = ask(loaded, (4, 3, 3, 2.0), max_new_tokens=1)
    assert longest.warnings == ()
    model = loaded.model
    short = type(model)(model.thinker, model.processor, dataclasses.replace(model.spec, max_positions=60))
    report = ask(dataclasses.replace(loaded, model=short), (4, 3, 3, 2.0), max_new_tokens=1)
    (line,) = report.warnings
    assert "past the 60 the model was trained on" in line
    assert "--start/--end" in line
    assert report.answer == longest.answer


def test_position_warning_starts_past_the_last() -> None:
    def layout(n: int) -> Layout:
        zeros = np.zeros(n, dtype=np.int64)
        none = {Modality.VIDEO: (), Modality.AUDIO: ()}
        return Layout(zeros, zeros, zeros - 1, zeros - 1, np.tile(np.arange(n), (3, 1)), none)

    assert position_warning(layout(100), 100) is None
    assert "reaches position 101" in position_warning(layout(101), 100)


@pytest.mark.parametrize("n_samples", [1, 159, 320, 480])
def test_sound_too_short_for_a_token(loaded: LoadedModel, n_samples: int) -> None:
    """1 to 3 log-mel frames: below one token; with a picture it is a warning, alone an error."""
    images = np.zeros((4, 84, 84, 3), np.uint8)
    media = MediaOptions(min_pixels=84 * 84, max_pixels=84 * 84)
    clip = ArrayClip(images, np.zeros(n_samples, np.float32))
    hops = n_samples / 160
    n_mel = math.floor(hops) if loaded.model.spec.mirrored_sound_end else math.ceil(hops)
    n_tokens = type(loaded.model).audio_tokens(n_mel) if n_mel else 0
    settings = Settings(media, SelectionOptions(trr=0.4), GenerationOptions(max_new_tokens=1))
    report = answer(loaded, lambda: clip, QUESTION, settings)
    assert report.tokens.audio == n_tokens
    assert bool(report.warnings) == (n_tokens == 0)
    if not n_tokens:
        assert f"only {n_samples} samples of sound" in report.warnings[0]
        assert report.media.seconds_audio == 0
        with pytest.raises(UsageError, match="nothing to hear"):
            answer(loaded, lambda: ArrayClip(None, np.zeros(n_samples, np.float32)), QUESTION, settings)


def test_silence_and_black_are_answered(loaded: LoadedModel) -> None:
    """Identical tokens everywhere: ties in every stage."""
    clip = ArrayClip(np.zeros((12, 84, 84, 3), np.uint8), np.zeros(6 * 16000, np.float32))
    media = MediaOptions(min_pixels=84 * 84, max_pixels=84 * 84)
    settings = Settings(media, SelectionOptions(trr=0.3), GenerationOptions(max_new_tokens=2))
    report = answer(loaded, lambda: clip, QUESTION, settings)
    assert report.tokens.per_layer[-1].video == 0
    assert math.isfinite(report.selection.achieved_trr)


# Sparse frames: max_frames binds, and several 2 s windows have one grid


class SparseClip(ArrayClip):
    """Frames far apart."""

    def __init__(self, images: np.ndarray, waveform: np.ndarray | None, fps: float) -> None:
        super().__init__(images, waveform)
        self.plan = SamplingPlan(np.arange(len(images)) / fps, fps, len(images))
        self._fps = fps

    @property
    def seconds_video(self) -> float:
        return len(self._images) / self._fps


def sparse(fps: float, n_frames: int, seconds: float) -> tuple[SparseClip, MediaOptions]:
    clip, media = random_clip(n_frames, 3, 4, seconds, seed=8)
    return SparseClip(clip._images, clip._waveform, fps), media


@pytest.mark.parametrize("fps", [0.25, 0.9])
@pytest.mark.parametrize("seconds", [0.0, 31.3, 41.0])
@pytest.mark.parametrize("trr", [0.3, 1.0])
def test_sparse_frames(loaded: LoadedModel, fps: float, seconds: float, trr: float) -> None:
    """Law 2 holds where windows are longer than 2 s."""
    clip, media = sparse(fps, 8, seconds)
    selection = SelectionOptions(trr=trr)
    settings = Settings(media, selection)
    with torch.inference_mode():
        prepared = prepare(loaded, clip, QUESTION, settings, Stopwatch())
        prompted = read_prompt(loaded, prepared, selection, Stopwatch())
        whole = read_prompt(loaded, prepared, SelectionOptions(method="full"), Stopwatch()) if trr == 1.0 else None
        keep_all = dataclasses.replace(settings, selection=SelectionOptions(trr=1.0))
        unpruned = prepare(loaded, clip, QUESTION, keep_all, Stopwatch())
        encoded = read_prompt(loaded, unpruned, keep_all.selection, Stopwatch()).encoded
        embeddings = encoded.embeddings.clone()
        deepstack = None if encoded.deepstack is None else encoded.deepstack.clone()
        tail = next_logits(loaded.model, torch.tensor([50]), prepared.layout.next_position, prompted.prefill.cache)
    assert prepared.shape.video.seconds_per_grid == pytest.approx(2 / fps)
    sizes = prepared.layout.window_sizes
    assert sum(size > 0 for size in sizes[Modality.VIDEO]) == 4, "a grid is a window here"
    if seconds:
        per_second = loaded.model.spec.layout.positions_per_second
        assert max(sizes[Modality.AUDIO]) > 2 * per_second, (
            "the sound of windows without a grid joins the one before"
        )
        assert abs(sum(sizes[Modality.AUDIO]) - seconds * per_second) < 1
    expected = masked_logits(
        loaded.model.thinker,
        embeddings,
        torch.from_numpy(prepared.layout.positions),
        kept_rows(prompted, len(loaded.model.layers)),
        [50],
        deepstack=deepstack,
        visual_rows=prepared.layout.rows(Modality.VIDEO),
    )
    got = torch.stack([prompted.prefill.logits, tail])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    if whole is not None:
        assert torch.equal(whole.prefill.logits, prompted.prefill.logits)


def test_sparse_frames_in_batches_equal_one_go(loaded: LoadedModel) -> None:
    """Law 4: windows of 8 s, so a batch of sound begins at a multiple of 800 log-mel frames."""
    clip, media = sparse(0.25, 12, 47.3)
    selection = SelectionOptions(trr=0.4)
    prepared = prepare(loaded, clip, QUESTION, Settings(media, selection), Stopwatch())
    parts = []
    for windows in (1, 1000):
        method = method_for(loaded, prepared.plan, selection)
        inputs = (clip, prepared.waveform, prepared.shape, prepared.layout, method, Stopwatch())
        with torch.inference_mode():
            parts.append(encode(loaded.model, *inputs, windows_per_batch=windows))
    small, whole = parts
    per_second = loaded.model.spec.layout.positions_per_second
    *full, last = prepared.layout.window_sizes[Modality.AUDIO]
    assert full == [8 * per_second] * 5
    assert 0 < last < 8 * per_second
    assert torch.equal(small.index, whole.index)
    torch.testing.assert_close(small.embeddings, whole.embeddings)
    for name, saliency in whole.trace.items():
        torch.testing.assert_close(small.trace[name], saliency)


def test_sparse_frames_are_what_the_report_says(loaded: LoadedModel) -> None:
    clip, media = sparse(0.25, 8, 32.0)
    settings = Settings(media, SelectionOptions(trr=0.3), GenerationOptions(max_new_tokens=2))
    report = answer(loaded, lambda: clip, QUESTION, settings)
    assert (report.media.fps, report.media.seconds_video, report.media.frames) == (0.25, 32.0, 8)
    assert report.media.windows == 4
    assert report.tokens.audio == 32 * loaded.model.spec.layout.positions_per_second
    assert report.selection.achieved_trr == pytest.approx(0.3, abs=0.02)


def test_frame_size_is_the_budget(loaded: LoadedModel) -> None:
    clip = ArrayClip(np.zeros((4, 480, 640, 3), np.uint8), None)
    shape = clip_shape(clip, 0, type(loaded.model), loaded.model.spec, MediaOptions())
    assert 128 <= shape.video.tokens_per_grid <= 144
    side = loaded.model.spec.pixel_factor
    assert shape.frame_size == (shape.video.rows * side, shape.video.columns * side)
    few = clip_shape(clip, 0, type(loaded.model), loaded.model.spec, MediaOptions(max_pixels=40 * side**2))
    assert few.video.tokens_per_grid <= 40


# The trace


def traced(loaded: LoadedModel, path: Path, **options: object) -> tuple[Report, dict[str, np.ndarray]]:
    clip, media = clip_for(loaded, *SHAPES["both"])
    settings = Settings(media, SelectionOptions(**options), GenerationOptions(max_new_tokens=1))
    report = answer(
        loaded,
        lambda: clip,
        QUESTION,
        settings,
        on_trace=lambda noted, *placed: write_trace(path, noted, *placed),
    )
    with np.load(path) as file:
        return report, dict(file)


def test_trace(loaded: LoadedModel, tmp_path: Path) -> None:
    report, arrays = traced(loaded, tmp_path / "t.npz", trr=0.3)
    drops = report.selection.drop_before_layer
    assert arrays["plan/drop_before_layer"].tolist() == list(drops)
    n = report.tokens.total
    for name in ("ids", "modality", "window", "grid"):
        assert arrays[f"layout/{name}"].shape == (n,)
    assert arrays["layout/positions"].shape == (3, n)
    modality = arrays["layout/modality"]
    assert arrays["stage_one/video_saliency"].shape == (report.tokens.video,)
    assert arrays["stage_one/audio_saliency"].shape == (report.tokens.audio,)
    rows = arrays["before_layer_0/kept_rows"]
    for layer in (0, *drops):
        kept = arrays[f"before_layer_{layer}/kept_rows"]
        assert np.isin(kept, rows).all()
        assert (np.diff(kept) > 0).all()
        counts = np.bincount(modality[kept], minlength=3).tolist()
        one = report.tokens.per_layer[layer]
        assert counts == [one.text, one.video, one.audio]
        if layer in drops[:-1]:
            scores = arrays[f"before_layer_{layer}/scores"]
            assert scores.shape == rows.shape
            assert scores.sum() == pytest.approx(1.0, abs=1e-5)
            # What is kept of a window and modality scores no less than what is dropped of it.
            windows = arrays["layout/window"][rows]
            for window in range(report.media.windows):
                for kind in (Modality.VIDEO, Modality.AUDIO):
                    group = (windows == window) & (modality[rows] == kind)
                    stays = np.isin(rows, kept)
                    if (group & stays).any() and (group & ~stays).any():
                        assert scores[group & stays].min() >= scores[group & ~stays].max()
            total = arrays[f"before_layer_{layer}/budgets_video"] + arrays[f"before_layer_{layer}/budgets_audio"]
            assert total.sum() == one.video + one.audio
            assert arrays[f"before_layer_{layer}/weights"].sum() == pytest.approx(1.0)
        rows = kept
    assert arrays["plan/stage_one_video"].sum() == report.selection.stage_one.video
    assert arrays["plan/stage_budgets"].shape == (3, 2)
    assert arrays["plan/video_levels"].shape == (4,)


def test_trace_of_even_windows_and_two_stages(loaded: LoadedModel, tmp_path: Path) -> None:
    report, arrays = traced(loaded, tmp_path / "t.npz", trr=0.3, stages="12", window_budgets="uniform")
    assert (report.selection.stages, report.selection.window_budgets) == ("12", "uniform")
    drops = report.selection.drop_before_layer
    assert arrays["plan/drop_before_layer"].tolist() == list(drops)
    assert len(drops) == 3
    for layer in drops:
        assert arrays[f"before_layer_{layer}/weights_spread"] == 0
    assert arrays["plan/video_levels"][0] == pytest.approx(1.4 * report.selection.video_trr)
    assert report.tokens.per_layer[-1].video > 0


def test_trace_of_a_draw(loaded: LoadedModel, tmp_path: Path) -> None:
    report, arrays = traced(loaded, tmp_path / "t.npz", method="random", trr=0.3, selection_seed=5)
    assert (report.selection.selection_seed, report.selection.stages) == (5, None)
    assert report.selection.drop_before_layer == ()
    assert arrays["plan/stage_one_video"].size == arrays["plan/stage_one_audio"].size == 0
    assert not any("saliency" in name or name.endswith("/scores") for name in arrays)
    kept = arrays["layout/modality"][arrays["before_layer_0/kept_rows"]]
    for kind, name in ((Modality.VIDEO, "video"), (Modality.AUDIO, "audio")):
        asked = getattr(report.selection, f"{name}_trr") * getattr(report.tokens, name)
        assert (kept == kind).sum() == round(asked) == getattr(report.selection.stage_one, name)
    assert report.selection.achieved_trr == pytest.approx(0.3, abs=0.01)


def test_trace_of_a_full_run(loaded: LoadedModel, tmp_path: Path) -> None:
    report, arrays = traced(loaded, tmp_path / "t.npz", trr=1.0)
    assert arrays["before_layer_0/kept_rows"].tolist() == list(range(report.tokens.total))
    assert arrays["plan/stage_budgets"].shape == (0, 2)
    assert not any(name.endswith("/scores") for name in arrays)


def test_trace_of_half_precision(loaded: LoadedModel, tmp_path: Path) -> None:
    clip, media = clip_for(loaded, *SHAPES["one window"])
    prepared = prepare(loaded, clip, QUESTION, Settings(media), Stopwatch())
    write_trace(tmp_path / "t.npz", {"a": torch.ones(2, dtype=torch.bfloat16)}, prepared.layout, prepared.plan)
    with np.load(tmp_path / "t.npz") as file:
        assert file["a"].dtype == np.float32


def test_trace_appears_whole_or_not_at_all(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.npz"
    path.write_bytes(b"before")

    def fill_the_disk(file: object, **_: object) -> None:
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(trace_module.np, "savez_compressed", fill_the_disk)
        with pytest.raises(UsageError, match=r"--trace .*t\.npz cannot be written: No space left on device"):
            traced(loaded, path, trr=0.3)
    assert path.read_bytes() == b"before"
    assert [one.name for one in tmp_path.iterdir()] == ["t.npz"]

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trace_module.np, "savez_compressed", interrupt)
        with pytest.raises(KeyboardInterrupt):
            traced(loaded, path, trr=0.3)
    assert [one.name for one in tmp_path.iterdir()] == ["t.npz"]
    traced(loaded, path, trr=0.3)
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_trace_path_is_checked_first(tmp_path: Path) -> None:
    check_trace_path(tmp_path / "new.npz")
    with pytest.raises(UsageError, match="is a folder"):
        check_trace_path(tmp_path)
    with pytest.raises(UsageError, match="there is no folder"):
        check_trace_path(tmp_path / "nowhere" / "t.npz")


def test_a_track_that_is_not_heard_is_still_a_track(loaded, tmp_path):
    from seats_cli.media import open_clip, write_demo_clip

    path = tmp_path / "clip.mp4"
    write_demo_clip(path, seconds=2.0)
    media = MediaOptions(audio="off")
    settings = Settings(media=media, generation=GenerationOptions(max_new_tokens=1))
    report = answer(loaded, lambda: open_clip(path, media), "What?", settings)
    assert report.media.audio_track
    assert report.media.seconds_audio == 0


@pytest.mark.parametrize("question", ["what\udcff", "\ud800"])
def test_a_question_that_is_not_text_is_refused(loaded, question):
    clip, media = clip_for(loaded, 2, 4, 4, 0.0)
    with pytest.raises(UsageError, match="not valid UTF-8"):
        answer(loaded, lambda: clip, question, Settings(media=media))


def test_frames_that_share_a_small_budget_are_said_so(loaded):
    from seats_cli.engine.prepare import clip_shape
    from seats_cli.media import NoiseClip

    clip = NoiseClip(n_frames=768, seconds=384.0, width=1920, height=1080, audio_seconds=0)
    shape = clip_shape(clip, 0, type(loaded.model), loaded.model.spec, MediaOptions())
    assert shape.video.tokens_per_grid < 128
    assert any("share the clip's pixel budget" in line for line in clip.warnings)

"""Suites: what they compare is what they say, stage by stage, on a tiny model. Nothing here asserts a time."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from seats_cli.config import MediaOptions, SelectionOptions
from seats_cli.engine import suites
from seats_cli.engine.analytic import label_of
from seats_cli.engine.answering import WayOfAnswering
from seats_cli.engine.benchmark import STOCK, make_workbench
from seats_cli.engine.encode import shrink_to
from seats_cli.engine.end_to_end import Subject, seats_run, stock_reader, stock_run
from seats_cli.engine.suites import Rounds, end_to_end, held, lengths, machine, paper, report_of
from seats_cli.errors import UsageError
from seats_cli.figures import SuiteReport
from seats_cli.media import NoiseClip, open_clip, write_clip
from seats_cli.media.held import hold, looped
from seats_cli.models.loading import LoadedModel
from seats_cli.models.resize import smart_resize
from seats_cli.models.stock import StockProcessor
from seats_cli.timing import Samples
from tests.engine.test_benchmark import noise

SELECTION = SelectionOptions(trr=0.3)
SEATS = "seats R=0.3"
ROUNDS = Rounds(2, 0)


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """4 s of 128 x 96 with sound, on disk."""
    path = tmp_path_factory.mktemp("suite") / "clip.mp4"
    noisy = NoiseClip(40, 4.0, 128, 96, fps=10.0, audio_seconds=4.0)
    write_clip(path, (frame.image for frame in noisy.frames()), 10, noisy.waveform(), 16000)
    return str(path)


def media_for(loaded: LoadedModel) -> MediaOptions:
    side = loaded.model.spec.pixel_factor
    return MediaOptions(min_pixels=8 * side**2, max_pixels=12 * side**2)


def test_paper_compares_all_tokens_seats_and_stock(loaded: LoadedModel) -> None:
    clip, media = noise(loaded)
    bench = make_workbench(loaded, held(loaded.model, lambda: clip, media).again, media, 40)
    said: list[str] = []
    found = paper(bench, SELECTION, Rounds(2, 1, said.append))
    assert said == ["full", SEATS, STOCK] * 3
    by_name = {(one.variant, one.quantity): one for one in found.figures}
    assert {variant for variant, _ in by_name} == {"full", SEATS, STOCK}
    for variant in ("full", SEATS, STOCK):
        assert by_name[variant, "encode"].median > 0
        assert by_name[variant, "prefill"].median > 0
    ratios = {one.name: one for one in found.ratios if one is not None}
    share = ratios["selection / pruned prefill"]
    assert 0 < share.median < 1
    assert (SEATS, "relevance") in by_name
    assert ("full", "relevance") not in by_name
    # Of one round's quotient the medians are bounds.
    whole = ratios["encode + prefill, stock / SEATS"]
    assert whole.spread.minimum <= whole.median <= whole.spread.maximum


def test_a_held_clip_reads_as_the_clip_itself(loaded: LoadedModel, clip_file: str) -> None:
    media = media_for(loaded)
    there = held(loaded.model, lambda: open_clip(clip_file, media), media)
    subject = Subject.of(clip_file, media, 20)
    whole = seats_run(loaded, subject, SELECTION)
    again = make_workbench(loaded, there.again, media, 20)
    assert again.layout.n_tokens == whole.n_tokens


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of what reads pictures for qwen-omni-utils, which is mostly not here: our own frames and sound."""
    import qwen_omni_utils

    def process_mm_info(
        conversation: Any, *, use_audio_in_video: bool, return_video_metadata: bool = False
    ) -> tuple[Any, None, Any]:
        assert use_audio_in_video
        (item,) = conversation[0]["content"]
        assert item["type"] == "video"
        media = MediaOptions(**{name: item[name] for name in ("fps", "max_frames", "min_pixels", "max_pixels")})
        clip = open_clip(item["video"], media)
        side, limits = round((media.min_pixels / 8) ** 0.5), (media.min_pixels, media.max_pixels)
        size = smart_resize(96, 128, side, *limits)
        frames = [torch.from_numpy(frame.image) for frame in clip.frames(shrink_to(size))]
        pictures = torch.stack(frames).permute(0, 3, 1, 2).float()
        told = (pictures, {"video_backend": "a stand-in"})
        return [clip.waveform()], None, [told if return_video_metadata else pictures]

    monkeypatch.setattr(qwen_omni_utils, "process_mm_info", process_mm_info)


@pytest.mark.usefixtures("stand_in")
def test_stock_features_are_our_own_to_the_token(loaded: LoadedModel, clip_file: str) -> None:
    media = media_for(loaded)
    subject = Subject.of(clip_file, media, 20)
    assert (subject.seen, subject.heard) == (True, True)
    reader = stock_reader(subject, loaded.model.spec.pixel_factor)
    stock = stock_run(loaded, subject, StockProcessor(loaded.model), reader)
    ours = seats_run(loaded, subject, SelectionOptions(trr=1.0))
    assert stock.n_tokens == ours.n_tokens
    assert set(stock.seconds) == {"decode", "process", "encode", "prefill", "first_token"}
    assert set(ours.seconds) == {"decode", "encode", "select", "prefill", "first_token"}
    for run in (stock, ours):
        assert run.seconds["first_token"] > 0


def test_stock_sound_is_the_log_mel_of_the_model(loaded: LoadedModel) -> None:
    from seats_cli.engine.encode import log_mel_of

    waveform = NoiseClip(0, 3.0, 1, 1, audio_seconds=3.0).waveform()
    features = StockProcessor(loaded.model)(None, waveform)
    assert features.patches is None
    assert features.mel is not None
    torch.testing.assert_close(
        features.mel, log_mel_of(loaded.model, waveform).float(), rtol=0, atol=1e-4, check_dtype=False
    )


def test_stock_pictures_are_the_patches_of_the_model(loaded: LoadedModel) -> None:
    from seats_cli.engine.encode import patches_of

    side = loaded.model.spec.pixel_factor
    frames = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (4, 2 * side, 3 * side, 3), dtype=np.uint8)
    )
    features = StockProcessor(loaded.model)(frames.permute(0, 3, 1, 2).float(), None)
    assert features.grid is not None
    assert features.grid[0] == 2
    assert features.patches is not None
    torch.testing.assert_close(features.patches, patches_of(loaded.model, frames).float(), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("stand_in")
def test_end_to_end_names_who_read_the_picture(loaded: LoadedModel, clip_file: str) -> None:
    found, reader = end_to_end(loaded, Subject.of(clip_file, media_for(loaded), 20), SELECTION, ROUNDS)
    assert reader == "qwen-omni-utils (a stand-in)"
    assert found.warnings == ()
    assert {one.name for one in found.ratios if one} == {
        "file to first token, stock / SEATS",
        "file to first token, full / SEATS",
        "file to pixels and sound, stock / SEATS",
        "encode + prefill, stock / SEATS",
    }


def test_the_stock_way_itself(loaded: LoadedModel, clip_file: str) -> None:
    pytest.importorskip("torchcodec", exc_type=ImportError)
    subject = Subject.of(clip_file, media_for(loaded), 20)
    reader = stock_reader(subject, loaded.model.spec.pixel_factor)
    assert reader.name == "qwen-omni-utils (torchcodec)"
    run = stock_run(loaded, subject, StockProcessor(loaded.model), reader)
    ours = seats_run(loaded, Subject.of(clip_file, media_for(loaded), 20), SelectionOptions(trr=1.0))
    # It spreads its frames over the clip, first and last included, and sees pixels in multiples of 28.
    assert run.n_tokens == pytest.approx(ours.n_tokens, rel=0.5)


def test_without_its_reader_a_plain_loop_stands_in_and_says_so(
    loaded: LoadedModel, clip_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine without FFmpeg's libraries and programs, where qwen-omni-utils imports and reads nothing."""
    import qwen_omni_utils

    def process_mm_info(*_: Any, **__: Any) -> None:
        raise RuntimeError("Could not load libtorchcodec\nand much else")

    monkeypatch.setattr(qwen_omni_utils, "process_mm_info", process_mm_info)
    subject = Subject.of(clip_file, media_for(loaded), 20)
    found, reader = end_to_end(loaded, subject, SELECTION, ROUNDS)
    assert reader == "a plain PyAV loop"
    (said,) = found.warnings
    assert "RuntimeError Could not load libtorchcodec)" in said
    stages = {one.quantity for one in found.figures if one.variant == STOCK}
    assert stages == {"decode", "process", "encode", "prefill", "first_token"}


def test_the_package_itself_may_be_missing(
    loaded: LoadedModel, clip_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "qwen_omni_utils", None)
    reader = stock_reader(Subject.of(clip_file, media_for(loaded), 20), loaded.model.spec.pixel_factor)
    assert reader.name == "a plain PyAV loop"
    assert "qwen_omni_utils" in reader.missing
    frames, sound = reader.read(Subject.of(clip_file, media_for(loaded), 20), loaded.model.spec.pixel_factor)
    assert frames is not None
    assert sound is not None
    side = loaded.model.spec.pixel_factor
    low, high = 8 * side**2, 12 * side**2
    # 4 s at 2 frames a second, as the package counts and sizes them.
    assert tuple(frames.shape) == (8, 3, *smart_resize(96, 128, side, low, high))
    assert frames.dtype == torch.float32


def test_the_stock_way_cannot_look_away(clip_file: str) -> None:
    with pytest.raises(UsageError, match="--audio off"):
        Subject.of(clip_file, MediaOptions(audio="off"), 20)


def test_lengths_measure_time_and_memory_against_minutes(loaded: LoadedModel) -> None:
    side = loaded.model.spec.pixel_factor
    media = MediaOptions(min_pixels=4 * side**2, max_pixels=4 * side**2, fps=0.5)
    minute = held(loaded.model, lambda: NoiseClip(30, 60.0, 2 * side, 2 * side, fps=0.5, audio_seconds=6.0), media)
    found = lengths(loaded, minute, (1, 3), media, SELECTION, Rounds(1, 0), 20)
    by_name = {(one.variant, one.quantity): one.median for one in found.figures}
    assert by_name["3 min", "tokens"] - 20 == 3 * (by_name["1 min", "tokens"] - 20)
    assert by_name["1 min", "kept"] < by_name["1 min", "tokens"]
    assert by_name["3 min", "memory"] > 0
    assert [one.name for one in found.ratios if one] == ["time per minute of clip, 3 min / 1 min"]
    report = report_of("growth", loaded, found, ROUNDS, "1 3 min", "")
    assert SuiteReport.from_json(report.to_json()) == report
    assert "CPU cores" in machine(loaded.model.devices)


def test_a_looped_clip_is_its_own_repetition() -> None:
    clip = held_noise()
    three = looped(clip, 3)
    once, frames = list(clip.frames()), list(three.frames())
    assert len(frames) == 3 * len(once)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    for i, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.image, once[i % len(once)].image)
        assert frame.pts_seconds == pytest.approx(once[i % len(once)].pts_seconds + 2.0 * (i // len(once)))
    np.testing.assert_array_equal(three.waveform(), np.concatenate([clip.waveform()] * 3))
    assert (three.seconds_video, three.seconds_audio) == (6.0, 6.0)
    assert [f.index for f in three.again().frames()] == [f.index for f in frames]
    with pytest.raises(ValueError, match="without a picture"):
        looped(held_noise(n_frames=0), 2)


def held_noise(n_frames: int = 4):

    return hold(lambda: NoiseClip(n_frames, 2.0, 16, 16, audio_seconds=2.0), lambda clip: lambda image: image)


def test_a_camera_clip_has_pictures_that_refer_both_ways(tmp_path: Path) -> None:
    import av

    from seats_cli.media import write_camera_clip

    path = tmp_path / "camera.mp4"
    write_camera_clip(path, 1.0, 64, 48)
    with av.open(str(path)) as container:
        kinds = {av.video.frame.PictureType(frame.pict_type).name for frame in container.decode(video=0)}
        assert {stream.type for stream in container.streams} == {"video", "audio"}
    assert "B" in kinds


@pytest.mark.parametrize(
    ("device", "asked", "compiles"), [("cpu", False, True), ("cuda:0", False, False), ("cuda:0", True, True)]
)
def test_on_a_gpu_nothing_is_compiled_unasked(
    monkeypatch: pytest.MonkeyPatch, device: str, asked: bool, compiles: bool
) -> None:
    seen: list[bool] = []

    def measured(_bench: Any, settings: Any, *, static_stock: bool, **_: Any) -> tuple[WayOfAnswering, ...]:
        seen.append(static_stock)
        return tuple(WayOfAnswering(label_of(one), "graph", (1, 1), Samples((2.0,))) for one in settings)

    monkeypatch.setattr(suites, "measure_answering", measured)
    bench: Any = SimpleNamespace(loaded=SimpleNamespace(model=SimpleNamespace(device=torch.device(device))))
    found = suites.answer(bench, SELECTION, 4, ROUNDS, compiled=asked)
    assert seen == [compiles]
    assert any("--stock has it measured" in line for line in found.warnings) is not compiles

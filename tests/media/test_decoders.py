"""Decoders that are named: what they give, and what is said where they cannot."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from seats_cli.config import MediaOptions
from seats_cli.errors import MediaError, UsageError
from seats_cli.media import decoders as decoders_room
from seats_cli.media import open_clip
from seats_cli.media import source as source_room
from seats_cli.media.decoders import check_decoder
from tests.media.test_pictures import CLOCK, TIMES, film
from tests.media.test_rotation import EIGHT, ONE, patch_matrix

TORCHCODEC = MediaOptions(decoder="torchcodec")
NVDEC = MediaOptions(decoder="nvdec")


def loads() -> bool:
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, RuntimeError, OSError):
        return False
    return True


with_torchcodec = pytest.mark.skipif(
    importlib.util.find_spec("torchcodec") is None or not loads(), reason="an optional package"
)


def test_torchcodec_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(decoders_room, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="torchcodec is not installed") as caught:
        open_clip(film(tmp_path / "a.mp4", TIMES[:25]), TORCHCODEC)
    assert "pip install" in caught.value.hint


def test_torchcodec_that_cannot_be_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(decoders_room, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    clip = open_clip(film(tmp_path / "a.mp4", TIMES[:25]), TORCHCODEC)
    with pytest.raises(UsageError, match="cannot be loaded"):
        list(clip.frames())


def close_to(path, options) -> None:
    """The same frames; colours may be converted with other roundings."""
    expected = list(open_clip(path, MediaOptions(**options)).frames())
    found = list(open_clip(path, MediaOptions(decoder="torchcodec", **options)).frames())
    assert [frame.pts_seconds for frame in found] == pytest.approx([frame.pts_seconds for frame in expected])
    for one, other in zip(found, expected, strict=True):
        assert one.image.shape == other.image.shape
        assert one.image.flags.c_contiguous
        assert np.abs(one.image.astype(int) - other.image).mean() < 2


@with_torchcodec
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("options", [{}, {"fps": 25.0}, {"start_seconds": 3.3, "end_seconds": 5.1}])
def test_torchcodec_gives_the_planned_frames(tmp_path, suffix, options):
    close_to(film(tmp_path / f"a.{suffix}", [t + Fraction(18, 5) for t in TIMES]), options)


@with_torchcodec
def test_torchcodec_with_a_variable_rate(tmp_path):
    gaps = np.random.default_rng(5).choice([10, 40, 41, 250, 900], size=40)
    times = [Fraction(int(ms), 1000) for ms in np.concatenate([[0], np.cumsum(gaps)])]
    close_to(film(tmp_path / "a.mp4", times, time_base=Fraction(1, 1000)), {})


@with_torchcodec
@pytest.mark.parametrize("name", EIGHT)
def test_torchcodec_turns_as_we_do_or_refuses(tmp_path, name):
    matrix, _ = EIGHT[name]
    path = film(tmp_path / "a.mp4", TIMES[:25])
    patch_matrix(path, tuple(ONE * value for value in matrix))
    if name.startswith("mirrored"):
        with pytest.raises(MediaError, match="mirrored"):
            list(open_clip(path, TORCHCODEC).frames())
    else:
        close_to(path, {})


@with_torchcodec
def test_torchcodec_never_gives_another_frame(tmp_path):
    """Where it cannot go to a place in a stream it shows what it finds."""
    path = film(tmp_path / "a.ts", [t + Fraction(18, 5) for t in TIMES])
    for options in ({}, {"start_seconds": 3.3, "end_seconds": 5.1}):
        with contextlib.suppress(MediaError):
            close_to(path, options)


@with_torchcodec
def test_torchcodec_refuses_what_has_no_times(tmp_path):
    path = film(tmp_path / "a.avi", codec="mpeg4")
    with pytest.raises(MediaError, match="no times of presentation"):
        list(open_clip(path, TORCHCODEC).frames())


@with_torchcodec
def test_torchcodec_shrinks(tmp_path):
    path = film(tmp_path / "a.mp4", TIMES[:50])
    small = open_clip(path, TORCHCODEC).frames(lambda image: np.ascontiguousarray(image[::2, ::2]))
    whole = open_clip(path, TORCHCODEC).frames()
    for one, other in zip(small, whole, strict=True):
        np.testing.assert_array_equal(one.image, other.image[::2, ::2])


def gpu_is_here() -> bool:
    with contextlib.suppress(UsageError):
        check_decoder("nvdec")
        return True
    return False


@pytest.mark.skipif(gpu_is_here(), reason="there is one")
def test_a_gpu_that_is_missing(tmp_path):
    with pytest.raises(UsageError, match="--decoder nvdec: no NVIDIA GPU") as caught:
        open_clip(film(tmp_path / "a.mp4", TIMES[:25]), NVDEC)
    assert "leave --decoder out" in caught.value.hint


class FakeGpu:
    """In place of the arguments that send decoding to a GPU: PyAV that was told so."""

    def __init__(self, monkeypatch, fails: Exception | None = None) -> None:
        self.asked = 0
        real = av.open

        def opened(*args, gpu=False, **more):
            self.asked += gpu
            if gpu and fails is not None:
                raise fails
            return real(*args, **more)

        monkeypatch.setattr(av, "open", opened)
        monkeypatch.setattr(source_room, "_gpu", lambda: {"gpu": True})
        for room in ("decoders", "outline"):
            monkeypatch.setattr(f"seats_cli.media.{room}.check_decoder", lambda name: None)


def test_frames_of_a_gpu_take_the_way_of_all_others(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4")
    expected = list(open_clip(path, MediaOptions()).frames())
    gpu = FakeGpu(monkeypatch)
    found = list(open_clip(path, NVDEC).frames())
    assert gpu.asked == 1
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def test_a_file_that_the_gpu_does_not_decode(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4", TIMES[:25])
    FakeGpu(monkeypatch, RuntimeError("no stream is compatible"))
    with pytest.raises(MediaError, match=r"the GPU does not decode it .* no stream is compatible") as caught:
        list(open_clip(path, NVDEC).frames())
    assert "leave --decoder out" in caught.value.hint


def test_pictures_that_the_gpu_does_not_give(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mov", TIMES[:25], codec="png", pix_fmt="rgb24", time_base=CLOCK, gop=1)
    clip = open_clip(path, MediaOptions(start_seconds=0.2))
    FakeGpu(monkeypatch)
    lost = open_clip(
        film(tmp_path / "b.mov", TIMES[:25], codec="png", pix_fmt="rgb24", gop=1, damaged=range(1, 25)), NVDEC
    )
    assert len(list(clip.frames())) == clip.plan.n_frames
    assert len(list(lost.frames())) == lost.plan.n_frames
    assert any("could not be decoded" in line for line in lost.warnings)

"""Frames and sound become what transformers' own processors would make of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import Qwen2VLVideoProcessor, WhisperFeatureExtractor

from seats_cli.errors import MediaError
from seats_cli.models.preprocess import AUDIO_RATE_HZ, log_mel, patchify
from seats_cli.models.resize import frame_size, smart_resize
from tests.tiny_processor import CLIP_MEAN, CLIP_STD

TOTAL_TOKENS = 24576


@pytest.fixture(scope="module")
def vision_process() -> Iterator[ModuleType]:
    """qwen-omni-utils, with a reader that invents as many frames as the file name says: ``5x40x60``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its audio libraries import modules that Python has deprecated
        from qwen_omni_utils.v2_5 import vision_process as module

    def invent(element: dict[str, str]) -> tuple[torch.Tensor, dict[str, float], float]:
        n_frames, height, width = (int(part) for part in element["video"].split("x"))
        return torch.zeros(1, 3, height, width, dtype=torch.uint8).expand(n_frames, -1, -1, -1), {}, 2.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(module.VIDEO_READER_BACKENDS, "invented", invent)
        patch.setattr(module, "get_video_reader_backend", lambda: "invented")
        yield module


@given(
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
    factor=st.sampled_from([28, 32]),
    min_tokens=st.integers(4, 600),
    spread=st.integers(0, 600),
)
@settings(deadline=None, max_examples=300)
def test_smart_resize_is_that_of_qwen_omni_utils(
    vision_process: ModuleType, height: int, width: int, factor: int, min_tokens: int, spread: int
) -> None:
    assume(max(height, width) <= 200 * min(height, width))
    low, high = min_tokens * factor**2, (min_tokens + spread) * factor**2
    expected = vision_process.smart_resize(height, width, factor, low, high)
    found = smart_resize(height, width, factor, low, high)
    if 0 in expected:
        # A side below one token: theirs becomes 0, ours one token.
        expected = tuple(max(factor, side) for side in expected)
    assert found == expected
    assert all(side >= factor and side % factor == 0 for side in found)


def test_smart_resize_never_makes_an_empty_picture() -> None:
    assert smart_resize(60, 12000, 28, 128 * 784, 144 * 784)[0] == 28


@pytest.mark.parametrize(("height", "width"), [(10, 2001), (2001, 10), (0, 50)])
def test_impossible_pictures_are_refused(height: int, width: int) -> None:
    with pytest.raises(MediaError, match=f"{width}x{height}"):
        smart_resize(height, width, 28, 128 * 784, 144 * 784)
    with pytest.raises(MediaError, match=f"{width}x{height}"):
        frame_size(height, width, 8, factor=28)


@given(
    height=st.integers(12, 90),
    width=st.integers(12, 90),
    n_grids=st.integers(1, 400),
    min_tokens=st.integers(40, 144),
    max_tokens=st.integers(40, 768),
)
@settings(deadline=None, max_examples=40)
def test_frame_size_is_that_of_fetch_video(
    vision_process: ModuleType, height: int, width: int, n_grids: int, min_tokens: int, max_tokens: int
) -> None:
    assume(min_tokens <= max_tokens)
    factor, n_frames = 4, 2 * n_grids
    limits = {"min_pixels": min_tokens * factor**2, "max_pixels": max_tokens * factor**2}
    video = vision_process.fetch_video(
        {"video": f"{n_frames}x{height}x{width}", "total_pixels": TOTAL_TOKENS * factor**2, **limits},
        image_patch_size=factor // 2,
    )
    assert frame_size(height, width, n_frames, factor=factor, **limits) == tuple(video.shape[-2:])


@pytest.mark.parametrize("factor", [28, 32])
@pytest.mark.parametrize("n_frames", [2, 128, 400, 768])
def test_default_limits_are_those_of_the_published_results(
    vision_process: ModuleType, factor: int, n_frames: int
) -> None:
    high = min(144 * factor**2, max(TOTAL_TOKENS * factor**2 / n_frames * 2, int(128 * factor**2 * 1.05)))
    for height, width in ((1080, 1920), (90, 160), (640, 360), (1100, 1000)):
        expected = vision_process.smart_resize(height, width, factor, 128 * factor**2, high)
        assert frame_size(height, width, n_frames, factor=factor) == expected
    height, width = frame_size(1080, 1920, 2, factor=factor)
    assert 128 <= height * width // factor**2 <= 144


def test_one_limit_moves_the_other() -> None:
    for tokens in (16, 64, 100):
        size = frame_size(720, 720, 8, factor=28, max_pixels=tokens * 784)
        assert math.prod(size) == tokens * 784
    for tokens in (196, 400):
        size = frame_size(720, 720, 8, factor=28, min_pixels=tokens * 784)
        assert tokens * 784 <= math.prod(size) <= tokens * 784 * 144 / 128
    size = frame_size(56, 56, 8, factor=28, min_pixels=30 * 784)
    assert 30 * 784 <= math.prod(size) <= 144 * 784


def stock_patches(frames: torch.Tensor, low: int, high: int) -> tuple[torch.Tensor, list[int]]:
    """Patches and grid of transformers' own video processor."""
    processor = Qwen2VLVideoProcessor()
    # Newer transformers want to be told not to limit the clip as a whole.
    extra = {"cap_pixels_per_frame": False} if hasattr(processor, "cap_pixels_per_frame") else {}
    size = {"shortest_edge": low, "longest_edge": high}
    videos = [frames.permute(0, 3, 1, 2)]
    made = processor(videos, do_sample_frames=False, size=size, return_tensors="pt", **extra)
    return made["pixel_values_videos"], made["video_grid_thw"][0].tolist()


def own_patches(frames: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return patchify(frames, size, patch_size=14, temporal_patch_size=2, merge_size=2, mean=CLIP_MEAN, std=CLIP_STD)


def random_frames(seed: int, n_frames: int, height: int, width: int) -> torch.Tensor:
    """Noise over a gradient: overshoots the grey levels when resized, so that clamping shows."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (n_frames, height, width, 3))
    ramp = np.linspace(0, 255, width).round().astype(np.int64)[None, None, :, None]
    return torch.from_numpy(np.where(rng.random((n_frames, 1, 1, 1)) < 0.5, noise, ramp).astype(np.uint8))


@given(
    seed=st.integers(0, 2**16),
    n_frames=st.integers(1, 7),
    height=st.integers(20, 260),
    width=st.integers(20, 260),
    tokens=st.integers(6, 40),
)
@settings(deadline=None, max_examples=40)
def test_patches_are_those_of_transformers(seed: int, n_frames: int, height: int, width: int, tokens: int) -> None:
    frames = random_frames(seed, n_frames, height, width)
    low, high = tokens * 784, (tokens + 8) * 784
    expected, grid = stock_patches(frames, low, high)
    size = smart_resize(height, width, 28, low, high)
    found = own_patches(frames, size)
    assert grid == [math.ceil(n_frames / 2), size[0] // 14, size[1] // 14]
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@given(
    seed=st.integers(0, 2**16),
    n_frames=st.integers(1, 12),
    grids_per_batch=st.integers(1, 4),
)
@settings(deadline=None, max_examples=20)
def test_patches_by_window_are_those_in_one_go(seed: int, n_frames: int, grids_per_batch: int) -> None:
    frames = random_frames(seed, n_frames, 75, 131)
    batches = [own_patches(batch, (84, 140)) for batch in frames.split(2 * grids_per_batch)]
    assert torch.equal(torch.cat(batches), own_patches(frames, (84, 140)))


def test_patches_leave_the_frames_alone() -> None:
    frames = random_frames(0, 2, 56, 84)
    before = frames.clone()
    own_patches(frames, (56, 84))
    assert torch.equal(frames, before)


def test_other_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        own_patches(torch.zeros(2, 56, 56, 3), (56, 56))
    with pytest.raises(ValueError, match="uint8"):
        own_patches(torch.zeros(2, 3, 56, 56, dtype=torch.uint8), (56, 56))
    with pytest.raises(ValueError, match="multiple of 28"):
        own_patches(torch.zeros(2, 56, 56, 3, dtype=torch.uint8), (56, 70))


@pytest.fixture(scope="module")
def extractor() -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=128, chunk_length=300, return_attention_mask=True)


@pytest.fixture(scope="module")
def filters(extractor: WhisperFeatureExtractor) -> torch.Tensor:
    return torch.from_numpy(extractor.mel_filters).float()


def stock_mel(
    extractor: WhisperFeatureExtractor, waveform: torch.Tensor, pad_to: int | None = None
) -> torch.Tensor:
    """The frames the attention mask keeps, of sound padded with silence to 300 s or to ``pad_to`` samples."""
    made = extractor(
        waveform.numpy(),
        sampling_rate=AUDIO_RATE_HZ,
        truncation=False,
        max_length=pad_to,
        return_attention_mask=True,
        return_tensors="pt",
    )
    return made["input_features"][0][:, : int(made["attention_mask"].sum())]


def sound(n_samples: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n_samples, generator=torch.Generator().manual_seed(seed)) * 0.1


@pytest.mark.parametrize("n_samples", [1, 159, 160, 161, 200, 201, 16000, 123457, 299 * AUDIO_RATE_HZ + 7])
def test_mel_is_that_of_transformers(
    extractor: WhisperFeatureExtractor, filters: torch.Tensor, n_samples: int
) -> None:
    waveform = sound(n_samples)
    found = log_mel(waveform, mel_filters=filters)
    assert found.shape == (128, math.ceil(n_samples / 160))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, stock_mel(extractor, waveform), rtol=0, atol=1e-4)


@given(n_samples=st.integers(1, 9000), click=st.floats(0, 1), block_seconds=st.floats(0.001, 0.5))
@settings(deadline=None, max_examples=40)
def test_mel_in_blocks_is_that_in_one_go(
    extractor: WhisperFeatureExtractor,
    filters: torch.Tensor,
    n_samples: int,
    click: float,
    block_seconds: float,
) -> None:
    waveform = sound(n_samples, n_samples) * 1e-5
    waveform[int(click * (n_samples - 1))] = 1.0  # whichever block it is in, it sets the floor of all
    found = log_mel(waveform, mel_filters=filters, block_seconds=block_seconds)
    torch.testing.assert_close(found, log_mel(waveform, mel_filters=filters), rtol=0, atol=1e-5)
    torch.testing.assert_close(found, stock_mel(extractor, waveform, pad_to=16000), rtol=0, atol=1e-4)


def test_mel_past_300_seconds_is_not_cut(extractor: WhisperFeatureExtractor, filters: torch.Tensor) -> None:
    waveform = sound(310 * AUDIO_RATE_HZ)
    waveform[: 200 * AUDIO_RATE_HZ] *= 1e-6  # the loudest part is in another block, and past the old limit
    waveform[305 * AUDIO_RATE_HZ] = 1.0
    found = log_mel(waveform, mel_filters=filters)
    expected = stock_mel(extractor, waveform)
    assert found.shape == expected.shape == (128, 31000)
    # Unpadded, the extractor mirrors the end, which the last frame's window reaches.
    torch.testing.assert_close(found[:, :-1], expected[:, :-1], rtol=0, atol=1e-4)
    padded = stock_mel(extractor, waveform, pad_to=311 * AUDIO_RATE_HZ)
    torch.testing.assert_close(found, padded, rtol=0, atol=1e-4)


def test_a_click_at_the_very_end_sets_the_floor(extractor: WhisperFeatureExtractor, filters: torch.Tensor) -> None:
    waveform = sound(1600 + 150) * 1e-4
    waveform[-1] = 1.0  # loudest in the window of the frame after the last
    found = log_mel(waveform, mel_filters=filters)
    torch.testing.assert_close(found, stock_mel(extractor, waveform), rtol=0, atol=1e-4)


def test_silence_is_flat_and_nothing_is_nothing(filters: torch.Tensor) -> None:
    flat = log_mel(torch.zeros(40000), mel_filters=filters)
    assert flat.shape == (128, 250)
    assert torch.equal(flat, torch.full_like(flat, -1.5))
    assert log_mel(torch.zeros(0), mel_filters=filters).shape == (128, 0)

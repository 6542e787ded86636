"""A clip made of arrays, and the same arrays through the processor of transformers."""

from __future__ import annotations

import numpy as np

from seats_cli.config import MediaOptions
from seats_cli.media.types import AudioInfo, Frame, SamplingPlan, VideoInfo
from tests.tiny_stock import random_clip as random_arrays
from tests.tiny_stock import stock_inputs

RATE = 16_000


class ArrayClip:
    """Frames [n, H, W, 3] at 2 frames per second and a waveform [m]; either may be None."""

    path = "<arrays>"

    def __init__(self, images: np.ndarray | None, waveform: np.ndarray | None) -> None:
        self._images, self._waveform = images, waveform
        self.warnings: list[str] = []
        self.video = self.plan = self.audio = None
        self.has_audio_track = waveform is not None
        if images is not None:
            n, height, width, _ = images.shape
            self.video = VideoInfo("raw", width, height, 0, 2.0, 0.0, n / 2, n, 0)
            self.plan = SamplingPlan(np.arange(n) / 2, 2.0, n)
        if waveform is not None:
            self.audio = AudioInfo("raw", RATE, 1, 0.0, len(waveform) / RATE, 1)

    @property
    def seconds_video(self) -> float:
        return 0.0 if self._images is None else len(self._images) / 2

    @property
    def seconds_audio(self) -> float:
        return 0.0 if self._waveform is None else len(self._waveform) / RATE

    def frames(self, shrink=None):
        for i, image in enumerate(self._images):
            upright = np.ascontiguousarray(image)
            yield Frame(upright if shrink is None else shrink(upright), i / 2, i)

    def waveform(self) -> np.ndarray:
        return np.zeros(0, np.float32) if self._waveform is None else self._waveform


def clip_for(loaded, *shape: float, seed: int = 0):
    """``random_clip`` in the sizes of a model."""
    return random_clip(*shape, seed=seed, factor=loaded.model.spec.pixel_factor)


def random_clip(n_frames: int, rows: int, columns: int, audio_seconds: float, seed: int = 0, factor: int = 28):
    """A clip whose frames need no resizing, and the options that leave them alone.

    The arrays are those of ``tests.tiny_stock.stock_inputs`` for the same arguments. ``factor``: pixels
    of a merged token's side.
    """
    height, width = rows * factor, columns * factor
    frames, sound = random_arrays(n_frames, height, width, audio_seconds, seed)
    images = frames.numpy() if n_frames else None
    waveform = sound.numpy() if audio_seconds else None
    options = MediaOptions(min_pixels=height * width, max_pixels=height * width)
    return ArrayClip(images, waveform), options


def stock_of(
    processor, n_frames: int, rows: int, columns: int, audio_seconds: float, question: str, seed: int = 0
):
    """What transformers' processor makes of the same arrays."""
    video = processor.video_processor
    side = video.patch_size * video.merge_size
    return stock_inputs(processor, n_frames, rows * side, columns * side, audio_seconds, question, seed=seed)

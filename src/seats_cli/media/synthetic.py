"""Clips out of nothing: noise to measure with, and a small mp4 to show the tool on. Deterministic."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from seats_cli.media.sampling import make_plan
from seats_cli.media.types import (
    SAMPLE_RATE_HZ,
    AudioInfo,
    Float32,
    Frame,
    SamplingPlan,
    Shrink,
    Uint8,
    VideoInfo,
)
from seats_cli.media.writing import write_clip

_COARSE_ROWS, _COARSE_COLUMNS = 6, 10
_SECONDS_PER_SCENE = 4.0
_N_BLOCKS = 3
_DEMO_AUDIO_RATE_HZ = 44_100
_BEEP_SECONDS = 0.12


def _stretch(n_fine: int, n_coarse: int) -> Float32:
    """Linear interpolation from ``n_coarse`` points to ``n_fine`` as a matrix [n_fine, n_coarse]."""
    place = np.linspace(0, n_coarse - 1, n_fine)
    return np.maximum(0.0, 1.0 - np.abs(place[:, None] - np.arange(n_coarse))).astype(np.float32)


def _coarse_noise(*seed: int) -> Float32:
    """float32 [rows, columns, 3] in 0..255."""
    shape = (_COARSE_ROWS, _COARSE_COLUMNS, 3)
    return np.random.default_rng(seed).uniform(0, 255, shape).astype(np.float32)


def _smooth(coarse: Float32, width: int, height: int) -> Float32:
    """float32 [height, width, 3]: coarse noise without hard edges."""
    rows = np.tensordot(_stretch(height, _COARSE_ROWS), coarse, axes=1)
    # Many small products: much faster than one call to a threaded BLAS on a busy machine.
    fine: Float32 = np.matmul(_stretch(width, _COARSE_COLUMNS), rows)
    return fine


@dataclass(slots=True, eq=False)
class NoiseClip:
    """A clip of coloured noise that changes slowly, blocks that move over it, and tones; no file at all.

    The same arguments give the same frames and samples.

    Attributes:
        n_frames: How many frames; 0: no picture.
        seconds: Length of the picture.
        width: Pixels.
        height: Pixels.
        seed: Of the noise.
        fps: Frame rate of the plan if ``n_frames`` fit it; otherwise they are spread over ``seconds``.
        audio_seconds: Length of the sound; 0: none; None: as long as the picture.

    Raises:
        ValueError: Neither picture nor sound, or a size or length below 0.
    """

    n_frames: int
    seconds: float
    width: int
    height: int
    seed: int = 0
    fps: float = 2.0
    audio_seconds: float | None = None
    path: str = field(default="<noise>", init=False)
    video: VideoInfo | None = field(default=None, init=False)
    audio: AudioInfo | None = field(default=None, init=False)
    plan: SamplingPlan | None = field(default=None, init=False)
    warnings: list[str] = field(default_factory=list, init=False)
    _n_samples: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        sound_seconds = self.seconds if self.audio_seconds is None else self.audio_seconds
        if self.n_frames < 0 or self.seconds <= 0 or sound_seconds < 0:
            raise ValueError(f"{self.n_frames} frames in {self.seconds} s with {sound_seconds} s of sound")
        self._n_samples = round(sound_seconds * SAMPLE_RATE_HZ)
        if self.n_frames == 0 and self._n_samples == 0:
            raise ValueError("a clip has a picture or a sound")
        if self.n_frames:
            self.plan = self._plan()
            rate = self.n_frames / self.seconds
            size = (self.width, self.height)
            self.video = VideoInfo("noise", *size, 0, rate, 0.0, self.seconds, self.n_frames, 0)
        if self._n_samples:
            self.audio = AudioInfo("noise", SAMPLE_RATE_HZ, 1, 0.0, self._n_samples / SAMPLE_RATE_HZ, 1)

    def _plan(self) -> SamplingPlan:
        regular = make_plan(self.seconds, self.fps, max_frames=self.n_frames + 2)
        if regular.n_frames == self.n_frames:
            return regular
        times = np.arange(self.n_frames) * self.seconds / self.n_frames
        return SamplingPlan(times, self.n_frames / self.seconds, self.n_frames)

    @property
    def seconds_video(self) -> float:
        """Length of the picture; 0 without one."""
        return self.seconds if self.plan is not None else 0.0

    @property
    def seconds_audio(self) -> float:
        """Length of the waveform; 0 without one."""
        return self._n_samples / SAMPLE_RATE_HZ

    @property
    def has_audio_track(self) -> bool:
        """Whether it has sound."""
        return self._n_samples > 0

    def frames(self, shrink: Shrink | None = None) -> Iterator[Frame]:
        """Yield ``plan.n_frames`` frames, uint8 [height, width, 3] or as ``shrink`` makes them; callable again."""
        if self.plan is None:
            return
        for index, time_seconds in enumerate(self.plan.times_seconds.tolist()):
            image = self._picture(time_seconds)
            yield Frame(image if shrink is None else shrink(image), time_seconds, index)

    def _picture(self, time_seconds: float) -> Uint8:
        scene, progress = divmod(time_seconds / _SECONDS_PER_SCENE, 1.0)
        before, after = (_coarse_noise(self.seed, 2, int(scene) + k) for k in (0, 1))
        blend = (before * (1 - progress) + after * progress).astype(np.float32)
        image: Uint8 = _smooth(blend, self.width, self.height).astype(np.uint8)
        side = max(1, min(self.width, self.height) // 6)
        rng = np.random.default_rng([self.seed, 1])
        for _ in range(_N_BLOCKS):
            x0, y0 = rng.uniform(0, 1, 2)
            dx, dy = rng.uniform(-0.1, 0.1, 2)
            x = int((x0 + dx * time_seconds) % 1.0 * max(1, self.width - side))
            y = int((y0 + dy * time_seconds) % 1.0 * max(1, self.height - side))
            image[y : y + side, x : x + side] = rng.integers(0, 256, 3)
        return image

    def waveform(self) -> Float32:
        """float32 [n], mono, 16 kHz: three tones that come and go, and faint noise."""
        rng = np.random.default_rng([self.seed, 3])
        times = np.arange(self._n_samples) / SAMPLE_RATE_HZ
        sound = rng.normal(0.0, 0.01, self._n_samples)
        for frequency_hz, period_seconds in zip(rng.uniform(150, 2000, 3), rng.uniform(1, 5, 3), strict=True):
            loudness = 0.1 * (1 + np.sin(2 * np.pi * times / period_seconds))
            sound += loudness * np.sin(2 * np.pi * frequency_hz * times)
        return sound.astype(np.float32)


def write_demo_clip(
    path: str | os.PathLike[str],
    seconds: float = 8.0,
    *,
    width: int = 320,
    height: int = 240,
    fps: int = 25,
    seed: int = 7,
) -> None:
    """Write a small mp4 (h264, aac): a red disc and a blue square move over a texture; a beep each second.

    Args:
        path: Ends in .mp4; written over if it exists.
        seconds: Length of picture and sound.
        width: Pixels; even, as h264 wants it.
        height: Pixels; even.
        fps: Frames per second.
        seed: Of the texture. The same arguments give the same frames and samples.
    """
    images = _demo_picture(width, height, max(1, round(seconds * fps)), seed)
    write_clip(path, images, fps, demo_sound(seconds, _DEMO_AUDIO_RATE_HZ), _DEMO_AUDIO_RATE_HZ, quality=20)


def write_camera_clip(
    path: str | os.PathLike[str], seconds: float, width: int, height: int, fps: int = 30
) -> None:
    """Write an mp4 (h264 with B frames, aac) as a camera that pans over a texture with grain: work for a decoder.

    Args:
        path: Ends in .mp4; written over if it exists.
        seconds: Length of picture and sound.
        width: Pixels; even.
        height: Pixels; even.
        fps: Frames per second.
    """
    rng = np.random.default_rng(11)
    room = 256
    scene = _smooth(_coarse_noise(11), width + room, height + room)
    scene = (0.7 * scene + rng.uniform(0, 60, scene.shape)).astype(np.uint8)
    grain = rng.integers(0, 6, (8, height, width, 1)).astype(np.uint8)

    def pictures() -> Iterator[Uint8]:
        for index in range(round(seconds * fps)):
            turn = 2 * math.pi * index / (20 * fps)
            x, y = (int(room / 2 * (1 + wave)) for wave in (math.cos(turn), math.sin(turn)))
            yield scene[y : y + height, x : x + width] + grain[index % len(grain)]

    sound = demo_sound(seconds, _DEMO_AUDIO_RATE_HZ)
    write_clip(path, pictures(), fps, sound, _DEMO_AUDIO_RATE_HZ, repeatable=False)


def _demo_picture(width: int, height: int, n_frames: int, seed: int) -> Iterator[Uint8]:
    texture = _smooth(_coarse_noise(seed), width, height) * 0.4 + 60
    for index in range(n_frames):
        yield _draw_demo_shapes(texture.astype(np.uint8), index / n_frames)


def _draw_demo_shapes(image: Uint8, progress: float) -> Uint8:
    """The disc crosses from left to right while the square goes round; ``progress`` runs from 0 to 1."""
    height, width = image.shape[:2]
    rows, columns = np.ogrid[:height, :width]
    radius = min(width, height) // 8
    disc_x = radius + progress * (width - 2 * radius)
    disc = (columns - disc_x) ** 2 + (rows - height / 3) ** 2 <= radius**2
    image[disc] = (220, 30, 30)
    angle = 2 * math.pi * progress
    x = int(width / 2 + math.cos(angle) * width / 4)
    y = int(height * 0.65 + math.sin(angle) * height / 6)
    image[max(y - radius, 0) : y + radius, max(x - radius, 0) : x + radius] = (30, 60, 220)
    return image


def demo_sound(seconds: float, rate_hz: int) -> Float32:
    """float32 [n]: a short beep at the start of every second, each a whole tone above the last."""
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    number, since = np.divmod(times, 1.0)
    frequency_hz = 440.0 * 2.0 ** (number % 12 / 6)
    envelope = np.sin(np.pi * np.clip(since / _BEEP_SECONDS, 0, 1))
    return (0.5 * envelope * np.sin(2 * np.pi * frequency_hz * since)).astype(np.float32)

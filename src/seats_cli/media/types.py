"""What a clip is to the rest of the house. Each type checks itself once, at construction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

SAMPLE_RATE_HZ = 16_000
"""Rate of every waveform that leaves this room."""

FRAMES_PER_GRID = 2
"""Frames that one temporal grid spans: the temporal patch of the vision towers."""

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Uint8 = npt.NDArray[np.uint8]
Shrink = Callable[[Uint8], Uint8]
"""Makes a smaller picture of uint8 [H, W, 3]. It is called by several threads at once."""


def _require(holds: bool, what: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{what}, got {value!r}")


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """The video stream as found in the file, not cut by ``--start`` and ``--end``.

    Attributes:
        codec: FFmpeg's name, such as ``h264``.
        width: Pixels, after rotation.
        height: Pixels, after rotation.
        rotation_degrees: Clockwise turn that was applied to the stored picture: 0, 90, 180 or 270.
        average_fps: Frames over duration.
        start_seconds: Presentation time of the first frame on the container's clock.
        duration_seconds: From the first frame to the end of the last.
        n_source_frames: Distinct presentation times.
        stream_index: Of the container.
    """

    codec: str
    width: int
    height: int
    rotation_degrees: int
    average_fps: float
    start_seconds: float
    duration_seconds: float
    n_source_frames: int
    stream_index: int

    def __post_init__(self) -> None:
        _require(self.width >= 1 and self.height >= 1, "a picture has pixels", (self.width, self.height))
        _require(self.rotation_degrees in (0, 90, 180, 270), "quarter turns", self.rotation_degrees)
        _require(math.isfinite(self.average_fps) and self.average_fps > 0, "fps above 0", self.average_fps)
        _require(math.isfinite(self.start_seconds), "a finite start", self.start_seconds)
        _require(
            math.isfinite(self.duration_seconds) and self.duration_seconds > 0,
            "a duration above 0",
            self.duration_seconds,
        )
        _require(self.n_source_frames >= 1, "at least one frame", self.n_source_frames)
        _require(self.stream_index >= 0, "a stream index of 0 or more", self.stream_index)


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """The audio stream as found in the file, before resampling and cutting.

    Attributes:
        codec: FFmpeg's name, such as ``aac``.
        sample_rate_hz: As stored.
        channels: As stored.
        start_seconds: Presentation time of the first sample on the container's clock.
        duration_seconds: From the first sample to the end of the last.
        stream_index: Of the container.
    """

    codec: str
    sample_rate_hz: int
    channels: int
    start_seconds: float
    duration_seconds: float
    stream_index: int

    def __post_init__(self) -> None:
        _require(self.sample_rate_hz >= 1, "a sample rate of 1 Hz or more", self.sample_rate_hz)
        _require(self.channels >= 1, "at least one channel", self.channels)
        _require(math.isfinite(self.start_seconds), "a finite start", self.start_seconds)
        _require(
            math.isfinite(self.duration_seconds) and self.duration_seconds >= 0,
            "a duration of 0 or more",
            self.duration_seconds,
        )
        _require(self.stream_index >= 0, "a stream index of 0 or more", self.stream_index)


@dataclass(frozen=True, slots=True, eq=False)
class SamplingPlan:
    """The times at which the picture is looked at.

    Attributes:
        times_seconds: float64 [n_frames], ascending, from the start of the used part.
        fps: Frames per second of the plan; below the one asked for when ``--max-frames`` binds.
        n_frames: How many.
    """

    times_seconds: Float64
    fps: float
    n_frames: int

    def __post_init__(self) -> None:
        times = np.array(self.times_seconds, dtype=np.float64)
        _require(times.ndim == 1 and times.size >= 1, "a list of times", times.shape)
        _require(bool(np.isfinite(times).all()) and times[0] >= 0, "finite times of 0 or more", times[:3])
        _require(bool((np.diff(times) > 0).all()), "ascending times", times[:3])
        _require(math.isfinite(self.fps) and self.fps > 0, "fps above 0", self.fps)
        _require(self.n_frames == times.size, f"n_frames of {times.size}", self.n_frames)
        times.setflags(write=False)
        object.__setattr__(self, "times_seconds", times)

    @property
    def n_grids(self) -> int:
        """Temporal grids: pairs of frames, an odd last one counting as a pair."""
        return math.ceil(self.n_frames / FRAMES_PER_GRID)

    @property
    def seconds_per_grid(self) -> float:
        """Clip time from one grid to the next; what the temporal positions are made of."""
        return FRAMES_PER_GRID / self.fps


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of the plan.

    Attributes:
        image: uint8 [height, width, 3], RGB, C-contiguous, upright.
        pts_seconds: When the source shows it, from the start of the used part. Below 0 by at most half a
            source frame when the part begins between two frames and the earlier one is nearer.
        index: Place in the plan.
    """

    image: Uint8
    pts_seconds: float
    index: int

    def __post_init__(self) -> None:
        image: npt.NDArray[Any] = self.image
        _require(image.dtype == np.uint8, "a uint8 image", image.dtype)
        _require(image.ndim == 3 and image.shape[2] == 3 and image.size > 0, "[H, W, 3]", image.shape)
        _require(image.flags.c_contiguous, "a C-contiguous image", image.strides)
        _require(math.isfinite(self.pts_seconds), "a finite time", self.pts_seconds)
        _require(self.index >= 0, "an index of 0 or more", self.index)


class Outline(Protocol):
    """What of a clip can be counted, be it opened or not.

    ``video`` and ``plan`` are None together: no picture. ``audio`` is None exactly when nothing is heard. Never
    both.
    """

    @property
    def path(self) -> str:
        """The file, or a name in angle brackets."""
        ...

    @property
    def video(self) -> VideoInfo | None:
        """The picture's source, if there is one to see."""
        ...

    @property
    def audio(self) -> AudioInfo | None:
        """The sound's source, if there is one to hear."""
        ...

    @property
    def has_audio_track(self) -> bool:
        """Whether the source has sound, heard or not."""
        ...

    @property
    def plan(self) -> SamplingPlan | None:
        """When the picture is looked at."""
        ...

    @property
    def warnings(self) -> list[str]:
        """What was cut, replaced or missing, a line each; grows while frames are read."""
        ...

    @property
    def seconds_video(self) -> float:
        """Length of the picture in the used part; 0 without one."""
        ...

    @property
    def seconds_audio(self) -> float:
        """Length of the waveform; 0 without one."""
        ...


class Clip(Outline, Protocol):
    """What the engine needs of a clip, be it a file or made up; ``audio`` is None when ``waveform()`` is empty."""

    def frames(self, shrink: Shrink | None = None) -> Iterator[Frame]:
        """Exactly ``plan.n_frames`` frames in order, a bounded number of them decoded ahead; callable again.

        Args:
            shrink: What each upright picture becomes, in the thread that decoded it; one that serves several times
                is shrunk once. None: it stays as it is.
        """
        ...

    def waveform(self) -> Float32:
        """float32 [n], mono, 16 kHz, from the start of the used part; empty if nothing is to be heard."""
        ...

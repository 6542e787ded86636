"""A clip read as a short program reads it: a loop over all frames, all sound resampled. To compare with."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, cast

import numpy as np

from seats_cli.errors import MediaError
from seats_cli.media.source import open_container
from seats_cli.media.types import FRAMES_PER_GRID, SAMPLE_RATE_HZ, Float32, Uint8
from seats_cli.timelimit import check_time

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_LEAST_FRAMES = 4


def plain_pictures(
    path: str, fps: float, max_frames: int, start_seconds: float | None = None, end_seconds: float | None = None
) -> Uint8:
    """Frames as qwen-omni-utils 0.0.9 counts them: an even number, spread from the first frame to the last.

    Every frame up to the last wanted one is decoded, by as many threads as FFmpeg likes; only those wanted are
    converted. Pictures are as they are stored: not turned, not cropped.

    Args:
        path: A local file with a picture.
        fps: Frames wanted per second.
        max_frames: Most of them.
        start_seconds: Of the part that is used; None: the start.
        end_seconds: Likewise; None: the end.

    Returns:
        uint8 [n, height, width, 3].

    Raises:
        MediaError: It cannot be read, has fewer than two frames there, or not all that it says.
    """
    with open_container(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        n_frames, rate = _length(container, stream)
        first, last = _between(n_frames, rate, start_seconds, end_seconds)
        wanted = _spread(path, first, last, float(rate), fps, max_frames)
        images: list[Uint8] = []
        for number, frame in enumerate(container.decode(stream)):
            check_time()
            while len(images) < len(wanted) and wanted[len(images)] == number:
                images.append(cast("Uint8", frame.to_ndarray(format="rgb24")))
            if len(images) == len(wanted):
                return np.stack(images)
    raise MediaError(f"{path} has fewer frames than the {n_frames} that it says")


def _length(container: InputContainer, stream: VideoStream) -> tuple[int, Fraction]:
    """Frames, and frames per second."""
    rate = stream.average_rate or Fraction(1)
    if stream.frames:
        return stream.frames, rate
    n = sum(1 for packet in container.demux(stream) if packet.size)
    container.seek(0)
    return n, rate


def _between(n_frames: int, rate: Fraction, start: float | None, end: float | None) -> tuple[int, int]:
    """First frame and last frame of the part."""
    first = 0 if start is None else int(np.ceil(start * rate))
    last = n_frames - 1 if end is None else min(int(np.floor(end * rate)), n_frames - 1)
    return first, last


def _spread(path: str, first: int, last: int, rate: float, fps: float, max_frames: int) -> list[int]:
    there = last - first + 1
    n = min(max(there / rate * fps, _LEAST_FRAMES), max_frames, there)
    n = int(n // FRAMES_PER_GRID * FRAMES_PER_GRID)
    if n < FRAMES_PER_GRID:
        raise MediaError(f"{path} has fewer than {FRAMES_PER_GRID} frames there")
    return [round(float(place)) for place in np.linspace(first, last, n)]


def plain_sound(path: str, start_seconds: float | None = None, end_seconds: float | None = None) -> Float32:
    """All sound, mixed and resampled by FFmpeg.

    Args:
        path: A local file with sound.
        start_seconds: Of the part that is used; None: the start.
        end_seconds: Likewise; None: the end.

    Returns:
        float32 [n], mono, 16 kHz.

    Raises:
        MediaError: It cannot be read.
    """
    from av.audio.resampler import AudioResampler

    pieces: list[Float32] = []
    with open_container(path) as container:
        resampler = AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
        for frame in container.decode(container.streams.audio[0]):
            check_time()
            pieces += [one.to_ndarray()[0] for one in resampler.resample(frame)]
        pieces += [one.to_ndarray()[0] for one in resampler.resample(None)]
    sound = np.concatenate(pieces).astype(np.float32)
    ends = [None if place is None else round(place * SAMPLE_RATE_HZ) for place in (start_seconds, end_seconds)]
    return sound[ends[0] : ends[1]]

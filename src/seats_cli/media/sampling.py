"""Which times are looked at, and which source frame is nearest to each. Pure numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seats_cli.errors import UsageError
from seats_cli.media.types import FRAMES_PER_GRID, Float64, SamplingPlan

TIME_TOLERANCE_SECONDS = 1e-6
"""A grid time this close to the end of the clip is the end, whatever the last bit of a float says."""

_TIE_SECONDS = 1e-9


@dataclass(frozen=True, slots=True)
class Part:
    """The used part of a clip, half-open, in seconds from the clip's start.

    Attributes:
        start_seconds: Where it begins.
        end_seconds: Where it ends; None: with whatever track lasts longest.
    """

    start_seconds: float
    end_seconds: float | None

    def length_within(self, track_seconds: float) -> float:
        """Seconds of this part that a track ending at ``track_seconds`` covers; 0 if none."""
        end = track_seconds if self.end_seconds is None else min(self.end_seconds, track_seconds)
        length = end - self.start_seconds
        return length if length > TIME_TOLERANCE_SECONDS else 0.0


def used_part(
    clip_seconds: float, start_seconds: float | None, end_seconds: float | None
) -> tuple[Part, list[str]]:
    """Fit ``--start`` and ``--end`` to a clip.

    Args:
        clip_seconds: Length of the clip.
        start_seconds: ``--start``, if given.
        end_seconds: ``--end``, if given.

    Returns:
        The part, and a warning if its end had to be cut.

    Raises:
        UsageError: The part is empty or begins after the end of the clip.
    """
    start = start_seconds or 0.0
    if start > 0 and start >= clip_seconds - TIME_TOLERANCE_SECONDS:
        raise UsageError(
            f"--start {start:g} s is beyond the end of the clip, which lasts {clip_seconds:.3f} s",
            "give a --start within the clip",
        )
    if end_seconds is None:
        return Part(start, None), []
    if end_seconds <= start + TIME_TOLERANCE_SECONDS:
        raise UsageError(f"--end {end_seconds:g} s is not after --start {start:g} s")
    if end_seconds > clip_seconds + TIME_TOLERANCE_SECONDS:
        cut = f"--end {end_seconds:g} s is beyond the end of the clip; it was cut to {clip_seconds:.3f} s"
        return Part(start, None), [cut]
    return Part(start, end_seconds), []


def make_plan(duration_seconds: float, fps: float, max_frames: int) -> SamplingPlan:
    """The times at which a picture of some length is looked at (SEATS Sec. 5.1: 2 FPS, uniform).

    ``t_i = i / fps`` for every such time before the end. When these are more than ``max_frames`` (rounded
    down to whole grids), that many times are spread evenly instead, and the plan's ``fps`` is the lower rate
    that results: the temporal positions need the true one.

    Args:
        duration_seconds: Length of the picture in the used part, above 0.
        fps: Frames per second asked for.
        max_frames: Most frames, at least 2.

    Returns:
        A plan of at least one frame.
    """
    n_frames = max(1, math.ceil((duration_seconds - TIME_TOLERANCE_SECONDS) * fps))
    n_max = max_frames // FRAMES_PER_GRID * FRAMES_PER_GRID
    if n_frames <= n_max:
        return SamplingPlan(np.arange(n_frames) / fps, fps, n_frames)
    return SamplingPlan(np.arange(n_max) * duration_seconds / n_max, n_max / duration_seconds, n_max)


def choose_pts(pts_seconds: Float64, times_seconds: Float64) -> npt.NDArray[np.int64]:
    """The nearest source frame for each time; on a tie, the earlier one.

    Args:
        pts_seconds: Presentation times [m], ascending, at least one.
        times_seconds: Times asked for [n].

    Returns:
        Indices into ``pts_seconds`` [n]. One may occur several times, where the source is slow.

    Raises:
        ValueError: There is no source frame.
    """
    if pts_seconds.size == 0:
        raise ValueError("no frame to choose from")
    last = pts_seconds.size - 1
    later = np.minimum(np.searchsorted(pts_seconds, times_seconds, side="left"), last)
    earlier = np.maximum(later - 1, 0)
    to_later = np.abs(pts_seconds[later] - times_seconds)
    to_earlier = np.abs(times_seconds - pts_seconds[earlier])
    # The tolerance makes a tie of what is one on paper but differs in the last bit.
    return np.where(to_later < to_earlier - _TIE_SECONDS, later, earlier).astype(np.int64)

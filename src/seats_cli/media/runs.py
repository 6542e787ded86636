"""Which stretches of a stream must be decoded to get at some frames, and who does what of it. No decoding here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from seats_cli.media.timeline import Int64

_FRAMES_OF_A_SHARE = 8


@dataclass(frozen=True, slots=True)
class Run:
    """Wanted frames behind one keyframe and before the next.

    Attributes:
        interval: The keyframe's number among those where decoding can begin.
        keyframe: Its time in ticks; None: the run is decoded from the start of the file.
        wanted: Times of the frames, ascending and distinct.
    """

    interval: int
    keyframe: int | None
    wanted: tuple[int, ...]


def plan_runs(keyframe_ticks: Int64, wanted_ticks: Int64) -> list[Run]:
    """The runs that hold some frames, in order.

    Args:
        keyframe_ticks: int64 [k], ascending: where decoding can begin.
        wanted_ticks: int64 [n], ascending; may repeat.
    """
    wanted = np.unique(wanted_ticks)
    # What is shown before the second keyframe is decoded from the start: the first may be a hidden one.
    places = np.maximum(np.searchsorted(keyframe_ticks, wanted, side="right") - 1, 0)
    edges = [0, *(np.flatnonzero(np.diff(places)) + 1).tolist(), wanted.size]
    runs = []
    for first, last in pairwise(edges):
        interval = int(places[first])
        keyframe = int(keyframe_ticks[interval]) if interval else None
        runs.append(Run(interval, keyframe, tuple(wanted[first:last].tolist())))
    return runs


def share_runs(runs: Sequence[Run], n_threads: int) -> list[tuple[Run, ...]]:
    """Cut runs into shares of consecutive ones, each large enough to be worth a thread's turn.

    Args:
        runs: As planned.
        n_threads: That take share after share.
    """
    n_frames = sum(len(run.wanted) for run in runs)
    # Small ones at the end keep all threads busy, large ones cost fewer jumps in the file.
    least = max(1, min(_FRAMES_OF_A_SHARE, n_frames // (4 * n_threads)))
    shares: list[tuple[Run, ...]] = []
    begun: list[Run] = []
    for run in runs:
        begun.append(run)
        if sum(len(one.wanted) for one in begun) >= least:
            shares.append(tuple(begun))
            begun = []
    return [*shares, tuple(begun)] if begun else shares

"""When a file shows its frames: packet times, collected without decoding anything."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from seats_cli.errors import MediaError
from seats_cli.media.decoding import packets, read_only
from seats_cli.media.types import Float64

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream

Int64 = npt.NDArray[np.int64]

_NO_TIME = -(2**63)
# Containers with a time for each packet. Of others FFmpeg guesses some, from those before.
_STATE_TIMES = frozenset(("mov", "matroska", "mpegts"))
_FALLBACK_FPS = Fraction(25)
MAX_PACKETS = 10_000_000
"""Packets of the longest stream; sound has 50 in a second, so they last for days."""


class _Ratio(Protocol):
    """A rate or time base, whatever number type this version of PyAV has for it."""

    @property
    def numerator(self) -> int: ...

    @property
    def denominator(self) -> int: ...


def as_fraction(ratio: _Ratio | None) -> Fraction | None:
    """A rate of PyAV as a ``Fraction``; None where it is unknown, which PyAV says as None, 0 or 0/0."""
    if ratio is None or ratio.numerator <= 0 or ratio.denominator <= 0:
        return None
    return Fraction(ratio.numerator, ratio.denominator)


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """Presentation times of one stream.

    Attributes:
        ticks: int64 [n], ascending and distinct, in ``time_base``.
        keyframe_ticks: int64 [k], ascending: where decoding can begin.
        last_duration_ticks: How long the last frame or packet lasts.
        time_base: Seconds per tick.
        by_order: The times say when the n-th shown frame is due, but not which packet holds it, because the
            container keeps decode order only (avi, elementary streams).
        assumed_fps: The rate taken for granted because the file has no times at all; None otherwise.
        plain: Every packet has a time of its own, the same wherever reading begins, by which it and its frame are
            known.
        closed_ticks: int64 [c], ascending: keyframes behind which nothing is stored that is shown before them.
    """

    ticks: Int64
    keyframe_ticks: Int64
    last_duration_ticks: int
    time_base: Fraction
    by_order: bool = False
    assumed_fps: float | None = None
    plain: bool = False
    closed_ticks: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def start_seconds(self) -> float:
        """First presentation time, on the container's clock."""
        return float(int(self.ticks[0]) * self.time_base)

    @property
    def duration_seconds(self) -> float:
        """From the first presentation time to the end of the last frame."""
        length_ticks = int(self.ticks[-1]) - int(self.ticks[0]) + self.last_duration_ticks
        return float(length_ticks * self.time_base)

    @property
    def gap_ticks(self) -> float:
        """What typically lies between two times; infinite if there is but one."""
        return float(np.median(_gaps(self.ticks))) if self.ticks.size > 1 else math.inf

    @property
    def pts_seconds(self) -> Float64:
        """float64 [n]: the times, from the first."""
        # Times of a damaged file may be farther apart than a signed number can say.
        steps = (self.ticks.view(np.uint64) - self.ticks[:1].view(np.uint64)).astype(np.float64)
        seconds: Float64 = steps * self.time_base.numerator / self.time_base.denominator
        return seconds


class _Packets:
    """Times of the packets of one stream, eight bytes each: an hour is a few hundred thousand."""

    def __init__(self) -> None:
        self.pts = array("q")
        self.dts = array("q")
        self.durations = array("q")
        self.keyframes = array("b")

    def add(self, packet: Packet[Stream]) -> None:
        # Packets marked so are never shown or not to be trusted.
        if packet.is_discard or packet.is_corrupt:
            return
        self.pts.append(_NO_TIME if packet.pts is None else packet.pts)
        self.dts.append(_NO_TIME if packet.dts is None else packet.dts)
        self.durations.append(packet.duration or 0)
        self.keyframes.append(packet.is_keyframe)

    def timeline(
        self, time_base: Fraction, rate: Fraction | None, order_only: bool, states_times: bool
    ) -> Timeline | None:
        """The timeline, or None if there was no packet."""
        if not self.pts:
            return None
        pts, dts = np.array(self.pts, np.int64), np.array(self.dts, np.int64)
        has_pts, has_dts = pts != _NO_TIME, dts != _NO_TIME
        times, shown = (dts, has_dts) if order_only or not has_pts.any() else (pts, has_pts)
        by_order = order_only or not has_pts.any()
        if not shown.any():
            step = 1 / (rate or _FALLBACK_FPS)
            ticks = np.arange(len(pts), dtype=np.int64)
            return Timeline(ticks, ticks[:1], 1, step, by_order=True, assumed_fps=float(1 / step))
        keyframes = np.array(self.keyframes, bool) & shown
        ticks = np.unique(times[shown])
        last = int(np.array(self.durations, np.int64)[times == ticks[-1]].max())
        last = last if last > 0 else _typical_gap(ticks, time_base, rate)
        plain = states_times and not by_order and ticks.size == len(pts)
        closed = np.unique(_closed(pts, keyframes)) if plain else ticks[:0]
        return Timeline(
            ticks,
            np.unique(times[keyframes]),
            last,
            time_base,
            by_order,
            plain=plain,
            closed_ticks=closed,
        )


def _closed(pts: Int64, keyframes: npt.NDArray[np.bool_]) -> Int64:
    """Times of the keyframes that no packet up to the next keyframe in stored order goes before."""
    places = np.flatnonzero(keyframes)
    if not places.size:
        return pts[:0]
    times = pts[places]
    closed: Int64 = times[np.minimum.reduceat(pts, places) == times]
    return closed


def _gaps(ticks: Int64) -> npt.NDArray[np.uint64]:
    times = ticks.view(np.uint64)
    return times[1:] - times[:-1]


def _typical_gap(ticks: Int64, time_base: Fraction, rate: Fraction | None) -> int:
    if ticks.size > 1:
        return max(1, int(np.median(_gaps(ticks))))
    return max(1, round(1 / (rate or _FALLBACK_FPS) / time_base))


def too_many_packets(path: str) -> MediaError:
    """What is said of a stream that has, or states, more than ``MAX_PACKETS``."""
    return MediaError(f"{path}: a stream of more than {MAX_PACKETS:,} packets", "cut the file into shorter ones")


def scan_timelines(
    path: str,
    container: InputContainer,
    streams: Sequence[Stream],
    look: Callable[[Packet[Stream]], object] | None = None,
) -> tuple[dict[int, Timeline], str | None]:
    """Read every packet of some streams and note when it is due. Nothing is decoded.

    Args:
        path: The file, for errors.
        container: A fresh container; it is at its end afterwards.
        streams: Which streams.
        look: Shown each packet, and an empty one for each stream at the end.

    Returns:
        Timelines by stream index, without streams that have no packets; and FFmpeg's words if reading broke
        off before the end of the file.

    Raises:
        MediaError: There are too many packets to remember.
        TimeLimitError: The time is over.
    """
    import av

    noted = {stream.index: _Packets() for stream in streams}
    broke_off: str | None = None
    read_only(container, set(noted))
    try:
        for packet in packets(container, streams):
            # The empty packets at the end, which flush a decoder, all claim to be of stream 0.
            if packet.size:
                noted[packet.stream_index].add(packet)
                if len(noted[packet.stream_index].pts) > MAX_PACKETS:
                    raise too_many_packets(path)
            if look is not None:
                look(packet)
    except (av.FFmpegError, OSError) as error:
        broke_off = getattr(error, "strerror", None) or str(error)
    timelines: dict[int, Timeline] = {}
    for stream in streams:
        # avi stores decode times only; the presentation times FFmpeg guesses for it are wrong with B-frames.
        order_only = stream.type == "video" and container.format.name == "avi"
        time_base = as_fraction(stream.time_base) or Fraction(1)
        rate = as_fraction(getattr(stream, "average_rate", None))
        states_times = not _STATE_TIMES.isdisjoint(container.format.name.split(","))
        timeline = noted[stream.index].timeline(time_base, rate, order_only, states_times)
        if timeline is not None:
            timelines[stream.index] = timeline
    return timelines, broke_off

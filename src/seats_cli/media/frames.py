"""Packets to pictures: decode in one stream, keep the frames a plan asks for, turn them upright."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from seats_cli.errors import MediaError
from seats_cli.media.decoding import configure, decode_stream, seek
from seats_cli.media.source import open_container
from seats_cli.media.timeline import Int64, Timeline
from seats_cli.media.types import Uint8

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


_REACH_SECONDS = 1

Opened = Callable[[str], AbstractContextManager["InputContainer"]]


@dataclass(frozen=True, slots=True)
class Orientation:
    """How a stored picture becomes an upright one: mirrored left to right if so, then turned.

    Attributes:
        clockwise_turns: Quarter turns, 0 to 3.
        mirrored: Whether it is mirrored first.
        off_degrees: What remains of an angle that is no quarter turn; not applied.
    """

    clockwise_turns: int = 0
    mirrored: bool = False
    off_degrees: float = 0.0

    def apply(self, image: Uint8) -> Uint8:
        """Turn uint8 [h, w, 3] upright; C-contiguous, [w, h, 3] after an odd number of quarter turns."""
        flipped = image[:, ::-1] if self.mirrored else image
        return np.ascontiguousarray(np.rot90(flipped, -self.clockwise_turns))


def read_orientation(frame: VideoFrame) -> Orientation:
    """Read a frame's display matrix (ISO/IEC 14496-12, 6.2.2).

    The matrix takes stored (x, y), y downwards, to (a x + c y, b x + d y). The image of the y axis gives the
    turn whether or not the picture is mirrored; the determinant's sign says if it is.
    """
    try:
        # PyAV's stubs know one key of this mapping.
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV cannot list side data when one kind is newer than itself; the angle alone is still to be had.
        return _quarter_turns(-float(frame.rotation), mirrored=False)
    if data is None:
        return Orientation()
    a, b, _, c, d = (int(v) for v in np.frombuffer(bytes(data), dtype=np.int32)[:5])  # type: ignore[call-overload]
    return _quarter_turns(math.degrees(math.atan2(-c, d)), mirrored=a * d - b * c < 0)


def _quarter_turns(clockwise_degrees: float, mirrored: bool) -> Orientation:
    turns = round(clockwise_degrees / 90)
    return Orientation(turns % 4, mirrored, clockwise_degrees - 90 * turns)


@dataclass(frozen=True, slots=True)
class FirstFrame:
    """What the first decodable frame tells of a stream.

    Attributes:
        width: Pixels, as stored.
        height: Pixels, as stored.
        orientation: How it becomes upright.
        interlaced: Whether it is made of two fields.
    """

    width: int
    height: int
    orientation: Orientation
    interlaced: bool = False

    def has_size_of(self, frame: VideoFrame) -> bool:
        """Whether a frame is stored in the same size."""
        return (frame.width, frame.height) == (self.width, self.height)


@dataclass(slots=True)
class Losses:
    """What went wrong while frames were decoded; filled as it goes.

    Attributes:
        packets: Could not be decoded.
        stood_in: Kept frames in whose place another is shown.
        damaged: Kept frames the decoder had to patch up.
        resized: Kept frames that came in another size than the first.
    """

    packets: int = 0
    stood_in: int = 0
    damaged: int = 0
    resized: int = 0

    def lines(self) -> list[str]:
        """A warning for each kind that occurred."""
        told = (
            ("could not be decoded; a neighbour stands in", self.stood_in),
            ("were damaged and patched up by the decoder", self.damaged),
            ("had another size and were scaled to that of the first", self.resized),
        )
        return [f"frames that {what}: {count}" for what, count in told if count]


def _decoded(container: InputContainer, stream_index: int, losses: Losses) -> Generator[VideoFrame]:
    """All frames of a stream from where the container stands, to where it breaks off."""
    import av

    def lose() -> None:
        losses.packets += 1

    frames = cast("Generator[VideoFrame]", decode_stream(container, stream_index, 0, lose))
    with closing(frames), suppress(av.FFmpegError, OSError):
        # Where the file breaks off, the scan of its times has said so.
        yield from frames


class FirstLook:
    """Decodes packets that pass by until a frame comes out.

    Args:
        stream: Whose packets; not decoded before.

    Attributes:
        found: What the frame tells; None: none came.
    """

    def __init__(self, stream: VideoStream) -> None:
        configure(stream, 1)
        self._stream = stream
        self.found: FirstFrame | None = None

    def see(self, packet: Packet[Stream]) -> None:
        """Take the next packet of the file; an empty one of the stream is its end."""
        import av

        # What is empty states another stream than it is of.
        index = packet.stream_index if packet.size else packet.stream.index
        if self.found is not None or index != self._stream.index:
            return
        with suppress(av.FFmpegError):
            for frame in cast("list[VideoFrame]", packet.decode())[:1]:
                fields = bool(frame.interlaced_frame)
                self.found = FirstFrame(frame.width, frame.height, read_orientation(frame), fields)
                # Lets go of the pictures it holds.
                self._stream.codec_context.flush_buffers()


def _timed(
    path: str, stream_index: int, timeline: Timeline, seek_ticks: int | None, losses: Losses, opened: Opened
) -> Generator[tuple[int, VideoFrame]]:
    """Decoded frames with their presentation times in ticks, ascending."""
    with ExitStack() as stack:
        container = stack.enter_context(opened(path))
        if seek_ticks is not None and not seek(container, stream_index, seek_ticks):
            return
        last: int | None = None
        frames = stack.enter_context(closing(_decoded(container, stream_index, losses)))
        for n_shown, frame in enumerate(frames):
            if timeline.by_order:
                # The n-th frame out is due at the n-th time; a lost packet leaves its place empty.
                ticks = int(timeline.ticks[min(n_shown + losses.packets, timeline.ticks.size - 1)])
            else:
                ticks = _next_tick(timeline, last) if frame.pts is None else frame.pts
            if last is None or ticks > last:
                last = ticks
                yield ticks, frame


def _next_tick(timeline: Timeline, last: int | None) -> int:
    """The time after ``last``, for a frame that states none."""
    place = 0 if last is None else int(np.searchsorted(timeline.ticks, last, side="right"))
    return int(timeline.ticks[min(place, timeline.ticks.size - 1)])


def _timed_from(
    path: str, stream_index: int, timeline: Timeline, first_ticks: int, losses: Losses, opened: Opened
) -> Generator[tuple[int, VideoFrame]]:
    """As ``_timed``, begun at the keyframe before ``first_ticks`` if the container can go there."""
    keyframes = timeline.keyframe_ticks
    place = int(np.searchsorted(keyframes, first_ticks, side="right")) - 1
    if place > 0 and not timeline.by_order:
        with closing(_timed(path, stream_index, timeline, int(keyframes[place]), losses, opened)) as frames:
            first = next(frames, None)
            # Some containers go past the place asked for.
            if first is not None and first[0] <= first_ticks:
                yield first
                yield from frames
                return
        losses.packets = 0
    with closing(_timed(path, stream_index, timeline, None, losses, opened)) as frames:
        yield from frames


def pick_frames(
    path: str,
    stream_index: int,
    timeline: Timeline,
    wanted_ticks: Int64,
    losses: Losses,
    opened: Opened = open_container,
) -> Generator[tuple[int, VideoFrame]]:
    """The frames due at some times, in one pass, holding two decoded frames at most.

    A wanted frame is the decoded one with its very time; failing that the nearest within half a typical
    frame, since some decoders shift times; failing that the last good one, or at the very start the
    first, which is counted.

    Args:
        path: The file.
        stream_index: Its video stream.
        timeline: The stream's times.
        wanted_ticks: int64 [n], ascending, out of ``timeline.ticks``; may repeat.
        losses: Counts of what went wrong, added to.
        opened: Opens the file.

    Yields:
        ``n`` pairs: the shown frame's time in ticks, and the frame.

    Raises:
        MediaError: Nothing could be decoded.
    """
    tolerance = timeline.gap_ticks / 2
    # What is farther away than this shows another part of the clip.
    reach = max(tolerance, float(_REACH_SECONDS / timeline.time_base))
    first, n_done = int(wanted_ticks[0]), 0
    last: tuple[int, VideoFrame] | None = None
    with closing(_timed_from(path, stream_index, timeline, first, losses, opened)) as decoded:
        for current in decoded:
            if current[0] < first - reach:
                continue
            if last is None and current[0] > wanted_ticks[-1] + reach:
                break
            while wanted_ticks[n_done] <= current[0]:
                shown, near = _nearer(last, current, int(wanted_ticks[n_done]), tolerance)
                losses.stood_in += not near
                yield shown
                n_done += 1
                if n_done == wanted_ticks.size:
                    return
            last = current
    if last is None:
        raise MediaError(
            f"{path}: no frame of the part asked for can be decoded",
            "the file may be damaged; choose another part with --start and --end",
        )
    for ticks in wanted_ticks[n_done:]:
        losses.stood_in += int(ticks) - last[0] > tolerance
        yield last


def _nearer(
    last: tuple[int, VideoFrame] | None, current: tuple[int, VideoFrame], ticks: int, tolerance: float
) -> tuple[tuple[int, VideoFrame], bool]:
    """Which of the two frames around a time is shown, and whether it is near enough to be the one meant."""
    after = current[0] - ticks
    if last is None or after == 0:
        return current, after <= tolerance
    before = ticks - last[0]
    if min(before, after) > tolerance:
        return last, False
    return (current if after < before else last), True


def count_flaws(frame: VideoFrame, first: FirstFrame, losses: Losses) -> None:
    """Count what is wrong with a frame that is shown."""
    losses.damaged += frame.is_corrupt
    losses.resized += not first.has_size_of(frame)


class Converter:
    """Brings decoded frames to RGB; of one thread alone.

    Args:
        path: The file, for errors.
        first: What all pictures are brought to the size and orientation of.
    """

    def __init__(self, path: str, first: FirstFrame) -> None:
        from av.video.reformatter import VideoReformatter

        self._path, self._first = path, first
        # A frame's own would be set up for every frame.
        self._reformatter = VideoReformatter()

    def to_rgb(self, frame: VideoFrame) -> Uint8:
        """An upright picture, uint8 [H, W, 3], of the size of the stream's first frame.

        Raises:
            MediaError: There is no way from its pixel format to RGB.
        """
        import av

        as_first = self._first.has_size_of(frame)
        width, height = (None, None) if as_first else (self._first.width, self._first.height)
        try:
            converted = self._reformatter.reformat(frame, width, height, "rgb24", **_one_thread())
            image = cast("Uint8", converted.to_ndarray())
        except (av.FFmpegError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            pixels = f"pictures of the pixel format {frame.format.name} cannot be converted to RGB ({reason})"
            raise MediaError(f"{self._path}: {pixels}", "convert it to h264 first") from None
        return self._first.orientation.apply(image)


@cache
def _one_thread() -> dict[str, Any]:
    """Arguments by which a reformatter begins no threads; before version 17 of PyAV it has none."""
    import av

    return {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}

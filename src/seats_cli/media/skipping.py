"""Wanted frames of a sound stream, with nothing decoded that they do not need.

The decoder is told to treat every flaw as an error, and each wanted frame must come out with its very time, in
order. Whatever else happens is an ``InexactError``: then the stream is to be decoded whole, by ``pick_frames``.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from seats_cli.media.cores import decoding_threads
from seats_cli.media.decoding import packets, prepare, seek, threads_for
from seats_cli.media.h264 import FrameNumbers, UnknownHeaderError
from seats_cli.media.runs import Run, plan_runs, share_runs
from seats_cli.media.timeline import Int64, Timeline

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# Decoders that give the same pictures from a keyframe on as from the start, and one frame per packet. Not vp8,
# whose hidden frames have times of their own.
_EXACT_FROM_KEYFRAMES = frozenset(
    (
        *("h264", "hevc", "vp9", "av1", "mpeg1video", "mpeg2video", "mpeg4"),
        *("mjpeg", "png", "prores", "ffv1", "dnxhd"),
    )
)
# Of these the decoder knows before it decodes a picture that no other refers to it. Not hevc: what is no reference
# within its temporal layer may be one for the next.
_TELLS_REFERENCES = frozenset(("h264", "mpeg1video", "mpeg2video", "mpeg4"))
# Reading on is cheaper than a jump, which some containers make by reading here and there.
_WORTH_A_JUMP_SECONDS = 2
# Where a container goes by times of decoding, a keyframe lies before the time at which it is shown.
_BACK_SECONDS = 1
_STRICT = {"err_detect": "explode"}


class InexactError(Exception):
    """The wanted frames do not come out as expected."""


@dataclass(frozen=True, slots=True)
class Source:
    """A stream, and how it is decoded.

    Attributes:
        path: The file.
        stream_index: Its video stream.
        codec: FFmpeg's name.
        timeline: The stream's times.
        skips: Whether frames that no other needs are passed over.
    """

    path: str
    stream_index: int
    codec: str
    timeline: Timeline
    skips: bool


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be decoded, and by how many.

    Attributes:
        source: The stream.
        shares: Of consecutive runs.
        n_workers: Threads that take share after share.
        n_threads: Of the decoder that each of them has.
    """

    source: Source
    shares: Sequence[tuple[Run, ...]]
    n_workers: int
    n_threads: int


def plan_work(
    path: str,
    stream_index: int,
    codec: str,
    timeline: Timeline,
    wanted_ticks: Int64,
    n_pixels: int,
    *,
    fields: bool,
) -> Work | None:
    """Decide how some frames are decoded; None: a whole pass is the only exact way.

    Args:
        path: The file.
        stream_index: Its video stream.
        codec: FFmpeg's name.
        timeline: The stream's times.
        wanted_ticks: int64 [n], ascending, out of ``timeline.ticks``; may repeat.
        n_pixels: Of a picture.
        fields: Whether pictures are made of two fields, whose packets may be two.
    """
    if not timeline.plain or codec not in _EXACT_FROM_KEYFRAMES:
        return None
    # What h264 stores behind a keyframe and shows before it cannot be decoded from there, and has its place in the
    # lists of references of what follows.
    begins = timeline.closed_ticks if codec == "h264" else timeline.keyframe_ticks
    if codec == "h264" and timeline.keyframe_ticks.size and not np.isin(timeline.keyframe_ticks[0], begins):
        begins = np.concatenate([timeline.keyframe_ticks[:1], begins])
    n_threads = threads_for(n_pixels, decoding_threads())
    shares = share_runs(plan_runs(begins, wanted_ticks), n_threads)
    n_workers = min(n_threads, len(shares))
    source = Source(path, stream_index, codec, timeline, codec in _TELLS_REFERENCES and not fields)
    return Work(source, shares, n_workers, n_threads // n_workers)


class RunReader:
    """Decodes runs of a stream; those that follow one another are found by reading on.

    Args:
        container: Open, and open for as long as this is used. Nothing was decoded in it.
        source: The stream.
        n_threads: Of the decoder.
    """

    def __init__(self, container: InputContainer, source: Source, n_threads: int) -> None:
        self._container, self._source = container, source
        self._stream = cast("VideoStream", prepare(container, source.stream_index, n_threads, _STRICT))
        self._context = self._stream.codec_context
        self._skip: Literal["DEFAULT", "NONREF"] = "DEFAULT"
        self._numbers = _numbers(self._context) if source.skips and source.codec == "h264" else None
        self._skips = source.skips and (source.codec != "h264" or self._numbers is not None)
        self._packets = packets(container, [self._stream])
        # Times of the last keyframe and the last packet that were read.
        self._keyframe: int | None = None
        self._place: int | None = None

    def close(self) -> None:
        """Leave the decoder as ``decoding.decode_stream`` does, and for its reason."""
        self._packets.close()
        self._context.flush_buffers()

    def read(self, run: Run) -> Generator[tuple[int, VideoFrame]]:
        """The frames of a run with their times.

        Raises:
            InexactError: They cannot be had this way.
            OSError: Reading the file failed.
            TimeLimitError: The time is over.
        """
        import av

        check = _Check(run)
        if self._numbers is not None:
            self._numbers.begin()
        try:
            with closing(self._from(run)) as stored:
                for packet in stored:
                    yield from check.passed(self._decode(packet, wanted=check.is_wanted(packet)))
                    if check.fed(packet):
                        break
            if not check.done:
                yield from check.passed(self._context.decode(None))
            check.end()
            self._context.flush_buffers()
        except (av.FFmpegError, UnknownHeaderError) as error:
            raise InexactError(str(error)) from None

    def _decode(self, packet: Packet[Stream], *, wanted: bool) -> list[VideoFrame]:
        needed = wanted or packet.is_keyframe or not self._skips
        skip: Literal["DEFAULT", "NONREF"] = "DEFAULT" if needed else "NONREF"
        if self._numbers is not None and not self._numbers.follows(memoryview(packet)):
            raise InexactError("a reference is missing")
        if skip != self._skip:
            self._context.skip_frame = skip
            self._skip = skip
        return cast("list[VideoFrame]", packet.decode())

    def _from(self, run: Run) -> Generator[Packet[Stream]]:
        """Packets from the run's keyframe on."""
        if run.keyframe is None:
            if self._place is not None:
                raise InexactError("the start lies behind")
            yield from self._read()
            return
        first = None if self._lies_shortly_ahead(run.keyframe) else run.keyframe
        for ticks in (first, run.keyframe - self._ticks(_BACK_SECONDS)):
            if ticks is not None:
                self._jump(ticks)
            found = next((packet for packet in self._read() if self._reaches(packet, run.keyframe)), None)
            if found is not None and found.pts == run.keyframe:
                yield found
                yield from self._read()
                return
        raise InexactError("the keyframe is not found")

    def _lies_shortly_ahead(self, keyframe: int) -> bool:
        if self._place is None or (self._keyframe is not None and self._keyframe >= keyframe):
            return False
        return keyframe - self._place <= self._ticks(_WORTH_A_JUMP_SECONDS)

    @staticmethod
    def _reaches(packet: Packet[Stream], keyframe: int) -> bool:
        return packet.is_keyframe and not packet.is_discard and packet.pts is not None and packet.pts >= keyframe

    def _read(self) -> Generator[Packet[Stream]]:
        """Packets from where the container stands, but for the empty one at the end."""
        for packet in self._packets:
            if not packet.size:
                return
            if packet.is_corrupt or packet.pts is None:
                raise InexactError("a packet that is damaged, or has no time")
            self._place = packet.pts
            if packet.is_keyframe:
                self._keyframe = packet.pts
            yield packet

    def _jump(self, ticks: int) -> None:
        self._packets.close()
        if not seek(self._container, self._source.stream_index, ticks):
            raise InexactError("the container does not go there")
        self._packets = packets(self._container, [self._stream])
        self._keyframe = None

    def _ticks(self, seconds: int) -> int:
        return int(seconds / self._source.timeline.time_base)


def _numbers(context: VideoCodecContext) -> FrameNumbers | None:
    try:
        return FrameNumbers(context.extradata)
    except UnknownHeaderError:
        return None


class _Check:
    """Lets the wanted frames of a run through, and sees that all of them come, in order and sound."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._unfed = set(run.wanted)
        self._n_shown = 0
        self._last: int | None = None
        self._begun = run.keyframe is None

    @property
    def done(self) -> bool:
        """Whether all wanted frames were shown."""
        return self._n_shown == len(self._run.wanted)

    def is_wanted(self, packet: Packet[Stream]) -> bool:
        """Whether a wanted frame is in it."""
        return not packet.is_discard and packet.pts in self._unfed

    def fed(self, packet: Packet[Stream]) -> bool:
        """Note that the decoder has had it; True when it has all that it needs."""
        if self.is_wanted(packet):
            self._unfed.discard(cast("int", packet.pts))
        return not self._unfed or self.done

    def passed(self, frames: Sequence[VideoFrame]) -> Generator[tuple[int, VideoFrame]]:
        """Those of the frames that are wanted."""
        wanted = self._run.wanted
        for frame in frames:
            if self.done:
                return
            ticks = frame.pts
            if ticks is None or (self._last is not None and ticks <= self._last):
                raise InexactError("frames without times, or out of order")
            self._last = ticks
            if self._run.keyframe is not None and ticks < self._run.keyframe:
                # Stored behind the keyframe, and made with what lies before it.
                continue
            if not self._begun and not (ticks == self._run.keyframe and frame.key_frame):
                raise InexactError("decoding cannot begin there")
            self._begun = True
            if frame.is_corrupt or ticks > wanted[self._n_shown]:
                raise InexactError("a frame is damaged, or another one comes")
            if ticks == wanted[self._n_shown]:
                self._n_shown += 1
                yield ticks, frame

    def end(self) -> None:
        """See that none is missing."""
        if not self.done:
            raise InexactError("a frame does not come")

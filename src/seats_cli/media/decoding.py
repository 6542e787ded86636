"""Streams decoded packet by packet, past what cannot be decoded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from seats_cli.media.reading import LocalFile
from seats_cli.timelimit import check_time

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


MAX_PIXELS = 100_000_000
"""Pixels of the largest picture that is decoded, such as 10,000 x 10,000; 8K has 33 million."""

DECODER_PIXELS = MAX_PIXELS * 11 // 10
"""The same for FFmpeg, which counts rows filled up to a multiple of its own."""

# Each thread of a decoder may hold pictures of its own.
_PIXELS_OF_ONE_THREAD = 36_000_000


def read_only(container: InputContainer, stream_indices: Collection[int]) -> None:
    """Have the container pass over all other streams, where this version of PyAV can say so."""
    try:
        from av.stream import Discard
    except ImportError:
        return
    for stream in container.streams:
        if stream.index not in stream_indices:
            stream.discard = Discard.all


def seek(container: InputContainer, stream_index: int, ticks: int) -> bool:
    """Go to the keyframe at or before a time of a stream; False if the container cannot."""
    import av

    try:
        container.seek(ticks, stream=container.streams[stream_index])
    except (av.FFmpegError, OSError, OverflowError):
        return False
    return True


def packets(container: InputContainer, streams: Sequence[Stream]) -> Generator[Packet[Stream]]:
    """All packets of some streams from where the container stands, and an empty one for each at the end.

    Raises:
        OSError: Reading the file failed.
        av.FFmpegError: The container is broken from here on.
        TimeLimitError: The time is over.
    """
    file, alone = cast("Any", container).file.file, len(container.streams) == 1
    try:
        for packet in container.demux(list(streams)):
            check_time()
            if isinstance(file, LocalFile):
                file.found(alone=alone)
            yield packet
    except IndexError:
        # At the end PyAV looks for a stream that appeared on the way, which it does not know. Those asked for
        # have had their empty packet by then.
        return


def threads_for(n_pixels: int, n_threads: int) -> int:
    """How many of some threads may hold pictures of so many pixels."""
    return max(1, min(n_threads, _PIXELS_OF_ONE_THREAD // max(n_pixels, 1)))


def prepare(
    container: InputContainer, stream_index: int, n_threads: int, options: Mapping[str, str] | None = None
) -> VideoStream | AudioStream:
    """Make a stream ready to be decoded, the only one that is read.

    Args:
        container: Open.
        stream_index: A video or audio stream that was not decoded before in this container.
        n_threads: For the decoder; 0: as it sees fit.
        options: For the decoder.
    """
    stream = cast("VideoStream | AudioStream", container.streams[stream_index])
    configure(stream, n_threads, options)
    read_only(container, {stream_index})
    return stream


def configure(stream: VideoStream | AudioStream, n_threads: int, options: Mapping[str, str] | None = None) -> None:
    """As ``prepare``, but other streams may be read beside it."""
    context = stream.codec_context
    if context.type == "video":
        context.options = {**context.options, "max_pixels": str(DECODER_PIXELS), **(options or {})}
        if context.width * context.height > _PIXELS_OF_ONE_THREAD:
            n_threads = 1
    context.thread_count = n_threads
    context.thread_type = "AUTO"


def decode_stream(
    container: InputContainer, stream_index: int, n_threads: int, on_lost: Callable[[], None]
) -> Generator[VideoFrame | AudioFrame]:
    """All frames of a stream from where the container stands, past packets that cannot be decoded.

    Args:
        container: Open, and open for as long as this is used.
        stream_index: A video or audio stream that was not decoded before in this container.
        n_threads: For the decoder; 0: as it sees fit.
        on_lost: Called for each packet that could not be decoded.

    Raises:
        OSError: Reading the file failed.
        av.FFmpegError: The container is broken from here on.
        TimeLimitError: The time is over.
    """
    import av

    stream = prepare(container, stream_index, n_threads)
    try:
        for packet in packets(container, [stream]):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                on_lost()
                continue
            yield from cast("list[VideoFrame | AudioFrame]", frames)
    finally:
        # Waits for the decoder's threads with the interpreter's lock released; closing it does so with the
        # lock held, which a thread of the decoder may be waiting for.
        stream.codec_context.flush_buffers()

"""Which pictures of a file are wanted."""

from __future__ import annotations

from dataclasses import dataclass

from seats_cli.config import Decoder
from seats_cli.media.frames import FirstFrame
from seats_cli.media.timeline import Int64, Timeline


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """Which pictures of a file are wanted.

    Attributes:
        path: The file.
        stream_index: Its video stream.
        codec: FFmpeg's name.
        timeline: The stream's times.
        first: What the first frame tells.
        ticks: int64 [n], ascending, out of ``timeline.ticks``; may repeat.
        decoder: By which they are decoded.
        by_header: See ``source.header_tells_streams``.
    """

    path: str
    stream_index: int
    codec: str
    timeline: Timeline
    first: FirstFrame
    ticks: Int64
    decoder: Decoder = "pyav"
    by_header: bool = False

"""What must be known of an mp4 before FFmpeg reads it, or is not told by it (ISO/IEC 14496-12)."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import BinaryIO

from seats_cli.timelimit import check_time

# What FFmpeg looks for boxes in; it knows no order among them.
_NESTED = frozenset(
    (
        *(b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"mvex", b"edts", b"dinf", b"udta"),
        *(b"tref", b"wave", b"sinf", b"schi", b"ipro", b"meta"),
    )
)
_STARTS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp", b"moof", b"sidx", b"pnot", b"udta")
# Version and flags, entry count: then come the sample entries, shaped like boxes.
_STSD_HEADER_BYTES = 8
_MAX_DEPTH = 10
# Of one level; a day of fragments, one for each second, has 200 thousand.
_MAX_BOXES = 1_000_000
_MAX_UNPACKED_BYTES = 1 << 26
# Bits of ``trun``: duration, size, flags or offset follow for each sample.
_HAS_A_TABLE = 0xF00
# Samples that FFmpeg takes together when each is one value of a sound, at least.
_VALUES_PER_PACKET = 160


@dataclass(frozen=True, slots=True)
class Mp4Facts:
    """What the boxes of an mp4 or mov say.

    Attributes:
        has_moov: The index is there; without it nothing can be decoded.
        broken_off: A box of the top level claims more bytes than the file has.
        encrypted: Kinds of stream with encrypted samples: ``video``, ``audio``.
        n_packets: Stated in a word, without a table that would have to be in the file. FFmpeg makes room for
            as many, whatever the file's size.
    """

    has_moov: bool
    broken_off: bool
    encrypted: frozenset[str]
    n_packets: int


@dataclass(slots=True)
class _Found:
    """What was seen on the way.

    Attributes:
        entries: Names of sample entries: ``avc1``, ``mp4a``, ``encv``, ...
        handlers: Kinds of the track at hand.
        steps: Its samples last one tick each.
        n_samples: Of its table of one size.
        n_packets: See ``Mp4Facts``.
    """

    entries: set[bytes] = field(default_factory=set)
    handlers: set[bytes] = field(default_factory=set)
    steps: bool = False
    n_samples: int = 0
    n_packets: int = 0

    def end_track(self) -> None:
        """Count the samples of a track, and forget it."""
        # These are values of a sound, which come in pieces of many.
        values = self.steps and self.handlers & {b"soun", b"vide"} == {b"soun"}
        self.n_packets += self.n_samples // (_VALUES_PER_PACKET if values else 1)
        self.handlers, self.steps, self.n_samples = set(), False, 0


def _boxes(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, begin and end of the content of each box in ``[start, stop)``; the end as the box claims it."""
    position = start
    while position + 8 <= stop:
        check_time()
        file.seek(position)
        header = file.read(16)
        size, name, head = int.from_bytes(header[:4], "big"), header[4:8], 8
        if size == 1 and len(header) == 16:
            size, head = int.from_bytes(header[8:16], "big"), 16
        elif size == 0:  # reaches to the end
            size = stop - position
        if size < head:
            return
        yield name, position + head, position + size
        position += size


def _look(file: BinaryIO, start: int, stop: int, found: _Found, depth: int = 0) -> None:
    """Look through the boxes of a stretch and those in them."""
    for name, begin, claimed in islice(_boxes(file, start, stop), _MAX_BOXES):
        end = min(claimed, stop)
        if name == b"trak":
            found.end_track()
        if name == b"stsd":
            entries = islice(_boxes(file, begin + _STSD_HEADER_BYTES, end), _MAX_BOXES)
            found.entries.update(entry for entry, _, _ in entries)
        elif name == b"cmov" and depth < _MAX_DEPTH:
            _look_inside(file, begin, end, found, depth)
        elif name in _NESTED and depth < _MAX_DEPTH:
            # The box ``meta`` may begin with version and flags, which are zeros.
            _look(file, begin + 4 * (name == b"meta"), end, found, depth + 1)
        elif name in (b"hdlr", b"stts", b"stsz", b"trun"):
            file.seek(begin)
            _note(name, [int.from_bytes(word, "big") for word in _words(file.read(min(end - begin, 16)))], found)


def _words(data: bytes) -> list[bytes]:
    return [data[k : k + 4] for k in range(0, 16, 4)]


def _note(name: bytes, words: list[int], found: _Found) -> None:
    """Remember the first words of a box."""
    if name == b"hdlr":
        found.handlers.add(words[2].to_bytes(4, "big"))
    elif name == b"stts":
        found.steps = words[1] == 1 and words[3] == 1
    elif name == b"stsz" and words[1]:
        found.n_samples += words[2]
    elif name == b"trun" and not words[0] & _HAS_A_TABLE:
        found.n_packets += words[1]


def _look_inside(file: BinaryIO, start: int, stop: int, found: _Found, depth: int) -> None:
    """Look through an index that is packed."""
    for name, begin, claimed in islice(_boxes(file, start, stop), _MAX_BOXES):
        if name == b"cmvd":
            file.seek(begin + 4)
            packed = file.read(max(min(claimed, stop, begin + _MAX_UNPACKED_BYTES) - begin - 4, 0))
            try:
                data = zlib.decompressobj().decompress(packed, _MAX_UNPACKED_BYTES)
            except zlib.error:
                return
            _look(io.BytesIO(data), 0, len(data), found, depth + 1)


def read_mp4_facts(path: str) -> Mp4Facts | None:
    """Look through the boxes of a file.

    Args:
        path: A readable regular file.

    Returns:
        The facts, or None if it does not begin like an mp4 or mov.

    Raises:
        OSError: It cannot be read.
        TimeLimitError: The time is over.
    """
    with open(path, "rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if next((name for name, _, _ in _boxes(file, 0, size_bytes)), None) not in _STARTS:
            return None
        has_moov = broken_off = False
        for name, _, end in islice(_boxes(file, 0, size_bytes), _MAX_BOXES):
            has_moov |= name == b"moov"
            broken_off |= end > size_bytes
        found = _Found()
        _look(file, 0, size_bytes, found)
    found.end_track()
    kinds = {kind for entry, kind in ((b"encv", "video"), (b"enca", "audio")) if entry in found.entries}
    return Mp4Facts(has_moov, broken_off, frozenset(kinds), found.n_packets)

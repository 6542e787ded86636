"""The few things of an mp4 that FFmpeg does not tell: is it whole, is it encrypted (ISO/IEC 14496-12)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_NESTED = {b"moov", b"trak", b"mdia", b"minf", b"stbl"}
# Version and flags, entry count: then come the sample entries, shaped like boxes.
_STSD_HEADER_BYTES = 8
_MAX_DEPTH = 6


@dataclass(frozen=True, slots=True)
class Mp4Facts:
    """What the boxes of an mp4 or mov say.

    Attributes:
        has_moov: The index is there; without it nothing can be decoded.
        broken_off: A box of the top level claims more bytes than the file has.
        encrypted: Kinds of stream with encrypted samples: ``video``, ``audio``.
    """

    has_moov: bool
    broken_off: bool
    encrypted: frozenset[str]


def _boxes(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, begin and end of the content of each box in ``[start, stop)``; the end as the box claims it."""
    position = start
    while position + 8 <= stop:
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


def _entry_names(file: BinaryIO, start: int, stop: int, depth: int = 0) -> Iterator[bytes]:
    """Names of all sample entries below a box: ``avc1``, ``mp4a``, ``encv``, ..."""
    for name, begin, end in _boxes(file, start, stop):
        if name == b"stsd":
            for entry, _, _ in _boxes(file, begin + _STSD_HEADER_BYTES, min(end, stop)):
                yield entry
        elif name in _NESTED and depth < _MAX_DEPTH:
            yield from _entry_names(file, begin, min(end, stop), depth + 1)


def read_mp4_facts(path: str) -> Mp4Facts | None:
    """Look through the boxes of a file.

    Args:
        path: A readable regular file.

    Returns:
        The facts, or None if it does not begin like an mp4 or mov.

    Raises:
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        top = list(_boxes(file, 0, size_bytes))
        if not top or top[0][0] not in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp"):
            return None
        names = set(_entry_names(file, 0, size_bytes))
    kinds = {kind for entry, kind in ((b"encv", "video"), (b"enca", "audio")) if entry in names}
    return Mp4Facts(
        has_moov=any(name == b"moov" for name, _, _ in top),
        broken_off=any(end > size_bytes for _, _, end in top),
        encrypted=frozenset(kinds),
    )

"""Healthy bytes made unhealthy: at random places, or in the fields of a header by name."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from random import Random

WORDS = (0, 1, 2, 7, 255, 10_000, 65_535, 10**6, 10**8, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 2)


def replaced(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new[: max(len(data) - place, 0)] + data[place + len(new) :]


# Blind


def bits(rng: Random, data: bytes) -> bytes:
    """A few bits, anywhere or in the header."""
    out, stop = bytearray(data), rng.choice((200, 2000, len(data), len(data)))
    for _ in range(rng.choice((1, 3, 10, 100, len(data) // 100))):
        out[rng.randrange(min(stop, len(out)))] ^= 1 << rng.randrange(8)
    return bytes(out)


def tail_bits(rng: Random, data: bytes) -> bytes:
    """A few bits near the end, where some containers have their index."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 3, 10, 40))):
        out[-rng.randrange(1, min(4000, len(out)))] ^= 1 << rng.randrange(8)
    return bytes(out)


def cut(rng: Random, data: bytes) -> bytes:
    return data[: rng.choice((1, 7, 40, rng.randrange(1, len(data)), rng.randrange(1, len(data)), len(data) - 1))]


def headless(rng: Random, data: bytes) -> bytes:
    return data[rng.choice((1, 8, rng.randrange(1, len(data)))) :] or b"x"


def overwritten(rng: Random, data: bytes) -> bytes:
    """A stretch of zeros, ones or noise."""
    length = rng.choice((1, 16, 500, 5000))
    return replaced(
        data, rng.randrange(len(data)), rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    )


def moved(rng: Random, data: bytes) -> bytes:
    """A stretch taken out, doubled, or pushed in."""
    at, length = rng.randrange(len(data)), rng.choice((1, 4, 188, 3000))
    piece = data[at : at + length]
    other = rng.randrange(len(data))
    return rng.choice(
        (data[:at] + data[at + length :], data[:at] + piece + data[at:], data[:other] + piece + data[other:])
    )


def spliced(rng: Random, data: bytes, other: bytes) -> bytes:
    """The head of one file and the tail of another."""
    return data[: rng.randrange(1, len(data))] + other[rng.randrange(len(other)) :]


# Headers


def _mp4_boxes(data: bytes, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    while start + 8 <= stop:
        size, name = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        if size < 8:
            return
        yield name, start, min(start + size, stop)
        if name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf", b"mvex", b"dinf"):
            yield from _mp4_boxes(data, start + 8, min(start + size, stop))
        start += size


def lying_mp4(rng: Random, data: bytes) -> bytes:
    """Words in boxes: sizes, counts, durations, time scales, dimensions, rates, offsets."""
    boxes = [box for box in _mp4_boxes(data, 0, len(data)) if box[0] not in (b"mdat", b"free")]
    for _ in range(rng.choice((1, 1, 2, 4))):
        _, start, stop = rng.choice(boxes)
        place = start + rng.choice((0, 8, 12, 16, 20, 24, rng.randrange(0, max(stop - start - 3, 1))))
        width = rng.choice((2, 4, 4, 4, 8))
        value = rng.choice(WORDS) if rng.random() < 0.8 else rng.getrandbits(32)
        data = replaced(
            data, place, (value << (32 if width == 8 and rng.random() < 0.5 else 0)).to_bytes(8)[-width:]
        )
    return data


MKV_NUMBERS = {
    **{b"\x4d\x80": 0, b"\x2a\xd7\xb1": 4, b"\x44\x89": 8, b"\xd7": 1, b"\x73\xc5": 8, b"\x83": 1, b"\xb0": 2},
    **{b"\xba": 2, b"\xb5": 8, b"\x9f": 1, b"\x62\x64": 1, b"\x23\xe3\x83": 4, b"\x56\xaa": 4, b"\x56\xbb": 4},
    **{
        b"\xe7": 1,
        b"\x53\xac": 2,
        b"\xb3": 1,
        b"\xf1": 2,
        b"\x54\xb0": 2,
        b"\x54\xba": 2,
        b"\x9c": 1,
        b"\x63\xa2": 4,
    },
}


def lying_mkv(rng: Random, data: bytes) -> bytes:
    """Values of elements (scale, duration, dimensions, rate, channels, times, places), and lengths."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        name = rng.choice(list(MKV_NUMBERS))
        found = [
            k for k in range(len(data) - 12) if data.startswith(name, k) and 0x81 <= data[k + len(name)] <= 0x88
        ]
        if not found:
            continue
        place = rng.choice(found[:8]) + len(name)
        size = data[place] - 0x80
        kinds = (
            rng.choice(WORDS).to_bytes(8)[-size:],
            b"\xff" * size,
            struct.pack(">d", rng.choice((float("nan"), float("inf"), -1.0, 1e300, 0.0, 1e-300, 2.0**31)))[:size],
            rng.randbytes(size),
        )
        data = replaced(data, place + (rng.random() < 0.9), rng.choice(kinds))
    return data


def lying_riff(rng: Random, data: bytes) -> bytes:
    """Fields of avi and wav headers, which are little-endian words."""
    names = [name for name in (b"avih", b"strh", b"strf", b"fmt ", b"data", b"LIST", b"idx1") if name in data]
    for _ in range(rng.choice((1, 1, 2, 4))):
        name = rng.choice(names)
        place = rng.choice([k for k in range(min(len(data), 20_000)) if data.startswith(name, k)] or [0])
        value, width = rng.choice(WORDS), rng.choice((2, 4, 4))
        data = replaced(
            data,
            place + rng.choice((4, 8, 10, 12, 16, 20, 22, 24, 28, 36, 40)),
            value.to_bytes(4, "little")[:width],
        )
    return data


def lying_flac(rng: Random, data: bytes) -> bytes:
    """STREAMINFO: block sizes, rate, channels, bits, number of samples."""
    place = data.find(b"fLaC")
    return replaced(data, place + 8 + rng.randrange(18), rng.choice((b"\0" * 4, b"\xff" * 4, rng.randbytes(3))))


def lying_aiff(rng: Random, data: bytes) -> bytes:
    """COMM: channels, frames, bits, the rate as an extended float."""
    place = data.index(b"COMM") + 8
    rates = (
        b"\x7f\xff" + b"\xff" * 8,
        b"\x40\x1e\x80" + bytes(7),
        b"\x3f\xff\x80" + bytes(7),
        bytes(10),
        b"\xc0\x0c\xfa" + bytes(7),
    )
    fields = ((0, rng.choice(WORDS).to_bytes(4)[2:]), (2, rng.choice(WORDS).to_bytes(4)), (8, rng.choice(rates)))
    at, new = rng.choice(fields)
    return replaced(data, place + at, new)


def _ogg_checksum(page: bytes) -> int:
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1) ^ (0x104C11DB7 if value & 0x80000000 else 0)
    return value & 0xFFFFFFFF


def lying_ogg(rng: Random, data: bytes) -> bytes:
    """Times of pages, and fields of the first header, with checksums that hold."""
    places = [k for k in range(len(data)) if data.startswith(b"OggS", k)]
    k = rng.randrange(len(places)) if rng.random() < 0.6 else 0
    start, stop = places[k], [*places, len(data)][k + 1]
    page = bytearray(data[start:stop])
    if k and rng.random() < 0.8:
        value = rng.choice((0, 1, -1, -(2**63), 2**63 - 1, 2**40, 48_000 * 3600, -5000))
        page[6:14] = struct.pack("<q", value)
    else:
        at = 28 + rng.randrange(7, 28)
        page[at : at + 4] = struct.pack("<I", rng.choice(WORDS))
    page[22:26] = bytes(4)
    page[22:26] = struct.pack("<I", _ogg_checksum(bytes(page)))
    return data[:start] + bytes(page) + data[stop:]


def lying_ts(rng: Random, data: bytes) -> bytes:
    """Clock bits of transport packets and of the streams in them."""
    out = bytearray(data)
    starts = [k for k in range(0, len(out) - 188, 188) if out[k + 1] & 0x40]
    for _ in range(rng.choice((1, 2, 8, 30))):
        packet = rng.choice(starts)
        at = out.find(b"\0\0\1", packet, packet + 188)
        place = (
            at + rng.choice((6, 7, 8, 9, 10, 11, 13, 14))
            if at >= 0 and rng.random() < 0.8
            else packet + rng.randrange(4, 12)
        )
        out[place] = rng.choice((0, 255, 0x80, 0xC0, rng.randrange(256)))
    return bytes(out)


LIARS: dict[str, Callable[[Random, bytes], bytes]] = {
    **dict.fromkeys((".mp4", ".mov", ".m4a"), lying_mp4),
    **dict.fromkeys((".mkv", ".webm"), lying_mkv),
    **dict.fromkeys((".avi", ".wav"), lying_riff),
    **{".flac": lying_flac, ".ogg": lying_ogg, ".ts": lying_ts, ".aiff": lying_aiff, ".mp3": bits},
    **dict.fromkeys((".flv", ".wmv", ".nut", ".mpg", ".mxf", ".gif"), bits),
}
BLIND = (bits, bits, tail_bits, cut, headless, overwritten, moved)


def suffix_of(name: str) -> str:
    return os.path.splitext(name)[1]

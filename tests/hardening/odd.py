"""Files that are whole and still unreasonable: absurd sizes, rates, times and counts."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from random import Random

import av
import numpy as np

from tests.media.clips import tone, write_video

Write = Callable[[Path, Random], Path]


def wav(
    rate_hz: int, channels: int = 1, bits: int = 16, n_bytes: int = 64_000, stated: int | None = None
) -> bytes:
    """A wav with such a header; ``stated`` bytes of sound, if these are not the bytes that are there."""
    block = (channels * bits // 8) & 0xFFFF
    stated = n_bytes if stated is None else stated
    head = b"RIFF" + struct.pack("<I", (36 + stated) & 0xFFFFFFFF) + b"WAVEfmt "
    head += struct.pack("<IHHIIHH", 16, 1, channels, rate_hz, (rate_hz * block) & 0xFFFFFFFF, block, bits)
    return head + b"data" + struct.pack("<I", stated) + bytes(range(256)) * (n_bytes // 256)


def write_wav(folder: Path, rng: Random) -> Path:
    rate_hz = rng.choice((0, 1, 2, 10, 99, 100, 4_000_000, 4_000_001, 10**8, 2**31 - 1, 2**31, 2**32 - 1, 16_000))
    channels = rng.choice((1, 1, 1, 0, 2, 255, 1024, 65_535))
    stated = rng.choice((None, None, 0, 2**31 - 1, 2**32 - 1))
    path = folder / rng.choice(("a.wav", "a.mp4"))
    path.write_bytes(
        wav(rate_hz, channels, rng.choice((16, 16, 8, 24, 32, 0, 64)), rng.choice((512, 64_000, 2**21)), stated)
    )
    return path


def _png(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(100_000)))
        + chunk(b"IEND", b"")
    )


def write_picture(folder: Path, rng: Random) -> Path:
    """A picture that claims to be of some size."""
    sizes = (
        (0, 0),
        (1, 1),
        (1, 100_000),
        (10_000, 10_000),
        (10_001, 10_000),
        (16_384, 16_384),
        (65_535, 65_535),
        (2**31 - 1, 1),
    )
    width, height = rng.choice(sizes)
    w16, h16 = width & 0xFFFF, height & 0xFFFF
    rate = rng.choice(("25:1", "1000000000:1", "1:1000000000", "0:0", "2147483647:1"))
    contents = {
        "a.png": _png(width, height),
        "a.y4m": f"YUV4MPEG2 W{width} H{height} F{rate} Ip A1:1 C420jpeg\nFRAME\n".encode() + bytes(9000),
        "a.ppm": f"P6 {width} {height} 255\n".encode() + bytes(9000),
        "a.gif": b"GIF89a"
        + struct.pack("<HHBBB", w16, h16, 0, 0, 0)
        + b",\0\0\0\0"
        + struct.pack("<HHB", w16, h16, 0)
        + b"\x02\x02\x4c\x01\0;",
        "a.bmp": b"BM"
        + struct.pack("<IIIIiiHHIIiiII", 9000, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
        + bytes(9000),
        "a.jpg": b"\xff\xd8\xff\xc0\0\x11\x08"
        + struct.pack(">HH", h16, w16)
        + b"\3\1\x22\0\2\x11\1\3\x11\1"
        + b"\xff\xda\0\x0c\3\1\0\2\x11\3\x11\0\x3f\0"
        + bytes(5000)
        + b"\xff\xd9",
        "a.qoi": b"qoif"
        + struct.pack(">II", width & 0xFFFFFFFF, height)
        + b"\3\0"
        + b"\xfd" * 5000
        + bytes(7)
        + b"\1",
        "a.webp": b"RIFF\x50\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0"
        + (w16 or 1).to_bytes(3, "little")
        + (h16 or 1).to_bytes(3, "little")
        + bytes(60),
        "a.ivf": b"DKIF\0\0\x20\0VP90"
        + struct.pack("<HHIIII", w16, h16, 10**9, 1, 2**31, 0)
        + struct.pack("<IQ", 12, 2**62)
        + bytes(12),
    }
    name = rng.choice(list(contents))
    (folder / name).write_bytes(contents[name])
    return folder / name


def write_times(folder: Path, rng: Random) -> Path:
    """Presentation times below 0, far apart, of an absurd clock, or few; streams of no or hardly any length."""
    base = rng.choice((Fraction(1, 1000), Fraction(1, 90_000), Fraction(1, 10**9), Fraction(1)))
    jumps = (0, -1000, 3000, 10**5, 10**7, 10**9, 10**12)
    path = folder / rng.choice(("a.mkv", "a.mov", "a.mp4", "a.avi", "a.ts", "a.nut", "a.flv"))
    n_frames, jump, at = rng.choice((1, 2, 12)), rng.choice(jumps), rng.randrange(12)
    with suppress(av.FFmpegError, OSError, ValueError), av.open(str(path), "w") as out:
        video = out.add_stream("mpeg4", rate=10, options={"bf": "0"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = Fraction(1, 10)
        audio = out.add_stream("aac", rate=16_000, layout="mono") if rng.random() < 0.6 else None
        packets = [
            *_video_packets(video, n_frames),
            *(_audio_packets(audio, rng.choice((0, 1, 12))) if audio else ()),
        ]
        for k, packet in enumerate(packets):
            late = jump * 10 if rng.random() < 0.15 or k % 12 >= at else 0
            packet.time_base = base if packet.stream.type == "video" and rng.random() < 0.5 else packet.time_base
            packet.pts = packet.dts = (packet.pts or 0) + late
            packet.duration = rng.choice((packet.duration or 0, 0, 2**31 - 1, 2**40))
            try:
                out.mux_one(packet)
            except (av.FFmpegError, OSError, ValueError):
                continue
    return path


def _video_packets(stream: object, n_frames: int) -> Iterator[av.Packet]:
    for k in range(n_frames):
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * k, np.uint8), format="rgb24")
        frame.pts, frame.time_base = k, Fraction(1, 10)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _audio_packets(stream: object, n_frames: int) -> Iterator[av.Packet]:
    for k in range(n_frames):
        frame = av.AudioFrame.from_ndarray(tone(0.064)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = 16_000, Fraction(1, 16_000), 1024 * k
        yield from stream.encode(frame)
    yield from stream.encode(None)


def box(name: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I", 8 + len(data)) + name + data


def full(name: bytes, *words: int) -> bytes:
    return box(name, struct.pack(f">{1 + len(words)}I", 0, *words))


MATRIX = struct.pack(">9I", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)


def mp4(entry: bytes, tables: bytes, handler: bytes = b"vide", extra: bytes = b"", scale: int = 1000) -> bytes:
    """An mp4 of one track with a sample entry and sample tables as they are given."""
    media_header = full(b"vmhd", 0, 0) if handler == b"vide" else full(b"smhd", 0)
    stbl = box(b"stbl", box(b"stsd", struct.pack(">II", 0, 1), entry), tables)
    dinf = box(b"dinf", box(b"dref", struct.pack(">II", 0, 1), full(b"url ")))
    minf = box(b"minf", media_header, dinf, stbl)
    hdlr = box(b"hdlr", struct.pack(">II", 0, 0), handler, bytes(13))
    mdia = box(b"mdia", full(b"mdhd", 0, 0, scale, 10_000, 0), hdlr, minf)
    tkhd = box(
        b"tkhd",
        struct.pack(">6I", 3, 0, 0, 1, 0, 10_000),
        bytes(16),
        MATRIX,
        struct.pack(">II", 64 << 16, 48 << 16),
    )
    mvhd = box(
        b"mvhd",
        struct.pack(">5I", 0, 0, 0, scale, 10_000),
        struct.pack(">IH", 65536, 256),
        bytes(10),
        MATRIX,
        bytes(24),
        struct.pack(">I", 2),
    )
    return (
        box(b"ftyp", b"isom\0\0\2\0isom")
        + box(b"moov", mvhd, box(b"trak", tkhd, mdia), extra)
        + box(b"mdat", bytes(5000))
    )


def raw_video_entry(width: int = 64, height: int = 48, codec: bytes = b"mp4v") -> bytes:
    return box(
        codec,
        bytes(6),
        struct.pack(">H", 1),
        bytes(16),
        struct.pack(">HH", width, height),
        struct.pack(">IIIH", 72 << 16, 72 << 16, 0, 1),
        bytes(32),
        struct.pack(">Hh", 24, -1),
    )


def raw_audio_entry(rate_hz: int, channels: int = 1, codec: bytes = b"sowt") -> bytes:
    return box(
        codec,
        bytes(6),
        struct.pack(">H", 1),
        bytes(8),
        struct.pack(">HHHH", channels, 16, 0, 0),
        struct.pack(">I", rate_hz << 16),
    )


def counts(n: int, size: int, delta: int, chunks: int = 1) -> bytes:
    """Sample tables: ``n`` samples of one size and one length, in chunks that all begin at one place."""
    tables = (
        full(b"stts", 1, n, delta) + full(b"stsc", 1, 1, max(n // max(chunks, 1), 1), 1) + full(b"stsz", size, n)
    )
    return tables + full(b"stco", chunks, *([600] * chunks))


def write_bomb(folder: Path, rng: Random) -> Path:
    """A small file that stands for something huge, or for very much of something."""
    n = rng.choice((10_000, 10**6, 20_000_000, 80_000_000, 2**31 - 1, 2**32 - 1))
    delta, size = rng.choice((0, 1, 40, 2**31 - 1)), rng.choice((1, 1, 4, 400))
    trex = box(b"mvex", full(b"trex", 1, 1, delta, size, 0))
    moof = box(b"moof", full(b"mfhd", 1), box(b"traf", full(b"tfhd", 1), box(b"trun", struct.pack(">II", 0, n))))
    entry = raw_video_entry(
        *rng.choice(((64, 48), (0, 0), (10_000, 10_000), (65_535, 65_535))),
        rng.choice((b"mp4v", b"raw ", b"jpeg")),
    )
    sound = raw_audio_entry(rng.choice((1, 100, 16_000, 65_535)), codec=rng.choice((b"sowt", b"samr", b"alaw")))
    audio_rate = rng.choice((1, 1000, 2**31 - 1))
    contents = {
        "samples.mp4": mp4(entry, counts(n, size, delta, rng.choice((1, 100, 1000)))),
        "sound.mp4": mp4(
            sound, counts(n, 2, rng.choice((1, delta)), rng.choice((1, 1000))), b"soun", scale=audio_rate
        ),
        "pieces.mp4": mp4(entry, counts(0, 0, 1, 0), extra=trex)[:-5008] + moof + box(b"mdat", bytes(100)),
        "boxes.mp4": box(b"ftyp", b"isom\0\0\2\0isom") + box(b"free") * 200_000,
        "deep.mp4": box(b"ftyp", b"isom")
        + b"".join(struct.pack(">I", 8 * (5000 - k)) + b"moov" for k in range(5000)),
        "edits.mp4": mp4(entry, counts(100, 4, 40), extra=b"").replace(b"mdia", b"edts", 1),
        "tags.mp3": b"ID3\4\0\0\x7f\x7f\x7f\x7f" + b"TIT2\x7f\x7f\x7f\x7f\0\0" + bytes(50_000),
        "caf.caf": b"caff\0\1\0\0desc"
        + struct.pack(">QdIIIIII", 32, rng.choice((1.0, 2.0**31, 1e300, -1.0)), 0x6C70636D, 0, 2, 1, 1, 16)
        + b"data"
        + struct.pack(">q", -1)
        + bytes(60_000),
        "w.w64": b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0" + rng.randbytes(500),
        "a.au": b".snd"
        + struct.pack(">IIIII", 24, 0xFFFFFFFF, 3, rng.choice((1, 2**31, 16_000)), rng.choice((1, 1024, 2**20)))
        + bytes(60_000),
    }
    name = rng.choice(list(contents))
    (folder / name).write_bytes(contents[name])
    return folder / name


def write_sparse(folder: Path, rng: Random) -> Path:
    """Very long, and nearly nothing but holes; the time limit of a case ends what is still read then."""
    path = folder / f"a.{rng.choice(('mp4', 'ts', 'mkv', 'wav', 'mp3', 'flac'))}"
    starts = (
        b"",
        b"\0\0\0\x18ftypisom",
        b"\x1a\x45\xdf\xa3",
        wav(16_000, stated=2**31 - 1)[:44],
        b"ID3\4\0\0\0\0\0\0",
        b"fLaC",
        b"G",
    )
    path.write_bytes(rng.choice(starts))
    with path.open("r+b") as file:
        file.truncate(2**32)
    return path


def write_large(folder: Path, rng: Random) -> Path:
    """Real pictures of nearly or more than what is decoded."""
    width, height = rng.choice(((10_000, 10_000), (10_016, 10_016), (40_000, 2_400), (2, 20_000)))
    codec, pix_fmt, name = rng.choice(
        (("mjpeg", "yuvj420p", "a.mov"), ("libx264", "yuv420p", "a.mp4"), ("png", "gray", "a.mov"))
    )
    grey = np.full((height, width, 3), 128, np.uint8)
    options = {"preset": "ultrafast", "bf": "0", "threads": "1"} if codec == "libx264" else {}
    times = [Fraction(0), Fraction(1, 2)]
    try:
        write_video(
            folder / name,
            times,
            size=(width, height),
            codec=codec,
            pix_fmt=pix_fmt,
            options=options,
            picture=lambda _: grey,
        )
    except (av.FFmpegError, ValueError):
        (folder / name).write_bytes(b"the encoder would not")
    return folder / name


def write_streams(folder: Path, rng: Random) -> Path:
    """Many streams, or one that has a header and nothing else."""
    path = folder / rng.choice(("a.mkv", "a.ts", "a.mp4", "a.avi"))
    n = rng.choice((1, 2, 90))
    with av.open(str(path), "w") as out:
        videos = []
        for _ in range(n):
            stream = out.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            videos.append(stream)
        if rng.random() < 0.5:
            out.add_stream("aac", rate=16_000, layout="mono")
        for packet in _video_packets(videos[-1], rng.choice((0, 1, 5))):
            out.mux_one(packet)
    return path


ODD: dict[str, tuple[Write, ...]] = {
    "rates": (write_wav,),
    "sizes": (write_picture,),
    "times": (write_times,),
    "bombs": (write_bomb,),
    "streams": (write_streams,),
    "sparse": (write_sparse,),
    "large": (write_large,),
}

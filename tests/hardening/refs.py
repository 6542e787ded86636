# ruff: noqa: E501 - headers and lists are written as they are in a file
"""Files that point elsewhere, and names that are no plain files. Nothing they point to may ever be opened."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.hardening.odd import MATRIX, box, counts, mp4, raw_video_entry

CANARIES = ("canary.ts", "canary.mp4", "input.sub", "input.M00", "input.avi")


@dataclass(frozen=True)
class Bait:
    """What a list may point to: files that are watched, and a server that listens.

    Attributes:
        folder: Holds the canaries.
        port: Of the server, on this machine.
    """

    folder: Path
    port: int

    def targets(self) -> tuple[str, ...]:
        path, web = self.folder / "canary.ts", f"127.0.0.1:{self.port}"
        return (
            *("canary.ts", "./canary.mp4", str(path), f"file:{path}", f"file://{path}", f"concat:{path}|{path}"),
            *(f"http://{web}/a.ts", f"tcp://{web}", f"udp://{web}", f"rtsp://{web}/a", f"ftp://{web}/a.ts"),
            *(
                f"subfile,,start,0,end,0,,:{path}",
                f"crypto:{path}",
                f"async:{path}",
                f"cache:file:{path}",
                f"tee:{path}",
            ),
            *(
                "data:video/mp2t;base64,Rw==",
                "pipe:0",
                "/dev/zero",
                "pipe",
                "fd:0",
                f"hls+http://{web}/a.m3u8",
                f"unix:{path}",
            ),
        )


def _lists(to: str, again: str) -> dict[str, str]:
    """Lists of each kind that point to ``to``; those that nest point to ``again`` as well."""
    hls = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:2\n"
    end = "#EXT-X-ENDLIST\n"
    return {
        "a.m3u8": f"{hls}#EXTINF:2.0,\n{to}\n{end}",
        "key.m3u8": f'{hls}#EXT-X-KEY:METHOD=AES-128,URI="{to}"\n#EXTINF:2.0,\n{again}\n{end}',
        "map.m3u8": f'{hls}#EXT-X-MAP:URI="{to}"\n#EXTINF:2.0,\n{again}\n{end}',
        "master.m3u8": f'#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="a",URI="{to}"\n#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO="a"\n{again}\n',
        "self.m3u8": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\nself.m3u8\n",
        "a.ffconcat": f"ffconcat version 1.0\nfile '{to}'\nfile '{again}'\nduration 1e18\n",
        "a.txt": f"ffconcat version 1.0\nstream\nfile {to}\noption protocol_whitelist file,http,tcp\n",
        "a.mpd": f'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT2S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{to}</BaseURL><SegmentList><Initialization sourceURL="{to}"/><SegmentURL media="{to}"/></SegmentList></Representation></AdaptationSet></Period></MPD>',
        "entity.mpd": f'<?xml version="1.0"?><!DOCTYPE MPD [<!ENTITY x SYSTEM "{to}">]><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><BaseURL>&x;</BaseURL></MPD>',
        "cpl.xml": f'<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Id>urn:uuid:0</Id><!-- {to} --></CompositionPlaylist>',
        "a.pls": f"[playlist]\nFile1={to}\nLength1=2\nNumberOfEntries=1\nVersion=2\n",
        "a.m3u": f"{to}\n{again}\n",
        "a.asx": f'<asx version="3.0"><entry><ref href="{to}"/></entry></asx>',
        "a.xspf": f'<?xml version="1.0"?><playlist version="1" xmlns="http://xspf.org/ns/0/"><trackList><track><location>{to}</location></track></trackList></playlist>',
        "a.smil": f'<smil><body><video src="{to}"/></body></smil>',
        "a.svg": f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="64" height="48"><image xlink:href="{to}" width="9" height="9"/></svg>',
        "a.sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\na=control:{to}\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "a.rtsp": f"{to}\n",
        "a.rtsptext": f"RTSPtextrtsp://{to}\n",
        "ref.mov": f"[Reference]\r\nRef1={to}\r\n",
        "a.idx": f"# VobSub index file, v7 (do not modify this line!)\nsize: 64x48\nlangidx: 0\nid: en, index: 0\ntimestamp: 00:00:01:000, filepos: 000000000\n# {to}\n",
        "a.avs": f'AviSource("{to}")\n',
        "a.vpy": f'import vapoursynth\nopen("{to}")\n',
        "a.ffmeta": f";FFMETADATA1\ntitle={to}\n",
        "a.cue": f'FILE "{to}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
        "a.url": f"[InternetShortcut]\nURL={to}\n",
        "a.ass": f"[Script Info]\nScriptType: v4.00+\nVideo File: {to}\n[Events]\nDialogue: 0,0:00:00.00,0:00:01.00,x,,0,0,0,,x\n",
    }


def write_list(folder: Path, rng: Random, bait: Bait) -> Path:
    """A list, under its own name or that of a film, perhaps of lists."""
    inner = _lists(rng.choice(bait.targets()), "canary.ts")
    (folder / "inner.m3u8").write_text(inner["a.m3u8"])
    lists = _lists(rng.choice((*bait.targets(), "inner.m3u8", str(folder / "inner.m3u8"))), "inner.m3u8")
    name = rng.choice(list(lists))
    text = rng.choice(("", "", "\ufeff", "\n\n", "#" + "x" * 5000 + "\n")) + lists[name]
    path = folder / (
        name if rng.random() < 0.6 else f"x.{rng.choice(('mp4', 'wav', 'ts', 'mkv', 'png', 'mp3', 'avi'))}"
    )
    path.write_text(text)
    return path


def _alias(to: str) -> bytes:
    """An alias record of QuickTime that names a file, as in ``dref``."""
    name, volume = to.encode()[-60:], b"Disk"
    record = bytes(6) + struct.pack(">HH", 0, 2) + struct.pack(">H", 0)
    record += (
        struct.pack("B27s", len(volume), volume) + bytes(12) + struct.pack("B63s", len(name), name) + bytes(16)
    )
    record += struct.pack(">hh", 1, 1) + bytes(16)
    for kind in (2, 18):
        record += struct.pack(">HH", kind, len(name)) + name + b"\0" * (len(name) % 2)
    return record + struct.pack(">HH", 0xFFFF, 0)


def write_reference(folder: Path, rng: Random, bait: Bait, seed: bytes) -> Path:
    """An mp4 whose samples lie in another file, or a mkv that goes on in another."""
    to = rng.choice(bait.targets())
    if rng.random() < 0.3:
        uid, name = bytes(range(16)), to.encode()[:100]
        tags = b"".join(
            key + bytes((0x80 | len(value),)) + value
            for key, value in ((b"\x73\xa4", uid), (b"\x3e\xb9\x23", uid), (b"\x3e\x83\xbb", name))
        )
        place = seed.index(b"\x15\x49\xa9\x66")
        # The void after the header has room for them; what is overwritten there is not needed.
        path = folder / "linked.mkv"
        path.write_bytes(seed[: place + 12] + tags + seed[place + 12 + len(tags) :])
        return path
    kind, body = rng.choice(
        (
            (b"url ", to.encode() + b"\0"),
            (b"alis", _alias(to)),
            (b"rsrc", _alias(to)),
            (b"urn ", b"x\0" + to.encode() + b"\0"),
        )
    )
    dref = box(b"dref", struct.pack(">II", 0, 1), box(kind, bytes(4), body))
    plain = mp4(raw_video_entry(codec=b"raw "), counts(10, 64 * 48 * 3, 100))
    old = box(b"dref", struct.pack(">II", 0, 1), box(b"url ", bytes(4)))
    moov = plain[plain.index(b"moov") - 4 : plain.index(b"mdat") - 4].replace(old, dref)
    for name in (b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        at = moov.index(name) - 4
        size = int.from_bytes(moov[at : at + 4], "big") + len(dref) - len(old)
        moov = moov[:at] + struct.pack(">I", size) + moov[at + 4 :]
    if rng.random() < 0.2:
        rdrf = box(b"rmra", box(b"rmda", box(b"rdrf", bytes(4), b"url ", struct.pack(">I", len(to)), to.encode())))
        moov = box(b"moov", rdrf)
    path = folder / rng.choice(("a.mov", "a.mp4"))
    path.write_bytes(box(b"ftyp", b"qt  \0\0\2\0qt  ") + moov + box(b"mdat", bytes(100)))
    return path


def write_special(folder: Path, rng: Random, seeds: dict[str, bytes]) -> str:
    """A path that is no plain file, or a name that is hardly one; its text may hold lone surrogates."""
    ways: dict[str, Callable[[Path], object]] = {
        "fifo.mp4": os.mkfifo,
        "folder.mp4": os.mkdir,
        "loop.mp4": lambda path: path.symlink_to(path.name),
        "dangling.mp4": lambda path: path.symlink_to("nowhere"),
        "device.mp4": lambda path: path.symlink_to("/dev/zero"),
        "null.mp4": lambda path: path.symlink_to("/dev/null"),
        "to_fifo.mp4": lambda path: (os.mkfifo(folder / "f"), path.symlink_to("f")),
        "ring.mp4": lambda path: ((folder / "b").symlink_to(path.name), path.symlink_to("b")),
        "empty.mp4": Path.touch,
        "byte.mp4": lambda path: path.write_bytes(b"\0"),
        "stdin.mp4": lambda path: path.symlink_to("/dev/stdin"),
        "mem.mp4": lambda path: path.symlink_to("/proc/self/mem"),
        "environ.mp4": lambda path: path.symlink_to("/proc/self/environ"),
        "zeros.mp4": lambda path: path.write_bytes(bytes(10**6)),
    }
    names = (
        *(b"a\nb.mp4", b"\x1b[31mred.mp4", b"\xff\xfe\x80.mp4", b"-", b"--help.mp4", b"%d%s%n.mp4", b"a.mp4?x=1", b"a b\t.mp4", b" .mp4"),
        *(b"http:a.mp4", b"concat:a|b.mp4", b"pipe:0.mp4", b"a.\xff\xff", b"a.m\np4", b"a." + b"x" * 240, b"\xe2\x80\xaegpj.mp4", b"a.%03d", b"file:canary.ts"),
    )  # fmt: skip
    if rng.random() < 0.45:
        name = rng.choice(list(ways))
        ways[name](folder / name)
        return str(folder / name)
    if rng.random() < 0.1:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.relpath(folder / "s.mp4"))
        return str(folder / "s.mp4")
    name, data = os.fsdecode(rng.choice(names)), seeds[rng.choice(list(seeds))]
    target = os.path.join(folder, name)
    with open(target, "wb") as file:
        file.write(data if rng.random() < 0.6 else data[: len(data) // 3])
    return target


__all__ = ["CANARIES", "MATRIX", "Bait", "write_list", "write_reference", "write_special"]

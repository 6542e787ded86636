"""Small healthy clips, one of each container, from which the damaged ones are made."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile

from tests.media.clips import even_times, tone, write_video

SECONDS = 2
TIMES = even_times(SECONDS, 10)


def write_seeds(folder: Path) -> dict[str, bytes]:
    """Write the clips and read them back.

    Returns:
        Their bytes, by name: suffix, or something with the suffix at its end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    voice, high = tone(SECONDS), tone(SECONDS, 48_000)
    small = {"size": (64, 48), "rate": 10}
    write_video(folder / "a.mp4", TIMES, sound=voice, **small)
    write_video(folder / "front.mp4", TIMES, sound=voice, container_options={"movflags": "faststart"}, **small)
    pieces = {"movflags": "frag_keyframe+empty_moov"}
    write_video(folder / "pieces.mp4", TIMES, sound=voice, container_options=pieces, gop=5, **small)
    write_video(
        folder / "a.mov", TIMES, codec="png", pix_fmt="rgb24", sound=voice, sound_codec="pcm_s16le", **small
    )
    write_video(folder / "a.mkv", TIMES, sound=voice, **small)
    write_video(folder / "hevc.mkv", TIMES, codec="libx265", sound=voice, sound_codec="flac", **small)
    write_video(
        folder / "a.webm",
        TIMES,
        codec="libvpx-vp9",
        sound=high,
        sound_rate_hz=48_000,
        sound_codec="libopus",
        **small,
    )
    coarse = {**small, "time_base": Fraction(1, 10)}
    write_video(folder / "a.avi", TIMES, codec="mpeg4", sound=voice, sound_codec="libmp3lame", **coarse)
    broadcast = {"codec": "mpeg2video", "rate": 25, "time_base": Fraction(1, 25), "size": (64, 48)}
    write_video(folder / "a.ts", even_times(SECONDS, 25), sound=voice, sound_codec="mp2", **broadcast)
    write_video(folder / "h264.ts", TIMES, sound=voice, **small)
    write_video(
        folder / "a.flv",
        TIMES,
        codec="flv1",
        sound=tone(SECONDS, 22_050),
        sound_rate_hz=22_050,
        sound_codec="libmp3lame",
        **coarse,
    )
    write_video(
        folder / "a.wmv",
        TIMES,
        codec="wmv2",
        sound=tone(SECONDS, 44_100),
        sound_rate_hz=44_100,
        sound_codec="libmp3lame",
        **coarse,
    )
    write_video(folder / "a.nut", TIMES, codec="ffv1", sound=voice, sound_codec="pcm_s16le", **small)
    write_video(folder / "a.mpg", even_times(SECONDS, 25), sound=voice, sound_codec="mp2", **broadcast)
    write_video(folder / "a.mxf", even_times(SECONDS, 25), **broadcast)
    write_video(folder / "a.gif", TIMES, codec="gif", pix_fmt="rgb8", **coarse)
    write_video(folder / "a.mj.avi", TIMES, codec="mjpeg", pix_fmt="yuvj420p", **coarse)
    # Its log goes to stderr from threads of its own.
    os.environ.setdefault("SVT_LOG", "0")
    write_video(folder / "av1.mkv", TIMES, codec="libsvtav1", **small)
    write_video(folder / "a.m4a", sound=voice, format="mp4")
    write_video(folder / "a.mp3", sound=voice, sound_codec="libmp3lame")
    write_video(folder / "opus.ogg", sound=high, sound_rate_hz=48_000, sound_codec="libopus")
    for name in ("a.wav", "a.flac", "a.ogg", "a.aiff"):
        soundfile.write(folder / name, np.stack([voice, voice], axis=1), 16_000)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

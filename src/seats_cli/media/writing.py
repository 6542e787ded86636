"""Frames and samples -> a file; by default the same input gives the same frames and samples again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING, Any

from seats_cli.errors import MediaError
from seats_cli.media.types import Float32, Uint8

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer

CODECS = {
    ".mp4": ("libx264", "aac"),
    ".mkv": ("libx264", "aac"),
    ".mov": ("libx264", "aac"),
    ".webm": ("libvpx-vp9", "libopus"),
    ".wav": (None, "pcm_s16le"),
}
"""File ending -> codecs of picture and sound."""
_OPUS_RATE_HZ = 48_000


def _picture_options(codec: str, quality: int, *, repeatable: bool) -> dict[str, str]:
    if codec == "libx264" and not repeatable:
        return {"crf": str(quality), "preset": "veryfast"}
    if codec == "libx264":
        # x264's macroblock tree reads memory it has not written, so that its output differs now and then.
        return {"crf": str(quality), "preset": "veryfast", "bf": "0", "threads": "1", "x264-params": "mbtree=0"}
    return {"crf": str(quality), "b": "0", "deadline": "realtime", "cpu-used": "6", "threads": "1"}


def write_clip(
    path: str | os.PathLike[str],
    frames: Iterable[Uint8],
    frames_per_second: int,
    waveform: Float32,
    rate_hz: int,
    *,
    quality: int = 23,
    repeatable: bool = True,
) -> None:
    """Write picture and sound, in the codecs that go with the file's ending.

    Args:
        path: Ends in .mp4, .mkv, .mov, .webm or .wav (sound alone); written over if it exists.
        frames: uint8 [height, width, 3], both sides even; none: no picture.
        frames_per_second: Of the frames.
        waveform: float32 [n], mono, in -1..1; empty: no sound.
        rate_hz: Of the samples.
        quality: Constant rate factor of the video codec: 0 is lossless, 51 the worst.
        repeatable: Written alike each time; False: with the encoder's own defaults, B frames and all, as sites do.

    Raises:
        MediaError: The ending is not one of these.
        OSError: The file cannot be written; what is there of it is left.
    """
    import av

    ending = os.path.splitext(os.fspath(path))[1].lower()
    if ending not in CODECS:
        raise MediaError(f"{os.fspath(path)}: clips are written as {', '.join(CODECS)}")
    video_codec, audio_codec = CODECS[ending]
    with av.open(os.fspath(path), "w", options={"fflags": "+bitexact"}) as container:
        pictures = iter(frames)
        first = next(pictures, None) if video_codec else None
        if first is not None and video_codec:
            options = _picture_options(video_codec, quality, repeatable=repeatable)
            video: Any = container.add_stream(video_codec, rate=frames_per_second, options=options)
            video.height, video.width, video.pix_fmt = *first.shape[:2], "yuv420p"
        audio_rate_hz = _OPUS_RATE_HZ if audio_codec == "libopus" else rate_hz
        # The streams of a file are known before its first packet.
        audio: Any = None
        if waveform.size:
            audio = container.add_stream(audio_codec, rate=audio_rate_hz, layout="mono")
        if first is not None:
            for index, image in enumerate(chain([first], pictures)):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, frames_per_second)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if audio is not None:
            _write_sound(container, audio, waveform, rate_hz)


def _write_sound(container: OutputContainer, stream: AudioStream, waveform: Float32, rate_hz: int) -> None:
    import av

    codec: Any = stream.codec_context
    resampler = av.AudioResampler(codec.format.name, "mono", codec.sample_rate, codec.frame_size or 1024)
    frame = av.AudioFrame.from_ndarray(waveform[None].copy(), format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(stream.encode(part))
    container.mux(stream.encode(None))

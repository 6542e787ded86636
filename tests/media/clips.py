"""Clips written in tests. Every frame carries its number in its pixels, every sound says where it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

N_CELLS = 4
CODE_BITS = N_CELLS * N_CELLS - 2
SOUND_RATE_HZ = 16_000

QUIET_ENCODERS: dict[str, dict[str, str]] = {
    "libx264": {"preset": "ultrafast", "crf": "18", "bf": "2"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "0"},
    "libsvtav1": {"preset": "12", "crf": "20"},
    "mpeg4": {"qscale": "2", "bf": "2"},
    "mpeg2video": {"qscale": "2", "bf": "2"},
}


def coded_image(number: int, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """uint8 [h, w, 3]: a 4 x 4 board; first cell white, last black, the others the number's bits."""
    width, height = size
    bits = [1, *((number >> k) & 1 for k in range(CODE_BITS)), 0]
    board = np.array(bits, dtype=np.uint8).reshape(N_CELLS, N_CELLS) * 200 + 25
    rows = np.arange(height) * N_CELLS // height
    columns = np.arange(width) * N_CELLS // width
    return np.repeat(board[rows][:, columns][:, :, None], 3, axis=2)


def read_code(image: np.ndarray) -> int:
    """The number in a picture; -1 if it is not upright or not such a picture."""
    height, width = image.shape[:2]
    cells = [
        image[(2 * row + 1) * height // (2 * N_CELLS), (2 * column + 1) * width // (2 * N_CELLS)].mean()
        for row in range(N_CELLS)
        for column in range(N_CELLS)
    ]
    bits = [cell > 125 for cell in cells]
    if not bits[0] or bits[-1]:
        return -1
    return sum(int(bit) << k for k, bit in enumerate(bits[1:-1]))


def click(seconds: float, at_seconds: float, rate_hz: int = SOUND_RATE_HZ) -> np.ndarray:
    """float32 [n]: silence with one short symmetric burst whose middle is at a time."""
    times = np.arange(round(seconds * rate_hz)) / rate_hz - at_seconds
    return (0.8 * np.exp(-((times / 4e-4) ** 2)) * np.cos(2 * np.pi * 1200 * times)).astype(np.float32)


def loudest_seconds(waveform: np.ndarray) -> float:
    return int(np.abs(waveform).argmax()) / SOUND_RATE_HZ


def tone(seconds: float, rate_hz: int = SOUND_RATE_HZ, frequency_hz: float = 440.0) -> np.ndarray:
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.5 * np.sin(2 * np.pi * frequency_hz * times)).astype(np.float32)


def even_times(seconds: float, fps: Fraction | int) -> list[Fraction]:
    """Presentation times of a constant frame rate."""
    return [Fraction(k) / fps for k in range(round(seconds * fps))]


def write_video(
    path: Path,
    times: Sequence[Fraction] = (),
    *,
    size: tuple[int, int] = (64, 64),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: Fraction | int = 25,
    time_base: Fraction = Fraction(1, 90_000),
    gop: int = 12,
    options: dict[str, str] | None = None,
    format: str | None = None,
    container_options: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    picture: Callable[[int], np.ndarray] | None = None,
    damaged: Collection[int] = (),
    sound: np.ndarray | None = None,
    sound_rate_hz: int = SOUND_RATE_HZ,
    sound_codec: str = "aac",
    sound_start_seconds: float = 0.0,
    sound_holes: Sequence[tuple[float, float]] = (),
    sound_damaged: Collection[int] = (),
) -> Path:
    """Encode frame ``k`` at ``times[k]`` with its number in it, and a mono sound beside it.

    Args:
        path: Written; the suffix names the container unless ``format`` does.
        times: Presentation times in seconds, ascending; none: no picture.
        size: Width and height.
        codec: FFmpeg's encoder.
        pix_fmt: As stored.
        rate: Nominal frame rate; the true one is in ``times``.
        time_base: The encoder's clock.
        gop: Frames between keyframes.
        options: For the encoder, over the quiet defaults.
        format: Container.
        container_options: For the muxer.
        aspect: Of a pixel, if it is not square.
        picture: From frame number to uint8 [h, w, 3]; default ``coded_image``.
        damaged: Numbers of video packets, in stored order, whose bytes are replaced.
        sound: float32 [n].
        sound_rate_hz: Its rate.
        sound_codec: FFmpeg's encoder.
        sound_start_seconds: Presentation time of its first sample.
        sound_holes: (at, length): from the sample at ``at`` seconds on, times are later by ``length``.
        sound_damaged: Numbers of audio packets whose bytes are replaced.
    """
    with av.open(str(path), "w", format=format, container_options=container_options or {}) as out:
        video: Any = None
        if times:
            merged = {**QUIET_ENCODERS.get(codec, {}), "g": str(gop), **(options or {})}
            video = out.add_stream(codec, rate=Fraction(rate), options=merged)
            video.width, video.height, video.pix_fmt = *size, pix_fmt
            video.codec_context.time_base = time_base
            video.codec_context.thread_count = 1
            if aspect is not None:
                video.codec_context.sample_aspect_ratio = aspect
        audio: Any = None
        if sound is not None:
            audio = out.add_stream(sound_codec, rate=sound_rate_hz, layout="mono")
        if video is not None:
            draw = picture or (lambda number: coded_image(number, size))
            _encode_picture(video, times, time_base, draw, _Muxer(out, video, damaged))
        if audio is not None and sound is not None:
            first = round(sound_start_seconds * sound_rate_hz)
            pieces = _pieces(sound, sound_rate_hz, first, sound_holes, audio.codec_context.frame_size or 1024)
            _encode_sound(audio, pieces, sound_rate_hz, _Muxer(out, audio, sound_damaged))
    return path


class _Muxer:
    """Writes the packets of one stream, some of them broken."""

    def __init__(self, out: Any, stream: Any, damaged: Collection[int]) -> None:
        self.out, self.stream, self.damaged, self.number = out, stream, damaged, 0

    def write(self, packets: list[Any]) -> None:
        for packet in packets:
            whole = self.number not in self.damaged
            self.number += 1
            self.out.mux(packet if whole else self.broken(packet))

    def broken(self, packet: Any) -> Any:
        # Decoders vary in what they let pass: this is nothing to any of them.
        other = av.Packet(b"\xa5" * max(16, packet.size))
        other.pts, other.dts, other.time_base = packet.pts, packet.dts, packet.time_base
        other.stream, other.duration, other.is_keyframe = self.stream, packet.duration, packet.is_keyframe
        return other


def _encode_picture(stream: Any, times: Sequence[Fraction], time_base: Fraction, draw: Any, muxer: _Muxer) -> None:
    for number, time in enumerate(times):
        frame = av.VideoFrame.from_ndarray(draw(number), format="rgb24")
        frame.pts, frame.time_base = round(time / time_base), time_base
        muxer.write(stream.encode(frame))
    muxer.write(stream.encode(None))


def _pieces(
    sound: np.ndarray, rate_hz: int, first: int, holes: Sequence[tuple[float, float]], step: int
) -> Iterator[tuple[int, np.ndarray]]:
    """The sound in pieces of a codec's frame size, each with the number of its first sample on the clock."""
    for start in range(0, sound.size, step):
        later = sum(round(length * rate_hz) for at, length in holes if start >= at * rate_hz)
        piece = np.ascontiguousarray(sound[None, start : start + step], dtype=np.float32)
        yield first + start + later, piece


def _encode_sound(stream: Any, pieces: Iterator[tuple[int, np.ndarray]], rate_hz: int, muxer: _Muxer) -> None:
    # Only to the encoder's sample format: rate and layout are the same.
    convert = av.AudioResampler(format=stream.codec_context.format.name, layout="mono", rate=rate_hz)
    for place, piece in pieces:
        frame = av.AudioFrame.from_ndarray(piece, format="flt", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = rate_hz, Fraction(1, rate_hz), place
        for converted in convert.resample(frame):
            converted.pts, converted.time_base = place, Fraction(1, rate_hz)
            muxer.write(stream.encode(converted))
    muxer.write(stream.encode(None))


def has_encoder(codec: str) -> bool:
    try:
        av.codec.Codec(codec, "w")
    except (av.FFmpegError, ValueError):
        return False
    return True


def open_files(path: Path) -> int:
    """How many descriptors of this process are open on a file (Linux)."""
    own = Path("/proc/self/fd")
    count = 0
    for entry in own.iterdir():
        try:
            count += entry.readlink() == path
        except OSError:
            continue
    return count

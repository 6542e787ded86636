"""Sound tracks to blocks of mono samples, with libsndfile or FFmpeg, and to the clip's waveform."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from seats_cli.errors import MediaError
from seats_cli.media.decoding import decode_stream, seek
from seats_cli.media.placing import MAX_SECONDS, Block, Placed, place_blocks
from seats_cli.media.reading import LocalFile
from seats_cli.media.sampling import Part
from seats_cli.media.source import open_container
from seats_cli.media.timeline import as_fraction
from seats_cli.media.types import AudioInfo, Float32

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.container import InputContainer

# Decoders need some packets to settle after a jump, and short ways are not worth one.
_SETTLE_SECONDS = 2.0
_WORTH_SEEKING_SECONDS = 10.0
# Beyond these a header lies: a second would not fit the memory, or a sample would last for long.
_MIN_RATE_HZ, _MAX_RATE_HZ = 100, 4_000_000
# Pointers that FFmpeg keeps in a frame itself.
_MAX_PLANES = 8
# Planes whose mean is one sum.
_PLAIN_CHANNELS = 2
# Values of all channels that libsndfile is asked for at once.
_VALUES_AT_ONCE = 1 << 21
# Where a file's first bytes say what libsndfile reads natively. Not mp3: its decoder there prints to stderr,
# as it does for anything unknown, which is therefore never shown to libsndfile.
_NATIVE_STARTS = (
    (0, b"fLaC"),
    (0, b"OggS"),
    (0, b".snd"),
    (0, b"caff"),
    (0, b"riff\x2e\x91\xcf\x11"),
    (8, b"WAVE"),
    (8, b"AIFF"),
    (8, b"AIFC"),
)


@dataclass(frozen=True, slots=True)
class AudioTrack:
    """A sound track that can be decoded.

    Attributes:
        info: What it is.
        by_soundfile: libsndfile reads it; FFmpeg otherwise.
        notes: Warnings that come with choosing it.
        by_header: See ``source.header_tells_streams``.
    """

    info: AudioInfo
    by_soundfile: bool = False
    notes: tuple[str, ...] = ()
    by_header: bool = False


@dataclass(slots=True, eq=False)
class Heard:
    """What came out of a sound track.

    Attributes:
        waveform: float32 [n], mono, 16 kHz, from the start of the used part.
        placed: What placing did to it.
        n_lost: Packets that could not be decoded.
        broke_off: The decoder's words if it gave up before the end; empty otherwise.
    """

    waveform: Float32
    placed: Placed
    n_lost: int
    broke_off: str


@dataclass(slots=True)
class _Trouble:
    n_lost: int = 0
    broke_off: str = ""


def rate_is_possible(rate_hz: int) -> bool:
    """Whether sound at this rate is read."""
    return _MIN_RATE_HZ <= rate_hz <= _MAX_RATE_HZ


def impossible_rate(rate_hz: int) -> str:
    """What is said of another rate."""
    return f"the sound states {rate_hz:,} samples a second; {_MIN_RATE_HZ:,} to {_MAX_RATE_HZ:,} are read"


def to_mono(values: npt.NDArray[Any]) -> tuple[Float32, int]:
    """Mean of the channels, in -1..1.

    The mean, not FFmpeg's own mix: that one raises equal channels by 3 dB when the output is floating point,
    and the models' reference preprocessing averages.

    Args:
        values: [channels, n], of any sample type: 8 bits unsigned, wider integers signed, or floats.

    Returns:
        float32 [n], and how many values were not finite and are 0 now.
    """
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            scaled = values.astype(np.float32)
    else:
        bits = 8 * values.dtype.itemsize
        offset = 2.0 ** (bits - 1) if values.dtype.kind == "u" else 0.0
        scaled = ((values.astype(np.float64) - offset) / 2.0 ** (bits - 1)).astype(np.float32)
    n_bad = 0
    # One sum tells that all are finite, which they nearly always are.
    if not np.isfinite(scaled.sum(dtype=np.float64)):
        bad = ~np.isfinite(scaled)
        n_bad = int(bad.sum())
        scaled = np.where(bad, np.float32(0), scaled)
    return scaled[0] if len(scaled) == 1 else scaled.mean(axis=0, dtype=np.float32), n_bad


class Packer:
    """Puts the planes of a frame into one where PyAV cannot be asked for them."""

    def __init__(self) -> None:
        self._key: tuple[str, str, int] | None = None
        self._resampler: Any = None

    def one_plane(self, frame: AudioFrame) -> AudioFrame:
        """The frame, or if its planes cannot be read one of the same samples side by side.

        PyAV counts planes up to an empty one. Of eight or more none is empty: it reads what lies behind them,
        and the process dies, as with any sound of 7.1 channels in aac.

        Raises:
            ValueError: It cannot be done.
        """
        import av

        if not frame.format.is_planar or frame.layout.nb_channels < _MAX_PLANES:
            return frame
        key = (frame.format.name, frame.layout.name, frame.sample_rate)
        try:
            if key != self._key:
                self._key, self._resampler = None, av.AudioResampler(format=frame.format.packed)
            (packed,) = self._resampler.resample(frame)
        except av.FFmpegError as error:
            raise ValueError(str(error)) from None
        self._key = key
        return cast("AudioFrame", packed)


def frame_block(frame: AudioFrame, packer: Packer) -> Block | None:
    """A decoded audio frame as a block; None if its samples are of a type that PyAV does not hand out."""
    samples, n_bad = _plain_mono(frame), 0
    if samples is None:
        try:
            plain = packer.one_plane(frame)
            values = plain.to_ndarray()
        except ValueError:
            return None
        if not plain.format.is_planar:
            values = values.reshape(-1, plain.layout.nb_channels).T
        samples, n_bad = to_mono(values)
    start, time_base = None, frame.time_base
    if frame.pts is not None and time_base is not None:
        start = frame.pts * time_base.numerator / time_base.denominator
    return Block(samples, frame.sample_rate, start, n_bad)


def _plain_mono(frame: AudioFrame) -> Float32 | None:
    """``to_mono`` of what most decoders give, without what it costs for each of thousands of frames; else None."""
    if frame.format.name != "fltp" or frame.layout.nb_channels > _PLAIN_CHANNELS:
        return None
    planes: list[Float32] = [np.frombuffer(cast("Any", p), np.float32, frame.samples) for p in frame.planes]
    with np.errstate(over="ignore", invalid="ignore"):
        mono = (planes[0] + planes[1]) / np.float32(2) if len(planes) == _PLAIN_CHANNELS else planes[0].copy()
        # Not finite if one of them is not, and for values that are too large to be sound.
        plain = np.isfinite(mono.dot(mono))
    return mono if plain else None


def _unambiguous(path: str) -> str:
    """A path that libsndfile cannot take for standard input, as it does ``-``."""
    return os.path.abspath(path)


def open_soundfile_track(path: str) -> AudioTrack | None:
    """The track of a file that libsndfile reads natively (wav, flac, ogg, aiff, ...); None if it does not.

    Raises:
        MediaError: Its header states a rate that cannot be.
    """
    import soundfile

    with LocalFile(path) as file:
        head = file.read(16)
        size_bytes = file.seek(0, os.SEEK_END)
    if not any(head.startswith(name, place) for place, name in _NATIVE_STARTS):
        return None
    try:
        with soundfile.SoundFile(_unambiguous(path)) as sound:
            rate_hz, seconds = int(sound.samplerate), sound.frames / sound.samplerate
            info = AudioInfo(sound.subtype.lower(), rate_hz, int(sound.channels), 0.0, seconds, 0)
    except (soundfile.SoundFileError, TypeError, ValueError):
        return None
    if not rate_is_possible(rate_hz):
        raise MediaError(f"{path}: {impossible_rate(rate_hz)}", "the file may be damaged")
    # libsndfile takes what is there for the whole; writers that do not know the size leave 0 or a number
    # that is never reached.
    stated_bytes = int.from_bytes(head[4:8], "little") + 8 if head.startswith(b"RIFF") else 0
    cut_short = size_bytes < stated_bytes < 2**31
    notes = (f"the file was cut short; {seconds:.2f} s of sound are there",) if cut_short else ()
    return AudioTrack(info, by_soundfile=True, notes=notes)


def _read_soundfile(path: str, begin_seconds: float, trouble: _Trouble) -> Generator[Block]:
    """Decode with libsndfile, from a time on, a second at a time or less."""
    import soundfile

    try:
        with soundfile.SoundFile(_unambiguous(path)) as sound:
            rate_hz = int(sound.samplerate)
            position = min(int(begin_seconds * rate_hz), int(sound.frames))
            sound.seek(position)
            step = max(1, min(rate_hz, _VALUES_AT_ONCE // sound.channels))
            while (values := sound.read(step, dtype="float32", always_2d=True)).size:
                samples, n_bad = to_mono(values.T)
                yield Block(samples, rate_hz, position / rate_hz, n_bad)
                position += samples.size
            if position < sound.frames:
                trouble.broke_off = f"after {position / rate_hz:.2f} of {sound.frames / rate_hz:.2f} s"
    except soundfile.SoundFileError as error:
        trouble.broke_off = str(error)


def _read_ffmpeg(path: str, track: AudioTrack, seek_seconds: float | None, trouble: _Trouble) -> Generator[Block]:
    """Decode with FFmpeg, past packets that cannot be decoded; from a time on the container's clock."""
    stream_index = track.info.stream_index
    with open_container(path, by_header=track.by_header) as container:
        if seek_seconds is not None:
            time_base = as_fraction(container.streams[stream_index].time_base)
            if time_base is None or not seek(container, stream_index, int(seek_seconds / time_base)):
                return
        packer = Packer()
        with closing(_decoded(container, stream_index, trouble)) as frames:
            for frame in frames:
                block = frame_block(frame, packer)
                if block is not None:
                    yield block
                else:
                    trouble.n_lost += 1


def _decoded(container: InputContainer, stream_index: int, trouble: _Trouble) -> Generator[AudioFrame]:
    """All frames with samples in them, from where the container stands to where it breaks off."""
    import av

    def lose() -> None:
        trouble.n_lost += 1

    # Audio decoders have no use for threads.
    frames = cast("Generator[AudioFrame]", decode_stream(container, stream_index, 1, lose))
    try:
        with closing(frames):
            for frame in frames:
                if frame.samples and rate_is_possible(frame.sample_rate):
                    yield frame
                elif frame.samples:
                    lose()
    except (av.FFmpegError, OSError) as error:
        trouble.broke_off = getattr(error, "strerror", None) or str(error)


def read_first_format(path: str, stream_index: int) -> tuple[int, int]:
    """Sample rate and channels of the first frame that can be decoded; zeros if none can."""
    with (
        open_container(path) as container,
        closing(_decoded(container, stream_index, _Trouble())) as frames,
    ):
        for frame in frames:
            return frame.sample_rate, frame.layout.nb_channels
    return 0, 0


def _read_from(
    path: str, track: AudioTrack, part: Part, origin_seconds: float | None, trouble: _Trouble
) -> Generator[Block]:
    """Blocks of a track, begun shortly before the used part where the container can go there."""
    if track.by_soundfile:
        yield from _read_soundfile(path, part.start_seconds, trouble)
        return
    # Only beside a picture: times after a jump are guesses in bare mp3 and aac.
    if origin_seconds is not None and part.start_seconds > _WORTH_SEEKING_SECONDS:
        goal = origin_seconds + part.start_seconds
        with closing(_read_ffmpeg(path, track, goal - _SETTLE_SECONDS, trouble)) as blocks:
            first = next(blocks, None)
            if first is not None and first.start_seconds is not None and first.start_seconds <= goal:
                yield first
                yield from blocks
                return
        trouble.n_lost, trouble.broke_off = 0, ""
    yield from _read_ffmpeg(path, track, None, trouble)


def hear(path: str, track: AudioTrack, part: Part, origin_seconds: float | None) -> Heard:
    """Decode the used part of a sound track, all of it.

    Args:
        path: The file.
        track: Which track.
        part: The used part, from the clip's start.
        origin_seconds: The clip's start on the container's clock; None: where the track starts.

    Returns:
        The waveform and what happened to it. Damage is counted, not raised.

    Raises:
        MediaError: The part is longer than what is held.
        TimeLimitError: The time is over.
    """
    trouble = _Trouble()
    if track.by_soundfile:
        origin_seconds = 0.0
    with closing(_read_from(path, track, part, origin_seconds, trouble)) as blocks:
        waveform, placed = place_blocks(blocks, origin_seconds, part.start_seconds, part.end_seconds)
    if placed.too_long:
        hours = f"more than {MAX_SECONDS / 3600:g} hours of sound"
        raise MediaError(f"{path}: {hours}", "choose a part with --start and --end, or use --audio off")
    return Heard(waveform, placed, trouble.n_lost, trouble.broke_off)

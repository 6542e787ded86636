"""What a file holds: which streams are taken, and when their packets are due."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from seats_cli.errors import MediaError
from seats_cli.media.audio import (
    AudioTrack,
    impossible_rate,
    open_soundfile_track,
    rate_is_possible,
    read_first_format,
)
from seats_cli.media.boxes import read_mp4_facts
from seats_cli.media.decoding import MAX_PIXELS
from seats_cli.media.frames import FirstFrame, FirstLook
from seats_cli.media.reading import unreadable
from seats_cli.media.source import NotMediaError, check_path, header_tells_streams, open_container
from seats_cli.media.timeline import MAX_PACKETS, Timeline, as_fraction, scan_timelines, too_many_packets
from seats_cli.media.types import AudioInfo, VideoInfo

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.codec import CodecContext
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

NO_AUDIO_TRACK = "no audio track"

# Formats whose headers state a length that can be trusted; the others' is an estimate.
_STATES_LENGTH = {"matroska", "avi", "flv"}
_SHORT_SECONDS, _SHORT_SHARE = 1.0, 0.05
_LISTED = 8


@dataclass(frozen=True, slots=True, eq=False)
class VideoTrack:
    """A picture track that can be decoded.

    Attributes:
        info: What it is.
        timeline: When its frames are due.
        first: What its first frame tells.
        by_header: See ``source.header_tells_streams``.
        notes: Warnings that come with it.
    """

    info: VideoInfo
    timeline: Timeline
    first: FirstFrame
    by_header: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """What of a file can be used.

    Attributes:
        video: The picture, if there is one.
        audio: The sound, if it can be decoded.
        audio_problem: Why there is no sound; empty if there is.
        notes: Warnings about the file as a whole.
    """

    video: VideoTrack | None
    audio: AudioTrack | None
    audio_problem: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A stream's facts, copied: PyAV's objects are void once the container is closed."""

    index: int
    codec: str | None
    notes: tuple[str, ...]
    width: int = 0
    height: int = 0
    sample_rate_hz: int = 0
    channels: int = 0
    start_seconds: float | None = None
    by_header: bool = False


def probe(path: str) -> Probe:
    """Find out what of a file can be seen and heard.

    Args:
        path: Any path.

    Raises:
        MediaError: It is no media, has no stream to decode, or its picture is encrypted or damaged
            throughout.
    """
    check_path(path)
    try:
        return _probe_ffmpeg(path)
    except NotMediaError:
        track = open_soundfile_track(path)
        if track is None:
            raise
        return Probe(None, track, "")


def _probe_ffmpeg(path: str) -> Probe:
    try:
        facts = read_mp4_facts(path)
    except OSError as error:
        raise unreadable(path, error) from None
    if facts is not None and facts.n_packets > MAX_PACKETS:
        raise too_many_packets(path)
    with open_container(path) as container:
        if "mov" not in container.format.name.split(","):
            facts = None
        encrypted = facts.encrypted if facts is not None else frozenset()
        video_stream, video = _choose(container, "video", _copy_video)
        audio_stream, audio = _choose(container, "audio", _copy_audio)
        if video is not None:
            _refuse_undecodable(path, video, "video" in encrypted)
        streams = [stream for stream in (video_stream, audio_stream) if stream is not None]
        if not streams:
            raise MediaError(f"{path}: no video or audio stream in it", "give a video or audio file")
        look = FirstLook(cast("VideoStream", video_stream)) if video is not None else None
        timelines, broke_off = scan_timelines(path, container, streams, None if look is None else look.see)
        notes = _length_notes(container, timelines, broke_off, facts is not None and facts.broken_off)
    first = look.found if look is not None else None
    video_track = _video_track(path, video, timelines, first) if video is not None else None
    if audio is None:
        return Probe(video_track, None, NO_AUDIO_TRACK, notes)
    if video is None and (native := open_soundfile_track(path)) is not None:
        info = replace(native.info, codec=audio.codec or native.info.codec)
        return Probe(None, replace(native, info=info), "", notes)
    audio_track, problem = _audio_track(path, audio, timelines.get(audio.index), "audio" in encrypted)
    if video_track is None and audio_track is None:
        raise MediaError(f"{path}: {problem}", "check that a player plays its sound")
    return Probe(video_track, audio_track, problem, notes)


def _choose(
    container: InputContainer,
    kind: Literal["video", "audio"],
    copy: Callable[[Any, tuple[str, ...]], _Chosen],
) -> tuple[Stream | None, _Chosen | None]:
    """FFmpeg's choice among the streams of a kind that play, and a note if there were others.

    A cover picture or a strip of thumbnails does not play. A stream without a decoder is taken only when
    there is none with one.
    """
    from av.stream import Disposition

    still = Disposition.attached_pic | Disposition.timed_thumbnails
    playing = [s for s in container.streams if s.type == kind and not s.disposition & still]
    decodable = [s for s in playing if _has_decoder(s)] or playing
    if not decodable:
        return None, None
    best = container.streams.best(kind)
    indices = [s.index for s in decodable]
    chosen = best if best is not None and best.index in indices else decodable[0]
    others = _listed([_describe(s) for s in playing if s.index != chosen.index])
    notes = (f"{kind} stream {_describe(chosen)} is used, not {others}",) if others else ()
    return chosen, copy(chosen, notes)


def _listed(names: list[str]) -> str:
    """The names with commas; of many the first few."""
    left = len(names) - _LISTED
    return ", ".join([*names[:_LISTED], *([f"{left} more"] if left > 0 else [])])


def _has_decoder(stream: Stream) -> bool:
    # None without a decoder, whatever PyAV's stubs say.
    context: CodecContext | None = stream.codec_context
    return context is not None


def _describe(stream: Any) -> str:
    if not _has_decoder(stream):
        return f"{stream.index} (no decoder)"
    context = stream.codec_context
    size = f"{context.width}x{context.height}" if stream.type == "video" else f"{context.sample_rate} Hz"
    return f"{stream.index} ({context.codec.canonical_name}, {size})"


def _copy_video(stream: VideoStream, notes: tuple[str, ...]) -> _Chosen:
    if not _has_decoder(stream):
        return _Chosen(stream.index, None, notes)
    aspect = as_fraction(stream.sample_aspect_ratio)
    if aspect is not None and aspect != 1:
        shape = f"{aspect.numerator}:{aspect.denominator}"
        notes = (*notes, f"pixels are not square ({shape}); they are used as stored")
    context = stream.codec_context
    return _Chosen(
        stream.index,
        context.codec.canonical_name,
        notes,
        context.width,
        context.height,
        by_header=header_tells_streams(stream.container),
    )


def _copy_audio(stream: AudioStream, notes: tuple[str, ...]) -> _Chosen:
    if not _has_decoder(stream):
        return _Chosen(stream.index, None, notes)
    context, time_base = stream.codec_context, as_fraction(stream.time_base)
    start = stream.start_time
    start_seconds = float(start * time_base) if start is not None and time_base is not None else None
    rate_hz, channels = context.sample_rate or 0, context.layout.nb_channels
    return _Chosen(
        stream.index,
        context.codec.canonical_name,
        notes,
        sample_rate_hz=rate_hz,
        channels=channels,
        start_seconds=start_seconds,
        by_header=header_tells_streams(stream.container),
    )


def _refuse_undecodable(path: str, video: _Chosen, encrypted: bool) -> None:
    if encrypted:
        hint = "copy-protected files cannot be read; use an unprotected one"
        raise MediaError(f"{path}: the picture is encrypted", hint)
    if video.codec is None:
        hint = "convert it to h264 first"
        raise MediaError(f"{path}: there is no decoder for its video stream", hint)
    if video.width * video.height > MAX_PIXELS:
        size = f"pictures of {video.width:,} x {video.height:,} pixels; at most {MAX_PIXELS:,} are decoded"
        raise MediaError(f"{path}: {size}", "scale it down first")


def _length_notes(
    container: InputContainer, timelines: dict[int, Timeline], broke_off: str | None, cut_short: bool
) -> tuple[str, ...]:
    """A warning if the file holds clearly less than it states."""
    import av

    starts = [t.start_seconds for t in timelines.values()]
    ends = [t.start_seconds + t.duration_seconds for t in timelines.values()]
    end = max(ends, default=0.0)
    found = end - min(starts, default=0.0)
    if broke_off is not None:
        return (f"reading broke off after {found:.2f} s: {broke_off}",)
    if cut_short:
        return (f"the file was cut short; {found:.2f} s of it are there",)
    # The stated length is that of the longest stream, so all of them must have been looked at; it counts
    # from the first frame in some formats and from time 0 in others.
    comparable = _STATES_LENGTH & set(container.format.name.split(",")) and len(container.streams) == len(starts)
    stated = (container.duration or 0) / av.time_base if comparable else 0.0
    if stated - max(found, end) > max(_SHORT_SECONDS, _SHORT_SHARE * stated):
        return (f"the file states {stated:.2f} s, but only {found:.2f} s of it are there",)
    return ()


def _video_track(
    path: str, video: _Chosen, timelines: dict[int, Timeline], first: FirstFrame | None
) -> VideoTrack:
    timeline = timelines.get(video.index)
    if timeline is None:
        raise MediaError(f"{path}: its video stream holds no frames", "the file may be damaged")
    if first is None:
        hint = f"it may be damaged, encrypted, or above {MAX_PIXELS:,} pixels a picture; see if a player shows it"
        raise MediaError(f"{path}: not one frame of the video stream can be decoded", hint)
    orientation, notes = first.orientation, list(video.notes)
    if abs(orientation.off_degrees) > 1:
        asked = 90 * orientation.clockwise_turns + orientation.off_degrees
        notes.append(f"the picture is meant to be turned by {asked:.0f} degrees; the nearest quarter turn is used")
    if timeline.assumed_fps is not None:
        notes.append(f"the file has no times; {timeline.assumed_fps:g} frames per second are assumed")
    n_frames = int(timeline.ticks.size)
    turned = orientation.clockwise_turns % 2 == 1
    info = VideoInfo(
        codec=video.codec or "unknown",
        width=first.height if turned else first.width,
        height=first.width if turned else first.height,
        rotation_degrees=90 * orientation.clockwise_turns,
        average_fps=n_frames / timeline.duration_seconds,
        start_seconds=timeline.start_seconds,
        duration_seconds=timeline.duration_seconds,
        n_source_frames=n_frames,
        stream_index=video.index,
    )
    return VideoTrack(info, timeline, first, video.by_header, tuple(notes))


def _audio_track(
    path: str, audio: _Chosen, timeline: Timeline | None, encrypted: bool
) -> tuple[AudioTrack | None, str]:
    """The sound track, or why there is none."""
    if encrypted:
        return None, "the audio track is encrypted"
    if audio.codec is None:
        return None, "there is no decoder for the audio track"
    if timeline is None:
        return None, "the audio track is empty"
    rate_hz, channels = audio.sample_rate_hz, audio.channels
    if rate_hz < 1 or channels < 1:
        # FFmpeg looks at the first seconds only, where a late track may have nothing yet.
        rate_hz, channels = read_first_format(path, audio.index)
    if rate_hz < 1 or channels < 1:
        return None, "the audio track cannot be decoded"
    if not rate_is_possible(rate_hz):
        return None, impossible_rate(rate_hz)
    # The first packets may hold samples that only warm the decoder up; the stream's start is after them.
    end = timeline.start_seconds + timeline.duration_seconds
    start = timeline.start_seconds
    if audio.start_seconds is not None:
        start = max(start, audio.start_seconds)
    info = AudioInfo(audio.codec, rate_hz, channels, start, max(end - start, 0.0), audio.index)
    return AudioTrack(info, notes=audio.notes, by_header=audio.by_header), ""

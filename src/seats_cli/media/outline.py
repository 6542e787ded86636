"""A file as an outline: what is used of it and how much that is, without decoding its sound or its frames."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np

from seats_cli.config import Decoder, MediaOptions
from seats_cli.errors import MediaError, UsageError
from seats_cli.media.decoders import check_decoder
from seats_cli.media.frames import Losses
from seats_cli.media.pictures import pictures
from seats_cli.media.probe import NO_AUDIO_TRACK, Probe, VideoTrack, probe
from seats_cli.media.sampling import Part, choose_pts, make_plan, used_part
from seats_cli.media.timeline import Int64
from seats_cli.media.types import SAMPLE_RATE_HZ, AudioInfo, Outline, SamplingPlan, VideoInfo
from seats_cli.media.wanted import Wanted

# Six weeks; the clock of an MPEG transport stream, which may jump once, has a day.
_MAX_PICTURE_SECONDS = 1000 * 3600.0
DAMAGED_HINT = "convert or copy the file again, or leave the sound out with --audio off"


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """The picture in the used part: when it is looked at, and which source frames that takes.

    Attributes:
        track: Where it comes from.
        plan: When it is looked at.
        wanted_ticks: int64 [plan.n_frames], the times of the nearest source frames.
        start_seconds: Begin of the used part, from the first frame.
        seconds: Its length.
        decoder: By which it is decoded.
    """

    track: VideoTrack
    plan: SamplingPlan
    wanted_ticks: Int64
    start_seconds: float
    seconds: float
    decoder: Decoder = "pyav"

    def wanted(self, path: str) -> Wanted:
        """What of its file is decoded."""
        track = self.track
        return Wanted(
            path,
            track.info.stream_index,
            track.info.codec,
            track.timeline,
            track.first,
            self.wanted_ticks,
            self.decoder,
            track.by_header,
        )

    @property
    def n_decoded(self) -> int:
        """Source frames that are decoded to get at the wanted ones: from the keyframe before them to the last."""
        timeline, (first, last) = self.track.timeline, self.wanted_ticks[[0, -1]]
        keys = timeline.keyframe_ticks[timeline.keyframe_ticks <= first]
        begin = keys[-1] if keys.size and not timeline.by_order else timeline.ticks[0]
        return int(np.count_nonzero((timeline.ticks >= begin) & (timeline.ticks <= last)))


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """What packet times tell of a file: the part that is used, and its picture.

    Attributes:
        path: The file.
        found: Its streams.
        part: What of it is used.
        picture: None: nothing is seen.
        notes: Warnings so far.
        picture_ended: A warning that belongs behind those of the sound; empty if there is none.
    """

    path: str
    found: Probe
    part: Part
    picture: Picture | None
    notes: tuple[str, ...]
    picture_ended: str

    @property
    def has_audio_track(self) -> bool:
        """Whether the file has sound, heard or not."""
        return self.found.audio is not None or self.found.audio_problem != NO_AUDIO_TRACK

    @property
    def origin_seconds(self) -> float | None:
        """The clip's start on the container's clock; None: where its sound starts."""
        return self.found.video.info.start_seconds if self.found.video is not None else None


@dataclass(frozen=True, slots=True, eq=False)
class ClipOutline:
    """A file, or a change of one, as ``types.Outline`` wants it.

    Attributes:
        path: The file.
        video: The picture's source; None: nothing is seen.
        audio: The sound's source; None: nothing is heard.
        plan: When the picture is looked at.
        seconds_video: Length of the picture in the used part.
        n_samples: Samples at 16 kHz that the sound is expected to have.
        has_audio_track: Whether the file has sound, heard or not.
        warnings: A line each.
        picture: What decoding it will take; None: not known, or nothing to see.
    """

    path: str
    video: VideoInfo | None
    audio: AudioInfo | None
    plan: SamplingPlan | None
    seconds_video: float
    n_samples: int
    has_audio_track: bool
    warnings: list[str] = field(default_factory=list)
    picture: Picture | None = None

    @property
    def seconds_audio(self) -> float:
        """Length of the sound; 0 without one."""
        return self.n_samples / SAMPLE_RATE_HZ

    @property
    def decoded_pixels(self) -> int:
        """Pixels of all source frames that are decoded to get at the wanted ones; 0 where that is not known."""
        if self.picture is None or self.video is None:
            return 0
        return self.picture.n_decoded * self.video.width * self.video.height


def sketch_clip(path: str | os.PathLike[str], options: MediaOptions) -> Sketch:
    """Choose the streams of a file and plan its frames.

    Raises:
        MediaError: The file cannot be read or seen.
        UsageError: The part asked for is not in the clip, or ``--audio off`` leaves nothing.
    """
    name = os.fsdecode(path)
    if options.nothing:
        raise UsageError(f"{name}: neither its picture nor its sound is to be used")
    check_decoder(options.decoder)
    found = probe(name)
    if found.video is None and options.audio == "off":
        raise UsageError(f"{name} has no picture, and --audio off leaves nothing", "leave --audio off out")
    video_seconds = found.video.info.duration_seconds if found.video is not None else 0.0
    clip_seconds = max(video_seconds, _audio_end_seconds(found) if options.audio != "off" else 0.0)
    part, cut = used_part(clip_seconds, options.start_seconds, options.end_seconds)
    seen = found.video if options.picture == "auto" else None
    picture = None if seen is None else _plan_picture(name, seen, part, options)
    ended = f"the picture ends after {video_seconds:.2f} s: the answer is from the sound alone"
    return Sketch(
        path=name,
        found=found,
        part=part,
        picture=picture,
        notes=(*found.notes, *(seen.notes if seen is not None else ()), *cut),
        picture_ended=ended if seen is not None and picture is None else "",
    )


def unheard(sketch: Sketch, why: str, options: MediaOptions) -> str:
    """The warning that a clip is not heard.

    Raises:
        MediaError: Something had to be heard.
    """
    if options.require_audio or sketch.picture is None:
        raise MediaError(f"{sketch.path}: {why}", "check that a player plays its sound")
    return f"{why}: the answer is from the picture alone"


def outline_clip(path: str | os.PathLike[str], options: MediaOptions) -> ClipOutline:
    """A clip as ``open_clip`` will find it, from its packets' times; nothing but the first frame is decoded.

    Frames and grids are those of ``open_clip``. The length of the sound is what the packets say: codecs that pad
    their last packet, or need some to warm up, give up to a tenth of a second less or more. Packets that cannot be
    decoded, and clocks that jump and are not believed, show only when the sound is decoded.

    Args:
        path: A local regular file.
        options: What of it is used.

    Raises:
        MediaError: The file cannot be read, seen or heard as asked.
        UsageError: The part asked for is not in the clip, or ``--audio off`` leaves nothing.
    """
    sketch = sketch_clip(path, options)
    n_samples, lines = _expected_sound(sketch, options)
    audio = sketch.found.audio
    return ClipOutline(
        path=sketch.path,
        video=sketch.picture.track.info if sketch.picture is not None else None,
        audio=audio.info if audio is not None and n_samples else None,
        plan=sketch.picture.plan if sketch.picture is not None else None,
        seconds_video=sketch.picture.seconds if sketch.picture is not None else 0.0,
        n_samples=n_samples,
        has_audio_track=sketch.has_audio_track,
        warnings=[*sketch.notes, *lines, *filter(None, [sketch.picture_ended])],
        picture=sketch.picture,
    )


def with_less(clip: Outline, fps: float, *, max_frames: int, share: float = 1.0) -> ClipOutline:
    """An outline of a clip's first part, seen in fewer frames: what ``--end`` or ``--max-frames`` make of it.

    Args:
        clip: As it is.
        fps: Frames per second asked for.
        max_frames: Most frames.
        share: Of its length, above 0 and at most 1.
    """
    seconds = clip.seconds_video * share
    return ClipOutline(
        path=clip.path,
        video=clip.video,
        audio=clip.audio,
        plan=None if clip.plan is None else make_plan(seconds, fps, max_frames),
        seconds_video=seconds,
        n_samples=round(clip.seconds_audio * share * SAMPLE_RATE_HZ),
        has_audio_track=clip.has_audio_track,
    )


def decoding_rate(outline: ClipOutline, most_seconds: float) -> float | None:
    """Source pixels decoded per second, found by decoding the clip's picture for a while.

    Args:
        outline: Of a file.
        most_seconds: When to stop, looked at after each frame of the plan.

    Returns:
        None without a picture, or where none of it can be decoded.
    """
    if outline.picture is None or outline.video is None:
        return None
    begun, n_shown = time.perf_counter(), 0
    frames = pictures(outline.picture.wanted(outline.path), Losses(), None)
    try:
        with closing(frames):
            for _ in frames:
                n_shown += 1
                if time.perf_counter() - begun > most_seconds:
                    break
    except MediaError:
        return None
    spent = time.perf_counter() - begun
    if not n_shown or not spent:
        return None
    done = replace(outline.picture, wanted_ticks=outline.picture.wanted_ticks[:n_shown]).n_decoded
    return done * outline.video.width * outline.video.height / spent


def _audio_end_seconds(found: Probe) -> float:
    """When the sound ends, from the clip's start: the first frame, or without one the first sample."""
    if found.audio is None:
        return 0.0
    info = found.audio.info
    origin = found.video.info.start_seconds if found.video is not None else info.start_seconds
    return info.start_seconds - origin + info.duration_seconds


def _plan_picture(path: str, track: VideoTrack, part: Part, options: MediaOptions) -> Picture | None:
    seconds = part.length_within(track.info.duration_seconds)
    if seconds == 0.0:
        return None
    if seconds > _MAX_PICTURE_SECONDS:
        spread = f"the times of its pictures are spread over {seconds / 3600:,.0f} hours"
        hint = "they may be damaged: choose a part with --start and --end, or have another tool write them anew"
        raise MediaError(f"{path}: {spread}", hint)
    plan = make_plan(seconds, options.fps, options.max_frames)
    chosen = choose_pts(track.timeline.pts_seconds, plan.times_seconds + part.start_seconds)
    return Picture(track, plan, track.timeline.ticks[chosen], part.start_seconds, seconds, options.decoder)


def _expected_sound(sketch: Sketch, options: MediaOptions) -> tuple[int, Sequence[str]]:
    """Samples at 16 kHz from the start of the used part, and warnings."""
    if options.audio == "off":
        return 0, ()
    found = sketch.found
    if found.audio is None:
        broken = found.audio_problem != NO_AUDIO_TRACK
        if broken and options.audio == "on":
            raise MediaError(f"{sketch.path}: {found.audio_problem}", DAMAGED_HINT)
        return 0, (unheard(sketch, found.audio_problem, options),)
    info = found.audio.info
    origin = 0.0 if found.audio.by_soundfile else sketch.origin_seconds
    begins = 0.0 if origin is None else info.start_seconds - origin
    end = begins + info.duration_seconds
    stop = end if sketch.part.end_seconds is None else min(sketch.part.end_seconds, end)
    start = sketch.part.start_seconds
    # Silence alone, before the first sample, is nothing that could be heard.
    n_samples = round(stop * SAMPLE_RATE_HZ) - round(start * SAMPLE_RATE_HZ) if stop > max(start, begins) else 0
    if n_samples <= 0:
        return 0, (unheard(sketch, "there is no sound in the part used", options),)
    return n_samples, found.audio.notes

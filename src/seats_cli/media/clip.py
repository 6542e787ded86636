"""A file as a clip: what is used of it, its frames as they are asked for, its sound at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from seats_cli.config import MediaOptions
from seats_cli.errors import MediaError, UsageError
from seats_cli.media.audio import Heard, hear
from seats_cli.media.frames import Losses, pick_frames, to_rgb
from seats_cli.media.probe import NO_AUDIO_TRACK, Probe, VideoTrack, probe
from seats_cli.media.sampling import Part, choose_pts, make_plan, used_part
from seats_cli.media.timeline import Int64
from seats_cli.media.types import SAMPLE_RATE_HZ, AudioInfo, Clip, Float32, Frame, SamplingPlan, VideoInfo
from seats_cli.timelimit import check_time

# Six weeks; the clock of an MPEG transport stream, which may jump once, has a day.
_MAX_PICTURE_SECONDS = 1000 * 3600.0
_DAMAGED_HINT = "convert or copy the file again, or leave the sound out with --audio off"


@dataclass(frozen=True, slots=True, eq=False)
class _Picture:
    """The picture in the used part: when it is looked at, and which source frames that takes.

    Attributes:
        track: Where it comes from.
        plan: When it is looked at.
        wanted_ticks: int64 [plan.n_frames], the times of the nearest source frames.
        start_seconds: Begin of the used part, from the first frame.
        seconds: Its length.
    """

    track: VideoTrack
    plan: SamplingPlan
    wanted_ticks: Int64
    start_seconds: float
    seconds: float


@dataclass(slots=True, eq=False)
class FileClip:
    """A file, opened by ``open_clip``; see ``types.Clip``. Holds the waveform, and no frame."""

    path: str
    video: VideoInfo | None
    audio: AudioInfo | None
    plan: SamplingPlan | None
    warnings: list[str]
    has_audio_track: bool
    _picture: _Picture | None
    _waveform: Float32

    @property
    def seconds_video(self) -> float:
        """Length of the picture in the used part; 0 without one."""
        return self._picture.seconds if self._picture is not None else 0.0

    @property
    def seconds_audio(self) -> float:
        """Length of the waveform; 0 without one."""
        return self._waveform.size / SAMPLE_RATE_HZ

    def waveform(self) -> Float32:
        """float32 [n], mono, 16 kHz, from the start of the used part; empty if nothing is to be heard."""
        return self._waveform

    def frames(self) -> Iterator[Frame]:
        """Decode and yield exactly ``plan.n_frames`` frames in order; callable again.

        The file is open while the iterator is alive and closed when it ends, fails or is closed.

        Raises:
            MediaError: The file is gone by now, or no frame of the part can be decoded.
        TimeLimitError: The time is over.
        """
        if self._picture is None:
            return
        track, losses = self._picture.track, Losses()
        timeline = track.timeline
        origin_ticks = int(timeline.ticks[0])
        wanted = self._picture.wanted_ticks
        shown_ticks: int | None = None
        with closing(pick_frames(self.path, track.info.stream_index, timeline, wanted, losses)) as picked:
            for index, (ticks, decoded) in enumerate(picked):
                check_time()
                # A slow source serves several times with one picture, which is converted once.
                if ticks != shown_ticks:
                    image, shown_ticks = to_rgb(self.path, decoded, track.first, losses), ticks
                pts_seconds = float((ticks - origin_ticks) * timeline.time_base) - self._picture.start_seconds
                yield Frame(image, pts_seconds, index)
        self._warn(losses.lines())

    def _warn(self, lines: list[str]) -> None:
        self.warnings.extend(line for line in lines if line not in self.warnings)


def open_clip(path: str | os.PathLike[str], options: MediaOptions) -> Clip:
    """Open a file: choose its streams, plan its frames, decode its sound.

    Args:
        path: A local regular file.
        options: What of it is used.

    Returns:
        The clip, with a picture or a sound or both.

    Raises:
        MediaError: The file cannot be read, seen or heard as asked.
        UsageError: The part asked for is not in the clip, or ``--audio off`` leaves nothing.
        TimeLimitError: The time is over.
    """
    name = os.fsdecode(path)
    if options.nothing:
        raise UsageError(f"{name}: neither its picture nor its sound is to be used")
    found = probe(name)
    if found.video is None and options.audio == "off":
        raise UsageError(f"{name} has no picture, and --audio off leaves nothing", "leave --audio off out")
    video_seconds = found.video.info.duration_seconds if found.video is not None else 0.0
    clip_seconds = max(video_seconds, _audio_end_seconds(found) if options.audio != "off" else 0.0)
    part, warnings = used_part(clip_seconds, options.start_seconds, options.end_seconds)
    seen = found.video if options.picture == "auto" else None
    warnings = [*found.notes, *(seen.notes if seen is not None else ()), *warnings]
    picture = None if seen is None else _plan_picture(name, seen, part, options)
    audio, waveform, heard_lines = _open_sound(name, found, part, options, picture is not None)
    warnings.extend(heard_lines)
    if seen is not None and picture is None:
        warnings.append(f"the picture ends after {video_seconds:.2f} s: the answer is from the sound alone")
    return FileClip(
        path=name,
        video=picture.track.info if picture is not None else None,
        audio=audio,
        plan=picture.plan if picture is not None else None,
        warnings=warnings,
        has_audio_track=found.audio is not None or found.audio_problem != NO_AUDIO_TRACK,
        _picture=picture,
        _waveform=waveform,
    )


def _audio_end_seconds(found: Probe) -> float:
    """When the sound ends, from the clip's start: the first frame, or without one the first sample."""
    if found.audio is None:
        return 0.0
    info = found.audio.info
    origin = found.video.info.start_seconds if found.video is not None else info.start_seconds
    return info.start_seconds - origin + info.duration_seconds


def _plan_picture(path: str, track: VideoTrack, part: Part, options: MediaOptions) -> _Picture | None:
    seconds = part.length_within(track.info.duration_seconds)
    if seconds == 0.0:
        return None
    if seconds > _MAX_PICTURE_SECONDS:
        spread = f"the times of its pictures are spread over {seconds / 3600:,.0f} hours"
        hint = "they may be damaged: choose a part with --start and --end, or have another tool write them anew"
        raise MediaError(f"{path}: {spread}", hint)
    plan = make_plan(seconds, options.fps, options.max_frames)
    chosen = choose_pts(track.timeline.pts_seconds, plan.times_seconds + part.start_seconds)
    return _Picture(track, plan, track.timeline.ticks[chosen], part.start_seconds, seconds)


def _open_sound(
    path: str, found: Probe, part: Part, options: MediaOptions, has_picture: bool
) -> tuple[AudioInfo | None, Float32, list[str]]:
    """The sound as the options want it; what is wrong with it becomes a warning or an error, as they say."""
    silence = np.zeros(0, np.float32)
    if options.audio == "off":
        return None, silence, []
    origin = found.video.info.start_seconds if found.video is not None else None
    heard = hear(path, found.audio, part, origin) if found.audio is not None else None
    damage = _damage(found, heard)
    if damage and options.audio == "on":
        raise MediaError(f"{path}: {damage}", _DAMAGED_HINT)
    if found.audio is None or heard is None or heard.waveform.size == 0:
        unheard = damage or _why_unheard(heard)
        if options.require_audio or not has_picture:
            raise MediaError(f"{path}: {unheard}", "check that a player plays its sound")
        return None, silence, [f"{unheard}: the answer is from the picture alone"]
    lines = [*found.audio.notes, *heard.placed.lines(), *([damage] if damage else [])]
    return _as_heard(found.audio.info, heard, part), heard.waveform, lines


def _as_heard(info: AudioInfo, heard: Heard, part: Part) -> AudioInfo:
    """The track's facts, its start taken from the first sample rather than from packets that only warm up."""
    start = heard.placed.start_seconds
    if start is None or part.start_seconds > 0:
        return info
    end = info.start_seconds + info.duration_seconds
    return replace(info, start_seconds=start, duration_seconds=max(end - start, 0.0))


def _damage(found: Probe, heard: Heard | None) -> str:
    """What is broken about a track that is there; empty if nothing is."""
    if heard is None:
        return "" if found.audio_problem == NO_AUDIO_TRACK else found.audio_problem
    if heard.placed.n_samples == 0 and (heard.n_lost or heard.broke_off):
        return "the audio track cannot be decoded"
    if heard.broke_off:
        return f"the sound breaks off early ({heard.broke_off})"
    return f"packets of the sound that cannot be decoded: {heard.n_lost}" if heard.n_lost else ""


def _why_unheard(heard: Heard | None) -> str:
    if heard is None:
        return NO_AUDIO_TRACK
    return "there is no sound in the part used" if heard.placed.n_samples else "the audio track is empty"

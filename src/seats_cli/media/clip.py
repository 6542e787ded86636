"""A file as a clip: what is used of it, its frames as they are asked for, its sound at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from seats_cli.config import MediaOptions
from seats_cli.errors import MediaError
from seats_cli.media.audio import Heard, hear
from seats_cli.media.frames import Losses
from seats_cli.media.outline import DAMAGED_HINT, Picture, Sketch, sketch_clip, unheard
from seats_cli.media.pictures import pictures
from seats_cli.media.probe import NO_AUDIO_TRACK, Probe
from seats_cli.media.sampling import Part
from seats_cli.media.types import (
    SAMPLE_RATE_HZ,
    AudioInfo,
    Clip,
    Float32,
    Frame,
    SamplingPlan,
    Shrink,
    VideoInfo,
)
from seats_cli.timelimit import check_time


@dataclass(slots=True, eq=False)
class FileClip:
    """A file, opened by ``open_clip``; see ``types.Clip``. Holds the waveform, and no frame."""

    path: str
    video: VideoInfo | None
    audio: AudioInfo | None
    plan: SamplingPlan | None
    warnings: list[str]
    has_audio_track: bool
    _picture: Picture | None
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

    def frames(self, shrink: Shrink | None = None) -> Iterator[Frame]:
        """Decode and yield exactly ``plan.n_frames`` frames in order; callable again.

        The file is open while the iterator is alive and closed when it ends, fails or is closed; then no thread is
        left either.

        Args:
            shrink: What each upright picture becomes, in the thread that decoded it; None: it stays as it is.

        Raises:
            MediaError: The file is gone by now, or no frame of the part can be decoded.
            TimeLimitError: The time is over.
        """
        if self._picture is None:
            return
        track, losses = self._picture.track, Losses()
        timeline = track.timeline
        origin_ticks = int(timeline.ticks[0])
        with closing(pictures(self._picture.wanted(self.path), losses, shrink)) as shown:
            for index, (ticks, image) in enumerate(shown):
                check_time()
                pts_seconds = float((ticks - origin_ticks) * timeline.time_base) - self._picture.start_seconds
                yield Frame(image, pts_seconds, index)
                del image
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
    sketch = sketch_clip(path, options)
    audio, waveform, heard_lines = _open_sound(sketch, options)
    picture = sketch.picture
    return FileClip(
        path=sketch.path,
        video=picture.track.info if picture is not None else None,
        audio=audio,
        plan=picture.plan if picture is not None else None,
        warnings=[*sketch.notes, *heard_lines, *filter(None, [sketch.picture_ended])],
        has_audio_track=sketch.has_audio_track,
        _picture=picture,
        _waveform=waveform,
    )


def _open_sound(sketch: Sketch, options: MediaOptions) -> tuple[AudioInfo | None, Float32, list[str]]:
    """The sound as the options want it; what is wrong with it becomes a warning or an error, as they say."""
    silence = np.zeros(0, np.float32)
    if options.audio == "off":
        return None, silence, []
    found, part = sketch.found, sketch.part
    heard = hear(sketch.path, found.audio, part, sketch.origin_seconds) if found.audio is not None else None
    damage = _damage(found, heard)
    if damage and options.audio == "on":
        raise MediaError(f"{sketch.path}: {damage}", DAMAGED_HINT)
    if found.audio is None or heard is None or heard.waveform.size == 0:
        return None, silence, [unheard(sketch, damage or _why_unheard(heard), options)]
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

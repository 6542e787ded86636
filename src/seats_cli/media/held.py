"""A clip held in memory, to be taken from one process to another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from seats_cli.media.types import AudioInfo, Clip, Float32, Frame, SamplingPlan, Shrink, Uint8, VideoInfo


@dataclass(frozen=True, slots=True, eq=False)
class HeldClip:
    """A clip whose frames and sound are decoded; see ``types.Clip``. Can be pickled.

    Attributes:
        images: uint8 [n_frames, height, width, 3]; None without picture.
        pts_seconds: When the source shows them.
        sound: float32 [n], 16 kHz.
        warnings: As of the clip that was opened.
        late_warnings: What was found wrong on the way through its frames; said after the last one.
        decoding_seconds: What opening and decoding took.
    """

    path: str
    video: VideoInfo | None
    audio: AudioInfo | None
    plan: SamplingPlan | None
    has_audio_track: bool
    seconds_video: float
    seconds_audio: float
    images: Uint8 | None
    pts_seconds: tuple[float, ...]
    sound: Float32
    warnings: list[str] = field(default_factory=list)
    late_warnings: tuple[str, ...] = ()
    decoding_seconds: float = 0.0

    def again(self) -> HeldClip:
        """The same clip as freshly opened: what is noted about one is not noted about the other."""
        return replace(self, warnings=list(self.warnings))

    def frames(self, shrink: Shrink | None = None) -> Iterator[Frame]:
        """The frames of the plan."""
        images = () if self.images is None else self.images
        for index, (image, seconds) in enumerate(zip(images, self.pts_seconds, strict=True)):
            yield Frame(image if shrink is None else shrink(image), seconds, index)
        self.warnings.extend(line for line in self.late_warnings if line not in self.warnings)

    def waveform(self) -> Float32:
        """The sound."""
        return self.sound


def hold(open_clip: Callable[[], Clip], shrink_for: Callable[[Clip], Shrink]) -> HeldClip:
    """Decode a clip to its end.

    Args:
        open_clip: Opens it.
        shrink_for: Called with the open clip; gives what brings a frame [H, W, 3] to the size in which it will be
            looked at. What it notes about the clip is for those who look to note.

    Raises:
        MediaError: It cannot be decoded.
    """
    began = time.perf_counter()
    clip = open_clip()
    said = list(clip.warnings)
    shrink = shrink_for(clip)
    del clip.warnings[len(said) :]
    images: Uint8 | None = None
    seconds = []
    for frame in clip.frames(shrink):
        image = frame.image
        if images is None:
            images = np.empty((clip.plan.n_frames if clip.plan else 0, *image.shape), np.uint8)
        images[frame.index] = image
        seconds.append(frame.pts_seconds)
    return HeldClip(
        path=clip.path,
        video=clip.video,
        audio=clip.audio,
        plan=clip.plan,
        has_audio_track=clip.has_audio_track,
        seconds_video=clip.seconds_video,
        seconds_audio=clip.seconds_audio,
        images=images,
        pts_seconds=tuple(seconds),
        sound=clip.waveform(),
        warnings=said,
        late_warnings=tuple(clip.warnings[len(said) :]),
        decoding_seconds=time.perf_counter() - began,
    )


def looped(clip: HeldClip, times: int) -> HeldClip:
    """A clip shown so many times, one after the other, with no more pictures in memory than it has.

    Raises:
        ValueError: It has no picture.
    """
    if clip.video is None or clip.plan is None or clip.images is None:
        raise ValueError("a clip without a picture is not looped")
    n, seconds = clip.plan.n_frames, clip.seconds_video
    starts = np.repeat(np.arange(times) * seconds, n)
    plan = SamplingPlan(np.tile(clip.plan.times_seconds, times) + starts, clip.plan.fps, n * times)
    return _LoopedClip(
        path=clip.path,
        video=clip.video,
        audio=clip.audio,
        plan=plan,
        has_audio_track=clip.has_audio_track,
        seconds_video=times * seconds,
        seconds_audio=times * clip.seconds_audio,
        images=clip.images,
        pts_seconds=tuple(plan.times_seconds.tolist()),
        sound=clip.sound,
        times=times,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _LoopedClip(HeldClip):
    """``images`` and ``sound`` are those of one time."""

    times: int = 1

    def frames(self, shrink: Shrink | None = None) -> Iterator[Frame]:
        """The frames of the plan."""
        if self.images is None:
            return
        for index, seconds in enumerate(self.pts_seconds):
            image = self.images[index % len(self.images)]
            yield Frame(image if shrink is None else shrink(image), seconds, index)

    def waveform(self) -> Float32:
        """The sound."""
        return np.tile(self.sound, self.times)

"""A clip held in memory, to be taken from one process to another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from seats_cli.media.types import AudioInfo, Clip, Float32, Frame, SamplingPlan, Uint8, VideoInfo


@dataclass(frozen=True, slots=True, eq=False)
class HeldClip:
    """A clip whose frames and sound are decoded; see ``types.Clip``. Can be pickled.

    Attributes:
        images: uint8 [n_frames, height, width, 3]; None without picture.
        pts_seconds: When the source shows them.
        sound: float32 [n], 16 kHz.
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

    def frames(self) -> Iterator[Frame]:
        """The frames of the plan."""
        images = () if self.images is None else self.images
        for index, (image, seconds) in enumerate(zip(images, self.pts_seconds, strict=True)):
            yield Frame(image, seconds, index)

    def waveform(self) -> Float32:
        """The sound."""
        return self.sound


def hold(clip: Clip, shrink: Callable[[Uint8], Uint8]) -> HeldClip:
    """Decode a clip to its end.

    Args:
        clip: Open.
        shrink: Brings a frame [H, W, 3] to the size in which it will be looked at.

    Raises:
        MediaError: It cannot be decoded.
    """
    images, seconds = [], []
    for frame in clip.frames():
        images.append(shrink(frame.image))
        seconds.append(frame.pts_seconds)
    return HeldClip(
        path=clip.path,
        video=clip.video,
        audio=clip.audio,
        plan=clip.plan,
        has_audio_track=clip.has_audio_track,
        seconds_video=clip.seconds_video,
        seconds_audio=clip.seconds_audio,
        images=np.stack(images) if images else None,
        pts_seconds=tuple(seconds),
        sound=clip.waveform(),
        warnings=list(clip.warnings),
    )

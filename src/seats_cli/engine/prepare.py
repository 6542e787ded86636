"""Before anything is encoded: the clip's shape in tokens, its place in the sequence, and who will stay.

Needs no weights and no torch, so that ``seats profile --analytic`` and the checks before a run cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from seats_cli.config import MediaOptions
from seats_cli.layout import Layout, VideoGrids, build_layout, text_layout
from seats_cli.models.resize import MIN_TOKENS, frame_size, n_mel_frames
from seats_cli.report import MediaInfo

if TYPE_CHECKING:
    from seats_cli.media.types import Outline
    from seats_cli.models.base import ModelSpec, OmniModel

HOP_SAMPLES = 160
"""Samples of 16 kHz sound per log-mel frame."""
WINDOWS_PER_BATCH = 8
"""Windows of the picture that are encoded at once; of the sound four times as many."""
MOST_SPARE_TOKENS = 1024
"""The cache makes room for no more answer tokens ahead."""


@dataclass(frozen=True, slots=True)
class ClipShape:
    """A clip in tokens.

    Attributes:
        video: Merged grids; None without picture.
        frame_size: (height, width) in pixels after resizing; None without picture.
        n_mel_frames: Log-mel frames of the sound, 100 per second; 0 without sound.
        n_audio_tokens: What they become.
    """

    video: VideoGrids | None
    frame_size: tuple[int, int] | None
    n_mel_frames: int
    n_audio_tokens: int


def clip_shape(
    clip: Outline, n_samples: int, family: type[OmniModel], spec: ModelSpec, options: MediaOptions
) -> ClipShape:
    """Count a clip's tokens.

    Args:
        clip: Opened or outlined; its plan says which frames.
        n_samples: Samples of its 16 kHz waveform.
        family: Knows how frames of sound become tokens.
        spec: Patch sizes and so on.
        options: The pixel budget; where it says nothing, the model's own.
    """
    grids = size = None
    if clip.video is not None and clip.plan is not None:
        factor = spec.pixel_factor
        low, high = _pixel_limits(spec, options)
        sized = partial(frame_size, factor=factor, min_pixels=low, max_pixels=high)
        size = sized(clip.video.height, clip.video.width, clip.plan.n_frames)
        least = _least_pixels(low, high, factor)
        # A shape may also miss the limits by itself, as one frame would; then there is nothing to share.
        shared = size != sized(clip.video.height, clip.video.width, 1)
        if shared and size[0] * size[1] < least and options.max_pixels is None:
            tokens = size[0] * size[1] // factor**2
            clip.warnings.append(
                f"{clip.plan.n_frames} frames share the clip's pixel budget: {tokens} merged tokens per grid, "
                f"below {least // factor**2}; fewer --max-frames or more --min-pixels give more"
            )
        grids = VideoGrids(clip.plan.n_grids, size[0] // factor, size[1] // factor, clip.plan.seconds_per_grid)
    n_mel = n_mel_frames(n_samples, HOP_SAMPLES, mirrored_end=spec.mirrored_sound_end)
    n_audio = family.audio_tokens(n_mel) if n_mel else 0
    if n_samples and not n_audio:
        clip.warnings.append(f"only {n_samples} samples of sound: too short for one audio token, not heard")
    return ClipShape(grids, size, n_mel if n_audio else 0, n_audio)


def _pixel_limits(spec: ModelSpec, options: MediaOptions) -> tuple[int | None, int | None]:
    """The user's limits, else the model's; a limit of the model that contradicts one of the user's is left out."""
    low, high = options.min_pixels, options.max_pixels
    least = spec.min_pixels if low is None and (high is None or (spec.min_pixels or 0) <= high) else low
    most = spec.max_pixels if high is None and (low is None or (spec.max_pixels or low) >= low) else high
    return least, most


def _least_pixels(low: int | None, high: int | None, factor: int) -> int:
    """What a frame has when nothing but the limits shrinks it; with the upper limit alone that is not said."""
    if low is not None:
        return low
    return MIN_TOKENS * factor**2 if high is None else 0


def lay_out(shape: ClipShape, prompt: tuple[Sequence[int], Sequence[int]], spec: ModelSpec) -> Layout:
    """Place the clip between the text before and after it.

    Raises:
        UsageError: There is nothing to see and nothing to hear.
    """
    return build_layout(*prompt, spec.layout, shape.video, shape.n_audio_tokens)


def lay_out_text(prompt: tuple[Sequence[int], Sequence[int]]) -> Layout:
    """Place a question without a clip; the markers that would open and close the clip leave with it."""
    before, after = prompt
    return text_layout([*before[:-1], *after[1:]])


def position_warning(layout: Layout, max_positions: int, *, in_chat: bool = False) -> str | None:
    """A line when the prompt reaches past the positions the model was trained on.

    Args:
        layout: The prompt.
        max_positions: Seen in training.
        in_chat: It has earlier turns, which can be forgotten.
    """
    if layout.next_position <= max_positions:
        return None
    advice = "forget earlier turns, or " if in_chat else ""
    return (
        f"the prompt reaches position {layout.next_position:.0f}, past the {max_positions} "
        f"the model was trained on: the answer may be worse; {advice}use --start/--end to ask about a part"
    )


def media_info(clip: Outline, shape: ClipShape, n_windows: int) -> MediaInfo:
    """What was seen and heard, as the report says it."""
    plan = clip.plan
    return MediaInfo(
        path=clip.path,
        seconds_video=clip.seconds_video if shape.video else 0.0,
        seconds_audio=clip.seconds_audio if shape.n_audio_tokens else 0.0,
        frames=plan.n_frames if plan else 0,
        fps=plan.fps if plan else None,
        audio_track=clip.has_audio_track,
        width=shape.frame_size[1] if shape.frame_size else None,
        height=shape.frame_size[0] if shape.frame_size else None,
        grids=shape.video.n_grids if shape.video else 0,
        windows=n_windows,
    )

"""The size frames are brought to, and the frames that sound becomes. Plain Python: counting needs no tensors."""

from __future__ import annotations

import math

from seats_cli.errors import MediaError

# Merged tokens per grid, and in the whole clip with two frames to a grid: the published settings.
MIN_TOKENS = 128
MAX_TOKENS = 144
TOTAL_TOKENS = 24576
MAX_ASPECT_RATIO = 200


def n_mel_frames(n_samples: int, hop_length: int, *, mirrored_end: bool) -> int:
    """Log-mel frames of a sound; where its end is mirrored (``log_mel``), a begun one does not count."""
    return n_samples // hop_length if mirrored_end else -(-n_samples // hop_length)


def smart_resize(height: int, width: int, factor: int, min_pixels: float, max_pixels: float) -> tuple[int, int]:
    """The size a frame is brought to: both sides multiples of ``factor``, the shape nearly kept.

    The rule is that of qwen-omni-utils 0.0.9, with the guard of transformers that no side becomes 0. Where
    no multiple fits (very long shapes, or limits close together) the pixels may end outside the limits.

    Args:
        height: Pixels, at least 1.
        width: Pixels, at least 1.
        factor: Pixels of a merged token's side: patch size times merge size.
        min_pixels: Least pixels per frame.
        max_pixels: Most pixels per frame.

    Returns:
        Height and width in pixels.

    Raises:
        MediaError: The frame is empty, or more than 200 times as long as it is wide.
    """
    short, long = sorted((height, width))
    if short < 1:
        raise MediaError(f"the picture is {width}x{height} pixels; there is nothing to see")
    if long > MAX_ASPECT_RATIO * short:
        raise MediaError(
            f"the picture is {width}x{height} pixels; a side is over {MAX_ASPECT_RATIO} times the other",
            "crop or pad the video",
        )
    new_height = max(factor, round(height / factor) * factor)
    new_width = max(factor, round(width / factor) * factor)
    if new_height * new_width > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        new_height = max(factor, math.floor(height / shrink / factor) * factor)
        new_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif new_height * new_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * grow / factor) * factor
        new_width = math.ceil(width * grow / factor) * factor
    return new_height, new_width


def frame_size(
    height: int,
    width: int,
    n_frames: int,
    *,
    factor: int,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> tuple[int, int]:
    """The size the frames of a clip are brought to, with the limits of the published results by default.

    The clip as a whole is limited too, as in ``fetch_video`` of qwen-omni-utils: all its grids (two frames
    each) share ``24576 * factor**2`` pixels evenly, but a frame may always have 5 % more than the least. So
    the default size falls from 144 tokens once there are more than 341 frames. A limit that is not given
    follows the one that is when they contradict, at the default distance of 128 to 144.

    Args:
        height: Pixels of the frames as decoded.
        width: Likewise.
        n_frames: Frames of the whole clip that are seen, at least 1.
        factor: Pixels of a merged token's side.
        min_pixels: Least pixels per frame; None: 128 merged tokens.
        max_pixels: Most pixels per frame; None: 144 merged tokens.

    Returns:
        Height and width in pixels.

    Raises:
        MediaError: As ``smart_resize``.
    """
    low = MIN_TOKENS * factor**2 if min_pixels is None else min_pixels
    high = MAX_TOKENS * factor**2 if max_pixels is None else max_pixels
    if low > high and max_pixels is None:
        high = math.ceil(low * MAX_TOKENS / MIN_TOKENS)
    elif low > high:
        low = math.floor(high * MIN_TOKENS / MAX_TOKENS)
    share = TOTAL_TOKENS * factor**2 / n_frames * 2
    return smart_resize(height, width, factor, low, min(high, max(share, int(low * 1.05))))

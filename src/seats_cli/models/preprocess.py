"""Frames and sound -> what the encoders take, on any torch device, window batch by window batch.

The arithmetic is that of the family's own processors in transformers; only the memory needed is smaller.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from seats_cli.models.resize import n_mel_frames

AUDIO_RATE_HZ = 16000


def patchify(
    frames: torch.Tensor,
    size: tuple[int, int],
    *,
    patch_size: int,
    temporal_patch_size: int,
    merge_size: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> torch.Tensor:
    """Resize, normalise and cut frames into the patches the vision tower takes.

    Equal to ``Qwen2VLVideoProcessor`` of transformers. The resize (bicubic, antialiased) rounds to whole grey
    levels, on every device.

    Args:
        frames: uint8 [n_frames, height, width, 3]. An odd last frame is repeated. Batches of an even number
            of frames give the same patches as the whole clip in one go.
        size: Height and width in pixels, multiples of ``patch_size * merge_size``.
        patch_size: Pixels of a patch's side.
        temporal_patch_size: Frames in a grid.
        merge_size: Patches of a merged token's side.
        mean: Of each channel, for values from 0 to 1.
        std: Likewise.

    Returns:
        float32 [patches, 3 * temporal_patch_size * patch_size**2]: grid by grid; in a grid, merged token by
        merged token in raster order; in a merged token, its patches in raster order.

    Raises:
        ValueError: The frames are not uint8 [n, h, w, 3], or the size is no multiple.
    """
    height, width = size
    side = patch_size * merge_size
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be uint8 [n, h, w, 3], not {frames.dtype} {list(frames.shape)}")
    if height % side or width % side:
        raise ValueError(f"size {height}x{width} is not a multiple of {side}")
    pixels = resize(frames, size).permute(0, 3, 1, 2).contiguous().float()
    # Mean and deviation are brought to grey levels, in this order, to give the bits transformers gives.
    levels = torch.tensor([mean, std], dtype=torch.float32, device=pixels.device)[:, :, None, None] * 255.0
    pixels = pixels.sub_(levels[0]).div_(levels[1])
    missing = -len(pixels) % temporal_patch_size
    if missing:
        pixels = torch.cat([pixels, pixels[-1:].expand(missing, -1, -1, -1)])
    rows, columns = height // side, width // side
    parts = pixels.view(-1, temporal_patch_size, 3, rows, merge_size, patch_size, columns, merge_size, patch_size)
    order = parts.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return order.reshape(-1, 3 * temporal_patch_size * patch_size**2)


def resize(frames: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bicubic, antialiased, rounded to whole grey levels; frames of that size stay as they are.

    Args:
        frames: uint8 [n, height, width, 3].
        size: Height and width in pixels.

    Returns:
        uint8 [n, *size, 3].
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as transform

    resized: torch.Tensor = transform.resize(
        frames.permute(0, 3, 1, 2), list(size), interpolation=InterpolationMode.BICUBIC, antialias=True
    )
    return resized.permute(0, 2, 3, 1)


def log_mel(
    waveform: torch.Tensor,
    *,
    mel_filters: torch.Tensor,
    n_fft: int = 400,
    hop_length: int = 160,
    block_seconds: float = 60.0,
    mirrored_end: bool = False,
) -> torch.Tensor:
    """The log-mel spectrogram the audio tower takes, of a clip of any length.

    Equal to ``WhisperFeatureExtractor`` of transformers without truncation. Padded to a fixed length, as the
    processor of Qwen2.5-Omni does below 300 s, it hears silence after the sound and keeps every begun frame. Not
    padded, as that of Qwen3-Omni does, it hears the end mirrored and drops a begun frame. The spectrum is made
    block by block; the maximum that sets the floor is that of the whole clip.

    Args:
        waveform: float32 [samples] at 16 kHz.
        mel_filters: float32 [n_fft // 2 + 1, bins].
        n_fft: Samples of a frame's window.
        hop_length: Samples from frame to frame.
        block_seconds: Sound whose spectrum is held at a time; changes memory alone.
        mirrored_end: Whether the sound is mirrored after its last sample, or silence follows.

    Returns:
        float32 [bins, ceil(samples / hop_length)]; with a mirrored end, the floor of that.
    """
    n_frames = n_mel_frames(len(waveform), hop_length, mirrored_end=mirrored_end)
    # In silence, windows of frames just past the end still reach back into the sound, and count for the maximum.
    n_heard = -(-(len(waveform) + n_fft // 2) // hop_length) if n_frames and not mirrored_end else n_frames
    block = max(1, int(block_seconds * AUDIO_RATE_HZ) // hop_length)
    window = torch.hann_window(n_fft, device=waveform.device)
    filters = mel_filters.to(waveform.device, torch.float32).T
    levels = torch.empty(filters.shape[0], n_heard, device=waveform.device)
    for first in range(0, n_heard, block):
        last = min(first + block, n_heard)
        ends = first * hop_length - n_fft // 2, (last - 1) * hop_length + n_fft // 2
        samples = _samples(waveform, *ends, mirrored_end=mirrored_end)
        spectrum = torch.stft(samples, n_fft, hop_length, window=window, center=False, return_complex=True)
        levels[:, first:last] = (filters @ spectrum.abs().square()).clamp_(min=1e-10).log10_()
    if not n_frames:
        return levels
    floor = levels.max() - 8.0
    return (torch.maximum(levels[:, :n_frames], floor) + 4.0) / 4.0


def _samples(waveform: torch.Tensor, start: int, stop: int, *, mirrored_end: bool) -> torch.Tensor:
    """Samples [start, stop): mirrored before the first one; after the last, mirrored too or silent."""
    body = waveform[max(start, 0) : stop]
    missing = stop - max(start, 0) - len(body)
    if missing and mirrored_end:
        mirror = waveform[:-1].flip(0)[:missing]
        body, missing = torch.cat([body, mirror]), missing - len(mirror)
    body = functional.pad(body, (0, missing))
    if start >= 0:
        return body
    mirror = waveform[1 : 1 - start].flip(0)
    return torch.cat([functional.pad(mirror, (-start - len(mirror), 0)), body])

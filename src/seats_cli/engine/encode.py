"""Picture and sound through the encoders, window batch by window batch.

The encoders are local, so batches of whole windows give the same as everything in one go. Whoever takes a batch
lets go of it before the next one is decoded: memory is bounded by what is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from seats_cli import cost
from seats_cli.config import MediaOptions
from seats_cli.engine.ahead import Ahead, OnTheWay, Uploader
from seats_cli.engine.prepare import HOP_SAMPLES, WINDOWS_PER_BATCH, ClipShape, clip_shape
from seats_cli.layout import Modality
from seats_cli.media.types import Clip, Frame, Shrink, Uint8
from seats_cli.models.base import Encoded, ModelSpec, OmniModel
from seats_cli.models.preprocess import log_mel, patchify, resize
from seats_cli.selection.base import EncodedWindows
from seats_cli.timelimit import check_time
from seats_cli.timing import Stopwatch

N_FFT = 400


@dataclass(frozen=True, slots=True)
class WindowBatch:
    """Whole windows of one modality, encoded.

    Attributes:
        windows: As a method is shown them.
        encoder_flops: Executed to encode them.
        saliency_flops: Executed to find the attention received; 0 where it was not asked for.
        deepstack: [n, D] each, as the encoder gave them.
    """

    windows: EncodedWindows
    encoder_flops: int
    saliency_flops: int
    deepstack: tuple[torch.Tensor, ...] = ()


Batches = Mapping[Modality, Iterable[WindowBatch]]
"""Of each modality the batches in sequence order."""


@dataclass(frozen=True, slots=True)
class _SaliencyWork:
    """What the cost of a batch's saliency follows from."""

    n_positions: int
    positions_per_token: int
    width: int
    fused_qkv: bool = False

    def flops(self, sizes: Sequence[int], *, projected: bool) -> int:
        """Executed for windows of so many tokens. A position that no token pools still attends."""
        windows = [size * self.positions_per_token for size in sizes]
        windows[-1] += self.n_positions - sum(windows)
        # From a fused layer the values come too, for nothing.
        return cost.saliency_flops(windows, self.width, projections=(2 + self.fused_qkv) * projected)


def _window_ranges(
    sizes: tuple[int, ...], per_batch: int, starts: Sequence[int] | None = None, unit: int = 1
) -> Iterator[tuple[int, int]]:
    """Half-open ranges of windows, ``per_batch`` each or a few more.

    Args:
        sizes: Tokens of each window.
        per_batch: Windows wanted in a range.
        starts: Where each window starts, and the end; None: windows are counted. A range begins at a multiple of
            ``unit``, and what is left after it at the end is no shorter than that.
        unit: In what ``starts`` counts.
    """
    places = range(len(sizes) + 1) if starts is None else starts
    first = 0
    while first < len(sizes):
        last = min(first + per_batch, len(sizes))
        while last < len(sizes) and (places[last] % unit or places[-1] - places[last] < unit):
            last += 1
        if sum(sizes[first:last]):
            yield first, last
        first = last


def shrink_to(size: tuple[int, int]) -> Shrink:
    """What brings a picture, uint8 [H, W, 3], to ``size`` = (height, width), where it was decoded.

    Large pictures would fill what waits for a GPU, and the processor of transformers resizes on the CPU too.
    """

    def shrink(image: Uint8) -> Uint8:
        small: Uint8 = resize(torch.from_numpy(image)[None], size)[0].contiguous().numpy()
        return small

    return shrink


def shrink_for(family: type[OmniModel], spec: ModelSpec, media: MediaOptions) -> Callable[[Clip], Shrink]:
    """What ``hold`` asks for: what brings the pictures of a clip to the size in which they are encoded.

    Args:
        family: Of the model.
        spec: Its sizes.
        media: What of a clip is used.
    """

    def of_clip(clip: Clip) -> Shrink:
        size = clip_shape(clip, len(clip.waveform()), family, spec, media).frame_size
        return shrink_to(size) if size is not None else lambda image: image

    return of_clip


def patches_of(model: OmniModel, frames: torch.Tensor) -> torch.Tensor:
    """Frames of whole grids, uint8 [n, H, W, 3] of the size wanted -> patches, in the model's precision."""
    vision, norm = model.spec.geometry.vision, model.pixel_norm
    patches = patchify(
        frames,
        (frames.shape[1], frames.shape[2]),
        patch_size=vision.patch_size,
        temporal_patch_size=vision.temporal_patch_size,
        merge_size=vision.merge_size,
        mean=norm.mean,
        std=norm.std,
    )
    return patches.to(model.dtype)


def log_mel_of(model: OmniModel, waveform: npt.NDArray[np.float32]) -> torch.Tensor:
    """Waveform [n] -> log-mel [bins, frames] on the model's device, in its precision."""
    sound = torch.from_numpy(waveform).to(model.device)
    mel = log_mel(
        sound,
        mel_filters=torch.from_numpy(model.mel_filters),
        n_fft=N_FFT,
        hop_length=HOP_SAMPLES,
        mirrored_end=model.spec.mirrored_sound_end,
    )
    return mel.to(model.dtype)


@torch.inference_mode()
def _pictures(
    model: OmniModel, clip: Clip, size: tuple[int, int], n_frames: Sequence[int], watch: Stopwatch
) -> Generator[OnTheWay]:
    """Batches of so many frames, of their final size; an odd last one is shown twice."""
    upload = Uploader(model.device)
    # No longer than the batches: one who does not come to the end must not wait for it.
    with closing(cast("Generator[Frame]", clip.frames(shrink_to(size)))) as frames:
        for n in n_frames:
            with watch.host("decode"):
                images = [torch.from_numpy(frame.image) for frame in islice(frames, n)]
                batch = upload(torch.stack(images))
            del images
            yield batch
        next(frames, None)  # past its last frame a clip says what was wrong on the way


def _video_batches(
    model: OmniModel,
    pictures: Iterator[OnTheWay],
    shape: ClipShape,
    sizes: tuple[int, ...],
    ranges: Sequence[tuple[int, int]],
    watch: Stopwatch,
    *,
    saliency: bool,
) -> Iterator[WindowBatch]:
    video, vision = shape.video, model.spec.geometry.vision
    if video is None:
        return
    for first, last in ranges:
        n_grids = sum(sizes[first:last]) // video.tokens_per_grid
        frames = next(pictures)
        grid = (n_grids, video.rows * vision.merge_size, video.columns * vision.merge_size)
        check_time()
        with model.encoding, watch("encode"):
            encoded = model.encode_video(patches_of(model, frames.here()), grid, saliency=saliency)
        flops = cost.vision_flops(vision, grid[1:], n_grids)
        unit, n_tokens = vision.merge_size**2, n_grids * video.tokens_per_grid
        work = _SaliencyWork(unit * n_tokens, unit, vision.hidden, vision.fused_qkv)
        yield _batch(Modality.VIDEO, first, sizes[first:last], encoded, flops, work, watch)
    next(pictures, None)


def _mel_frames(sizes: tuple[int, ...], per_window_tokens: int, per_window_frames: int) -> list[int]:
    """First log-mel frame of every window, and the end: sound runs on without gaps from window to window."""
    chunks = [-(-size // per_window_tokens) for size in sizes]
    return [0, *(per_window_frames * int(n) for n in np.cumsum(chunks))]


def _audio_batches(
    model: OmniModel,
    waveform: npt.NDArray[np.float32],
    sizes: tuple[int, ...],
    watch: Stopwatch,
    *,
    saliency: bool,
    per_batch: int,
) -> Iterator[WindowBatch]:
    spec, audio = model.spec, model.spec.geometry.audio
    if not sum(sizes):
        return
    with watch("encode"):
        mel = log_mel_of(model, waveform)
    starts = _mel_frames(sizes, spec.layout.positions_per_window, spec.mel_frames_per_window)
    # The last window with sound ends where the sound does; windows after it have none.
    last_used = max(i for i, size in enumerate(sizes) if size) + 1
    ends = [*starts[:last_used], *[mel.shape[1]] * (len(starts) - last_used)]
    for first, last in _window_ranges(sizes, per_batch, ends, spec.mel_frames_per_batch_unit):
        piece = mel[:, ends[first] : ends[last]]
        check_time()
        with model.encoding, watch("encode"):
            encoded = model.encode_audio(piece, saliency=saliency)
        flops = cost.audio_flops(audio, [piece.shape[1]])
        work = _SaliencyWork(audio.n_positions(piece.shape[1]), audio.positions_per_token, audio.d_model)
        yield _batch(Modality.AUDIO, first, sizes[first:last], encoded, flops, work, watch)


def _batch(
    modality: Modality,
    first: int,
    sizes: tuple[int, ...],
    encoded: Encoded,
    flops: int,
    work: _SaliencyWork,
    watch: Stopwatch,
) -> WindowBatch:
    """Close a batch: afterwards nothing of the encoder's inside is held any more."""
    saliency, spent = None, 0
    if encoded.attention_received is not None:
        with watch("select"):
            present = [size for size in sizes if size]
            saliency = encoded.attention_received(present).to(encoded.embeddings.device)
            spent = work.flops(present, projected=encoded.projected)
    windows = EncodedWindows(modality, encoded.embeddings, saliency, sizes, first)
    return WindowBatch(windows, flops, spent, encoded.deepstack)


def window_batches(
    model: OmniModel,
    clip: Clip,
    waveform: npt.NDArray[np.float32],
    shape: ClipShape,
    window_sizes: Mapping[Modality, tuple[int, ...]],
    watch: Stopwatch,
    *,
    saliency: bool,
    windows_per_batch: int = WINDOWS_PER_BATCH,
) -> dict[Modality, Iterator[WindowBatch]]:
    """Encode a clip as its batches are asked for, sound apart from picture.

    Args:
        model: The thinker.
        clip: Yields frames as they are decoded.
        waveform: float32 [n], 16 kHz.
        shape: The clip in tokens.
        window_sizes: Of the layout; the same whatever is asked about the clip.
        watch: Stages ``decode`` and ``encode`` are added to it, and to ``select`` what saliency takes.
        saliency: Whether the encoders report attention received.
        windows_per_batch: Windows encoded at once; the result does not depend on it.
    """
    sound, picture = window_sizes[Modality.AUDIO], window_sizes[Modality.VIDEO]
    return {
        Modality.AUDIO: _audio_batches(
            model, waveform, sound, watch, saliency=saliency, per_batch=4 * windows_per_batch
        ),
        Modality.VIDEO: _pictured(
            model, clip, shape, picture, watch, saliency=saliency, per_batch=windows_per_batch
        ),
    }


def _pictured(
    model: OmniModel,
    clip: Clip,
    shape: ClipShape,
    sizes: tuple[int, ...],
    watch: Stopwatch,
    *,
    saliency: bool,
    per_batch: int,
) -> Iterator[WindowBatch]:
    """Begin to decode at once, in another thread: sound may be encoded first."""
    if shape.video is None or shape.frame_size is None:
        return iter(())
    ranges = list(_window_ranges(sizes, per_batch))
    per_token = model.spec.geometry.vision.temporal_patch_size / shape.video.tokens_per_grid
    n_frames = [round(sum(sizes[first:last]) * per_token) for first, last in ranges]
    pictures = Ahead(_pictures(model, clip, shape.frame_size, n_frames, watch))
    return _video_batches(model, pictures, shape, sizes, ranges, watch, saliency=saliency)

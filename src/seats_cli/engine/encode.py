"""Picture and sound through the encoders, window batch by window batch, Stage I on the way (SEATS Sec. 4.1).

The encoders are local, so batches of whole windows give the same as everything in one go. A batch's frames,
patches and discarded embeddings are gone before the next one is decoded: memory is bounded by what is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from seats_cli import cost
from seats_cli.engine.prepare import HOP_SAMPLES, ClipShape
from seats_cli.layout import Layout, Modality
from seats_cli.media.types import Clip
from seats_cli.models.base import Encoded, OmniModel
from seats_cli.models.preprocess import log_mel, patchify
from seats_cli.selection.base import EncodedWindows, SelectionMethod
from seats_cli.timing import Stopwatch

N_FFT = 400


@dataclass(frozen=True, slots=True)
class EncodedClip:
    """What the language model will receive.

    Attributes:
        embeddings: [S, D] in sequence order, text included.
        index: int64 [S], their rows in the layout, ascending.
        encoder_flops: Executed by the encoders (2 per multiply-add).
        selection_flops: Executed by Stage I.
        trace: ``stage_one/video_saliency``, ... where saliency was asked for.
    """

    embeddings: torch.Tensor
    index: torch.Tensor
    encoder_flops: int
    selection_flops: int
    trace: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Whole windows of one modality, encoded."""

    first_window: int
    sizes: tuple[int, ...]
    encoded: Encoded
    flops: int
    n_positions: int
    positions_per_token: int
    width: int

    @property
    def saliency_flops(self) -> int:
        """Executed to find the attention received. A position that no token pools still attends."""
        windows = [size * self.positions_per_token for size in self.sizes if size]
        windows[-1] += self.n_positions - sum(windows)
        return cost.saliency_flops(self.n_positions, max(windows), len(windows), self.width)


@dataclass(slots=True)
class _Stream:
    """What is kept of one modality while its batches pass."""

    kept: list[torch.Tensor] = field(default_factory=list)
    embeddings: list[torch.Tensor] = field(default_factory=list)
    saliency: list[torch.Tensor] = field(default_factory=list)
    n_seen: int = 0
    encoder_flops: int = 0
    selection_flops: int = 0


def _window_ranges(sizes: tuple[int, ...], per_batch: int, unit: int = 1) -> Iterator[tuple[int, int]]:
    """Half-open ranges of windows, about ``per_batch`` each, beginning at multiples of ``unit`` windows."""
    step = max(unit, per_batch // unit * unit)
    for first in range(0, len(sizes), step):
        last = min(first + step, len(sizes))
        if sum(sizes[first:last]):
            yield first, last


def patches_of(model: OmniModel, images: list[npt.NDArray[np.uint8]], size: tuple[int, int]) -> torch.Tensor:
    """Frames [H, W, 3] of whole grids -> patches on the model's device, in its precision."""
    vision, norm = model.spec.geometry.vision, model.pixel_norm
    patches = patchify(
        torch.from_numpy(np.stack(images)).to(model.device),
        size,
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
    mel = log_mel(sound, mel_filters=torch.from_numpy(model.mel_filters), n_fft=N_FFT, hop_length=HOP_SAMPLES)
    return mel.to(model.dtype)


def _video_batches(
    model: OmniModel,
    clip: Clip,
    shape: ClipShape,
    layout: Layout,
    watch: Stopwatch,
    *,
    saliency: bool,
    per_batch: int,
) -> Iterator[_Batch]:
    video, size = shape.video, shape.frame_size
    if video is None or size is None:
        return
    vision = model.spec.geometry.vision
    sizes = layout.window_sizes[Modality.VIDEO]
    frames = clip.frames()
    for first, last in _window_ranges(sizes, per_batch):
        n_grids = sum(sizes[first:last]) // video.tokens_per_grid
        with watch("decode"):
            images = [f.image for f in islice(frames, vision.temporal_patch_size * n_grids)]
            patches = patches_of(model, images, size)
        grid = (n_grids, video.rows * vision.merge_size, video.columns * vision.merge_size)
        with watch("encode"):
            encoded = model.encode_video(patches, grid, saliency=saliency)
        flops = cost.vision_flops(vision, grid[1:], n_grids)
        unit, n_tokens = vision.merge_size**2, n_grids * video.tokens_per_grid
        yield _Batch(first, sizes[first:last], encoded, flops, unit * n_tokens, unit, vision.hidden)
    next(frames, None)  # past its last frame a clip says what was wrong on the way


def _mel_frames(sizes: tuple[int, ...], per_window_tokens: int, per_window_frames: int) -> list[int]:
    """First log-mel frame of every window, and the end: sound runs on without gaps from window to window."""
    chunks = [-(-size // per_window_tokens) for size in sizes]
    return [0, *(per_window_frames * int(n) for n in np.cumsum(chunks))]


def _audio_batches(
    model: OmniModel,
    waveform: npt.NDArray[np.float32],
    layout: Layout,
    watch: Stopwatch,
    *,
    saliency: bool,
    per_batch: int,
) -> Iterator[_Batch]:
    spec, audio = model.spec, model.spec.geometry.audio
    sizes = layout.window_sizes[Modality.AUDIO]
    if not sum(sizes):
        return
    with watch("decode"):
        mel = log_mel_of(model, waveform)
    starts = _mel_frames(sizes, spec.layout.positions_per_window, spec.mel_frames_per_window)
    last_used = max(i for i, size in enumerate(sizes) if size) + 1
    unit = spec.mel_frames_per_batch_unit // spec.mel_frames_per_window
    for first, last in _window_ranges(sizes, per_batch, unit):
        end = mel.shape[1] if last >= last_used else starts[last]
        piece = mel[:, starts[first] : end]
        with watch("encode"):
            encoded = model.encode_audio(piece, saliency=saliency)
        flops = cost.audio_flops(audio, [piece.shape[1]])
        after_conv = (piece.shape[1] - 1) // 2 + 1
        yield _Batch(first, sizes[first:last], encoded, flops, after_conv, 2, audio.d_model)


def _stage_one(
    modality: Modality, batches: Iterator[_Batch], method: SelectionMethod, watch: Stopwatch
) -> _Stream:
    """Run the batches through the method, keeping only what it keeps."""
    stream = _Stream()
    for batch in _gathered(batches) if method.whole_clip else batches:
        stream.encoder_flops += batch.flops
        received = batch.encoded.attention_received
        with watch("select"):
            saliency = None
            if received is not None:
                saliency = received([size for size in batch.sizes if size]).to(batch.encoded.embeddings.device)
                stream.selection_flops += batch.saliency_flops
                stream.saliency.append(saliency)
            windows = EncodedWindows(modality, batch.encoded.embeddings, saliency, batch.sizes, batch.first_window)
            kept = method.before_llm(windows)
            stream.selection_flops += 2 * kept.macs
            stream.kept.append(kept.indices + stream.n_seen)
            changed = kept.embeddings
            stream.embeddings.append(windows.embeddings[kept.indices] if changed is None else changed)
        stream.n_seen += sum(batch.sizes)
    return stream


def _gathered(batches: Iterator[_Batch]) -> Iterator[_Batch]:
    """All batches as one, for methods that must see the whole clip."""
    parts = list(batches)
    if not parts:
        return
    sizes = tuple(size for part in parts for size in part.sizes)
    embeddings = torch.cat([part.encoded.embeddings for part in parts])

    def received(_: object) -> torch.Tensor:
        each = [
            part.encoded.attention_received([s for s in part.sizes if s])
            for part in parts
            if part.encoded.attention_received is not None
        ]
        return torch.cat(each)

    asked = parts[0].encoded.attention_received is not None
    encoded = Encoded(embeddings, received if asked else None)
    flops = sum(part.flops for part in parts)
    first = parts[0]
    n_positions = sum(part.n_positions for part in parts)
    yield _Batch(first.first_window, sizes, encoded, flops, n_positions, first.positions_per_token, first.width)


def encode(
    model: OmniModel,
    clip: Clip,
    waveform: npt.NDArray[np.float32],
    shape: ClipShape,
    layout: Layout,
    method: SelectionMethod,
    watch: Stopwatch,
    *,
    windows_per_batch: int = 8,
) -> EncodedClip:
    """Encode a clip and let the method choose what the language model will see.

    Args:
        model: The thinker.
        clip: Yields frames as they are decoded.
        waveform: float32 [n], 16 kHz.
        shape: The clip in tokens.
        layout: The unpruned sequence.
        method: Stage I.
        watch: Stages ``decode``, ``encode`` and ``select`` are added to it.
        windows_per_batch: Windows encoded at once; the result does not depend on it.
    """
    wanted = method.needs_saliency
    sound = _audio_batches(model, waveform, layout, watch, saliency=wanted, per_batch=4 * windows_per_batch)
    picture = _video_batches(model, clip, shape, layout, watch, saliency=wanted, per_batch=windows_per_batch)
    streams = {
        Modality.AUDIO: _stage_one(Modality.AUDIO, sound, method, watch),
        Modality.VIDEO: _stage_one(Modality.VIDEO, picture, method, watch),
    }
    device = model.device
    text_rows = torch.from_numpy(layout.rows(Modality.TEXT)).to(device)
    text = model.embed(torch.from_numpy(layout.ids).to(device)[text_rows])
    rows, embeddings = [text_rows], [text]
    for modality, stream in streams.items():
        if stream.kept:
            all_rows = torch.from_numpy(layout.rows(modality)).to(device)
            rows.append(all_rows[torch.cat(stream.kept).to(device)])
            embeddings.append(torch.cat(stream.embeddings).to(device, text.dtype))
    index, order = torch.cat(rows).sort()
    return EncodedClip(
        embeddings=torch.cat(embeddings)[order],
        index=index,
        encoder_flops=sum(s.encoder_flops for s in streams.values()),
        selection_flops=sum(s.selection_flops for s in streams.values()),
        trace={
            f"stage_one/{modality.name.lower()}_saliency": torch.cat(stream.saliency)
            for modality, stream in streams.items()
            if stream.saliency
        },
    )

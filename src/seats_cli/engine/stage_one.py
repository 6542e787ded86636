"""Stage I: what is kept of a clip before the decoder (SEATS Sec. 4.1), whatever is asked about it.

Windows come batch by batch, freshly encoded, held in memory or stored on disk; what a method does not keep is gone
before the next batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch

from seats_cli.engine.encode import Batches, WindowBatch, window_batches
from seats_cli.engine.prepare import WINDOWS_PER_BATCH, ClipShape
from seats_cli.kernels.transfer import to_device
from seats_cli.layout import Layout, Modality
from seats_cli.media.types import Clip
from seats_cli.models.base import OmniModel
from seats_cli.selection.base import EncodedWindows, SelectionMethod
from seats_cli.timing import Stopwatch


@dataclass(frozen=True, slots=True)
class EncodedClip:
    """What the language model will receive.

    Attributes:
        embeddings: [S, D] in sequence order, text included.
        index: int64 [S], their rows in the layout, ascending.
        encoder_flops: Executed by the encoders (2 per multiply-add).
        selection_flops: Executed by Stage I.
        deepstack: [L', m, D], what is added to the ``m`` visual tokens behind the first L' layers; None: nothing.
        trace: ``stage_one/video_saliency``, ... where saliency was asked for.
    """

    embeddings: torch.Tensor
    index: torch.Tensor
    encoder_flops: int
    selection_flops: int
    deepstack: torch.Tensor | None = None
    trace: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeptTokens:
    """What is kept of one modality.

    Attributes:
        places: int64 [k], among the modality's tokens, ascending.
        embeddings: [k, D].
        deepstack: [L', k, D]; None: the family has none.
        saliency: float32 [n] of all tokens; None: not asked for.
        encoder_flops: Executed by the encoder.
        selection_flops: Executed to choose.
    """

    places: torch.Tensor
    embeddings: torch.Tensor
    deepstack: torch.Tensor | None
    saliency: torch.Tensor | None
    encoder_flops: int
    selection_flops: int


KeptClip = Mapping[Modality, KeptTokens]
"""Of each modality that is there."""


def _keep(batches: Iterable[WindowBatch], method: SelectionMethod, watch: Stopwatch) -> KeptTokens | None:
    """Run the batches of one modality through the method; None: there are none."""
    kept: list[torch.Tensor] = []
    embeddings: list[torch.Tensor] = []
    saliency: list[torch.Tensor] = []
    deepstack: list[torch.Tensor] = []
    n_seen = encoder_flops = selection_flops = 0
    for batch in _gathered(batches) if method.whole_clip else batches:
        windows = batch.windows
        encoder_flops += batch.encoder_flops
        with watch("select"):
            if not method.needs_saliency:
                windows = replace(windows, saliency=None)
            elif windows.saliency is not None:
                selection_flops += batch.saliency_flops
                saliency.append(windows.saliency)
            chosen = method.before_llm(windows)
            selection_flops += 2 * chosen.macs
            kept.append(chosen.indices + n_seen)
            changed = chosen.embeddings
            embeddings.append(windows.embeddings[chosen.indices] if changed is None else changed)
            if batch.deepstack:
                deepstack.append(torch.stack([one[chosen.indices] for one in batch.deepstack]))
        n_seen += sum(windows.window_sizes)
    if not kept:
        return None
    return KeptTokens(
        torch.cat(kept),
        torch.cat(embeddings),
        torch.cat(deepstack, dim=1) if deepstack else None,
        torch.cat(saliency) if saliency else None,
        encoder_flops,
        selection_flops,
    )


def _gathered(batches: Iterable[WindowBatch]) -> Iterator[WindowBatch]:
    """All batches as one, for methods that must see the whole clip."""
    parts = list(batches)
    if not parts:
        return
    each = [part.windows for part in parts]
    saliency = [one.saliency for one in each if one.saliency is not None]
    windows = EncodedWindows(
        modality=each[0].modality,
        embeddings=torch.cat([one.embeddings for one in each]),
        saliency=torch.cat(saliency) if saliency else None,
        window_sizes=tuple(size for one in each for size in one.window_sizes),
        first_window=each[0].first_window,
    )
    yield WindowBatch(
        windows,
        sum(part.encoder_flops for part in parts),
        sum(part.saliency_flops for part in parts),
        tuple(torch.cat(level) for level in zip(*(part.deepstack for part in parts), strict=True)),
    )


def keep_windows(batches: Batches, method: SelectionMethod, watch: Stopwatch) -> KeptClip:
    """Let a method choose what the language model will see of the encoded windows.

    Args:
        batches: Encoded as they come, or held to be looked at again by other methods; with saliency if the
            method needs it.
        method: Stage I.
        watch: Stage ``select`` is added to it.
    """
    kept = {modality: _keep(stream, method, watch) for modality, stream in batches.items()}
    return {modality: tokens for modality, tokens in kept.items() if tokens is not None}


def with_text(model: OmniModel, layout: Layout, clip: KeptClip) -> EncodedClip:
    """Put what is kept of a clip between the words of a question.

    Args:
        model: The thinker.
        layout: The unpruned sequence.
        clip: Its windows are those of the layout.
    """
    device = model.device
    of_text = layout.rows(Modality.TEXT)
    text_rows, text = to_device(of_text, device), model.embed(to_device(layout.ids[of_text], device))
    rows, embeddings = [text_rows], [text]
    for modality, tokens in clip.items():
        all_rows = to_device(layout.rows(modality), device)
        rows.append(all_rows[tokens.places.to(device)])
        embeddings.append(tokens.embeddings.to(device, text.dtype))
    index, order = torch.cat(rows).sort()
    extra = clip[Modality.VIDEO].deepstack if Modality.VIDEO in clip else None
    return EncodedClip(
        embeddings=torch.cat(embeddings)[order],
        index=index,
        encoder_flops=sum(tokens.encoder_flops for tokens in clip.values()),
        selection_flops=sum(tokens.selection_flops for tokens in clip.values()),
        deepstack=None if extra is None else extra.to(device, text.dtype),
        trace={
            f"stage_one/{modality.name.lower()}_saliency": tokens.saliency
            for modality, tokens in clip.items()
            if tokens.saliency is not None
        },
    )


def select_windows(
    model: OmniModel, layout: Layout, batches: Batches, method: SelectionMethod, watch: Stopwatch
) -> EncodedClip:
    """Choose among encoded windows, and put what is kept between the words: ``keep_windows``, ``with_text``.

    Args:
        model: The thinker.
        layout: The unpruned sequence.
        batches: Encoded windows.
        method: Stage I.
        watch: Stage ``select`` is added to it.
    """
    return with_text(model, layout, keep_windows(batches, method, watch))


def encode(
    model: OmniModel,
    clip: Clip,
    waveform: npt.NDArray[np.float32],
    shape: ClipShape,
    layout: Layout,
    method: SelectionMethod,
    watch: Stopwatch,
    *,
    windows_per_batch: int = WINDOWS_PER_BATCH,
) -> EncodedClip:
    """Encode a clip and let the method choose, batch by batch, what the language model will see.

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
    batches = window_batches(
        model,
        clip,
        waveform,
        shape,
        layout.window_sizes,
        watch,
        saliency=method.needs_saliency,
        windows_per_batch=windows_per_batch,
    )
    return select_windows(model, layout, batches, method, watch)

"""What answering about a clip will take, by arithmetic alone: tokens, FLOPs, memory. No weights, no torch.

``least`` is a bound that no run goes below: weights, keys and values, kept embeddings. ``expected`` adds what is
held for a moment, as the modules of transformers and our own loops allocate it; docs/performance.md compares it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from seats_cli import cost
from seats_cli.config import MediaOptions, ModelOptions, SelectionOptions
from seats_cli.engine.analytic import (
    encoder_flops,
    flops_of,
    plan_of,
    selection_flops,
    synthetic_prompt,
    token_counts,
)
from seats_cli.engine.prepare import (
    MOST_SPARE_TOKENS,
    WINDOWS_PER_BATCH,
    ClipShape,
    clip_shape,
    lay_out,
    position_warning,
)
from seats_cli.geometry import TextGeometry
from seats_cli.layout import Layout, Modality
from seats_cli.media.ahead import MOST_BYTES
from seats_cli.media.outline import with_less
from seats_cli.media.types import SAMPLE_RATE_HZ, Outline
from seats_cli.models.base import ModelSpec, OmniModel
from seats_cli.planning import MemoryInfo
from seats_cli.report import FlopsInfo, TokenCounts
from seats_cli.selection.schedule import DRAWN_FROM_CLIP, TokenPlan

LIBRARIES_BYTES = 850 << 20
"""Python, torch, transformers and FFmpeg in a process on the CPU; of a GPU PyTorch's allocations alone count."""
CPU_SLACK = 1.4
"""A process on the CPU grows by more than is held at a time: its allocator gives little back. Measured too."""
MAP_BYTES = 256 << 20
"""Stage I's attention maps stay below this (``models/saliency.py``)."""

_VALUE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
# Bytes per weight, and per row of it, of the scales beside. nf4 has a float32 for every 64 weights.
_QUANTISED = {"bnb-4bit": (0.5 + 4 / 64, 0.0), "bnb-8bit": (1.0, 4.0), "torchao-int8": (1.0, 4.0)}
_LEAST_BITS = 4


@dataclass(frozen=True, slots=True)
class Holding:
    """How a model is held.

    Attributes:
        value_bytes: Of a weight or an activation that is not quantised.
        quant: A value of ``--quant``, or how a checkpoint is quantised already, such as ``awq-4bit``; None: not.
        attention: Kernel; only ``eager`` holds whole maps.
        on_gpu: Whether it computes on a GPU.
    """

    value_bytes: int
    quant: str | None = None
    attention: str = "sdpa"
    on_gpu: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One clip to be asked about.

    Attributes:
        family: Of the model.
        spec: Of the model.
        holding: How it is held.
        clip: Opened or outlined.
        media: What of it is seen and heard.
        selection: Who stays.
        n_text: Text tokens of the prompt, markers included.
        max_new_tokens: Of the answer.
    """

    family: type[OmniModel]
    spec: ModelSpec
    holding: Holding
    clip: Outline
    media: MediaOptions
    selection: SelectionOptions
    n_text: int
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a job will take.

    Attributes:
        shape: The clip in tokens.
        layout: The unpruned sequence.
        plan: Who stays.
        tokens: In, and per layer.
        flops: Of prefill and encoders.
        memory: Without what the device has.
        warnings: What counting said, a line each.
    """

    shape: ClipShape
    layout: Layout
    plan: TokenPlan
    tokens: TokenCounts
    flops: FlopsInfo
    memory: MemoryInfo
    warnings: tuple[str, ...]


def holding_of(options: ModelOptions, *, on_gpu: bool, quantised: str | None = None) -> Holding:
    """How the options would have a model held.

    Args:
        options: Of the model.
        on_gpu: Where it will compute.
        quantised: How the checkpoint is quantised already; None: it is not.
    """
    usual = 2 if on_gpu else 4
    own = None if options.quant == "none" else options.quant
    attention = "eager" if options.attn == "eager" else "sdpa"
    return Holding(_VALUE_BYTES.get(options.dtype, usual), quantised or own, attention, on_gpu)


def weight_bytes(spec: ModelSpec, holding: Holding) -> tuple[int, int]:
    """Bytes of the decoder with its tables, and of the encoders.

    Of a checkpoint that is quantised already every matrix of the decoder is taken for quantised, experts
    included, to the bits that its kind names, or to 4. Which ones are is its own affair; this may be too little.
    """
    text, size = spec.geometry.text, holding.value_bytes
    decoder = cost.decoder_parameters(text)
    encoders = (cost.n_parameters(spec.geometry) - decoder) * size
    if holding.quant is None:
        return decoder * size, encoders
    linear, rows = cost.linear_parameters(text)
    if holding.quant in _QUANTISED:
        per_weight, per_row = _QUANTISED[holding.quant]
    else:
        linear += cost.expert_parameters(text)
        bits = re.search(r"(\d+)bit", holding.quant)
        per_weight, per_row = (int(bits[1]) if bits else _LEAST_BITS) / 8, 0.0
    return (decoder - linear) * size + round(linear * per_weight + rows * per_row), encoders


def room_tokens(max_new_tokens: int) -> int:
    """Answer tokens that the cache makes room for ahead."""
    return min(max_new_tokens, MOST_SPARE_TOKENS)


def estimate(job: Job) -> Estimate:
    """Count a clip's tokens, plan who stays, and add up.

    Raises:
        UsageError: The ratios or the boundaries are infeasible, or there is nothing to see and nothing to hear.
        MediaError: The frames have an impossible shape.
    """
    spec = job.spec
    # Counting writes warnings into the clip it is given: into a copy, since one may be counted again.
    clip = with_less(job.clip, job.media.fps, max_frames=job.media.max_frames)
    shape = clip_shape(clip, round(clip.seconds_audio * SAMPLE_RATE_HZ), job.family, spec, job.media)
    layout = lay_out(shape, synthetic_prompt(spec, job.n_text, shape), spec)
    plan = plan_of(spec, layout, job.selection)
    tokens = token_counts(layout, plan.tokens_per_layer(layout.count(Modality.TEXT)))
    kept = [layer.total for layer in tokens.per_layer]
    flops = flops_of(spec, layout.n_tokens, kept, encoder_flops(spec, shape), selection_flops(spec, layout, plan))
    memory = _memory(job, shape, layout, plan, kept)
    too_far = position_warning(layout, spec.max_positions)
    return Estimate(shape, layout, plan, tokens, flops, memory, (*clip.warnings, *filter(None, [too_far])))


def _memory(job: Job, shape: ClipShape, layout: Layout, plan: TokenPlan, kept: Sequence[int]) -> MemoryInfo:
    spec, holding = job.spec, job.holding
    text, size = spec.geometry.text, holding.value_bytes
    decoder, encoders = weight_bytes(spec, holding)
    n_levels = len(spec.geometry.vision.deepstack_layers)
    embeddings = (kept[0] + n_levels * plan.entering[0]) * text.hidden * size
    cache = cost.kv_cache_bytes(text, kept, size)
    room = room_tokens(job.max_new_tokens) * len(kept) * 2 * text.kv_width * size
    sound = shape.n_mel_frames * (160 * 4 + spec.geometry.audio.n_mel_bins * (4 + size))
    # A method that looks at the whole clip has all of it encoded before it chooses.
    whole = job.selection.method in DRAWN_FROM_CLIP and not plan.keeps_everything
    waiting = (plan.n_video * (1 + n_levels) + plan.n_audio) * text.hidden * size * 2 if whole else embeddings
    phases = {
        "encode": max(waiting, embeddings) + _encoder_bytes(job, shape, layout),
        "select": 2 * embeddings,
        "prefill": embeddings + _prefill_bytes(text, kept, holding),
        "answer": embeddings + cache + room,
    }
    libraries, slack = (0, 1.0) if holding.on_gpu else (LIBRARIES_BYTES, CPU_SLACK)
    weights = decoder + encoders
    return MemoryInfo(
        weights=weights,
        weights_decoder=decoder,
        weights_encoders=encoders,
        embeddings=embeddings,
        kv_cache=cache,
        answer_room=room,
        libraries=libraries,
        peak_stage=max(phases, key=lambda stage: phases[stage]),
        least=weights + embeddings + cache,
        expected=weights + libraries + sound + round(slack * max(phases.values())),
        available=None,
        fits=None,
    )


def layer_bytes(text: TextGeometry, n_tokens: int, holding: Holding) -> int:
    """Held for a moment by one decoder layer on so many tokens, its input included.

    By the modules of transformers: the norm computes in float32; attention has rotated copies beside what it was
    projected to, and expands keys and values to the query heads; the gated MLP holds three of its inner width.
    Experts see each token as often as it visits one.
    """
    size, width = holding.value_bytes, text.hidden
    norm = 2 * width * size + 2 * width * 4
    attention = (2 * width + 5 * text.q_width + 4 * text.kv_width) * size
    if holding.attention == "eager":
        attention += text.n_heads * n_tokens * (4 + 2 * size)
    if text.n_experts:
        visits = text.n_active_experts
        inner = (2 * width + visits * (3 * width + 4 * text.moe_intermediate)) * size + 2 * text.n_experts * 4
    else:
        inner = (2 * width + 3 * text.intermediate) * size
    return n_tokens * max(norm, attention, inner)


def _prefill_bytes(text: TextGeometry, kept: Sequence[int], holding: Holding) -> int:
    """The most that cache and one layer hold together: later layers have fewer tokens, and more before them."""
    size, held, most = holding.value_bytes, 0, 0
    for n_tokens in kept:
        held += n_tokens * 2 * text.kv_width * size
        most = max(most, held + layer_bytes(text, n_tokens, holding))
    return most + 2 * kept[0] * text.head_dim * size


def _encoder_bytes(job: Job, shape: ClipShape, layout: Layout) -> int:
    """The larger of what a batch of windows takes in the two encoders."""
    return max(_video_bytes(job, shape, layout), _audio_bytes(job, shape))


def _video_bytes(job: Job, shape: ClipShape, layout: Layout) -> int:
    if shape.video is None:
        return 0
    vision, size = job.spec.geometry.vision, job.holding.value_bytes
    windows = [n for n in layout.window_sizes[Modality.VIDEO] if n][:WINDOWS_PER_BATCH]
    unit = vision.merge_size**2
    patches, frames = sum(windows) * unit, vision.temporal_patch_size * sum(windows) // shape.video.tokens_per_grid
    values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    # One batch of resized frames is encoded, one waits and one is made; the patches of one are there.
    small = 3 * math.prod(shape.frame_size or ())
    held = 3 * frames * small + patches * values * size + _decoded_bytes(job, small)
    pixels = patches * values * (4 + 4)
    inner = (3 if vision.gated else 2) * vision.intermediate * size
    attention = 6 * vision.hidden * size + 4 * vision.hidden * 4
    layers = patches * (3 * vision.hidden * size + max(inner, attention))
    widest = max(windows) * unit
    maps = 3 * min(MAP_BYTES, len(windows) * widest**2 * 4) + patches * 4 * vision.hidden * size
    return held + max(pixels, layers, maps if job.selection.method == "seats" else 0)


def _decoded_bytes(job: Job, small: int) -> int:
    """Frames decoded ahead, and one as it comes out of the file and as it is turned; never on a GPU."""
    video, plan = job.clip.video, job.clip.plan
    if video is None or plan is None or job.holding.on_gpu:
        return 0
    return min(MOST_BYTES, plan.n_frames * small) + 2 * 3 * video.width * video.height


def _audio_bytes(job: Job, shape: ClipShape) -> int:
    audio, size = job.spec.geometry.audio, job.holding.value_bytes
    seconds = 4 * WINDOWS_PER_BATCH * job.spec.layout.seconds_per_window
    frames = min(shape.n_mel_frames, round(100 * seconds))
    positions = audio.n_positions(frames)
    if audio.conv_channels:
        convolved = frames * audio.n_mel_bins // 4 * audio.conv_channels * 2 * size
    else:
        convolved = frames * audio.d_model * 2 * size
    return max(convolved, positions * (6 * audio.d_model + 2 * audio.ffn) * size)

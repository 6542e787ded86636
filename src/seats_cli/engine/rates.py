"""How long an estimated job will take on this machine: rough, from what a moment's measurement says.

What is measured: a matrix product, a copy, and elsewhere how fast a clip decodes. What is assumed stands in
``Rates`` and in docs/usage.md: the share of the product's speed that models reach, and a layer's cost to the host.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from seats_cli import cost
from seats_cli.engine.estimate import Estimate, Job
from seats_cli.layout import Modality
from seats_cli.planning import PlannedSeconds, Rates
from seats_cli.timing import synchronize

ENCODE_EFFICIENCY, PREFILL_EFFICIENCY = 0.4, 0.5
HOST_SECONDS_PER_LAYER = 4e-4
"""Of Python and of launching kernels, each time a layer runs on however few tokens."""
SOUND_SPEED = 400
"""Seconds of sound that are decoded in one."""
MAP_PASSES = 16
"""Times that Stage I reads or writes each value of an attention map."""

_SIDES = {"cpu": 512, "cuda": 4096}
_COPIED_BYTES = {"cpu": 64 << 20, "cuda": 512 << 20}


def _per_second(work: Callable[[], object], amount: float, device: torch.device, most_seconds: float) -> float:
    """Amounts per second of the fastest of as many calls as fit."""
    work()
    synchronize(device)
    begun, best = time.perf_counter(), float("inf")
    while True:
        before = time.perf_counter()
        work()
        synchronize(device)
        now = time.perf_counter()
        best = min(best, now - before)
        if now - begun > most_seconds:
            return amount / max(best, 1e-9)


@torch.inference_mode()
def measure_rates(device: torch.device, dtype: torch.dtype, *, most_seconds: float = 0.1) -> tuple[float, float]:
    """FLOPs per second of a square matrix product, and bytes per second of a copy, read and written together.

    Args:
        device: Where.
        dtype: Of the matrices.
        most_seconds: For each of the two, the warm-up and the last run not counted.
    """
    side = _SIDES.get(device.type, 512)
    a = torch.ones(side, side, dtype=dtype, device=device)
    flops = _per_second(lambda: a @ a, 2.0 * side**3, device, most_seconds)
    n_bytes = _COPIED_BYTES.get(device.type, 64 << 20)
    source = torch.ones(n_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return flops, _per_second(lambda: target.copy_(source), 2.0 * n_bytes, device, most_seconds)


def make_rates(measured: tuple[float, float], pixels_per_second: float | None) -> Rates:
    """What was measured beside what is assumed."""
    return Rates(
        flops_per_second=measured[0],
        bytes_per_second=measured[1],
        pixels_per_second=pixels_per_second,
        encode_efficiency=ENCODE_EFFICIENCY,
        prefill_efficiency=PREFILL_EFFICIENCY,
        host_seconds_per_layer=HOST_SECONDS_PER_LAYER,
    )


def planned_seconds(job: Job, found: Estimate, rates: Rates, decoded_pixels: int) -> PlannedSeconds:
    """Seconds per stage.

    Args:
        job: The clip.
        found: Its estimate.
        rates: Of this machine.
        decoded_pixels: Of all source frames that must be decoded.
    """
    host = len(found.tokens.per_layer) * rates.host_seconds_per_layer
    decode = _decode_seconds(job, rates, decoded_pixels)
    encode = found.flops.encoders_executed / (rates.flops_per_second * rates.encode_efficiency)
    chosen = found.flops.selection_executed
    select = chosen / (rates.flops_per_second * rates.encode_efficiency) if chosen else 0.0
    select += MAP_PASSES * _map_bytes(job, found) / rates.bytes_per_second if chosen else 0.0
    executed = found.flops.executed.pruned - chosen
    prefill = executed / (rates.flops_per_second * rates.prefill_efficiency) + host
    token = _read_per_token(job, found) / rates.bytes_per_second + host
    first = None if decode is None else decode + encode + select + prefill
    return PlannedSeconds(
        decode=decode,
        encode=encode,
        select=select,
        prefill=prefill,
        first_token=first,
        answer_token=token,
        answer=None if first is None else first + token * job.max_new_tokens,
    )


def _decode_seconds(job: Job, rates: Rates, decoded_pixels: int) -> float | None:
    """None where there is a picture and nothing is known of how fast it decodes."""
    sound = job.clip.seconds_audio / SOUND_SPEED
    if not decoded_pixels:
        return sound
    return None if rates.pixels_per_second is None else sound + decoded_pixels / rates.pixels_per_second


def _map_bytes(job: Job, found: Estimate) -> int:
    """Of the attention maps that Stage I makes, all windows and heads."""
    vision, audio = job.spec.geometry.vision, job.spec.geometry.audio
    total = 0
    for modality, heads, unit in (
        (Modality.VIDEO, vision.n_heads, vision.merge_size**2),
        (Modality.AUDIO, audio.n_heads, audio.positions_per_token),
    ):
        total += heads * sum((size * unit) ** 2 for size in found.layout.window_sizes[modality]) * 4
    return total


def _read_per_token(job: Job, found: Estimate) -> int:
    """Bytes of weights and cache that an answer token reads: experts it visits, of the tables the head."""
    text, size = job.spec.geometry.text, job.holding.value_bytes
    experts = cost.expert_parameters(text)
    visited = experts * text.n_active_experts // text.n_experts if text.n_experts else 0
    tables = cost.head_parameters(text)
    weights = found.memory.weights_decoder - size * (experts - visited + tables - text.hidden * text.vocab)
    return weights + found.memory.kv_cache

"""Whether memory will do: asked before weights are loaded, and of a clip before it is encoded.

Refused is only what cannot fit: the least a run takes is more than there is. No torch but to ask a GPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from seats_cli import cost
from seats_cli.engine.estimate import Estimate, Holding, Job, estimate, weight_bytes
from seats_cli.errors import MemoryLimitError, SeatsError
from seats_cli.media.outline import ClipOutline, with_less
from seats_cli.models.base import ModelSpec

RATIOS = (0.5, 0.35, 0.25, 0.15, 0.1, 0.05)
"""Values of ``--trr`` that may be proposed."""
SPREAD = "--device-map auto --offload-folder DIR"
QUANT = "bnb-4bit"

_PROC, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")

Fix = tuple[str, Callable[[], int]]
"""Options, and the least bytes with them."""


def device_bytes(device: str) -> int | None:
    """Memory that a run on a device can count on: all of a GPU, what is available to a process on the CPU.

    Args:
        device: As torch names it, such as ``cuda:0``.

    Returns:
        None where it is not known; then nothing is refused.
    """
    kind = device.partition(":")[0]
    if kind == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[1])
    return _cpu_bytes() if kind == "cpu" else None


def _cpu_bytes() -> int | None:
    found = []
    with suppress(OSError, ValueError, IndexError):
        lines = _PROC.read_text(encoding="ascii").splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    if not found and sys.platform != "win32":
        import os

        with suppress(OSError, ValueError):
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(OSError, ValueError):  # "max": no limit
        found.append(int(_CGROUP.read_text(encoding="ascii")))
    return min(found, default=None)


def size_of(n_bytes: int) -> str:
    """``17.2 GiB``, or ``340 MiB`` where that is less than 1 GiB."""
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.0f} MiB"


def check_weights(spec: ModelSpec, holding: Holding, available: int | None) -> None:
    """Refuse a model whose weights alone do not fit one device. Not for ``--device-map``, which may park them.

    Args:
        spec: Of the model.
        holding: How it is to be held.
        available: Bytes; None: not known.

    Raises:
        MemoryLimitError: They do not.
    """
    needed = sum(weight_bytes(spec, holding))
    if available is None or needed <= available:
        return
    fixes = ((words, partial(_weights, spec, held)) for words, held in _lighter(spec, holding))
    hint = _hint([fixes], available, spread=_can_be_spread(holding))
    device = "the GPU" if holding.on_gpu else "this machine"
    raise MemoryLimitError(
        f"the weights of {spec.geometry.name} need {size_of(needed)}, and {device} has {size_of(available)}", hint
    )


def check_clip(
    job: Job, available: int | None, *, weights_held: bool = False, known: Estimate | None = None
) -> None:
    """Refuse a clip that cannot fit beside the weights, and name the options with which it would.

    Args:
        job: The clip, the model and the options.
        available: Bytes; None: not known.
        weights_held: The weights are in memory already and ``available`` is what is left, as on the CPU. A GPU's
            whole memory is counted, held or not.
        known: Of this very job, if it was estimated before.

    Raises:
        MemoryLimitError: It cannot.
        UsageError: As ``estimate``.
        MediaError: As ``estimate``.
    """
    if available is None:
        return
    found = known or estimate(job)
    memory = found.memory
    most = available + (memory.weights if weights_held else 0)
    if memory.least <= most:
        return
    hint = _hint(_fixes(job, found), most, spread=_clip_fits_spread(job, found, most))
    device = "the GPU" if job.holding.on_gpu else "this machine"
    raise MemoryLimitError(
        f"{job.clip.path} needs at least {size_of(memory.least)}: {size_of(memory.weights)} of weights, "
        f"{size_of(memory.kv_cache)} of keys and values, {size_of(memory.embeddings)} of embeddings; "
        f"{device} has {size_of(most)}",
        hint,
    )


def _hint(kinds: Iterable[Iterable[Fix]], most: int, *, spread: bool) -> str:
    """The options that would do, each by itself; of each kind the first."""
    first = (next((words for words, least in kind if least() <= most), None) for kind in kinds)
    works = [words for words in first if words is not None]
    if spread:
        works.append(SPREAD)
    if not works:
        return "no option fixes it by itself: take a shorter clip, fewer tokens and fewer bits together"
    return ("add " if len(works) == 1 else "add one of: ") + "; ".join(works)


def _lighter(spec: ModelSpec, holding: Holding) -> Iterator[tuple[str, Holding]]:
    """Options that make weights smaller."""
    half = replace(holding, value_bytes=2)
    if holding.value_bytes > 2:
        yield "--dtype bfloat16", half
    # Of a mixture the experts, which are nearly all of it, are not quantised, and --quant refuses.
    if holding.quant is None and not spec.geometry.text.n_experts:
        yield f"--quant {QUANT}", replace(holding, quant=QUANT)
        if holding.value_bytes > 2:
            yield f"--dtype bfloat16 --quant {QUANT}", replace(half, quant=QUANT)


def _weights(spec: ModelSpec, holding: Holding) -> int:
    return sum(weight_bytes(spec, holding))


def _can_be_spread(holding: Holding) -> bool:
    # What is quantised does not wait elsewhere.
    return holding.quant is None


def _clip_fits_spread(job: Job, found: Estimate, most: int) -> bool:
    """Whether it would fit with the weights parked, but for those of a layer at a time."""
    text, memory = job.spec.geometry.text, found.memory
    layer = (memory.weights_decoder - cost.head_parameters(text) * job.holding.value_bytes) // text.n_layers
    return _can_be_spread(job.holding) and memory.least - memory.weights + layer <= most


def _fixes(job: Job, found: Estimate) -> Iterator[Iterator[Fix]]:
    """Options that make the work smaller, kind by kind, the mildest first."""

    def least(**changes: Any) -> Callable[[], int]:
        return partial(_least, replace(job, **changes))

    selection, kept = job.selection, found.tokens.achieved_trr or 0.0
    pair = " in place of --video-trr and --audio-trr" if selection.video_trr is not None else ""
    full = selection.method == "full"
    chosen = replace(selection, method="seats" if full else selection.method, video_trr=None, audio_trr=None)
    yield (
        (f"{'--method seats ' * full}--trr {ratio:g}{pair}", least(selection=replace(chosen, trr=ratio)))
        for ratio in RATIOS
        if ratio < kept
    )
    clip, halves = job.clip, [0.5**k for k in range(1, 7)]
    n_frames = clip.plan.n_frames if clip.plan is not None else 0
    yield (
        (
            f"--max-frames {int(n_frames * share)}",
            least(media=replace(job.media, max_frames=int(n_frames * share))),
        )
        for share in halves
        if n_frames * share >= 2
    )
    seconds = max(clip.seconds_video, clip.seconds_audio)
    yield (
        (f"--start/--end for {seconds * share:.0f} s of it", least(clip=_part(job, share)))
        for share in halves
        if seconds * share >= 1
    )
    yield ((words, least(holding=holding)) for words, holding in _lighter(job.spec, job.holding))


def _part(job: Job, share: float) -> ClipOutline:
    return with_less(job.clip, job.media.fps, max_frames=job.media.max_frames, share=share)


def _least(job: Job) -> int:
    """What a job takes at least; more than there can be where it cannot be done like that."""
    try:
        return estimate(job).memory.least
    except SeatsError:
        return sys.maxsize

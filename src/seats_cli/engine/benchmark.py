"""Prefill measured: every setting on the same clip, in turn, stage by stage (SEATS Sec. 5.3)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from seats_cli import cost
from seats_cli.config import MediaOptions, SelectionOptions
from seats_cli.engine.analytic import (
    FULL,
    encoder_flops,
    flops_of,
    label_of,
    plan_of,
    schedule_of,
    selection_info,
    synthetic_prompt,
    token_counts,
    workload_of,
)
from seats_cli.engine.encode import log_mel_of, patches_of, shrink_to
from seats_cli.engine.marks import model_info, versions
from seats_cli.engine.pipeline import (
    Prepared,
    flops_info,
    read_prompt,
)
from seats_cli.engine.prepare import ClipShape, clip_shape, lay_out, media_info
from seats_cli.layout import Layout, Modality
from seats_cli.media.types import Clip
from seats_cli.models.loading import LoadedModel
from seats_cli.report import (
    FlopsInfo,
    ProfileReport,
    Seconds,
    SelectionInfo,
    SettingReport,
    Speedup,
    Spread,
    TokenCounts,
)
from seats_cli.timing import PeakMemory, Samples, Stopwatch, alternate, by_stage, synchronize

STAGES = ("decode", "encode", "select", "prefill", "first_token")
STOCK = "stock transformers"


@dataclass(frozen=True, slots=True)
class Workbench:
    """One clip, laid out, that every variant is measured on."""

    loaded: LoadedModel
    make_clip: Callable[[], Clip]
    media: MediaOptions
    layout: Layout
    shape: ClipShape


@dataclass(frozen=True, slots=True)
class Lap:
    """One run of one variant."""

    seconds: dict[str, float]
    n_bytes: int | None
    selection: SelectionInfo
    tokens: TokenCounts
    flops: FlopsInfo


def make_workbench(
    loaded: LoadedModel, make_clip: Callable[[], Clip], media: MediaOptions, n_text: int
) -> Workbench:
    """Lay the clip out between ``n_text`` text tokens.

    Raises:
        SeatsError: The clip cannot be read, or there is nothing in it.
    """
    clip, model = make_clip(), loaded.model
    shape = clip_shape(clip, len(clip.waveform()), type(model), model.spec, media)
    layout = lay_out(shape, synthetic_prompt(model.spec, n_text, shape), model.spec)
    return Workbench(loaded, make_clip, media, layout, shape)


@torch.inference_mode()
def seats_lap(bench: Workbench, options: SelectionOptions) -> Lap:
    """Encode, select and prefill with these options."""
    loaded, devices = bench.loaded, bench.loaded.model.devices
    plan = plan_of(loaded.model.spec, bench.layout, options)
    watch = Stopwatch(devices)
    with PeakMemory(devices) as peak:
        synchronize(devices)
        began = time.perf_counter()
        with watch("decode"):
            clip = bench.make_clip()
            waveform = clip.waveform()
        prepared = Prepared(clip, waveform, bench.shape, bench.layout, plan)
        prompted = read_prompt(loaded, prepared, options, watch)
        prompted.prefill.logits.argmax().item()
        first_token = time.perf_counter() - began
    tokens = token_counts(bench.layout, prompted.prefill.counts)
    return Lap(
        seconds={**watch.seconds, "first_token": first_token},
        n_bytes=peak.n_bytes,
        selection=selection_info(plan, tokens, options),
        tokens=tokens,
        flops=flops_info(loaded, bench.layout, prompted),
    )


@contextmanager
def timed_towers(model: Any, watch: Stopwatch) -> Iterator[None]:
    """Count the time inside the encoders as ``encode`` while the context lasts."""
    running: list[Any] = []

    def begin(*_: Any) -> None:
        running.append(watch("encode"))
        running[-1].__enter__()

    def end(*_: Any) -> None:
        running.pop().__exit__(None, None, None)

    handles = []
    try:
        for tower in model.towers:
            handles.append(tower.register_forward_pre_hook(begin))
            handles.append(tower.register_forward_hook(end))
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def stock_lap(bench: Workbench) -> Lap:
    """Transformers' own forward on the same patches, log-mel and ids: every token, its own positions and head."""
    model = bench.loaded.model
    watch, devices = Stopwatch(model.devices), model.devices
    with PeakMemory(devices) as peak:
        synchronize(devices)
        began = time.perf_counter()
        with watch("decode"):
            inputs = whole_inputs(bench)
        with model.encoding, timed_towers(model, watch), watch("whole"):
            out = model.thinker(**inputs)
        out.logits[0, -1].argmax().item()
        first_token = time.perf_counter() - began
    seconds = dict(watch.seconds)
    seconds["prefill"] = seconds.pop("whole") - seconds.get("encode", 0.0)
    plan = plan_of(model.spec, bench.layout, FULL)
    n_layers = model.spec.geometry.text.n_layers
    tokens = token_counts(bench.layout, plan.tokens_per_layer(bench.layout.count(Modality.TEXT)))
    return Lap(
        seconds={**seconds, "select": 0.0, "first_token": first_token},
        n_bytes=peak.n_bytes,
        selection=selection_info(plan, tokens, FULL),
        tokens=tokens,
        flops=_stock_flops(bench, n_layers),
    )


def _whole(bench: Workbench, clip: Clip) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """All patches and the whole log-mel at once, as the stock processor gives them."""
    model, shape = bench.loaded.model, bench.shape
    patches = mel = None
    if shape.video is not None and shape.frame_size is not None:
        images = [torch.from_numpy(frame.image) for frame in clip.frames(shrink_to(shape.frame_size))]
        patches = patches_of(model, torch.stack(images).to(model.device))
    if shape.n_audio_tokens:
        mel = log_mel_of(model, clip.waveform())
    return patches, mel


def whole_inputs(bench: Workbench) -> dict[str, Any]:
    """The clip as arguments of transformers' own forward: every token.

    Raises:
        SeatsError: The clip cannot be read.
    """
    model = bench.loaded.model
    patches, mel = _whole(bench, bench.make_clip())
    return model.stock_inputs(torch.from_numpy(bench.layout.ids).to(model.device), patches, mel, bench.shape.video)


def _stock_flops(bench: Workbench, n_layers: int) -> FlopsInfo:
    """As a full run, but with the head on every position."""
    spec, n = bench.loaded.model.spec, bench.layout.n_tokens
    whole = [n] * n_layers
    info = flops_of(spec, n, whole, encoder_flops(spec, bench.shape), 0)
    text = spec.geometry.text
    head = 2 * text.hidden * text.vocab * (n - 1)
    return replace(info, executed=cost.Flops(info.executed.full, info.executed.pruned + head))


def _summary(label: str, laps: Sequence[Lap], full: Seconds | None) -> SettingReport:
    samples: dict[str, Samples] = by_stage([lap.seconds for lap in laps])
    medians = {stage: samples[stage].median if stage in samples else 0.0 for stage in STAGES}
    seconds = Seconds(**medians)
    peaks = [lap.n_bytes for lap in laps if lap.n_bytes is not None]
    return SettingReport(
        label=label,
        selection=laps[0].selection,
        tokens=laps[0].tokens,
        flops=laps[0].flops,
        seconds=seconds,
        spread={stage: Spread(s.minimum, s.maximum, s.iqr) for stage, s in samples.items() if stage in STAGES},
        memory_bytes=max(peaks, default=None),
        speedup=Speedup.between(full or seconds, seconds),
    )


def measured_profile(
    bench: Workbench,
    settings: Sequence[SelectionOptions],
    *,
    runs: int,
    warmup: int,
    stock: bool,
    source: str,
    note: str,
    on_round: Callable[[str], None] | None = None,
) -> ProfileReport:
    """Measure the full run and every setting, alternating, after warm-up.

    Args:
        bench: The clip and the model.
        settings: To compare with the full run.
        runs: Rounds that count.
        warmup: Rounds before them.
        stock: Measure transformers' own forward too.
        source: ``clip`` or ``synthetic``.
        note: What ran instead of what was asked for, and why; may be empty.
        on_round: Called with a variant's label before each run.

    Raises:
        SeatsError: A ratio is infeasible, the clip cannot be read, or memory ran out.
    """
    every = {label_of(o): o for o in (FULL, *settings)}

    variants = {label: partial(seats_lap, bench, options) for label, options in every.items()}
    if stock:
        variants[STOCK] = partial(stock_lap, bench)
    laps = alternate(variants, runs, warmup, on_round)
    full = _summary("full", laps["full"], None)
    clip = bench.make_clip()
    media = media_info(clip, bench.shape, bench.layout.n_windows)
    frames, seconds = media.frames, max(media.seconds_video, media.seconds_audio)
    return ProfileReport(
        model=model_info(bench.loaded),
        media=media if source == "clip" else None,
        workload=workload_of(bench.shape, bench.layout, source, frames, seconds),
        schedule=schedule_of(bench.loaded.model.spec, settings),
        runs=runs,
        warmup=warmup,
        note=note,
        settings_measured=(
            full,
            *(_summary(label, laps[label], full.seconds) for label in variants if label != "full"),
        ),
        versions=versions(),
        warnings=tuple(clip.warnings),
    )

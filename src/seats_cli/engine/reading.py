"""A clip decoded, encoded and thinned once, for whatever is asked about it.

Which of its tokens enter the decoder does not depend on the question, so what waits for one is what is kept.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from seats_cli.config import MediaOptions, SelectionOptions
from seats_cli.engine.admission import check_clip_fits
from seats_cli.engine.analytic import plan_of, synthetic_prompt
from seats_cli.engine.encode import window_batches
from seats_cli.engine.prepare import WINDOWS_PER_BATCH, ClipShape, clip_shape, lay_out, media_info
from seats_cli.engine.stage_one import KeptClip, keep_windows
from seats_cli.engine.store import ClipFacts, ClipStore, StoredClip, key_of
from seats_cli.errors import MemoryLimitError, SeatsError, explain
from seats_cli.layout import Layout
from seats_cli.media.types import Clip
from seats_cli.models.base import OmniModel
from seats_cli.models.loading import LoadedModel
from seats_cli.report import MediaInfo
from seats_cli.selection import METHODS, get_method
from seats_cli.selection.base import SelectionMethod
from seats_cli.selection.schedule import TokenPlan
from seats_cli.timing import Stopwatch


@dataclass(frozen=True, slots=True)
class OpenedClip:
    """A clip whose windows are known, before anything is encoded.

    Attributes:
        clip: Open.
        waveform: float32 [n], 16 kHz.
        shape: The clip in tokens.
        layout: Of a prompt about it; where the windows are does not depend on what is asked.
    """

    clip: Clip
    waveform: npt.NDArray[np.float32]
    shape: ClipShape
    layout: Layout


@dataclass(frozen=True, slots=True)
class ReadClip:
    """A clip as the decoder will receive it.

    Attributes:
        shape: The clip in tokens.
        plan: Who stays.
        kept: What Stage I left.
        media: What was seen and heard.
        seconds: By stage.
        wall_seconds: From opening the file to here.
        warnings: What was cut, replaced or missing.
    """

    shape: ClipShape
    plan: TokenPlan
    kept: KeptClip
    media: MediaInfo
    seconds: Mapping[str, float]
    wall_seconds: float
    warnings: tuple[str, ...]


def open_and_place(
    model: OmniModel, open_clip: Callable[[], Clip], media: MediaOptions, watch: Stopwatch
) -> OpenedClip:
    """Open a clip, hear its sound, count its tokens.

    Args:
        model: Whose tokens.
        open_clip: Opens it.
        media: What of it is seen and heard.
        watch: Stage ``decode`` is added to it.

    Raises:
        MediaError: It cannot be read, or there is nothing to see and nothing to hear.
    """
    with watch("decode"):
        clip = open_clip()
        waveform = clip.waveform()
    shape = clip_shape(clip, len(waveform), type(model), model.spec, media)
    layout = lay_out(shape, synthetic_prompt(model.spec, 1, shape), model.spec)
    return OpenedClip(clip, waveform, shape, layout)


def method_for(loaded: LoadedModel, plan: TokenPlan, options: SelectionOptions) -> SelectionMethod:
    """The method of the options; ``full`` when the plan keeps everything, so that nothing is computed for it."""
    kind = get_method(options.method)
    if plan.keeps_everything:
        kind = METHODS["full"]
    temperature = options.temperature or loaded.model.spec.preset.temperature
    return kind(plan, options, temperature)


@dataclass(frozen=True, slots=True)
class Cached:
    """A clip that may be in a cache.

    Attributes:
        store: The cache.
        path: Of the clip.
    """

    store: ClipStore
    path: str


@dataclass(frozen=True, slots=True)
class _Reading:
    """How a clip is read."""

    loaded: LoadedModel
    open_clip: Callable[[], Clip]
    media: MediaOptions
    selection: SelectionOptions
    cache: Cached | None
    began: float


@torch.inference_mode()
def read_clip(
    loaded: LoadedModel,
    open_clip: Callable[[], Clip],
    media: MediaOptions,
    selection: SelectionOptions,
    cache: Cached | None = None,
) -> ReadClip:
    """Decode, encode and thin a clip; or take its encoded windows from a cache.

    Out of memory, it is tried once more with a window at a time, and a warning says so.

    Args:
        loaded: The model.
        open_clip: Opens the clip.
        media: What of it is seen and heard.
        selection: What is kept.
        cache: Where encoded windows are looked for, and kept; None: nowhere.

    Raises:
        SeatsError: Any of its subclasses.
    """
    how = _Reading(loaded, open_clip, media, selection, cache, time.perf_counter())
    key = None if cache is None else key_of(Path(cache.path), loaded, media)
    try:
        stored = None if cache is None or key is None else cache.store.load(key, saliency=True)
        if cache is not None and stored is not None:
            return _from_cache(how, stored, cache)
        return _read(how, key, WINDOWS_PER_BATCH)
    except Exception as caught:
        # What does not fit by our own count would not fit the second time.
        if isinstance(caught, SeatsError) or not isinstance(explain(caught), MemoryLimitError):
            raise
    # Outside the handler: there the exception would hold the tensors of the first attempt.
    stored = None
    release_memory()
    read = _read(how, key, 1)
    line = f"out of memory with {WINDOWS_PER_BATCH} windows encoded at once: encoded again, one at a time"
    return replace(read, warnings=(*read.warnings, line))


def release_memory() -> None:
    """Give back what a failed attempt held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _read(how: _Reading, key: str | None, windows_per_batch: int) -> ReadClip:
    model = how.loaded.model
    watch = Stopwatch(model.devices)
    opened = open_and_place(model, how.open_clip, how.media, watch)
    clip, layout = opened.clip, opened.layout
    check_clip_fits(how.loaded, clip, how.media, how.selection)
    plan = plan_of(model.spec, layout, how.selection)
    method = method_for(how.loaded, plan, how.selection)
    batches = window_batches(
        model,
        clip,
        opened.waveform,
        opened.shape,
        layout.window_sizes,
        watch,
        # What is kept in a cache serves every method.
        saliency=method.needs_saliency or key is not None,
        windows_per_batch=windows_per_batch,
    )
    said: tuple[str, ...] = ()
    if how.cache is None or key is None:
        kept = keep_windows(batches, method, watch)
    else:
        with how.cache.store.recording(key, batches) as recording:
            kept = keep_windows(recording.batches, method, watch)
            facts = ClipFacts.of(clip, opened.shape, how.loaded.model_id)
            recording.commit(opened.shape, facts, tuple(clip.warnings))
        said = tuple(how.cache.store.take_warnings())
    return ReadClip(
        shape=opened.shape,
        plan=plan,
        kept=kept,
        media=media_info(clip, opened.shape, layout.n_windows),
        seconds=watch.seconds,
        wall_seconds=time.perf_counter() - how.began,
        warnings=(*clip.warnings, *said),
    )


def _from_cache(how: _Reading, stored: StoredClip, cache: Cached) -> ReadClip:
    model, shape = how.loaded.model, stored.shape
    watch = Stopwatch(model.devices)
    layout = lay_out(shape, synthetic_prompt(model.spec, 1, shape), model.spec)
    plan = plan_of(model.spec, layout, how.selection)
    method = method_for(how.loaded, plan, how.selection)
    kept = keep_windows(stored.batches(model.device), method, watch)
    media = stored.facts.media_info(cache.path, shape, layout.n_windows)
    return ReadClip(
        shape=shape,
        plan=plan,
        kept=kept,
        media=replace(media, cached=True),
        seconds=watch.seconds,
        wall_seconds=time.perf_counter() - how.began,
        warnings=(*stored.warnings, *cache.store.take_warnings()),
    )

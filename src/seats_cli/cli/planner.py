"""From the options of ``seats plan`` to a report per clip: what is asked once of the model and the machine."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from seats_cli import __version__
from seats_cli.cli.workload import Prompt, is_named, spec_without_weights
from seats_cli.config import SPREADING_MAPS, MediaOptions, ModelOptions, SelectionOptions
from seats_cli.engine.analytic import selection_info
from seats_cli.engine.estimate import Estimate, Holding, Job, estimate, holding_of
from seats_cli.engine.prepare import media_info
from seats_cli.engine.room import check_clip, check_weights, device_bytes, size_of
from seats_cli.errors import MemoryLimitError
from seats_cli.media.outline import ClipOutline, decoding_rate, outline_clip
from seats_cli.planning import PlanReport
from seats_cli.report import ModelInfo, Versions

if TYPE_CHECKING:
    from seats_cli.models.base import ModelSpec, OmniModel
    from seats_cli.planning import PlannedSeconds, Rates

DECODED_CLIPS, DECODED_SECONDS = 8, 0.25
"""How many clips are decoded for a while, to see how fast that goes, and for how long each."""
BYTES_PER_TOKEN, TEMPLATE_TOKENS = 4, 40
"""For a question whose tokenizer is not here."""


@dataclass(slots=True)
class Planner:
    """Plans clip after clip.

    Attributes:
        family: Of the model.
        spec: Of the model.
        holding: How it will be held.
        model: As the reports name it.
        media: What of a clip is seen and heard.
        selection: Who stays.
        text: ``(with picture, sound alone)``: text tokens without the markers of sound inside a picture.
        text_counted: ``given``, ``tokenizer`` or ``rough``.
        max_new_tokens: Of an answer.
        available: Bytes of the device; None: not known, or not to be looked at.
        measured: FLOPs and bytes per second; None: times are not wanted.
        model_warnings: About the model alone.
    """

    family: type[OmniModel]
    spec: ModelSpec
    holding: Holding
    model: ModelInfo
    media: MediaOptions
    selection: SelectionOptions
    text: tuple[int, int]
    text_counted: str
    max_new_tokens: int
    available: int | None
    measured: tuple[float, float] | None
    model_warnings: tuple[str, ...]
    _pixel_rates: list[float] = field(default_factory=list)

    def plan(self, path: str) -> PlanReport:
        """What a clip will take.

        Raises:
            MediaError: It cannot be read, seen or heard as asked.
            UsageError: The part asked for is not in it, or it cannot be pruned like that.
        """
        outline = outline_clip(path, self.media)
        job = Job(
            family=self.family,
            spec=self.spec,
            holding=self.holding,
            clip=outline,
            media=self.media,
            selection=self.selection,
            n_text=self._text_tokens(outline),
            max_new_tokens=self.max_new_tokens,
        )
        found = estimate(job)
        fits = None if self.available is None else found.memory.least <= self.available
        seconds, rates = self._times(job, found, outline)
        return PlanReport(
            model=self.model,
            media=media_info(outline, found.shape, found.layout.n_windows),
            selection=selection_info(found.plan, found.tokens, self.selection),
            tokens=found.tokens,
            text_counted=self.text_counted,
            flops=found.flops,
            max_new_tokens=self.max_new_tokens,
            memory=replace(found.memory, available=self.available, fits=fits),
            seconds=seconds,
            rates=rates,
            versions=Versions(seats=__version__, torch=None, transformers=None),
            warnings=(*outline.warnings, *found.warnings, *self.model_warnings, *self._room(job, found)),
        )

    def _text_tokens(self, outline: ClipOutline) -> int:
        seen, heard = outline.plan is not None, outline.n_samples > 0
        if self.text_counted == "given":
            return self.text[0]
        return self.text[0] + 2 * heard if seen else self.text[1]

    def _room(self, job: Job, found: Estimate) -> tuple[str, ...]:
        """What is to be said about memory that has not been said of the model alone."""
        if self.available is None or found.memory.weights > self.available:
            return ()
        try:
            check_clip(job, self.available, known=found)
        except MemoryLimitError as error:
            return (f"{error}: {error.hint}",)
        if found.memory.expected > self.available:
            expected, there = size_of(found.memory.expected), size_of(self.available)
            return (f"memory may run out: {expected} are expected of {there}; smaller --trr or --max-frames help",)
        return ()

    def _times(
        self, job: Job, found: Estimate, outline: ClipOutline
    ) -> tuple[PlannedSeconds | None, Rates | None]:
        if self.measured is None:
            return None, None
        from seats_cli.engine.rates import make_rates, planned_seconds

        pixels: float | None = None
        if outline.picture is not None and len(self._pixel_rates) < DECODED_CLIPS:
            pixels = decoding_rate(outline, DECODED_SECONDS)
            self._pixel_rates += [] if pixels is None else [pixels]
        if outline.picture is not None and pixels is None and self._pixel_rates:
            pixels = statistics.harmonic_mean(self._pixel_rates)
        rates = make_rates(self.measured, pixels)
        return planned_seconds(job, found, rates, outline.decoded_pixels), rates


def make_planner(
    loading: ModelOptions,
    media: MediaOptions,
    selection: SelectionOptions,
    prompt: Prompt,
    max_new_tokens: int,
    *,
    timed: bool,
) -> Planner:
    """Look at the model's config and at the device.

    Raises:
        ModelError: The model's config cannot be had.
        UsageError: The device does not exist here, or the question cannot be.
    """
    family, spec = spec_without_weights(loading)
    device = _device(loading)
    on_gpu = not device.startswith("cpu")
    quantised = _quantised(loading)
    holding = holding_of(loading, on_gpu=on_gpu, quantised=quantised)
    # Weights that may be parked elsewhere are not held to one device.
    available = None if loading.device_map in SPREADING_MAPS else device_bytes(device)
    dtype = loading.dtype if loading.dtype != "auto" else "bfloat16" if on_gpu else "float32"
    text, counted_by = _text(loading, family, spec, prompt)
    return Planner(
        family=family,
        spec=spec,
        holding=holding,
        model=ModelInfo(
            id=loading.model,
            revision=None,
            weights="none",
            dtype=dtype,
            device=loading.device_map or device,
            attention=loading.attn,
            quant=holding.quant,
        ),
        media=media,
        selection=selection,
        text=text,
        text_counted=counted_by,
        max_new_tokens=max_new_tokens,
        available=available,
        measured=_measure(device, dtype) if timed else None,
        model_warnings=tuple(_model_warnings(spec, holding, loading, available, counted_by)),
    )


def _device(loading: ModelOptions) -> str:
    """Where it will compute. To know that it is the CPU when that is asked for takes no torch."""
    if loading.device == "cpu" and loading.device_map is None:
        return "cpu"
    from seats_cli.models.placement import choose_device

    if loading.device_map is not None and loading.device_map not in SPREADING_MAPS:
        return str(choose_device(loading.device_map, "--device-map"))
    return str(choose_device(loading.device if loading.device_map is None else "auto"))


def _measure(device: str, dtype: str) -> tuple[float, float]:
    import torch

    from seats_cli.engine.rates import measure_rates

    return measure_rates(torch.device(device), getattr(torch, dtype))


def _quantised(loading: ModelOptions) -> str | None:
    """How the checkpoint is quantised already."""
    if is_named(loading):
        return None
    from seats_cli.models.checkpoint import look
    from seats_cli.models.quantisation import describe

    config = look(loading).quantization
    return None if config is None else describe(config)


def _model_warnings(
    spec: ModelSpec, holding: Holding, loading: ModelOptions, available: int | None, counted_by: str
) -> list[str]:
    found = []
    try:
        check_weights(spec, holding, available)
    except MemoryLimitError as error:
        found.append(f"{error}: {error.hint}")
    if loading.quant != "none" and spec.geometry.text.n_experts:
        found.append(
            f"--quant {loading.quant} does not reach the experts of {loading.model}; seats ask refuses it"
        )
    if counted_by == "rough":
        found.append("the question's tokens are a guess by its length: the model's tokenizer is not on this disk")
    return found


def _text(
    loading: ModelOptions, family: type[OmniModel], spec: ModelSpec, prompt: Prompt
) -> tuple[tuple[int, int], str]:
    """Text tokens around a clip with picture and around sound alone, and how they were counted."""
    question = prompt.question
    if question is None:
        return (prompt.text_tokens, prompt.text_tokens), "given"
    from seats_cli.models.checkpoint import small_files

    # Importing what reads a tokenizer takes seconds, and is for nothing where there is none.
    if small_files(loading) is not None:
        from seats_cli.models.loading import without_weights

        model = without_weights(loading, family, spec)
        if model is not None:
            seen, heard = (sum(map(len, model.prompt(question, None, clip))) for clip in ("video", "audio"))
            return (seen, heard), "tokenizer"
    rough = TEMPLATE_TOKENS + math.ceil(len(question.encode("utf-8", "replace")) / BYTES_PER_TOKEN)
    return (rough, rough), "rough"

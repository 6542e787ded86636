"""What ``profile`` measures: the clip or the made-up frames, and the model or what stands in for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seats_cli.config import SHIPPED_MODEL, MediaOptions, ModelOptions, SelectionOptions, Suite
from seats_cli.errors import ModelError, UsageError

if TYPE_CHECKING:
    from seats_cli.media import Clip
    from seats_cli.models.base import ModelSpec, OmniModel
    from seats_cli.models.loading import LoadedModel

# The paper's workload: frames of 9 x 16 merged tokens.
GRID_ROWS, GRID_COLUMNS = 9, 16
PAPER_FRAMES, PAPER_SECONDS = 128, 64.0
FEWEST_TEXT_TOKENS = 8
# Lengths in minutes that a suite measures by default.
DEFAULT_MINUTES = {"memory": (1, 10, 60), "growth": (1, 2, 4, 8)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What will be asked: the question itself, or how many tokens of text there are around the clip."""

    question: str | None
    text_tokens: int

    def __post_init__(self) -> None:
        if self.text_tokens < FEWEST_TEXT_TOKENS:
            raise UsageError(f"--text-tokens is {self.text_tokens}; a prompt has at least {FEWEST_TEXT_TOKENS}")
        if self.question is not None and not self.question.strip():
            raise UsageError("the question is empty", "leave --question out, or ask something")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A clip on disk, or frames and seconds made up.

    Attributes:
        path: The clip; None: made up.
        frames: Made-up frames.
        seconds: Of made-up sound.
        text_tokens: Of the prompt.
        media: What of the clip is seen and heard.
    """

    path: str | None
    frames: int
    seconds: float
    text_tokens: int
    media: MediaOptions

    def __post_init__(self) -> None:
        if self.frames < 0 or not 0 <= self.seconds < float("inf"):
            raise UsageError(f"--frames {self.frames} and --seconds {self.seconds:g} must be 0 or more")
        if self.path is None and self.frames == 0 and self.seconds == 0:
            raise UsageError("--frames 0 and --seconds 0 leave nothing to prefill")
        if self.text_tokens < FEWEST_TEXT_TOKENS:
            raise UsageError(f"--text-tokens is {self.text_tokens}; a prompt has at least {FEWEST_TEXT_TOKENS}")

        self._check_unused()

    def _check_unused(self) -> None:
        """Refuse options that would be passed over in silence."""
        media = self.media
        of_a_clip = media.start_seconds is not None or media.end_seconds is not None or media.require_audio
        if self.path is None and of_a_clip:
            raise UsageError(
                "--start, --end and --require-audio speak of a clip, and none is given",
                "name a clip, or shape the made-up one with --frames, --seconds and --fps",
            )
        if self.path is not None and (self.frames, self.seconds) != (PAPER_FRAMES, PAPER_SECONDS):
            raise UsageError(
                "--frames and --seconds make a clip up; one is given", f"leave out {self.path}, or them"
            )

    @property
    def source(self) -> str:
        """As the report names it."""
        return "synthetic" if self.path is None else "clip"

    def options(self, factor: int) -> MediaOptions:
        """Made-up frames have the size they are wanted in; no pixel budget may change it."""
        if self.path is not None:
            return self.media
        area = GRID_ROWS * GRID_COLUMNS * factor * factor
        return dataclasses.replace(self.media, min_pixels=area, max_pixels=area)

    def maker(self, factor: int) -> Callable[[], Clip]:
        """Opens the clip, or makes it up; ``factor`` is the side of a merged token in pixels."""
        from seats_cli.media import NoiseClip, open_clip

        if self.path is not None:
            path = self.path
            return lambda: open_clip(path, self.media)
        return lambda: NoiseClip(
            n_frames=self.frames,
            seconds=self.frames / self.media.fps if self.frames else self.seconds,
            width=GRID_COLUMNS * factor,
            height=GRID_ROWS * factor,
            fps=self.media.fps,
            audio_seconds=self.seconds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteOptions:
    """Which suite, and what is a suite's own.

    Attributes:
        name: Of the suite.
        minutes: Lengths of ``memory`` and ``growth``; none: as fits the device.
        answer_tokens: Tokens of ``decode``.
        stock: Have ``decode`` measure what transformers compiles, on a GPU too.
    """

    name: Suite
    minutes: tuple[int, ...]
    answer_tokens: int
    stock: bool = False

    def __post_init__(self) -> None:
        if self.minutes and self.name not in DEFAULT_MINUTES:
            raise UsageError("--minutes belongs to --suite memory and --suite growth", "leave it out")
        if any(n < 1 for n in self.minutes):
            raise UsageError(f"--minutes is {min(self.minutes)}; it must be at least 1")
        if len(set(self.minutes)) != len(self.minutes):
            raise UsageError("--minutes names a length twice")
        if self.answer_tokens < 2:
            raise UsageError(f"--answer-tokens is {self.answer_tokens}; it must be at least 2")


def check_suite(
    suite: SuiteOptions, workload: Workload, settings: Sequence[SelectionOptions], *, analytic: bool
) -> None:
    """Refuse what a suite would pass over in silence.

    Raises:
        UsageError: Something contradicts it.
    """
    if analytic:
        raise UsageError("--suite measures and --analytic runs nothing", "leave one of them out")
    if len(settings) != 1:
        raise UsageError("--suite measures one ratio", "give one --trr, or none: it is 0.1")
    made_up = (workload.frames, workload.seconds) == (PAPER_FRAMES, PAPER_SECONDS)
    if suite.name in DEFAULT_MINUTES and (workload.path is not None or not made_up):
        raise UsageError(f"--suite {suite.name} makes its clips up", "shape them with --minutes")
    if suite.name == "end-to-end" and workload.path is None and not made_up:
        raise UsageError("--suite end-to-end reads a file", "name one, or leave out --frames and --seconds")


def is_named(options: ModelOptions) -> bool:
    """Whether the dimensions of a model are known here, with no download."""
    from seats_cli.models import named_architecture

    try:
        named_architecture(options.model)
    except ModelError:
        return False
    return True


def spec_without_weights(options: ModelOptions) -> tuple[type[OmniModel], ModelSpec]:
    """From a known name, a folder or the cache: the config is all that is needed.

    Raises:
        ModelError: There is none.
    """
    from seats_cli.models import named_architecture
    from seats_cli.models.specs import spec_of_checkpoint

    if is_named(options):
        family, config = named_architecture(options.model)
        return family, family.spec_of(options.model, config)
    return spec_of_checkpoint(options)


def check_selection(options: ModelOptions, *settings: SelectionOptions) -> None:
    """Find out before a model is loaded, not after it, that a ratio or a schedule cannot be.

    Looks at models whose dimensions can be had without the network; the others are for ``check_settings``, once
    they are loaded.

    Raises:
        ModelError: The folder is not that of a checkpoint.
        UsageError: A ratio or the boundaries are infeasible.
    """
    here = options.model == SHIPPED_MODEL or Path(options.model).expanduser().is_dir()
    if not here and not is_named(options):
        return
    from seats_cli.engine.analytic import check_settings

    check_settings(spec_without_weights(options)[1], settings)


def _stand_in(options: ModelOptions, why: str) -> tuple[LoadedModel, str]:
    from seats_cli.models import named_architecture
    from seats_cli.models.loading import build_random

    family, _ = named_architecture(options.model)
    name, config = family.stand_in
    small = dataclasses.replace(options, model=name, weights="random")
    return build_random(small, family, config), (
        f"measured on a {name}, random weights, instead of {options.model}: {why}; "
        f"its times are not those of {options.model}"
    )


def load_for_profile(options: ModelOptions) -> tuple[LoadedModel, str]:
    """The model to measure, and a note on what it is instead of what was asked for; empty if it is that.

    Without a GPU and without weights a small model stands in for a named one: random weights of the true size
    would not fit, and say no more.

    Raises:
        ModelError: There is no such model.
        UsageError: The device does not exist here.
    """
    from seats_cli.models.loading import choose_device, load

    on_cpu = choose_device(options.device).type == "cpu"
    random = dataclasses.replace(options, weights="random")
    true_size = f"random weights of {options.model}'s dimensions: times are real, answers are not"
    if options.weights == "random":
        # Asking for the CPU by name is asking for the wait.
        if on_cpu and options.device == "auto" and is_named(options):
            return _stand_in(options, "there is no GPU here (--device cpu insists)")
        return load(random), true_size
    # Measuring a known architecture is not worth tens of gigabytes: its weights are used if they are there.
    here = dataclasses.replace(options, offline=True) if is_named(options) else options
    try:
        return load(here), ""
    except ModelError:
        if not is_named(options):
            raise
        if on_cpu:
            return _stand_in(options, "there is no GPU here, and its weights are not in the cache")
        return load(random), f"{true_size}; its own are not in the cache"

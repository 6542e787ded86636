"""One clip, one question: file -> media -> layout -> encode and Stage I -> prefill -> decode -> report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch

from seats_cli import cost
from seats_cli.config import GenerationOptions, MediaOptions, SelectionOptions
from seats_cli.engine.analytic import flops_of, plan_of, selection_info, token_counts
from seats_cli.engine.decode import TextStream, choice_probabilities, choice_tokens, decode
from seats_cli.engine.encode import Batches
from seats_cli.engine.marks import model_info, versions
from seats_cli.engine.prefill import Prefill, prefill
from seats_cli.engine.prepare import MOST_SPARE_TOKENS, ClipShape, clip_shape, lay_out, position_warning
from seats_cli.engine.reading import Cached, ReadClip, method_for, read_clip
from seats_cli.engine.stage_one import EncodedClip, encode, select_windows, with_text
from seats_cli.engine.thinking import Splitter, Trimmed, prompt_of, scored_warnings, thinks
from seats_cli.layout import Layout
from seats_cli.media.types import Clip
from seats_cli.models.base import OmniModel, check_plain_text
from seats_cli.models.loading import LoadedModel
from seats_cli.models.turns import Turn
from seats_cli.report import (
    Choice,
    FlopsInfo,
    Report,
    Seconds,
)
from seats_cli.selection.base import SelectionMethod
from seats_cli.selection.schedule import TokenPlan
from seats_cli.timing import PeakMemory, Stopwatch, synchronize

OnTrace = Callable[[dict[str, torch.Tensor], Layout, TokenPlan], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """All that shapes an answer, but the model."""

    media: MediaOptions = field(default_factory=MediaOptions)
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    generation: GenerationOptions = field(default_factory=GenerationOptions)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A clip laid out, before anything is encoded."""

    clip: Clip
    waveform: npt.NDArray[np.float32]
    shape: ClipShape
    layout: Layout
    plan: TokenPlan


@dataclass(frozen=True, slots=True)
class Prompted:
    """A prompt that the model has read."""

    encoded: EncodedClip
    prefill: Prefill


@dataclass(frozen=True, slots=True)
class Written:
    """An answer: its text, its tokens, why it ended, and the labels with their probabilities.

    ``thinking`` is the reasoning before it, None where there was none; ``n_thinking`` its tokens, marks included.
    ``path`` is how it was written, see ``Decoded``; None where nothing was.
    """

    text: str
    n_tokens: int
    finish_reason: str
    choices: tuple[Choice, ...] = ()
    thinking: str | None = None
    n_thinking: int = 0
    warnings: tuple[str, ...] = ()
    path: str | None = None


def prepare(loaded: LoadedModel, clip: Clip, question: str, settings: Settings, watch: Stopwatch) -> Prepared:
    """Hear the sound, count the tokens, place them, and plan who stays.

    Raises:
        UsageError: The question, the choices or the schedule cannot be, or reasoning cannot be switched off.
        MediaError: The sound cannot be read.
    """
    model = loaded.model
    model.check_thinking(settings.generation.thinking)
    check_choices(model, settings.generation.choices)
    with watch("decode"):
        waveform = clip.waveform()
    shape = clip_shape(clip, len(waveform), type(model), model.spec, settings.media)
    layout = layout_of(model, shape, question, settings.generation)
    too_far = position_warning(layout, model.spec.max_positions)
    if too_far:
        clip.warnings.append(too_far)
    return Prepared(clip, waveform, shape, layout, plan_of(model.spec, layout, settings.selection))


def layout_of(
    model: OmniModel,
    shape: ClipShape,
    question: str,
    options: GenerationOptions,
    *,
    at_once: bool = False,
    history: Sequence[Turn] = (),
) -> Layout:
    """Place a clip in the prompt that asks about it.

    Args:
        model: Has the chat template.
        shape: The clip in tokens.
        question: Plain text.
        options: System prompt, choices, whether the model may reason.
        at_once: The answer is scored right after the prompt, as choices always are: no reasoning goes before it.
        history: The turns before, the first one first.

    Raises:
        UsageError: The question cannot be, or there is nothing to see and nothing to hear.
    """
    clip = "video" if shape.video else "audio"
    return lay_out(shape, prompt_of(model, question, options, clip, at_once=at_once, history=history), model.spec)


def check_choices(model: OmniModel, choices: Sequence[str], name: str = "--choices") -> None:
    """Find out before a clip is read that the first tokens cannot tell the labels apart.

    Args:
        model: Has the tokenizer.
        choices: Labels; may be none.
        name: Where they were given, for the error.

    Raises:
        UsageError: They cannot, or a label holds a special token.
    """
    if choices:
        check_plain_text(" ".join(choices), "list of choices", model.tokenizer)
        choice_tokens(choices, model.tokenizer, name)


def read_prompt(
    loaded: LoadedModel, prepared: Prepared, options: SelectionOptions, watch: Stopwatch, spare: int = 0
) -> Prompted:
    """Encode, select and prefill."""
    method = method_for(loaded, prepared.plan, options)
    clip = prepared.clip
    encoded = encode(loaded.model, clip, prepared.waveform, prepared.shape, prepared.layout, method, watch)
    return _prefilled(loaded, prepared.layout, encoded, method, options, watch, spare)


def read_encoded(
    loaded: LoadedModel,
    layout: Layout,
    plan: TokenPlan,
    batches: Batches,
    options: SelectionOptions,
    watch: Stopwatch,
    spare: int = 0,
) -> Prompted:
    """Select and prefill with windows that are encoded already; the same as ``read_prompt`` for the same clip.

    Args:
        loaded: The model.
        layout: The unpruned sequence.
        plan: Who stays in it.
        batches: The clip's windows, held in memory; none without a clip.
        options: Of the selection.
        watch: Stages ``select`` and ``prefill`` are added to it.
        spare: Room in the cache for answer tokens.
    """
    method = method_for(loaded, plan, options)
    encoded = select_windows(loaded.model, layout, batches, method, watch)
    return _prefilled(loaded, layout, encoded, method, options, watch, spare)


def _prefilled(
    loaded: LoadedModel,
    layout: Layout,
    encoded: EncodedClip,
    method: SelectionMethod,
    options: SelectionOptions,
    watch: Stopwatch,
    spare: int,
) -> Prompted:
    with watch("prefill"):
        filled = prefill(
            loaded.model,
            layout,
            encoded,
            method,
            kv_cache=options.kv_cache,
            score_with=options.score_with,
            spare=spare,
            watch=watch,
        )
    return Prompted(encoded, filled)


@torch.inference_mode()
def answer(
    loaded: LoadedModel,
    open_clip: Callable[[], Clip],
    question: str,
    settings: Settings,
    on_text: Callable[[str], None] | None = None,
    on_trace: OnTrace | None = None,
    on_thinking: Callable[[str], None] | None = None,
    cache: Cached | None = None,
) -> Report:
    """Answer one question about one clip.

    Args:
        loaded: The model.
        open_clip: Opens the clip; called once, inside the measured time, and again if memory runs out.
        question: Plain text.
        settings: Options.
        on_text: Called with each piece of the answer as it comes.
        on_trace: Called once with what the selection noted.
        on_thinking: Called with each piece of the reasoning as it comes.
        cache: Where encoded windows are looked for, and kept; None: nowhere.

    Raises:
        SeatsError: Any of its subclasses.
    """
    with PeakMemory(loaded.model.devices) as peak:
        check_question(loaded.model, question, settings.generation)
        read = read_clip(loaded, open_clip, settings.media, settings.selection, cache)
        report = reply(loaded, read, question, settings, on_text, on_trace, on_thinking)
    return replace(report, memory_bytes=peak.n_bytes)


def check_question(model: OmniModel, question: str, options: GenerationOptions) -> None:
    """Find out before a clip is read that a question cannot be.

    Raises:
        UsageError: It or the choices hold a special token, the first tokens cannot tell the choices apart, or
            reasoning cannot be switched off.
    """
    model.check_thinking(options.thinking)
    check_choices(model, options.choices)
    prompt_of(model, question, options, "video")


@torch.inference_mode()
def reply(
    loaded: LoadedModel,
    read: ReadClip,
    question: str,
    settings: Settings,
    on_text: Callable[[str], None] | None = None,
    on_trace: OnTrace | None = None,
    on_thinking: Callable[[str], None] | None = None,
    history: Sequence[Turn] = (),
) -> Report:
    """Answer a question about a clip that is read; it can be asked about again.

    Args:
        loaded: The model.
        read: With the same media and selection options.
        question: Plain text.
        settings: Options.
        on_text: Called with each piece of the answer as it comes.
        on_trace: Called once with what the selection noted.
        on_thinking: Called with each piece of the reasoning as it comes.
        history: What was asked and answered before, the first turn first.

    Returns:
        The report. Times of reading are the clip's; memory is not measured.

    Raises:
        SeatsError: Any of its subclasses.
    """
    began, model, generation = time.perf_counter(), loaded.model, settings.generation
    watch = Stopwatch(model.devices)
    layout = layout_of(model, read.shape, question, generation, history=history)
    encoded = with_text(model, layout, read.kept)
    method = method_for(loaded, read.plan, settings.selection)
    prompted = _prefilled(loaded, layout, encoded, method, settings.selection, watch, spare_for(generation))
    first_token = _seconds_since(began, model)
    written = write_answer(loaded, layout, prompted.prefill, generation, on_text, on_thinking)
    if on_trace is not None:
        on_trace({**prompted.encoded.trace, **prompted.prefill.trace}, layout, read.plan)
    tokens = token_counts(layout, prompted.prefill.counts)
    too_far = position_warning(layout, model.spec.max_positions, in_chat=bool(history))
    return Report(
        question=question,
        answer=written.text,
        finish_reason=written.finish_reason,
        answer_tokens=written.n_tokens,
        thinking=written.thinking,
        thinking_tokens=written.n_thinking,
        decode_path=written.path,
        choices=written.choices,
        model=model_info(loaded),
        media=read.media,
        selection=selection_info(read.plan, tokens, settings.selection),
        tokens=tokens,
        flops=flops_info(loaded, layout, prompted),
        seconds=_seconds(read, watch.seconds, first_token, time.perf_counter() - began),
        memory_bytes=None,
        versions=versions(),
        warnings=(*read.warnings, *([too_far] if too_far else []), *written.warnings),
    )


def _seconds_since(began: float, model: OmniModel) -> float:
    """Until all that was asked of its devices is done."""
    synchronize(model.devices)
    return time.perf_counter() - began


def _seconds(read: ReadClip, after: Mapping[str, float], first_token: float, answer: float) -> Seconds:
    seconds = {**read.seconds, **after}
    stages = {stage: seconds.get(stage, 0.0) for stage in ("decode", "encode", "select", "prefill")}
    return Seconds(**stages, first_token=read.wall_seconds + first_token, answer=read.wall_seconds + answer)


def spare_for(options: GenerationOptions) -> int:
    """Room to make in the cache for the answer; a longer one makes the cache grow."""
    return 0 if options.choices else min(options.max_new_tokens, MOST_SPARE_TOKENS)


def write_answer(
    loaded: LoadedModel,
    layout: Layout,
    filled: Prefill,
    options: GenerationOptions,
    on_text: Callable[[str], None] | None = None,
    on_thinking: Callable[[str], None] | None = None,
) -> Written:
    """Decode, or choose among the labels by the first token.

    Args:
        loaded: The model.
        layout: The prompt.
        filled: The prompt, read.
        options: Length, sampling, choices.
        on_text: Called with each piece of the answer as it comes.
        on_thinking: Called with each piece of the reasoning as it comes.
    """
    if options.choices:
        return _choose(loaded.model, filled, options, on_text)
    model = loaded.model
    if model.thinking_ids is not None:  # around the marks are empty lines, which are nobody's text
        on_text, on_thinking = (write and Trimmed(write) for write in (on_text, on_thinking))
    answer, thinking = TextStream(model.tokenizer, on_text), TextStream(model.tokenizer, on_thinking)
    split = Splitter(model.thinking_ids, thinks(model, layout.ids), answer.push, thinking.push)
    decoded = decode(model, filled.logits, filled.cache, layout.next_position, options, split.push)
    return Written(
        answer.close().strip(),
        split.n_answer,
        decoded.finish_reason,
        thinking=thinking.close().strip() if split.reasoned else None,
        n_thinking=split.n_thinking,
        warnings=(*split.warnings(decoded.finish_reason), *decoded.warnings),
        path=decoded.path,
    )


def _choose(
    model: OmniModel, filled: Prefill, options: GenerationOptions, on_text: Callable[[str], None] | None
) -> Written:
    """The likeliest label by its first token."""
    shares = choice_probabilities(filled.logits, options.choices, model.tokenizer)
    choices = tuple(Choice(label=label, probability=p) for label, p in zip(options.choices, shares, strict=True))
    best = options.choices[max(range(len(shares)), key=shares.__getitem__)]
    if on_text is not None:
        on_text(best)
    return Written(best, 1, "choice", choices, warnings=scored_warnings(model, filled.logits, options))


def flops_info(loaded: LoadedModel, layout: Layout, prompted: Prompted) -> FlopsInfo:
    """Cost of this run beside that of a full one."""
    spec = loaded.model.spec
    scoring = sum(cost.relevance_flops(spec.geometry.text, n) for n in prompted.prefill.scored)
    return flops_of(
        spec,
        layout.n_tokens,
        [sum(counts) for counts in prompted.prefill.counts],
        prompted.encoded.encoder_flops,
        prompted.encoded.selection_flops + scoring,
    )

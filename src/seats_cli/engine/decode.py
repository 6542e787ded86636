"""Answer tokens, one at a time, over the ragged cache."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from seats_cli.config import GenerationOptions
from seats_cli.engine.cache import RaggedCache
from seats_cli.engine.graphs import lane_of
from seats_cli.engine.prefill import layer_device
from seats_cli.engine.static import Lane, StaticSteps
from seats_cli.errors import UsageError
from seats_cli.models.base import OmniModel
from seats_cli.timelimit import check_time

UNFINISHED = "\ufffd"
"""What a tokenizer shows for half of a character."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """An answer.

    Attributes:
        token_ids: Without the stop token.
        finish_reason: ``stop``, ``length`` or ``interrupted``.
        path: How steps were run: ``graph``, ``static`` or ``eager``.
        warnings: What made it slower than it should be.
    """

    token_ids: list[int]
    finish_reason: str
    path: str = "eager"
    warnings: tuple[str, ...] = ()


class TextStream:
    """Turns ids into text as they come; holds back half of a character until its other half is there.

    Args:
        tokenizer: Of transformers.
        write: Called with each new piece of text; None: only collects.
    """

    def __init__(self, tokenizer: Any, write: Callable[[str], None] | None = None) -> None:
        self._tokenizer = tokenizer
        self._write = write
        self._ids: list[int] = []
        self._shown = ""

    def push(self, token_id: int) -> None:
        """Add one token."""
        self._ids.append(token_id)
        if self._write is not None:  # to read all of it again for each token is for those who watch
            self._advance(self._decode().rstrip(UNFINISHED))

    def close(self) -> str:
        """Show what was held back; the whole text."""
        self._advance(self._decode())
        return self._shown

    def _decode(self) -> str:
        text: str = self._tokenizer.decode(self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _advance(self, text: str) -> None:
        if not text.startswith(self._shown):  # never take back what a user has read
            return
        piece = text[len(self._shown) :]
        self._shown = text
        if piece and self._write is not None:
            self._write(piece)


class Sampler:
    """Chooses the next token: the likeliest, or drawn after transformers' own warpers.

    Args:
        options: ``temperature`` 0 is greedy; ``top_p`` and ``seed`` only matter otherwise.
    """

    def __init__(self, options: GenerationOptions) -> None:
        from transformers.generation.logits_process import (
            LogitsProcessorList,
            TemperatureLogitsWarper,
            TopPLogitsWarper,
        )

        self._greedy = options.temperature == 0
        self._warpers = LogitsProcessorList()
        if not self._greedy:
            # What float32 cannot divide by is as good as greedy.
            temperature = max(float(options.temperature), torch.finfo(torch.float32).tiny)
            self._warpers.append(TemperatureLogitsWarper(temperature))
            if options.top_p < 1:
                self._warpers.append(TopPLogitsWarper(options.top_p))
        self._seed = options.seed
        self._generator: torch.Generator | None = None

    def choose(self, logits: torch.Tensor) -> torch.Tensor:
        """Next token id, int64 [1], from logits [vocab]."""
        if self._greedy:
            return logits.argmax(dim=-1, keepdim=True)
        # Probabilities do not change with the greatest taken off, and no temperature is too low for it.
        shifted = logits[None].float() - logits.max().float()
        scores = self._warpers(torch.empty(1, 0, dtype=torch.long, device=logits.device), shifted)
        if self._generator is None:
            self._generator = torch.Generator(device=logits.device)
            if self._seed is not None:
                self._generator.manual_seed(self._seed)
            else:
                self._generator.seed()
        shares = torch.softmax(scores[0], dim=-1)
        # What torch.multinomial does for one draw, without its checks, for which the host would wait.
        return (shares / torch.empty_like(shares).exponential_(1, generator=self._generator)).argmax(
            -1, keepdim=True
        )


def next_logits(model: OmniModel, token: torch.Tensor, position: float, cache: RaggedCache) -> torch.Tensor:
    """One decoding step.

    Args:
        model: The thinker.
        token: int64 [1].
        position: The token's place on all three axes.
        cache: Grows by one token in every layer.

    Returns:
        Logits [vocab] of the token after it.
    """
    hidden = model.embed(token.to(model.device))[None]
    cos, sin = model.rope(hidden, torch.full((3, 1), float(position), device=hidden.device))
    for i in range(len(model.layers)):
        place = layer_device(model, i)
        if hidden.device != place:
            hidden, cos, sin = hidden.to(place), cos.to(place), sin.to(place)
        hidden = model.run_layer(i, hidden, (cos, sin), None, cache)
    return model.last_logits(hidden)


class EagerSteps:
    """Steps of ``next_logits``: for models in several places, or whose weights are brought by hooks.

    Args:
        model: The thinker.
        cache: From the prefill.
        next_position: Position of the first token that is added.
    """

    path = "eager"
    warnings: tuple[str, ...] = ()
    lane: Lane | None = None

    def __init__(self, model: OmniModel, cache: RaggedCache, next_position: float) -> None:
        self._model, self._cache, self._position = model, cache, next_position

    def used(self) -> AbstractContextManager[None]:
        """Entered around all steps."""
        return nullcontext()

    def advance(self, token: torch.Tensor) -> torch.Tensor:
        """Add a token, int64 [1]; gives logits [vocab] of the one after it."""
        logits = next_logits(self._model, token, self._position, self._cache)
        self._position += 1
        return logits


def steps_for(
    model: OmniModel, cache: RaggedCache, next_position: float, n_steps: int
) -> StaticSteps | EagerSteps:
    """How answer tokens will be written, decided by where the model is and how it is held.

    Args:
        model: The thinker.
        cache: From the prefill.
        next_position: Position of the first token that is added.
        n_steps: Most steps that may come.
    """
    if not model.in_one_place:
        return EagerSteps(model, cache, next_position)
    lane = lane_of(model.device) if model.device.type == "cuda" else None
    return StaticSteps(model, cache, next_position, n_steps, lane, graphs=not model.is_quantised)


def _written(
    steps: StaticSteps | EagerSteps, choose: Callable[[torch.Tensor], torch.Tensor], logits: torch.Tensor, n: int
) -> Iterator[int]:
    """Token after token, ``n`` at most.

    A GPU is given the next step before the host reads a token, so it never waits for the host. Whoever stops at a
    token has then made it take one step too many, which nobody sees.
    """
    if steps.lane is None:
        for step in range(n):
            token = choose(logits)
            yield int(token)
            if step + 1 < n:
                logits = steps.advance(token)
        return
    mail = steps.lane.mail()
    for step in range(n):
        token = choose(logits)
        mail.post(token)
        if step:
            yield mail.take()
        if step + 1 < n:
            logits = steps.advance(token)
    yield mail.take()


@torch.inference_mode()
def decode(
    model: OmniModel,
    logits: torch.Tensor,
    cache: RaggedCache,
    next_position: float,
    options: GenerationOptions,
    on_token: Callable[[int], None] | None = None,
    stop: Collection[int] | None = None,
    steps: StaticSteps | EagerSteps | None = None,
) -> Decoded:
    """Write the answer.

    Ctrl-C ends it early and keeps what there is; a time limit ends it for good.

    Args:
        model: The thinker.
        logits: [vocab], from the prefill.
        cache: From the prefill.
        next_position: Position of the answer's first token (``Layout.next_position``).
        options: Length and sampling.
        on_token: Called with each token id as soon as it is known.
        stop: Ids that end it; None: the model's.
        steps: How it is written, over this very cache; None: as ``steps_for`` decides.
    """
    stop = frozenset(model.stop_ids if stop is None else stop)
    if steps is None:
        steps = steps_for(model, cache, next_position, options.max_new_tokens - 1)
    ids: list[int] = []
    reason = "length"
    try:
        with model.decoding(), steps.used():
            for chosen in _written(steps, Sampler(options).choose, logits, options.max_new_tokens):
                if chosen in stop:
                    reason = "stop"
                    break
                ids.append(chosen)
                if on_token is not None:
                    on_token(chosen)
                check_time()
    except KeyboardInterrupt:
        reason = "interrupted"
    return Decoded(ids, reason, steps.path, steps.warnings)


def choice_tokens(choices: Sequence[str], tokenizer: Any, name: str = "--choices") -> list[int]:
    """The first token of each label.

    Args:
        choices: Labels; may be none.
        tokenizer: Of transformers.
        name: Where they were given, for the error.

    Raises:
        UsageError: Two labels begin with the same token, so one token cannot tell them apart.
    """
    first: dict[int, str] = {}
    for label in choices:
        token = tokenizer(label, add_special_tokens=False)["input_ids"][0]
        if token in first:
            raise UsageError(
                f"{name} {first[token]!r} and {label!r} begin with the same token",
                "use labels that differ at once, such as A,B,C,D, and put their meanings in the question",
            )
        first[token] = label
    return list(first)


def choice_probabilities(logits: torch.Tensor, choices: Sequence[str], tokenizer: Any) -> list[float]:
    """Probability of each label by its first token, among the labels (they sum to 1).

    Args:
        logits: [vocab], from the prefill.
        choices: At least two labels.
        tokenizer: Of transformers.

    Raises:
        UsageError: Two labels begin with the same token.
    """
    scores = logits[torch.tensor(choice_tokens(choices, tokenizer), device=logits.device)].double()
    return [float(p) for p in torch.softmax(scores, dim=-1)]

"""Answer tokens, one at a time, over the ragged cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from seats_cli.config import GenerationOptions
from seats_cli.engine.cache import RaggedCache
from seats_cli.engine.prefill import layer_device
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
    """

    token_ids: list[int]
    finish_reason: str


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
        return torch.multinomial(torch.softmax(scores[0], dim=-1), 1, generator=self._generator)


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


def decode(
    model: OmniModel,
    logits: torch.Tensor,
    cache: RaggedCache,
    next_position: float,
    options: GenerationOptions,
    on_token: Callable[[int], None] | None = None,
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
    """
    sampler, stop = Sampler(options), frozenset(model.stop_ids)
    ids: list[int] = []
    try:
        with model.decoding():
            for step in range(options.max_new_tokens):
                token = sampler.choose(logits)
                chosen = int(token)
                if chosen in stop:
                    return Decoded(ids, "stop")
                ids.append(chosen)
                if on_token is not None:
                    on_token(chosen)
                check_time()
                if step + 1 < options.max_new_tokens:
                    logits = next_logits(model, token, next_position + step, cache)
    except KeyboardInterrupt:
        return Decoded(ids, "interrupted")
    return Decoded(ids, "length")


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

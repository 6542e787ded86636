"""Reasoning before an answer: told from it by token ids, and left out where an answer is scored, not written.

A model that reasons writes an opening mark, its reasoning, a closing mark, and then the answer. The opening mark
may be in the prompt already. The marks are tokens; text that looks like them is text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from seats_cli.config import GenerationOptions
from seats_cli.models.base import OmniModel
from seats_cli.models.turns import Turn

NO_REASONING = "\n\n"
"""Between the marks, and after them, where a model is kept from reasoning."""
SKIPPED = "answers are scored right after an empty reasoning block: the model could not reason before them"
UNASKED = "the model would rather begin to reason than answer at once: what is scored there may mean little"


class Splitter:
    """Tells reasoning and answer apart as their tokens come.

    An opening mark begins reasoning wherever it comes, a closing mark ends it. Models that never reason have the
    marks in their vocabulary too, so what has no opening mark before it, here or in the prompt, is the answer.

    Args:
        marks: Ids that open and close reasoning; None: all is answer.
        thinking: Whether it begins inside reasoning.
        on_answer: Called with each token of the answer.
        on_thinking: Called with each token of the reasoning.

    Attributes:
        n_tokens: All tokens so far.
        n_thinking: Those of the reasoning, and all marks.
        reasoned: Whether there was reasoning, be it empty.
    """

    def __init__(
        self,
        marks: tuple[int, int] | None,
        thinking: bool,
        on_answer: Callable[[int], None],
        on_thinking: Callable[[int], None],
    ) -> None:
        self._marks: tuple[int, ...] = () if marks is None else marks
        self._thinking = self.reasoned = thinking and marks is not None
        self._on_answer, self._on_thinking = on_answer, on_thinking
        self.n_tokens = self.n_thinking = 0

    @property
    def n_answer(self) -> int:
        """Tokens of the answer."""
        return self.n_tokens - self.n_thinking

    def push(self, token_id: int) -> None:
        """Add one token."""
        self.n_tokens += 1
        # Counted before it is shown, which Ctrl-C may end.
        if token_id in self._marks:
            self.n_thinking += 1
            self._thinking = token_id == self._marks[0]
            self.reasoned |= self._thinking
        elif self._thinking:
            self.n_thinking += 1
            self._on_thinking(token_id)
        else:
            self._on_answer(token_id)

    def warnings(self, finish_reason: str) -> tuple[str, ...]:
        """A line where the reasoning was not over.

        Args:
            finish_reason: ``stop``, ``length`` or ``interrupted``.
        """
        if not self._thinking:
            return ()
        tokens = "1 token" if self.n_thinking == 1 else f"{self.n_thinking} tokens"
        advice = ": raise --max-new-tokens" if finish_reason == "length" else ""
        return (f"the reasoning took {tokens} and was not over{advice}",)


class Trimmed:
    """Passes pieces of text on, without white space at the ends of the whole.

    Args:
        write: Called with the rest, piece by piece.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._begun = False
        self._space = ""

    def __call__(self, piece: str) -> None:
        """Add a piece."""
        text = self._space + piece if self._begun else piece.lstrip()
        shown = text.rstrip()
        self._space = text[len(shown) :]
        if shown:
            self._begun = True
            self._write(shown)


def thinks(model: OmniModel, prompt: Iterable[int]) -> bool:
    """Whether a prompt ends inside reasoning.

    Args:
        model: Knows the marks, and what ends a turn: only the last turn counts.
        prompt: Token ids.
    """
    marks = model.thinking_ids
    if marks is None:
        return False
    ends = frozenset(model.stop_ids)
    for token in reversed(list(prompt)):
        if token in marks:
            return bool(token == marks[0])
        if token in ends:
            return False
    return False


def prompt_of(
    model: OmniModel,
    question: str,
    options: GenerationOptions,
    clip: str,
    *,
    at_once: bool = False,
    history: Sequence[Turn] = (),
) -> tuple[list[int], list[int]]:
    """Token ids before and after the clip.

    Where the answer is scored right after the prompt there is no reasoning before it. A prompt that opens a block
    says then that it is over: by the template's own switch, or with an empty block that is closed. Any other stays
    as it is, also where the template has a switch: models that never reason have such templates too.

    Args:
        model: Has the chat template.
        question: Plain text.
        options: System prompt, choices, whether the model may reason.
        clip: ``"video"`` or ``"audio"``.
        at_once: The answer is scored and not written; so it always is with choices.
        history: The turns before, the first one first.

    Raises:
        UsageError: The question cannot be, or reasoning cannot be switched off.
    """
    before, after = model.prompt(question, options.system, clip, thinking=options.thinking, history=history)
    if not (at_once or options.choices) or not thinks(model, after):
        return before, after
    if model.can_skip_thinking:
        return model.prompt(question, options.system, clip, thinking=False, history=history)
    return before, _closed(model, after)


def _closed(model: OmniModel, prompt: list[int]) -> list[int]:
    """A prompt that ends inside reasoning, with an empty block instead."""
    (opening, _), tokenizer = model.thinking_ids or (-1, -1), model.tokenizer
    after = len(prompt) - prompt[::-1].index(opening)
    # White space after the mark was the beginning of a block that is not empty.
    kept = prompt if tokenizer.decode(prompt[after:]).strip() else prompt[:after]
    closing = NO_REASONING + model.thinking_marks[1] + NO_REASONING
    return [*kept, *tokenizer(closing, add_special_tokens=False)["input_ids"]]


def skips_thinking(model: OmniModel) -> bool:
    """Whether a prompt is another where the answer is scored: the model would reason after its own."""
    scored = prompt_of(model, "?", GenerationOptions(), "audio", at_once=True)
    return scored != model.prompt("?", None, "audio")


def scored_warnings(model: OmniModel, logits: torch.Tensor, options: GenerationOptions) -> tuple[str, ...]:
    """What to know of answers that a model was scored by without reasoning; nothing where it was told not to.

    Args:
        model: Was scored.
        logits: [vocab], of the first token after the prompt.
        options: Of the answer.
    """
    marks = model.thinking_ids
    if marks is None or not options.thinking:
        return ()
    if skips_thinking(model):
        return (SKIPPED,)
    if int(logits.argmax()) != marks[0]:
        return ()
    return (f"{UNASKED}; --no-thinking keeps it from that" if model.can_skip_thinking else UNASKED,)

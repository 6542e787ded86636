"""Earlier turns of a conversation in a prompt: what was asked, and what a model said to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from seats_cli.errors import ModelError


@dataclass(frozen=True, slots=True)
class Turn:
    """A question that was asked, and its answer without the reasoning before it."""

    question: str
    answer: str


def messages_of(
    question: str, system: str | None, clip: str, history: Sequence[Turn] = ()
) -> list[dict[str, Any]]:
    """A conversation as chat templates take it; the clip stands before the first question.

    Args:
        question: The newest.
        system: System prompt; None: the template's.
        clip: ``"video"`` or ``"audio"``.
        history: The turns before, the first one first.
    """
    messages: list[dict[str, Any]] = []
    if system is not None:
        messages.append({"role": "system", "content": [{"type": "text", "text": system}]})
    content: list[dict[str, str]] = [{"type": clip, clip: "clip"}]
    for turn in history:
        content.append({"type": "text", "text": turn.question})
        messages.append({"role": "user", "content": content})
        # A string: templates that look for reasoning in an answer look for it there.
        messages.append({"role": "assistant", "content": turn.answer})
        content = []
    messages.append({"role": "user", "content": [*content, {"type": "text", "text": question}]})
    return messages


def token_ids(
    messages: Sequence[Mapping[str, Any]], tokenizer: Any, write: Callable[[Sequence[Mapping[str, Any]]], str]
) -> list[int]:
    """Ids of a conversation.

    They are those of the written conversation. An answer that spells a reserved token is kept from the template,
    which may look for such words, and spelled out where it would stand: it ends no turn and holds no clip.

    Args:
        messages: As ``messages_of`` gives them.
        tokenizer: Of transformers.
        write: Puts messages into the chat template.

    Raises:
        ModelError: The template has no place for an answer.
    """
    reserved = [token for token in tokenizer.added_tokens_encoder if len(token) > 1]
    odd = [
        number
        for number, message in enumerate(messages)
        if message["role"] == "assistant" and any(token in message["content"] for token in reserved)
    ]
    if not odd:
        return _ids(tokenizer, write(messages))
    said = str(messages)
    place = next(name for name in (f"[answer {number}]" for number in count()) if name not in said)
    blank = [{**message, "content": place} if n in odd else message for n, message in enumerate(messages)]
    first, *rest = write(blank).split(place)
    if len(rest) != len(odd):
        raise ModelError(
            "the chat template does not write the answers of earlier turns", "forget them, with /reset"
        )
    ids = _ids(tokenizer, first)
    for number, text in zip(odd, rest, strict=True):
        ids += spelled(tokenizer, messages[number]["content"], reserved)
        ids += _ids(tokenizer, text)
    return ids


def spelled(tokenizer: Any, text: str, reserved: Sequence[str]) -> list[int]:
    """Ids of a text in which reserved tokens are words like others: each is cut behind its first character.

    Args:
        tokenizer: Of transformers.
        text: To be written.
        reserved: The tokens, of two characters or more.
    """
    cuts = "|".join(f"(?<={re.escape(token[0])})(?={re.escape(token[1:])})" for token in reserved)
    return [token for piece in re.split(cuts, text) for token in _ids(tokenizer, piece)]


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids

"""Tokenizer and processor files of a tiny Qwen2.5-Omni checkpoint: those of the trained one, without its words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seats_cli.training.processor import (
    CHAT_TEMPLATE,
    CLIP_MEAN,
    CLIP_STD,
    NAMED_TOKENS,
    SPECIAL_TOKENS,
    Vocabulary,
    write_processor_files,
)

__all__ = [
    "CHAT_TEMPLATE",
    "CLIP_MEAN",
    "CLIP_STD",
    "NAMED_TOKENS",
    "SPECIAL_TOKENS",
    "THINKING",
    "printable_ids",
    "thinking_ids",
    "tiny_processor_files",
    "token_ids",
    "vocabulary_size",
]
_VOCABULARY = Vocabulary()
_TURN = "<|im_start|>assistant\\n"
_SWITCH = "{%- if enable_thinking is defined and not enable_thinking -%}{{- '<think>\\n\\n</think>\\n\\n' -}}"
THINKING = {
    "opens": "{{- '<think>\\n' -}}",
    "switch": _SWITCH + "{%- endif -%}",
    "opens, switch": _SWITCH + "{%- else -%}{{- '<think>\\n' -}}{%- endif -%}",
    "neither": "",
}
"""What follows the beginning of the answer in the chat templates of models that reason."""


def token_ids() -> dict[str, int]:
    """Ids of the special tokens and of the chat roles, by text."""
    return _VOCABULARY.ids


def vocabulary_size() -> int:
    """Rows of the embedding."""
    return _VOCABULARY.size


def printable_ids() -> list[int]:
    """Ids of what can be read: one printable ASCII character, space, line feed; and of the end of a turn."""
    symbols = _VOCABULARY.symbols
    readable = [symbol for symbol in symbols if len(symbol) == 1 and "!" <= symbol <= "~"] + ["Ġ", "Ċ"]
    return sorted([*(symbols[symbol] for symbol in readable), token_ids()["<|im_end|>"]])


def thinking_ids() -> tuple[int, int]:
    """Ids of the marks that open and close reasoning, where there are any: the first that are free."""
    first = max(token_ids().values()) + 1
    return first, first + 1


def tiny_processor_files(folder: Path, thinking: str | None = None) -> None:
    """Write tokenizer, feature extractors, chat template and generation defaults into ``folder``.

    Args:
        folder: Made when missing.
        thinking: A key of ``THINKING``: the tokenizer has marks of reasoning, and the chat template knows of them.
    """
    write_processor_files(folder, _VOCABULARY)
    if thinking is not None:
        _add_thinking(folder, THINKING[thinking])


def _add_thinking(folder: Path, turn: str) -> None:
    """Two tokens that are not special, as published, and what the assistant's turn begins with."""
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": False}
    marks = zip(thinking_ids(), ("<think>", "</think>"), strict=True)
    added = {token_id: {"content": content, **flags} for token_id, content in marks}
    _edit(
        folder / "tokenizer.json",
        lambda content: content["added_tokens"].extend({"id": token_id, **one} for token_id, one in added.items()),
    )
    _edit(
        folder / "tokenizer_config.json",
        lambda content: content["added_tokens_decoder"].update({str(i): one for i, one in added.items()}),
    )
    begin = f"{{{{- '{_TURN}' -}}}}"
    template = CHAT_TEMPLATE.replace(begin, begin + turn)
    assert turn in template
    _edit(folder / "chat_template.json", lambda content: content.update(chat_template=template))


def _edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

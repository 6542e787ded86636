"""Tokenizer and processor files of a tiny Qwen2.5-Omni checkpoint: those of the trained one, without its words."""

from __future__ import annotations

from pathlib import Path

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
    "printable_ids",
    "tiny_processor_files",
    "token_ids",
    "vocabulary_size",
]
_VOCABULARY = Vocabulary()


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


def tiny_processor_files(folder: Path) -> None:
    """Write tokenizer, feature extractors, chat template and generation defaults into ``folder``."""
    write_processor_files(folder, _VOCABULARY)

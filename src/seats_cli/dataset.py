"""A file of questions with known answers, one JSON object on a line, and when an answer counts as right."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seats_cli.errors import UsageError

EXAMPLE = '{"media": "clip.mp4", "question": "Which colour?", "answer": "red", "category": "colour"}'
ARTICLES = ("a", "an", "the")
FINAL = ".,;:!?…。，；：！？"
"""Punctuation that is passed over at the end of an answer."""

MOST_SECONDS = 1e9
MOST_LINES = 5
"""That are named where many rows have one fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One row.

    Attributes:
        line: In the file, from 1.
        id: As given, or the line.
        media: As given.
        path: Where it is: relative paths begin at the file's folder.
        text: The question.
        answers: What counts as right; at least one.
        choices: Labels to choose from; none: the answer is written freely.
        category: None: not said.
        start_seconds: Begin of the part to use; None: not said.
        end_seconds: Its end, likewise.
    """

    line: int
    id: str
    media: str
    path: str
    text: str
    answers: tuple[str, ...]
    choices: tuple[str, ...] = ()
    category: str | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None

    def accepts(self, answer: str) -> bool:
        """Whether an answer is right: a label exactly, free text as ``normalised`` sees it."""
        if self.choices:
            return answer in self.answers
        return normalised(answer) in map(normalised, self.answers)


def normalised(text: str) -> str:
    """Text as it is compared.

    Compatible characters are one (NFKC), case and runs of white space do not count, nor do punctuation at the end
    and one English article at the start; whatever would leave nothing stays.
    """
    found = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    found = found.rstrip(FINAL + " ") or found
    first, _, rest = found.partition(" ")
    return rest if first in ARTICLES and rest else found


def place_of(file: str | os.PathLike[str], questions: Sequence[Question]) -> str:
    """Where rows stand: ``rows.jsonl:4``, ``rows.jsonl:4, 7``; of many rows the first lines.

    Args:
        file: They are from.
        questions: At least one.
    """
    lines = list(dict.fromkeys(question.line for question in questions))
    more = f" and {len(lines) - MOST_LINES} more" if len(lines) > MOST_LINES else ""
    return f"{os.fspath(file)}:{', '.join(map(str, lines[:MOST_LINES]))}{more}"


def read_questions(path: Path, choices: tuple[str, ...] = ()) -> list[Question]:
    """Read a file of questions and check every row.

    Args:
        path: One JSON object on a line; blank lines are passed over.
        choices: Labels for rows that have none of their own.

    Raises:
        UsageError: The file cannot be read, has no row, or a row cannot be; names the line.
    """
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}", "check the path") from None
    found = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(_question(line, number, path.parent, choices))
            except _BrokenRowError as error:
                raise UsageError(f"{path}:{number}: {error}", f"a row is such as {EXAMPLE}") from None
    if not found:
        raise UsageError(f"{path} has no rows", f"a row is such as {EXAMPLE}")
    return found


class _BrokenRowError(Exception):
    """What is wrong with a row."""


def _question(line: bytes, number: int, folder: Path, choices: tuple[str, ...]) -> Question:
    try:
        row = json.loads(line)
    except UnicodeDecodeError:
        raise _BrokenRowError("not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise _BrokenRowError(f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise _BrokenRowError(f"a row is a JSON object, and this is {_short(row)}")
    media = _text(row, "media")
    start, end = _seconds(row, "start"), _seconds(row, "end")
    if end is not None and end <= (start or 0.0):
        raise _BrokenRowError(f"end {end:g} s is not after start {start or 0.0:g} s")
    labels = _labels(row) or choices
    answers = _answers(row, labels)
    name = row.get("id")
    if name is not None and (isinstance(name, bool) or not isinstance(name, str | int)):
        raise _BrokenRowError(f"id is {_short(name)}; it must be text or a whole number")
    category = row.get("category")
    if category is not None:
        category = _text(row, "category")
    return Question(
        line=number,
        id=str(number) if name is None else str(name),
        media=media,
        path=os.path.join("" if folder == Path() else folder, media),
        text=_text(row, "question"),
        answers=answers,
        choices=labels,
        category=category,
        start_seconds=start,
        end_seconds=end,
    )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _checked(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _BrokenRowError(f"{name} is {_short(value)}; it must be text")
    if value != value.encode("utf-8", "replace").decode() or "\0" in value:
        raise _BrokenRowError(f"{name} is {_short(value)}; it holds what is no character")
    return value


def _text(row: dict[str, Any], name: str) -> str:
    if name not in row:
        raise _BrokenRowError(f"{name} is missing")
    return _checked(row[name], name)


def _texts(value: Any, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise _BrokenRowError(f"{name} is {_short(value)}; it must be a list of texts")
    return tuple(_checked(item, f"{name}[{i}]").strip() for i, item in enumerate(value))


def _labels(row: dict[str, Any]) -> tuple[str, ...]:
    if row.get("choices") is None:
        return ()
    labels = _texts(row["choices"], "choices")
    if len(labels) < 2 or len(set(labels)) != len(labels):
        raise _BrokenRowError(f"choices is {_short(row['choices'])}; it must be at least two different labels")
    return labels


def _answers(row: dict[str, Any], labels: tuple[str, ...]) -> tuple[str, ...]:
    given = row.get("answer")
    answers = _texts(given, "answer") if isinstance(given, list) else (_text(row, "answer").strip(),)
    strange = [answer for answer in answers if labels and answer not in labels]
    if strange:
        raise _BrokenRowError(f"the answer {_short(strange[0])} is not one of the choices {', '.join(labels)}")
    return answers


def _seconds(row: dict[str, Any], name: str) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < MOST_SECONDS:
        raise _BrokenRowError(f"{name} is {_short(value)}; it must be 0 or more seconds")
    return float(value)

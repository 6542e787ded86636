"""A file of questions, one on a line, as JSON objects or CSV; and when an answer counts as right."""

from __future__ import annotations

import csv
import io
import json
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seats_cli.config import parse_seconds
from seats_cli.errors import UsageError

EXAMPLE = '{"media": "clip.mp4", "question": "Which colour?", "answer": "red", "category": "colour"}'
EXAMPLE_ASKED = '{"media": "clip.mp4", "question": "Which colour?", "id": "7"}'
ARTICLES = ("a", "an", "the")
FINAL = ".,;:!?…。，；：！？"
"""Punctuation that is passed over at the end of an answer."""

ROW_SUFFIXES = (".jsonl", ".csv")
"""How files of questions end."""

MOST_SECONDS = 1e9
MOST_LINES = 5
"""That are named where many rows have one fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One row.

    Attributes:
        line: In the file, from 1.
        id: As given, or the line.
        named: Whether the id was given.
        media: As given.
        path: Where it is: relative paths begin at the file's folder.
        text: The question; empty where the row has none and need not.
        answers: What counts as right; none where that is not known.
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
    named: bool = False

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


@dataclass(frozen=True, slots=True)
class _Needs:
    """What a row must have beside its clip, and the labels of those that have none."""

    question: bool
    answer: bool
    choices: tuple[str, ...]

    @property
    def example(self) -> str:
        """A hint."""
        return f"a row is such as {EXAMPLE if self.answer else EXAMPLE_ASKED}"


def read_questions(path: Path, choices: tuple[str, ...] = ()) -> list[Question]:
    """Read a file of questions whose answers are known, and check every row.

    Args:
        path: One JSON object on a line, or CSV with a line of names; blank lines are passed over.
        choices: Labels for rows that have none of their own.

    Raises:
        UsageError: The file cannot be read, has no row, or a row cannot be; names the line.
    """
    return _read(path, _Needs(question=True, answer=True, choices=choices))


def read_asked(path: Path, *, question: bool) -> list[Question]:
    """Read a file of questions whose answers are sought; answers in it are passed over.

    Args:
        path: As ``read_questions`` takes it.
        question: Whether each row must bring its own.

    Raises:
        UsageError: As ``read_questions``.
    """
    return _read(path, _Needs(question=question, answer=False, choices=()))


def _read(path: Path, needs: _Needs) -> list[Question]:
    try:
        content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}", "check the path") from None
    rows = _csv_rows if path.suffix.lower() == ".csv" else _json_rows
    found = []
    number = 0
    try:
        for number, row in rows(content):
            found.append(_question(row, number, path.parent, needs))
    except _BrokenRowError as error:
        line = error.line or number + 1
        raise UsageError(f"{path}:{line}: {error}", needs.example) from None
    if not found:
        raise UsageError(f"{path} has no rows", needs.example)
    return found


class _BrokenRowError(Exception):
    """What is wrong with a row, and on which line it is."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


def _json_rows(content: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except UnicodeDecodeError:
            raise _BrokenRowError("not UTF-8", number) from None
        except (ValueError, RecursionError) as error:
            raise _BrokenRowError(f"not JSON: {error}", number) from None
        if not isinstance(row, dict):
            raise _BrokenRowError(f"a row is a JSON object, and this is {_short(row)}", number)
        yield number, row


def _csv_rows(content: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a table whose first line names its columns; an empty cell says nothing."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise _BrokenRowError("not UTF-8", content[: error.start].count(b"\n") + 1) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    names: list[str] | None = None
    begins = 1
    try:
        for cells in reader:
            number, begins = begins, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if names is None:
                names = _csv_names(cells, number)
            else:
                yield number, _of_cells(_filled(names, cells, number), number)
    except csv.Error as error:
        raise _BrokenRowError(f"not CSV: {error}", begins) from None


def _csv_names(cells: Sequence[str], line: int) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    if "media" not in names:
        raise _BrokenRowError(f"the first line names the columns, media among them; this is {_short(cells)}", line)
    twice = [name for name in filter(None, names) if names.count(name) > 1]
    if twice:
        raise _BrokenRowError(f"a column is named twice: {_short(twice[0])}", line)
    return names


def _filled(names: Sequence[str], cells: Sequence[str], line: int) -> dict[str, str]:
    """Cells that are not empty, by column. Spreadsheets write empty ones beyond the last name."""
    row: dict[str, str] = {}
    for number, cell in enumerate(cells):
        if not cell.strip():
            continue
        name = names[number] if number < len(names) else ""
        if not name:
            raise _BrokenRowError(f"cell {number + 1} is {_short(cell)}, and its column has no name", line)
        row[name] = cell
    return row


def _of_cells(cells: Mapping[str, str], line: int) -> dict[str, Any]:
    """Text in cells as the values that a JSON row would have."""
    row: dict[str, Any] = dict(cells)
    if "choices" in row:
        row["choices"] = [label.strip() for label in row["choices"].split(",")]
    for name in ("start", "end"):
        if name in row:
            try:
                row[name] = parse_seconds(row[name], name)
            except UsageError as error:
                raise _BrokenRowError(str(error), line) from None
    return row


def _question(row: dict[str, Any], number: int, folder: Path, needs: _Needs) -> Question:
    try:
        return _checked_question(row, number, folder, needs)
    except _BrokenRowError as error:
        error.line = number
        raise


def _checked_question(row: dict[str, Any], number: int, folder: Path, needs: _Needs) -> Question:
    media = _text(row, "media")
    start, end = _seconds(row, "start"), _seconds(row, "end")
    if end is not None and end <= (start or 0.0):
        raise _BrokenRowError(f"end {end:g} s is not after start {start or 0.0:g} s")
    labels = _labels(row) or needs.choices
    answers = _answers(row, labels) if needs.answer else ()
    name = row.get("id")
    if name is not None and (isinstance(name, bool) or not isinstance(name, str | int)):
        raise _BrokenRowError(f"id is {_short(name)}; it must be text or a whole number")
    category = row.get("category")
    if category is not None and needs.answer:
        category = _text(row, "category")
    asked = needs.question or row.get("question") is not None
    return Question(
        line=number,
        id=str(number) if name is None else str(name),
        named=name is not None,
        media=media,
        path=os.path.join("" if folder == Path() else folder, media),
        text=_text(row, "question") if asked else "",
        answers=answers,
        choices=labels,
        category=category if needs.answer else None,
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

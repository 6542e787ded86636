"""Files of questions: every row is checked, and answers are compared as people would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seats_cli.dataset import normalised, place_of, read_questions
from seats_cli.errors import UsageError

ROW = {"media": "a.mp4", "question": "Which colour?", "answer": "red"}


def write(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_a_row_is_read(tmp_path: Path) -> None:
    row = ROW | {"id": 7, "category": "colour", "start": 1, "end": 2.5, "note": "unknown keys do not matter"}
    (question,) = read_questions(write(tmp_path, row))
    assert (question.line, question.id, question.media, question.text) == (1, "7", "a.mp4", "Which colour?")
    assert question.path == str(tmp_path / "a.mp4")
    assert (question.answers, question.choices, question.category) == (("red",), (), "colour")
    assert (question.start_seconds, question.end_seconds) == (1.0, 2.5)


def test_blank_lines_pass_and_lines_are_counted_with_them(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeff" + json.dumps(ROW), "", "  \r", json.dumps(ROW) + "\r", "")
    assert [(q.line, q.id) for q in read_questions(path)] == [(1, "1"), (4, "4")]


def test_an_absolute_path_stays(tmp_path: Path) -> None:
    (question,) = read_questions(write(tmp_path, ROW | {"media": "/clips/a.mp4"}))
    assert question.path == "/clips/a.mp4"


def test_a_relative_file_has_relative_media(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, ROW)
    monkeypatch.chdir(tmp_path)
    (question,) = read_questions(Path("rows.jsonl"))
    assert question.path == "a.mp4"


def test_choices_of_the_run_are_for_rows_that_have_none(tmp_path: Path) -> None:
    path = write(tmp_path, ROW | {"answer": "A"}, ROW | {"answer": "x", "choices": ["x", " y "]})
    one, other = read_questions(path, ("A", "B"))
    assert (one.choices, other.choices) == (("A", "B"), ("x", "y"))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "a row is a JSON object, and this is [1]"),
        ({"question": "q", "answer": "a"}, "media is missing"),
        (ROW | {"media": ""}, 'media is ""; it must be text'),
        (ROW | {"media": "a\0b"}, "no character"),
        (ROW | {"media": 3}, "media is 3"),
        (ROW | {"question": "  "}, 'question is " "; it must be text'),
        (ROW | {"question": "\ud800"}, "no character"),
        ({"media": "a", "question": "q"}, "answer is missing"),
        (ROW | {"answer": []}, "answer is []"),
        (ROW | {"answer": ["a", 1]}, "answer[1] is 1"),
        (ROW | {"answer": True}, "answer is true"),
        (ROW | {"choices": ["red"]}, "at least two different labels"),
        (ROW | {"choices": ["red", "red "]}, "at least two different labels"),
        (ROW | {"choices": "red"}, "it must be a list of texts"),
        (ROW | {"choices": ["blue", "green"]}, 'the answer "red" is not one of the choices blue, green'),
        (ROW | {"category": 3}, "category is 3"),
        (ROW | {"id": 1.5}, "id is 1.5"),
        (ROW | {"id": True}, "id is true"),
        (ROW | {"start": -1}, "start is -1; it must be 0 or more seconds"),
        (ROW | {"start": "1"}, 'start is "1"'),
        (ROW | {"end": 10**400}, "end is 1000"),
        (ROW | {"end": float("nan")}, "end is NaN"),
        (ROW | {"start": 3, "end": 3}, "end 3 s is not after start 3 s"),
        (ROW | {"end": 0}, "end 0 s is not after start 0 s"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, row: Any, problem: str) -> None:
    path = write(tmp_path, ROW, "", row)
    with pytest.raises(UsageError) as caught:
        read_questions(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert problem in str(caught.value)
    assert '"media"' in caught.value.hint


def test_what_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"media": "\xff"}')
    with pytest.raises(UsageError, match=r"rows\.jsonl:1: not UTF-8"):
        read_questions(path)


def test_a_file_without_rows_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no rows"):
        read_questions(write(tmp_path, "", " "))
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            read_questions(path)


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        ("Red.", "red"),
        ("  the   RED\tcar!? ", "red car"),
        ("A", "a"),
        ("A.", "a"),
        ("an", "an"),
        ("the the", "the"),
        ("Theory", "theory"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("３ times", "3 times"),
        ("红色。", "红色"),
        ("?!", "?!"),
        ("-5", "-5"),
        ("3.5", "3.5"),
    ],
)
def test_text_is_compared_without_what_does_not_matter(answer: str, seen: str) -> None:
    assert normalised(answer) == seen


@given(st.text())
def test_nothing_but_white_space_becomes_nothing(text: str) -> None:
    assert bool(normalised(text)) == bool(text.strip())
    assert normalised(text.upper().lower()) == normalised(text.upper().lower() + " ")


def test_several_answers_and_labels(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        ROW | {"answer": ["red", "a crimson tone"]},
        ROW | {"answer": "a", "choices": ["A", "a"]},
    )
    free, labelled = read_questions(path)
    assert free.accepts("The crimson tone?")
    assert not free.accepts("crimson")
    assert free.accepts("Crimson tone.")
    assert free.accepts("the red")
    assert labelled.accepts("a")
    # Labels are what they are.
    assert not labelled.accepts("A")


def test_the_place_of_rows_is_file_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"media": "a", "question": "b", "answer": "c"}\n\n' * 8)
    rows = read_questions(path)
    assert place_of(path, rows[1:2]) == f"{path}:3"
    assert place_of("rows.jsonl", [rows[0], rows[2], rows[0]]) == "rows.jsonl:1, 5"
    assert place_of("rows.jsonl", rows) == "rows.jsonl:1, 3, 5, 7, 9 and 3 more"

"""Files of questions: every row is checked, and answers are compared as people would."""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seats_cli.dataset import normalised, place_of, read_asked, read_questions
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


# Tables


def table(folder: Path, text: str | bytes) -> Path:
    path = folder / "rows.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_table_says_what_lines_of_json_say(tmp_path: Path) -> None:
    rows = [
        ROW | {"id": "7", "category": "colour", "start": 65.0, "end": 70.5},
        ROW | {"answer": "A", "choices": ["A", "B"]},
        ROW | {"question": 'He said "what,\r\nthen"?'},
    ]
    text = (
        "\ufeffMedia, Question ,answer,ID,category,start,end,choices,note\r\n"
        "a.mp4,Which colour?,red,7,colour,1:05,70.5,,x\r\n"
        '\r\na.mp4,Which colour?,A,,,,,"A, B",\r\n'
        'a.mp4,"He said ""what,\r\nthen""?",red,,,,,,\r\n'
    )
    found = read_questions(table(tmp_path, text))
    wanted = read_questions(write(tmp_path, *rows))
    for one, other in zip(found, wanted, strict=True):
        for name in (
            "media",
            "path",
            "text",
            "answers",
            "choices",
            "category",
            "start_seconds",
            "end_seconds",
            "named",
        ):
            assert getattr(one, name) == getattr(other, name)
    assert [question.line for question in found] == [2, 4, 5]
    assert [question.id for question in found] == ["7", "4", "5"]


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), min_size=1, max_size=8)


@given(st.lists(st.tuples(cells, cells).filter(lambda pair: all(map(str.strip, pair))), min_size=1, max_size=4))
def test_any_text_survives_a_table(pairs: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "rows.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("media", "question"), *pairs])
        assert [(row.media, row.text) for row in read_asked(path, question=True)] == pairs


def test_lines_after_cells_of_several_lines_are_counted(tmp_path: Path) -> None:
    text = 'media,question\n"a\n\nb.mp4","What\nnow?"\n\nc.mp4,What?\nd.mp4,What?,too many\n'
    with pytest.raises(UsageError, match=r"rows\.csv:8: cell 3 is \"too many\", and its column has no name"):
        read_asked(table(tmp_path, text), question=True)
    found = read_asked(table(tmp_path, text.replace(",too many", ",, ")), question=True)
    assert [(row.line, row.text) for row in found] == [(2, "What\nnow?"), (7, "What?"), (8, "What?")]


def test_columns_without_a_name_may_be_empty(tmp_path: Path) -> None:
    (row,) = read_asked(table(tmp_path, "media,question,,\na.mp4,What?,,\n"), question=True)
    assert (row.media, row.text) == ("a.mp4", "What?")
    with pytest.raises(UsageError, match=r"rows\.csv:2: cell 3 is \"x\""):
        read_asked(table(tmp_path, "media,question,,\na.mp4,What?,x,\n"), question=True)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("clip,question\na.mp4,q\n", 1, "the first line names the columns, media among them"),
        ("media;question\na.mp4;q\n", 1, "the first line names the columns, media among them"),
        ("\n\nmedia,Media\na,b\n", 3, 'a column is named twice: "media"'),
        ("media,question\na.mp4,\n", 2, "question is missing"),
        ("media,question\n,q\n", 2, "media is missing"),
        ("media,question,start\na,q,x\n", 2, "start is 'x'; give seconds"),
        ("media,question,start\na,q,1:65\n", 2, "start is '1:65'"),
        ("media,question,start,end\na,q,1:05,0:05\n", 2, "end 5 s is not after start 65 s"),
        ("media,question,choices\na,q,one\n", 2, "at least two different labels"),
        ('media,question,choices\na,q,"one,,two"\n', 2, 'choices[1] is ""'),
        ('media,question\na,"q\n\nb,q\n', 2, "not CSV: unexpected end of data"),
        ('media,question\na,"q"x\n', 2, "not CSV: "),
        (b"media,question\na,q\n\nb,\xff\n", 4, "not UTF-8"),
        ("media,question\na,q".encode("utf-16"), 1, "not UTF-8"),
    ],
)
def test_a_broken_table_is_named_by_line(tmp_path: Path, text: str | bytes, line: int, problem: str) -> None:
    path = table(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        read_asked(path, question=True)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert problem in str(caught.value)


def test_a_table_without_rows(tmp_path: Path) -> None:
    for text in ("", "\n", "media,question\n", "media,question\n,\n"):
        with pytest.raises(UsageError, match="has no rows"):
            read_asked(table(tmp_path, text), question=True)


@pytest.mark.parametrize("text", ["media,question\na.mp4,What?\nb.mp4,\n", None])
def test_rows_without_a_question_or_an_answer(tmp_path: Path, text: str | None) -> None:
    rows = [{"media": "a.mp4", "question": "What?"}, {"media": "b.mp4", "answer": 3, "category": 4}]
    path = write(tmp_path, *rows) if text is None else table(tmp_path, text)
    assert [(row.text, row.answers, row.category) for row in read_asked(path, question=False)] == [
        ("What?", (), None),
        ("", (), None),
    ]
    with pytest.raises(UsageError, match=r":[23]: question is missing"):
        read_asked(path, question=True)
    with pytest.raises(UsageError, match=r":[12]: answer is missing"):
        read_questions(path)

"""Which arguments are clips and which is the question; lists, folders, patterns, files of questions."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seats_cli.cli.inputs import Inputs, resolve_clips, split_inputs
from seats_cli.errors import UsageError


def split(*arguments: str, stdin: bytes | None = None, null: bool = False, **more) -> Inputs:
    with pytest.MonkeyPatch.context() as patch:
        # Who reads a stdin that was not asked for gets an error.
        patch.setattr(sys, "stdin", None if stdin is None else io.TextIOWrapper(io.BytesIO(stdin)))
        return split_inputs(list(arguments), null=null, **more)


def pairs(inputs: Inputs) -> list[tuple[str, str]]:
    return [(task.path, task.question) for task in inputs.tasks]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips" / "deep").mkdir(parents=True)
    for name in ("clips/b10.mp4", "clips/b9.mp4", "clips/deep/c.wav", "clips/.hidden.mp4", "clips/notes.txt"):
        (tmp_path / name).touch()
    return tmp_path


def test_one_clip_is_not_many():
    inputs = split("a.mp4", "What?")
    assert (pairs(inputs), inputs.many, inputs.several) == ([("a.mp4", "What?")], False, False)
    (task,) = inputs.tasks
    assert (task.place, task.id) == ("", None)


def test_clips_by_more_than_their_name_are_many():
    for given_one, found in (
        ("clips", ["clips/b9.mp4", "clips/b10.mp4"]),
        ("clips/*.mp4", ["clips/b9.mp4", "clips/b10.mp4"]),
        ("clips/**/c*", ["clips/deep/c.wav"]),
    ):
        inputs = split(given_one, "What?")
        assert ([path for path, _ in pairs(inputs)], inputs.many) == (found, True)
    assert [path for path, _ in pairs(split("clips", "What?", recursive=True))][-1] == "clips/deep/c.wav"
    assert split("a.mp4", "What?", also=["Where?"]).several


def test_several_questions_are_asked_of_every_clip_in_turn():
    inputs = split("a.mp4", "b.mp4", "What?", also=["Where?"])
    assert pairs(inputs) == [(path, question) for path in ("a.mp4", "b.mp4") for question in ("What?", "Where?")]


names = st.binary(min_size=1, max_size=12).filter(lambda name: b"\0" not in name)


@given(st.lists(names, min_size=1, max_size=5))
def test_a_list_that_ends_paths_with_nul_carries_any_path(listed: list[bytes]) -> None:
    inputs = split("-", "What?", null=True, stdin=b"\0".join(listed) + b"\0")
    assert [path.encode("utf-8", "surrogateescape") for path, _ in pairs(inputs)] == listed
    assert inputs.many


@given(st.lists(names.filter(lambda name: not set(name) & set(b"\n\r")), min_size=1, max_size=5), st.booleans())
def test_a_list_of_lines_with_either_ending_and_blank_ones(listed: list[bytes], windows: bool) -> None:
    end = b"\r\n" if windows else b"\n"
    inputs = split("-", "What?", stdin=end + end.join(listed))
    assert [path.encode("utf-8", "surrogateescape") for path, _ in pairs(inputs)] == listed


def test_null_alone_means_the_list():
    assert pairs(split("What?", null=True, stdin=b"a\0")) == [("a", "What?")]
    assert pairs(split("b", "What?", null=True, stdin=b"a\0")) == [("b", "What?"), ("a", "What?")]
    assert resolve_clips(["a.mp4"], null=False) == (("a.mp4",), False)


@pytest.mark.parametrize(
    ("text", "question"),
    [
        (b"What is shown?\n", "What is shown?"),
        (b"\xef\xbb\xbfWhat?\r\n", "What?"),
        ("Was\nist das,\n\n„dort“?".encode(), "Was\nist das,\n\n„dort“?"),
        (b"@What?", "@What?"),
    ],
)
def test_a_question_in_a_file(folder, text, question):
    (folder / "q.txt").write_bytes(text)
    assert pairs(split("a.mp4", "@q.txt")) == [("a.mp4", question)]
    assert pairs(split("a.mp4", "What?", also=["@q.txt"]))[1] == ("a.mp4", question)


def test_a_question_that_begins_with_an_at_is_written_with_two():
    assert pairs(split("a.mp4", "@@home?")) == [("a.mp4", "@home?")]


@pytest.mark.parametrize(
    ("text", "problem"),
    [(None, "cannot be read: No such file"), (b"", "is empty"), (b" \n", "is empty"), (b"\xff", "is not UTF-8")],
)
def test_a_question_file_that_will_not_do(folder, text, problem):
    if text is not None:
        (folder / "q.txt").write_bytes(text)
    with pytest.raises(UsageError, match=problem) as caught:
        split("a.mp4", "@q.txt")
    assert "q.txt" in str(caught.value)


@pytest.mark.parametrize("given_one", ["@", "@clips"])
def test_a_question_file_that_is_a_folder(given_one):
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        split("a.mp4", given_one)


@pytest.mark.parametrize(
    ("arguments", "more", "problem"),
    [
        (["What?"], {}, "give at least one clip, then a question"),
        (["clips"], {}, "give at least one clip, then a question"),
        (["a.mp4", "clips"], {}, "the last argument is the question, and clips is a folder"),
        (["a.mp4", "clips/notes.txt"], {}, "the last argument is the question, and clips/notes.txt is a file"),
        (["a.mp4", ""], {}, "the question is empty"),
        (["a.mp4", "What?"], {"also": [" "]}, "the question is empty"),
        (["", "What?"], {}, "the path of a clip is empty"),
        (["-", "-", "What?"], {"stdin": b"a"}, "- is given twice"),
        (["-", "What?"], {"stdin": b"\n"}, "the list of clips on stdin is empty"),
        (["-", "What?"], {}, "stdin is closed"),
        (["rows.jsonl"], {"null": True}, "-0 is about a list on stdin, and none is read"),
        (["none.csv"], {}, "none.csv cannot be read: No such file"),
        (["none.csv", "What?"], {}, "none.csv cannot be read: No such file"),
        (["a.mp4", "rows.jsonl"], {}, "give at least one clip, then a question"),
        (["clips/deep/*.mp4", "What?"], {}, "nothing matches"),
        (["clips/deep", "rows.jsonl", "What?"], {}, None),
    ],
)
def test_what_cannot_be_asked(folder, arguments, more, problem):
    (folder / "rows.jsonl").write_text(json.dumps({"media": "a.mp4", "question": "Which?"}))
    if problem is None:
        assert len(split(*arguments, **more).tasks) == 2
        return
    with pytest.raises(UsageError) as caught:
        split(*arguments, **more)
    assert problem in str(caught.value)


def test_rows_bring_questions_and_the_one_given_is_for_those_without(folder):
    (folder / "clips" / "rows.jsonl").write_text(
        '{"media": "a.mp4", "question": "Which?", "id": 7, "start": 1, "end": 2}\n\n{"media": "b.mp4"}\n'
    )
    inputs = split("clips/rows.jsonl", "What?")
    assert pairs(inputs) == [("clips/a.mp4", "Which?"), ("clips/b.mp4", "What?")]
    first, second = inputs.tasks
    assert (first.id, first.start_seconds, first.end_seconds, first.place) == ("7", 1.0, 2.0, "clips/rows.jsonl:1")
    assert (second.id, second.place) == (None, "clips/rows.jsonl:3"), "a line is no id"
    assert (inputs.many, inputs.several, inputs.files) == (True, True, (Path("clips/rows.jsonl"),))
    with pytest.raises(UsageError, match=r"rows\.jsonl:3: question is missing"):
        split("clips/rows.jsonl")
    with pytest.raises(UsageError, match=r"rows\.jsonl:3: question is missing"):
        split("clips/rows.jsonl", also=["What?"])
    assert len(split("clips/rows.jsonl", "What?", also=["Where?"]).tasks) == 4


def test_rows_and_clips_together(folder):
    (folder / "rows.csv").write_text("media,question\na.mp4,Which?\n")
    assert pairs(split("clips/b9.mp4", "rows.csv", "What?")) == [("clips/b9.mp4", "What?"), ("a.mp4", "Which?")]
    (folder / "Is it ok.csv").touch()
    assert pairs(split("a.mp4", "Is there a file named x.csv")) == [("a.mp4", "Is there a file named x.csv")]

"""``seats merge``: of each clip and question the last answer, once; what is missing is said."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seats_cli.cli.answers import json_line, mark_of
from seats_cli.cli.merge import missing_shares
from seats_cli.tasks import Task
from tests.cli.made_batch import BROKEN, go, put, rows, work_of
from tests.cli.test_answers import good_row


@pytest.fixture
def made(tmp_path):
    """Clips and a run over some of them: ``made("x.jsonl", [0, 1], trr=0.5)``."""

    def run(name: str, numbers: list[int], **options):
        clips = [tmp_path / f"{number}.mp4" for number in numbers]
        for number, clip in zip(numbers, clips, strict=True):
            if not clip.exists():
                put(clip, BROKEN if number == 9 else b"%d" % number)
        go(work_of([Task(path=str(clip), question="What?") for clip in clips], tmp_path / name, **options))
        return tmp_path / name

    return run


def test_each_once_and_the_last(seats, made, tmp_path):
    first, second = made("a.jsonl", [0, 1, 2]), made("b.jsonl", [2, 3], trr=0.5)
    ended = seats("merge", first, second, "-o", tmp_path / "all.jsonl")
    assert (ended.code, ended.out, ended.err) == (
        0,
        "",
        "seats: 4 answers from 2 files, 1 line of before left out\n",
    )
    found = rows(tmp_path / "all.jsonl")
    assert [Path(row["media"]["path"]).name for row in found] == ["0.mp4", "1.mp4", "2.mp4", "3.mp4"]
    assert found[2]["options"]["trr"] == 0.5
    to_stdout = seats("merge", first, second, "-q")
    assert (to_stdout.out.encode(), to_stdout.err) == ((tmp_path / "all.jsonl").read_bytes(), "")
    # What comes out can be gone on with.
    assert (
        go(work_of([Task(path=found[0]["media"]["path"], question="What?")], tmp_path / "all.jsonl"))[1].asked
        == []
    )


def test_an_answer_goes_before_a_failure(seats, made, tmp_path):
    failed = made("a.jsonl", [9, 1])
    put(tmp_path / "9.mp4", b"mended")
    mended = made("b.jsonl", [9])
    for order in ([failed, mended], [mended, failed]):
        found = [json.loads(line) for line in seats("merge", *order).out.splitlines()]
        assert [row.get("error") for row in found] == [None, None]
    assert "2 answers from 1 file, 1 of them failed" in seats("merge", failed).err


def test_questions_that_differ_in_choices_or_part_are_different(seats, tmp_path):
    path = str(put(tmp_path / "a.mp4", b"a"))
    tasks = [
        *(Task(path=path, question="Which?", choices=choices) for choices in ((), ("A", "B"), ("C", "D"))),
        *(Task(path=path, question="Which?", start_seconds=start) for start in (1.0, 2.0)),
        Task(path=path, question="Which?", id="7"),
    ]
    go(work_of(tasks, tmp_path / "a.jsonl"))
    ended = seats("merge", tmp_path / "a.jsonl")
    assert len(ended.out.splitlines()) == len({mark_of(row) for row in rows(tmp_path / "a.jsonl")}) == len(tasks)


def test_what_is_cut_off_and_what_is_missing_is_said(seats, made, tmp_path):
    share = made("a.2-of-3.jsonl", [0, 1])
    os.truncate(share, share.stat().st_size - 10)
    ended = seats("merge", share)
    assert (ended.code, len(ended.out.splitlines())) == (0, 1)
    assert "1 last line cut off and left out" in ended.err
    assert f"seats: {tmp_path}/a.1-of-3.jsonl and 1 more are not among them" in ended.err
    whole = made("b.jsonl", [0])
    os.truncate(whole, whole.stat().st_size - 1)
    ended = seats("merge", whole)
    assert (len(ended.out.splitlines()), "cut off" in ended.err) == (1, False), "it lacks nothing but its end"


@given(st.integers(1, 12), st.data())
def test_the_shares_that_are_missing_are_those_that_are_not_there(count: int, data: st.DataObject) -> None:
    given_ones = data.draw(st.sets(st.integers(1, count), min_size=1))
    names = [Path(f"x/a.b.{index}-of-{count}.jsonl") for index in range(1, count + 1)]
    there = [name for index, name in enumerate(names, start=1) if index in given_ones]
    assert missing_shares([*there, Path("other.jsonl")]) == [name for name in names if name not in there]


@pytest.mark.parametrize("text", ["", "\n", "x\n", "{}\n", '{"key": 1}\n'])
def test_what_is_no_file_of_answers(seats, made, tmp_path, text):
    good, other = made("a.jsonl", [0]), tmp_path / "other.jsonl"
    other.write_text(text)
    ended = seats("merge", good, other)
    if text.strip():
        assert (ended.code, ended.complaint) == (2, f"{other} is not a file that seats ask wrote: its row 1")
        ended = seats("merge", good, "-o", other)
        assert (ended.code, "seats ask" in ended.complaint) == (2, True)
        assert other.read_text() == text, "what is something else is not replaced"
    else:
        assert (ended.code, len(ended.out.splitlines())) == (0, 1)


@pytest.mark.parametrize(
    ("given_ones", "complaint"),
    [
        (["a.jsonl", "-o", "a.jsonl"], "is one of the files to join"),
        (["link.jsonl", "-o", "a.jsonl"], "is one of the files to join"),
        (["none.jsonl"], "cannot be read: No such file or directory"),
        (["."], "cannot be read: Is a directory"),
        (["a.jsonl", "-o", "."], "is a folder"),
        (["a.jsonl", "-o", "none/a.jsonl"], "there is no folder none"),
    ],
)
def test_what_cannot_be_joined(seats, made, tmp_path, monkeypatch, given_ones, complaint):
    before = made("a.jsonl", [0]).read_bytes()
    monkeypatch.chdir(tmp_path)
    Path("link.jsonl").symlink_to("a.jsonl")
    ended = seats("merge", *given_ones)
    assert (ended.code, complaint in ended.complaint) == (2, True)
    assert Path("a.jsonl").read_bytes() == before


def test_more_files_than_a_process_may_open(seats, tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n_files = 200
    for number in range(n_files):
        row = good_row() | {"media": {"path": f"{number}.mp4"}}
        (tmp_path / f"{number}.jsonl").write_text(json_line(row) + "\n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (n_files // 2, hard))
    try:
        ended = seats(
            "merge", *(tmp_path / f"{number}.jsonl" for number in range(n_files)), "-o", tmp_path / "all"
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert ended.code == 0
    assert len(rows(tmp_path / "all")) == n_files

"""The file of answers: what of it counts, what tells clips and questions apart, what is to be asked."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seats_cli.cli.answers import (
    AnswerFile,
    Asked,
    Content,
    Stamp,
    failure,
    json_line,
    line_of,
    mark_of,
    parse,
    renamed,
)
from seats_cli.cli.pending import pending
from seats_cli.config import GenerationOptions, MediaOptions, SelectionOptions
from seats_cli.errors import MediaError, UsageError
from seats_cli.report import writable
from seats_cli.tasks import Task
from tests.cli.made_batch import put


def asked_with(**selection: Any) -> Asked:
    media, generation = MediaOptions(), GenerationOptions()
    return Asked({"id": "tiny"}, media, SelectionOptions(**selection), generation)


def answer(task: Task, text: str | None) -> dict[str, Any]:
    """What ``row_of`` gives, as far as it matters here."""
    if text is None:
        return failure(task, MediaError(f"{task.path}: no"))
    lead = {} if task.id is None else {"id": task.id}
    rest = {"schema_version": 1, "command": "ask", "question": writable(task.question), "answer": text}
    return {**lead, **rest, "media": {"path": writable(task.path)}}


def write(output: Path, asked: Asked, *found: tuple[Task, str | None]) -> None:
    with AnswerFile(output) as file:
        file.open()
        for task, text in found:
            content = Content.of(task.path)
            file.put(line_of(answer(task, text), task, asked.key(task, content), content, asked))


texts = st.text(max_size=8)
tasks = st.builds(
    Task,
    path=st.sampled_from(["a", "b", "./a", "gone"]),
    question=st.sampled_from(["What?", "Wo?\n", "\ud800"]),
    id=st.sampled_from([None, "1", "2"]),
    choices=st.sampled_from([(), ("A", "B"), ("C", "D")]),
    start_seconds=st.sampled_from([None, 0.0, 1.0]),
    place=st.sampled_from(["", "rows.csv:2", "rows.csv:3"]),
)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(tasks, max_size=8),
    st.lists(st.tuples(tasks, st.sampled_from(["yes", None])), max_size=6),
    st.booleans(),
)
def test_every_different_task_is_in_one_part_of_what_is_pending(
    now: list[Task], before: list[tuple[Task, str | None]], retry: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, asked = Path(name), asked_with()
        for other in ("a", "b"):
            put(folder / other, b"same")

        def there(task: Task) -> Task:
            parts = task.choices, task.start_seconds, task.place
            return Task(
                path=f"{name}/{task.path}",
                question=task.question,
                id=task.id,
                choices=parts[0],
                start_seconds=parts[1],
                place=parts[2],
            )

        now = [there(task) for task in now]
        output = folder / "answers.jsonl"
        write(output, asked, *[(there(task), text) for task, text in before])
        with AnswerFile(output) as file:
            found = pending(now, file, asked, resume=True, retry_failed=retry)
        different = {(task.path, task.question, task.id, task.choices, task.start_seconds) for task in now}
        assert found.total == len(different)
        twins = [task for others in found.twins.values() for task in others]
        placed = [*found.ask, *[task for task, _ in found.copies], *twins]
        assert len(set(placed)) == len(placed) == found.to_do
        assert {one for one in found.ask if one in now} == set(found.ask)
        assert not (retry and found.failed)
        for task, options in found.changed:
            now_of_it = json.loads(json.dumps(asked.options(task)))
            assert options != now_of_it or task.path.endswith("gone"), "nothing has changed"


@settings(max_examples=50, deadline=None)
@given(tasks, texts)
def test_a_line_says_which_task_it_is_about(task: Task, text: str) -> None:
    asked = asked_with()
    row = line_of(answer(task, text), task, "k", Content("0", Stamp(1, 2, 3)), asked)
    assert mark_of(json.loads(json_line(row))) == asked.mark(task)


@given(st.dictionaries(texts, texts))
def test_a_line_reads_back_is_one_line_and_steers_nothing(row: dict[str, str]) -> None:
    text = json_line(row)
    assert json.loads(text) == row
    assert text.splitlines() == [text]
    assert not any(
        ord(char) < 32 or 0x7F <= ord(char) < 0xA0 or char in "\u202a\u202e\u2066\u2069" for char in text
    )


def test_of_the_lines_about_one_thing_the_last_counts(tmp_path: Path) -> None:
    clip = Task(path=str(put(tmp_path / "a", b"a")), question="What?")
    one, other = asked_with(trr=0.1), asked_with(trr=0.2)
    output = tmp_path / "answers.jsonl"
    write(output, one, (clip, "x"))
    write(output, other, (clip, "y"))
    for asked, n_copies in ((other, 0), (one, 1)):
        with AnswerFile(output) as file:
            found = pending([clip], file, asked, resume=True, retry_failed=False)
        assert (found.ask, len(found.copies), found.done) == ([], n_copies, 1 - n_copies)


def test_an_answer_under_another_name_makes_up_for_a_failure_under_this_one(tmp_path: Path) -> None:
    clips = [Task(path=str(put(tmp_path / name, b"same")), question="What?") for name in "ab"]
    output = tmp_path / "answers.jsonl"
    write(output, asked_with(), (clips[0], None), (clips[1], "x"))
    with AnswerFile(output) as file:
        found = pending(clips, file, asked_with(), resume=True, retry_failed=False)
        assert [task for task, _ in found.copies] == [clips[0]]
        assert (found.done, found.failed, found.ask) == (1, 0, [])


def test_rows_of_which_one_is_new_are_no_change(tmp_path: Path) -> None:
    path = str(put(tmp_path / "a", b"a"))
    parts = [Task(path=path, question="What?", start_seconds=start) for start in (1.0, 2.0)]
    output = tmp_path / "answers.jsonl"
    write(output, asked_with(), (parts[0], "x"))
    with AnswerFile(output) as file:
        found = pending(parts, file, asked_with(), resume=True, retry_failed=False)
        assert (found.ask, found.changed) == ([parts[1]], [])
        found = pending(parts[1:], file, asked_with(), resume=True, retry_failed=False)
        assert [task for task, _ in found.changed] == parts[1:], "another part of before is"


def test_the_name_of_a_clip_is_that_of_its_line_in_errors_too() -> None:
    row = {**failure(Task(path="x/a.mp4", question="q", id="1"), MediaError("x/a.mp4: no")), "key": "k"}
    again = renamed(row, Task(path="b.mp4", question="q"))
    assert (again["media"]["path"], again["error"]["message"], "id" in again) == ("b.mp4", "b.mp4: no", False)


def good_row() -> dict[str, Any]:
    task = Task(path="a", question="q")
    return line_of(answer(task, "x"), task, "k", Content("0", Stamp(1, 2, 3)), asked_with())


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"command": "eval"},
        {"media": {}},
        {"media": None},
        {"question": 3},
        {"key": None},
        {"content": {"sha256": "0"}},
        {"content": {"sha256": 0, "bytes": 1, "mtime_ns": 1, "ctime_ns": 1}},
    ],
)
def test_a_row_that_is_not_of_this_kind_is_refused_with_its_number(tmp_path: Path, change: dict[str, Any]) -> None:
    assert parse(json_line(good_row()).encode()) is not None
    assert parse(json_line(good_row() | change).encode()) is None
    output = tmp_path / "answers.jsonl"
    lines = [json_line(good_row()), json_line({"key": "k"} | good_row() | change)]
    output.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(UsageError, match=r"answers\.jsonl:2 is not a row that seats ask wrote"):
        AnswerFile(output)

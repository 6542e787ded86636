"""Runs over many clips: what is asked, what is not asked again, what is on file, what it ends with."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seats_cli.cli.answers import Asked, Content, Stamp, parse
from seats_cli.cli.batch import Output
from seats_cli.cli.many import answer_many
from seats_cli.config import GenerationOptions, MediaOptions, ModelOptions, SelectionOptions
from seats_cli.tasks import Task, parse_shard
from tests.cli.conftest import RUN, environment
from tests.cli.contract import ASK, FAILED, check
from tests.cli.made_batch import BROKEN, Engine, go, last_of, put, rows, true_answer, work_of

N_PATHS = 4
CONTENTS = [b"a", b"b", b"cc", b"dd", BROKEN]


@pytest.fixture
def ask(seats, checkpoint):
    """With the tiny model, in few tokens."""

    def call(*arguments, **more):
        return seats("ask", *arguments, "-m", checkpoint, "--device", "cpu", "--max-new-tokens", 3, **more)

    return call


def tasks_of(folder: Path, numbers: range | list[int], question: str = "What?") -> list[Task]:
    return [Task(path=str(folder / f"{number}.mp4"), question=question) for number in numbers]


# Laws

index = st.integers(0, N_PATHS - 1)
operations = st.one_of(
    st.tuples(st.just("put"), index, st.sampled_from(CONTENTS)),
    st.tuples(st.just("remove"), index),
    st.tuples(st.just("move"), index, index),
    st.tuples(st.just("cut"), st.floats(0, 1)),
    st.tuples(
        st.just("run"),
        st.sampled_from([0.1, 0.5]),
        st.lists(index, min_size=1, max_size=N_PATHS + 1),
        st.one_of(st.none(), st.integers(0, 3)),
        st.booleans(),
    ),
)


def answered(output: Path) -> set[tuple[str, str, float]]:
    """What the whole lines hold answers to: content, question, ratio."""
    data = output.read_bytes() if output.exists() else b""
    found = [parse(line) for line in data.splitlines(keepends=True) if line.endswith(b"\n")]
    return {
        (row["content"]["sha256"], row["question"], row["options"].get("trr", 0.1))
        for row in found
        if row is not None and row.get("error") is None
    }


def do(folder: Path, output: Path, operation: tuple) -> None:
    kind, *rest = operation
    if kind == "put":
        put(folder / f"{rest[0]}.mp4", rest[1])
    elif kind == "remove":
        (folder / f"{rest[0]}.mp4").unlink(missing_ok=True)
    elif kind == "move":
        if (folder / f"{rest[0]}.mp4").exists():
            (folder / f"{rest[0]}.mp4").rename(folder / f"{rest[1]}.mp4")
    elif kind == "cut" and output.exists():
        os.truncate(output, int(rest[0] * output.stat().st_size))
    elif kind == "run":
        run_and_check(folder, output, *rest)


def run_and_check(folder: Path, output: Path, trr: float, numbers: list[int], ends_after, retry: bool) -> None:
    before = answered(output)
    tasks = tasks_of(folder, numbers)
    code, engine = go(work_of(tasks, output, trr=trr, retry_failed=retry), ends_after=ends_after)
    asked = [(Content.of(task.path).sha256, task.question, trr) for task in engine.asked]
    assert not before & set(asked), "what is on file is asked again"
    readable = [one for one in asked if one[0] != "missing"]
    assert len(set(readable)) == len(readable), "one thing is asked twice"
    truth = {task.path: true_answer(task, trr) for task in tasks}
    if code == -9:
        return
    assert code == (6 if None in truth.values() else 0)
    last = last_of(output)
    for task in tasks:
        row = last[task.path, task.question]
        assert row.get("answer") == truth[task.path]
        assert row["options"].get("trr", 0.1) == trr
        assert truth[task.path] is not None or task.path in row["error"]["message"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(operations, min_size=3, max_size=14))
def test_whatever_happened_before_a_run_that_ends_leaves_the_truth_and_asks_nothing_twice(
    steps: list[tuple],
) -> None:
    """Clips change, move and go, runs are killed, files are cut, options change."""
    with tempfile.TemporaryDirectory() as name:
        folder, output = Path(name), Path(name) / "answers.jsonl"
        for number in range(N_PATHS):
            put(folder / f"{number}.mp4", CONTENTS[number])
        for step in [*steps, ("run", 0.1, list(range(N_PATHS)), None, True)]:
            do(folder, output, step)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_a_file_cut_anywhere_loses_no_whole_line_and_gets_each_answer_once(cut: int, n_clips: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, output = Path(name), Path(name) / "answers.jsonl"
        tasks = tasks_of(folder, range(n_clips))
        for number, task in enumerate(tasks):
            put(Path(task.path), b"%d" % number)
        go(work_of(tasks, output))
        data = output.read_bytes()
        cut %= len(data) + 1
        output.write_bytes(data[:cut])
        n_whole = data[:cut].count(b"\n") + (data[cut : cut + 1] == b"\n")
        code, engine = go(work_of(tasks, output))
        assert (code, len(engine.asked)) == (0, n_clips - n_whole)
        kept = data[:cut].split(b"\n")[: data[:cut].count(b"\n")]
        assert output.read_bytes().split(b"\n")[: len(kept)] == kept
        assert sorted(row["media"]["path"] for row in rows(output)) == sorted(task.path for task in tasks)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=6), unique=True, max_size=12), st.integers(1, 5))
def test_shares_are_all_and_none_is_in_two(paths: list[str], count: int) -> None:
    shards = [parse_shard(f"{index}/{count}") for index in range(1, count + 1)]
    for path in paths:
        assert sum(shard.has(path) for shard in shards) == 1


def key_of(loading=None, media=None, selection=None, generation=None) -> str:
    from seats_cli.engine.marks import mark_before_loading

    loading = {"model": "tiny", "device": "cpu"} | (loading or {})
    asked = Asked(
        mark_before_loading(ModelOptions(**loading)),
        MediaOptions(**(media or {})),
        SelectionOptions(**(selection or {})),
        GenerationOptions(**(generation or {})),
    )
    return asked.key(Task(path="a.mp4", question="What?"), Content("0" * 64, Stamp(1, 2, 3)))


OTHER_VALUES = {
    "media": {
        **{"fps": 1.0, "max_frames": 4, "min_pixels": 100, "max_pixels": 10**6, "start_seconds": 1.0},
        **{"end_seconds": 3.0, "audio": "on", "require_audio": True, "picture": "off"},
        "decoder": "torchcodec",
    },
    "selection": {
        **{"method": "random", "trr": 0.2, "scale": 1.2, "temperature": 0.5, "score_with": "next"},
        **{"score_norm": "standard", "stages": "12", "window_budgets": "uniform", "selection_seed": 1},
        **{"kv_cache": "text", "drop_before_layer": (1, 2, 3, 4), "schedule_layers": 28},
        **{"video_trr": 0.1, "audio_trr": 0.2},
    },
    "generation": {
        **{"max_new_tokens": 3, "temperature": 0.5, "top_p": 0.9, "seed": 1, "system": "Be brief."},
        **{"choices": ("A", "B"), "thinking": False},
    },
    "loading": {"dtype": "bfloat16", "attn": "eager"},
}
PAIRS = {"video_trr": {"audio_trr": 0.1}, "audio_trr": {"video_trr": 0.1}}


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group, values in OTHER_VALUES.items() for name in values]
)
def test_every_option_that_changes_the_answer_changes_the_key(group: str, name: str) -> None:
    values = {**PAIRS.get(name, {}), name: OTHER_VALUES[group][name]}
    other = {**PAIRS.get(name, {}), name: 0.3} if name in PAIRS else {}
    assert key_of(**{group: values}) != key_of(**({group: other} if other else {}))


def test_the_options_above_are_all() -> None:
    for group, kind in (
        ("media", MediaOptions),
        ("selection", SelectionOptions),
        ("generation", GenerationOptions),
    ):
        assert set(OTHER_VALUES[group]) == {field.name for field in dataclasses.fields(kind)}


# In one process, with a model


@pytest.fixture
def shelf(tmp_path, clips):
    """Three clips that can be read, two of them alike, and one that cannot."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for name, source in (("a", "clip"), ("b", "silent"), ("c", "clip"), ("d", "text")):
        (folder / f"{name}.mp4").write_bytes((clips / f"{source}.mp4").read_bytes())
    return folder


def no_model(monkeypatch):
    def load(*_):
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("seats_cli.models.loading.load", load)


def test_the_same_again_loads_no_model_and_reads_no_clip(ask, shelf, tmp_path, monkeypatch):
    output = tmp_path / "answers.jsonl"
    ended = ask(shelf, "What?", "-o", output)
    assert ended.code == 6
    shown = [line.split("\t")[0] for line in ended.out.splitlines()]
    assert sorted(shown) == [str(shelf / f"{name}.mp4") for name in "abc"]
    assert ended.err.splitlines()[-1] == "seats: 1 of 4 clips failed"
    assert "3 answered, 1 failed (1 media)" in ended.err
    for row in rows(output):
        check(row, ASK if "answer" in row else FAILED)
        assert row["key"]
        assert row["content"]["bytes"] == os.path.getsize(row["media"]["path"])
    no_model(monkeypatch)
    monkeypatch.setattr("seats_cli.engine.marks.digest_of", lambda path: pytest.fail(f"{path} is read"))
    before = output.read_bytes()
    again = ask(shelf, "What?", "-o", output)
    assert (again.code, again.out) == (6, "")
    assert "4 skipped: there already (1 of them failed)" in again.err
    assert again.err.splitlines()[-1] == "  hint: --retry-failed asks them again"
    (shelf / "d.mp4").unlink()
    again = ask(shelf, "What?", "-o", output)
    assert (again.code, again.out) == (0, "")
    assert output.read_bytes() == before


@pytest.mark.parametrize(
    "more",
    [
        *(["--report", "full"], ["--workers", 3], ["-q"], ["--format", "jsonl"], ["--json"], ["--timeout", 99]),
        *(["--longest-first"], ["--fail-fast"], ["--cache", "CACHE"], ["--offline"], ["--show-thinking"], ["-v"]),
        *(["--gpus", "cpu"], ["--limit", 3], ["--max-new-tokens", 3]),
    ],
    ids=str,
)
def test_how_a_run_goes_does_not_matter_to_what_is_there(ask, shelf, tmp_path, monkeypatch, more):
    (shelf / "d.mp4").unlink()
    output = tmp_path / "answers.jsonl"
    assert ask(shelf, "What?", "-o", output, "-q").code == 0
    no_model(monkeypatch)
    more = [tmp_path / "cache" if word == "CACHE" else word for word in more]
    ended = ask(shelf, "What?", "-o", output, *more)
    assert (ended.code, ended.out) == (0, "")


def test_a_changed_option_is_asked_again_and_said(ask, shelf, tmp_path):
    (shelf / "d.mp4").unlink()
    output = tmp_path / "answers.jsonl"
    assert ask(shelf, "What?", "-o", output).code == 0
    ended = ask(shelf, "What?", "-o", output, "--trr", 0.4, "--schedule", "3,4,5,6")
    assert "seats: 3 answers of before asked again: " in ended.err
    assert "trr was 0.1, is 0.4" in ended.err
    assert "drop-before-layer was None, is [3, 4, 5, 6]" in ended.err
    ended = ask(shelf, "What?", "-o", output, "--trr", 0.2, "--schedule", "3,4,5,6")
    assert "trr was 0.4, is 0.2" in ended.err
    assert "drop-before-layer" not in ended.err
    (shelf / "b.mp4").write_bytes((shelf / "a.mp4").read_bytes() + b"\0")
    ended = ask(shelf, "What?", "-o", output, "--trr", 0.2, "--schedule", "3,4,5,6")
    assert "seats: 1 answer of before asked again: a clip, the model's files" in ended.err
    assert "2 skipped" in ended.err


def test_back_to_options_of_before_nothing_is_asked_and_they_count_again(ask, shelf, tmp_path, monkeypatch):
    (shelf / "d.mp4").unlink()
    output = tmp_path / "answers.jsonl"
    for ratio in (0.1, 0.5):
        assert ask(shelf, "What?", "-o", output, "--trr", ratio).code == 0
    no_model(monkeypatch)
    ended = ask(shelf, "What?", "-o", output)
    assert (ended.code, len(ended.out.splitlines())) == (0, 3)
    assert {row["options"].get("trr", 0.1) for row in last_of(output).values()} == {0.1}
    assert ask(shelf, "What?", "-o", output).out == ""


def test_a_failure_is_asked_again_on_demand_or_when_the_clip_is_another(ask, shelf, tmp_path, clips):
    output = tmp_path / "answers.jsonl"
    assert ask(shelf, "What?", "-o", output).code == 6
    ended = ask(shelf, "What?", "-o", output, "--retry-failed")
    assert ended.code == 6
    assert "0 answered, 3 skipped: there already, 1 failed (1 media)" in ended.err
    (shelf / "d.mp4").write_bytes((clips / "sound.m4a").read_bytes())
    ended = ask(shelf, "What?", "-o", output)
    assert ended.code == 0
    assert [line.split("\t")[0] for line in ended.out.splitlines()] == [str(shelf / "d.mp4")]


def test_a_clip_that_is_missing_is_no_other_clip_that_is_missing(ask, tmp_path, clips):
    output = tmp_path / "answers.jsonl"
    gone = [tmp_path / name for name in ("x.mp4", "y.mp4")]
    ended = ask(*gone, "What?", "-o", output)
    assert ended.code == 6
    assert [row["error"]["message"] for row in rows(output)] == [f"{path}: no such file" for path in gone]
    gone[0].write_bytes((clips / "silent.mp4").read_bytes())
    ended = ask(*gone, "What?", "-o", output)
    assert (ended.code, ended.out.startswith(f"{gone[0]}\t")) == (6, True)


def test_a_failure_of_two_that_are_alike_names_each(ask, tmp_path, clips):
    twins = [tmp_path / name for name in ("x.mp4", "y.mp4")]
    for path in twins:
        path.write_bytes((clips / "text.mp4").read_bytes())
    output = tmp_path / "answers.jsonl"
    ended = ask(*twins, "What?", "-o", output)
    assert ended.code == 6
    assert [row["error"]["message"] for row in rows(output)] == [f"{path}: text, not media" for path in twins]
    assert all(f"seats: {path}: text, not media\n" in ended.err for path in twins)
    assert "2 failed (2 media)" in ended.err


def test_one_clip_by_several_paths_is_asked_once_and_has_a_line_for_each(ask, shelf, tmp_path, monkeypatch):
    monkeypatch.chdir(shelf)
    Path("link.mp4").symlink_to("b.mp4")
    output = tmp_path / "answers.jsonl"
    names = ["b.mp4", "./b.mp4", "link.mp4", "b.mp4"]
    ended = ask(*names, "What?", "-o", output, "--format", "jsonl", "-q")
    found = [json.loads(line) for line in ended.out.splitlines()]
    assert [row["media"]["path"] for row in found] == names[:3]
    assert len({json.dumps(row["seconds"]) for row in found}) == 1, "made once"
    assert not any({"key", "content", "options"} & set(row) for row in found)
    for row in found:
        check(row, ASK)
    # Where a clip lies does not matter to its answer.
    Path("more").mkdir()
    Path("b.mp4").rename("more/b.mp4")
    no_model(monkeypatch)
    ended = ask("more/b.mp4", "What?", "-o", output)
    assert (ended.code, ended.out.split("\t")[0]) == (0, "more/b.mp4")
    assert len(rows(output)) == 4


def test_a_clip_of_the_same_size_and_time_is_another_clip(ask, tmp_path, clips):
    clip, output = tmp_path / "a.mp4", tmp_path / "answers.jsonl"
    data = (clips / "silent.mp4").read_bytes()
    clip.write_bytes(data)
    then = clip.stat()
    ask(clip, "What?", "-o", output)
    clip.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(clip, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert "1 answer of before asked again" in ask(clip, "What?", "-o", output).err


def test_a_clip_that_changes_while_it_is_asked_about_is_asked_about_again(tmp_path):
    (task,) = tasks_of(tmp_path, [0])
    put(Path(task.path), b"before")
    output = tmp_path / "answers.jsonl"
    work = work_of([task], output)

    def start(jobs):
        for outcome in Engine(0.1)(jobs):
            put(Path(task.path), b"after")
            yield outcome

    assert answer_many(work, start) == 0
    code, engine = go(work)
    assert (code, len(engine.asked)) == (0, 1)
    assert last_of(output)[task.path, "What?"]["answer"] == true_answer(task, 0.1)
    assert go(work)[1].asked == []


def test_a_clip_is_hashed_once_for_all_that_is_asked_about_it(tmp_path, monkeypatch):
    path = put(tmp_path / "a.mp4", b"a")
    tasks = [Task(path=str(path), question=f"What {number}?") for number in range(5)]
    hashed = []
    real = Content.of
    monkeypatch.setattr(Content, "of", lambda path: hashed.append(path) or real(path))
    assert go(work_of(tasks, tmp_path / "answers.jsonl"))[0] == 0
    assert hashed == [str(path)]


def test_no_resume_asks_all_again(ask, shelf, tmp_path):
    output = tmp_path / "answers.jsonl"
    for _ in range(2):
        ended = ask(shelf, "What?", "-o", output, "--no-resume")
        assert len(ended.out.splitlines()) == 3
    assert len(rows(output)) == 8


def test_rows_with_parts_choices_and_ids(ask, shelf, tmp_path, monkeypatch):
    table = tmp_path / "rows.csv"
    table.write_text(
        "media,question,id,choices,start,end\n"
        f'{shelf}/a.mp4,"What, then?",7,,,\n{shelf}/a.mp4,Which?,,"red, blue",,\n'
        f'{shelf}/a.mp4,Which?,,"one, two",,\n{shelf}/a.mp4,Which?,,"one, two",0:01,0:03\n{shelf}/b.mp4,,,,,\n'
    )
    output = tmp_path / "answers.jsonl"
    ended = ask(table, "By default?", "-o", output, "--format", "jsonl", "-q")
    assert ended.code == 0
    found = rows(output)
    assert len(found) == 5
    assert found[0]["id"] == "7"
    assert [row["question"] for row in found].count("Which?") == 3
    labels = {tuple(choice["label"] for choice in row["choices"]) for row in found}
    assert labels == {(), ("red", "blue"), ("one", "two")}
    assert {row["options"].get("start_seconds") for row in found} == {None, 1.0}
    assert [row["media"]["path"] for row in found if row["question"] == "By default?"] == [f"{shelf}/b.mp4"]
    no_model(monkeypatch)
    ended = ask(table, "By default?", "-o", output)
    assert (ended.code, ended.out) == (0, "")
    assert "asked again" not in ended.err
    ended = ask(table, "By default?", "-o", table, "-q")
    assert ended.code == 2
    assert ended.complaint == f"-o {table} would be lines of JSON, and its name says otherwise"
    lines = tmp_path / "rows.jsonl"
    lines.write_text(json.dumps({"media": f"{shelf}/a.mp4", "question": "Which?"}))
    ended = ask(lines, "-o", lines, "-q")
    assert (ended.code, ended.complaint) == (2, f"-o {lines} is the file of questions")


def test_also_is_asked_of_rows_with_a_question_of_their_own_too(ask, shelf, tmp_path):
    table = tmp_path / "rows.jsonl"
    table.write_text(json.dumps({"media": f"{shelf}/a.mp4", "question": "Which?", "choices": ["red", "blue"]}))
    ended = ask(table, "--also", "What else?", "--json", "-q")
    own, also = (json.loads(line) for line in ended.out.splitlines())
    assert (own["question"], len(own["choices"])) == ("Which?", 2)
    assert (also["question"], also["choices"]) == ("What else?", [])


def test_also_about_one_clip_decodes_it_once(ask, shelf, monkeypatch):
    opened = []
    import seats_cli.media

    real = seats_cli.media.open_clip
    monkeypatch.setattr("seats_cli.media.open_clip", lambda *args: opened.append(args) or real(*args))
    ended = ask(shelf / "a.mp4", "What?", "--also", "Where?")
    assert [line.split("\t")[1] for line in ended.out.splitlines()] == ["What?", "Where?"]
    assert len(opened) == 1


def test_limit_takes_clips_and_not_rows(ask, shelf, tmp_path):
    ended = ask(shelf, "What?", "--also", "Where?", "--limit", 1, "-q")
    assert [line.split("\t")[:2] for line in ended.out.splitlines()] == [
        [str(shelf / "a.mp4"), question] for question in ("What?", "Where?")
    ]
    assert ask(shelf, "What?", "--limit", 0).complaint == "--limit is 0; it must be at least 1"


def test_shares_have_files_of_their_own_and_are_joined(ask, seats, shelf, tmp_path):
    (shelf / "d.mp4").unlink()
    for index in (1, 2, 3):
        assert ask(shelf, "What?", "--shard", f"{index}/3", "-o", tmp_path / "answers.jsonl", "-q").code == 0
    parts = sorted(tmp_path.glob("answers.*.jsonl"))
    assert [path.name for path in parts] == [f"answers.{index}-of-3.jsonl" for index in (1, 2, 3)]
    ended = seats("merge", *parts, "-o", tmp_path / "all.jsonl")
    assert (ended.code, ended.err) == (0, "seats: 3 answers from 3 files\n")
    assert {row["media"]["path"] for row in rows(tmp_path / "all.jsonl")} == {
        str(path) for path in shelf.iterdir()
    }
    ended = ask(shelf, "What?", "--shard", "4/3")
    assert (ended.code, "with i from 1 to n" in ended.complaint, "SLURM" in ended.hint) == (2, True, True)


def test_fail_fast_ends_at_the_first_failure(ask, shelf, tmp_path):
    output = tmp_path / "answers.jsonl"
    ended = ask(shelf / "a.mp4", shelf / "d.mp4", shelf / "b.mp4", "What?", "-o", output, "--fail-fast")
    assert ended.code == 6
    assert [bool(row.get("error")) for row in rows(output)] == [False, True]
    assert "ended at the first failure, after 1 answer" in ended.err
    # That one is not tried again, and so ends nothing.
    ended = ask(shelf / "a.mp4", shelf / "d.mp4", shelf / "b.mp4", "What?", "-o", output, "--fail-fast")
    assert (ended.code, len(rows(output))) == (6, 3)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["-o", "{}"], "-o {} is a folder"),
        (["-o", "{}/none/a.jsonl"], "-o {}/none/a.jsonl: there is no folder {}/none"),
        (["-o", "/dev/null"], "-o /dev/null is not a regular file"),
        (["-o", "{}/clips/a.mp4"], "-o {}/clips/a.mp4:1 is not a row that seats ask wrote"),
        (["--retry-failed"], "--retry-failed is about the answers of earlier runs"),
        (["--no-resume"], "--no-resume is about the answers of earlier runs"),
        (["--json", "--format", "tsv"], "--json contradicts --format tsv"),
        (["--trace", "{}/t.npz"], "--trace describes one clip; ask about one at a time"),
        (["--workers", "-1"], "--workers is -1; it lies between 0 and 64"),
        (["--timeout", "0"], "--timeout is 0; it must be more than 0 seconds"),
        (["--shard", "0/2"], "--shard is '0/2'; give i/n with i from 1 to n, such as 2/8"),
        (["--gpus", "0,0"], "--gpus is '0,0'; give different GPUs with commas between them"),
    ],
)
def test_what_cannot_be_is_a_line_before_a_model_is_loaded(ask, shelf, tmp_path, monkeypatch, given, complaint):
    no_model(monkeypatch)
    ended = ask(shelf, "What?", "-q", *[word.format(tmp_path) for word in given])
    assert (ended.code, ended.complaint) == (2, complaint.format(*[tmp_path] * 2))
    assert not list(tmp_path.glob("*.jsonl"))


def test_the_format_that_is_said_nearer_holds(ask, shelf, monkeypatch):
    monkeypatch.setenv("SEATS_FORMAT", "tsv")
    assert ask(shelf, "What?", "-q", "--limit", 1).out.startswith(f"{shelf}/a.mp4\t")
    assert ask(shelf, "What?", "-q", "--limit", 1, "--json").out.startswith("{")
    ended = ask(shelf, "What?", "-q", "--limit", 1, "--format", "text", "--also", "Where?")
    first, asked, answer, empty, *_ = ended.out.split("\n")
    assert (first, asked, bool(answer), empty) == (f"{shelf}/a.mp4", "What?", True, "")


def test_names_and_answers_steer_no_terminal_in_any_format(tmp_path, capsys):
    steering = "\x1b[2J\x9b2J\u202e\x85\u2028"
    path = put(tmp_path / f"a\n\t{steering}.mp4", b"a")
    broken = put(tmp_path / f"b{steering}.mp4", BROKEN)
    tasks = [Task(path=str(one), question=f"What{steering}?") for one in (path, broken)]
    for form in ("text", "tsv", "jsonl"):
        shown = Output(format=form, detail=None, quiet=False, verbose=False, several=True)
        output = tmp_path / f"{form}.jsonl"
        assert go(work_of(tasks, output, shown=shown))[0] == 6
        out, err = capsys.readouterr()
        for text in (out, err, output.read_text(encoding="utf-8")):
            assert not set(text) & set(steering) - set("[2J")
        assert [row["media"]["path"] for row in rows(output)] == [str(path), str(broken)]


def test_a_full_disk_ends_the_run_and_the_file_goes_on(tmp_path, monkeypatch, capsys):
    tasks = tasks_of(tmp_path, range(4))
    for number, task in enumerate(tasks):
        put(Path(task.path), b"%d" % number)
    output = tmp_path / "answers.jsonl"
    from seats_cli.cli import lines

    def full(file):
        if file.tell() > 5000:
            file.truncate(file.tell() - 100)  # what would not go in
            raise OSError(28, "No space left on device")

    shown = Output(format=None, detail=None, quiet=False, verbose=False)
    with monkeypatch.context() as patch:
        patch.setattr(lines, "_to_disk", full)
        code, engine = go(work_of(tasks, output, shown=shown))
    out = capsys.readouterr().out
    assert (code, 0 < len(engine.asked) < 4) == (1, True)
    assert len(out.splitlines()) == len(engine.asked) - 1, "what is not on file is not shown"
    assert go(work_of(tasks, output))[0] == 0
    assert len(rows(output)) == 4


# As a user runs it

LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
from seats_cli.cli.app import main
main()
"""


@pytest.fixture
def command(checkpoint):
    def start(*arguments, lead=RUN, **more):
        fixed = ["-m", str(checkpoint), "--device", "cpu", "--max-new-tokens", "2", "-q"]
        given = [*lead, "ask", *map(str, arguments), *fixed]
        return subprocess.Popen(given, env=environment(), stderr=subprocess.PIPE, **more)

    return start


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_limit_of_the_file_size_is_a_line(command, shelf, tmp_path):
    output = tmp_path / "answers.jsonl"
    process = command(
        shelf, "What?", "-o", output, lead=(sys.executable, "-c", LIMITED), stdout=subprocess.DEVNULL
    )
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert err.decode().splitlines() == [
        f"seats: -o {output} cannot be written: File too large",
        "  hint: make room; the same command goes on from there",
    ]
    assert output.stat().st_size == 4000
    process = command(shelf, "What?", "-o", output, stdout=subprocess.DEVNULL)
    process.communicate(timeout=300)
    assert process.returncode == 6
    assert len(rows(output)) == 4


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_a_reader_that_goes_ends_it_quietly_and_the_file_goes_on(command, shelf, tmp_path):
    output = tmp_path / "answers.jsonl"
    process = command(shelf, "What?", "-o", output, stdout=subprocess.PIPE)
    assert process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    assert (process.communicate(timeout=300)[1], process.returncode) == (b"", 1)
    assert 1 <= len(rows(output)) < 4
    process = command(shelf, "What?", "-o", output, stdout=subprocess.DEVNULL)
    process.communicate(timeout=300)
    assert process.returncode == 6
    assert len(rows(output)) == 4


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_stdout_is_a_line_and_the_file_goes_on(command, shelf, tmp_path):
    output = tmp_path / "answers.jsonl"
    with open("/dev/full", "wb") as full:
        process = command(shelf, "What?", "-o", output, stdout=full)
        _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert err.decode().startswith("seats: stdout cannot be written: No space left on device\n")
    assert len(rows(output)) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell")
def test_in_a_loop_that_reads_stdin_only_what_asks_for_it_reads(shelf, checkpoint):
    run = f'{sys.executable} -m seats_cli.cli.app ask "$f" What? -m {checkpoint} --format tsv -q'
    script = f"while read f; do {run}; done"
    paths = "".join(f"{shelf / name}\n" for name in ("a.mp4", "b.mp4"))
    ended = subprocess.run(
        ["sh", "-c", script], input=paths.encode(), capture_output=True, env=environment(), check=False
    )
    assert [line.split(b"\t")[0].decode() for line in ended.stdout.splitlines()] == paths.splitlines()

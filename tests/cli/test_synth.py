"""``seats synth``: a set of clips, the path of its questions on stdout, and one line for whatever cannot be."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seats_cli.world import clips as world_clips
from tests.cli.conftest import RUN, environment
from tests.cli.test_process import start


def quick(monkeypatch):
    """Clips that cost nothing to make."""
    monkeypatch.setattr(world_clips, "write_scene", lambda path, scene, quality: path.write_bytes(b"clip"))


def test_a_set_is_written_and_its_questions_are_named(seats, tmp_path):
    ended = seats("synth", "--n", 2, "--seed", 7, "--out", tmp_path / "new" / "set", "--format", "mkv")
    assert ended.code == 0
    path = tmp_path / "new" / "set" / "questions.jsonl"
    assert ended.out == f"{path}\n"
    assert ended.err == "seats: 2 clips and 2 questions\n"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["media"] for row in rows] == ["7-00000.mkv", "7-00001.mkv"]
    assert {"id", "media", "question", "answer", "category", "scene"} == set(rows[0])
    assert sorted(os.listdir(path.parent)) == ["7-00000.mkv", "7-00001.mkv", "questions.jsonl"]


def test_by_default_it_is_200_mp4_of_seed_7_with_a_line_now_and_then(seats, tmp_path, monkeypatch):
    quick(monkeypatch)
    ended = seats("synth", "-o", tmp_path)
    assert ended.code == 0
    assert len(list(tmp_path.glob("7-*.mp4"))) == 200
    assert ended.err.splitlines() == [
        *(f"seats: {done} of 200 clips" for done in (50, 100, 150)),
        "seats: 200 clips and 200 questions",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--n", "0"], ["--n is 0", "between 1 and"]),
        (["--n=-3"], ["--n is -3"]),
        (["--n", "1000000000000"], ["--n is 1000000000000"]),
        (["--n", "many"], ["--n", "'many' is not a whole number"]),
        (["--n", "1.5"], ["--n", "'1.5' is not a whole number"]),
        (["--seed=-1"], ["--seed is -1"]),
        (["--seed", str(2**63)], ["--seed is", "below 2**63"]),
        (["--seed", "x"], ["--seed", "'x'"]),
        (["--jobs", "0"], ["--jobs is 0"]),
        (["--jobs", "1000"], ["--jobs is 1000"]),
        (["--jobs", "two"], ["--jobs", "'two'"]),
        (["--format", "avi"], ["--format", "'avi' is not one of 'mp4', 'mkv', 'mov', 'webm'"]),
        (["file"], ["extra argument"]),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_written(seats, tmp_path, arguments, words):
    ended = seats("synth", "--out", tmp_path / "set", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert all(word in ended.complaint for word in words), ended.complaint
    assert not (tmp_path / "set").exists()


def test_the_folder_must_be_named(seats):
    ended = seats("synth")
    assert (ended.code, ended.out) == (2, "")
    assert "--out" in ended.complaint
    assert ended.hint == "see: seats synth --help"


def test_a_place_that_cannot_be_written_is_named(seats, tmp_path):
    (tmp_path / "file").write_text("here")
    ended = seats("synth", "--n", 1, "--out", tmp_path / "file")
    assert (ended.code, ended.out) == (2, "")
    assert ended.complaint == f"--out {tmp_path}/file is not a folder"
    ended = seats("synth", "--n", 1, "--out", tmp_path / "file" / "set")
    assert (ended.code, ended.out) == (2, "")
    assert ended.complaint == f"--out {tmp_path}/file/set cannot be written: Not a directory"
    assert (tmp_path / "file").read_text() == "here"


def test_an_empty_path_is_not_the_working_folder(seats, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in (["synth", "-o", ""], ["synth", "--n", 1, "--out", " "], ["demo", "--save", ""]):
        ended = seats(*arguments)
        assert (ended.code, ended.out) == (2, "")
        assert "the path is empty" in ended.complaint
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    [
        b'{"media": "mine.mp4", "question": "What?", "answer": "x"}\n',
        b'{"media": "a.mp4", "scene": {}}\n{"media": "mine.mp4"}\n',
        b"\xff not JSON",
        b"[1]\n",
    ],
)
def test_questions_of_others_are_left_alone(seats, tmp_path, monkeypatch, content):
    quick(monkeypatch)
    (tmp_path / "questions.jsonl").write_bytes(content)
    ended = seats("synth", "--n", 1, "--out", tmp_path)
    assert (ended.code, ended.out) == (2, "")
    assert ended.complaint == (
        f"--out {tmp_path}: questions.jsonl is there already and was not written by seats synth"
    )
    assert ended.hint
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"questions.jsonl": content}


def test_its_own_questions_are_written_again(seats, tmp_path, monkeypatch):
    quick(monkeypatch)
    for n, told in ((1, "1 clip and 1 question"), (3, "3 clips and 3 questions"), (2, "2 clips and 2 questions")):
        ended = seats("synth", "--n", n, "--out", tmp_path)
        assert (ended.code, ended.err) == (0, f"seats: {told}\n")
        assert len((tmp_path / "questions.jsonl").read_text().splitlines()) == n


def test_questions_that_cannot_be_written_are_found_before_the_clips(seats, tmp_path):
    (tmp_path / "questions.jsonl").mkdir()
    ended = seats("synth", "--n", 1, "--out", tmp_path)
    assert (ended.code, ended.complaint) == (2, f"--out {tmp_path}/questions.jsonl is a folder")
    assert os.listdir(tmp_path) == ["questions.jsonl"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_clip_that_cannot_be_replaced_is_a_line_too(seats, tmp_path, jobs):
    (tmp_path / "7-00000.mp4" / "in the way").mkdir(parents=True)
    ended = seats("synth", "--n", 1, "--out", tmp_path, "--jobs", jobs)
    assert (ended.code, ended.out) == (2, "")
    assert ended.complaint.startswith(f"--out {tmp_path} cannot be written: ")
    assert os.listdir(tmp_path) == ["7-00000.mp4"]


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.argv = ["seats", *sys.argv[1:]]
from seats_cli.cli.app import main
if __name__ == "__main__":
    main()
"""


def test_a_disk_that_takes_no_more_is_one_line(tmp_path):
    """Files may grow to 20 kB, which no clip is content with."""
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, "synth", "--n", "2", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=300,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"seats: --out {tmp_path} cannot be written: File too large\n"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_leaves_whole_clips_only(tmp_path, jobs):
    with start(*RUN, "synth", "--n", "500", "--out", tmp_path, "--jobs", jobs) as process:
        while not list(tmp_path.glob("7-*.mp4")):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (130, b"")
    assert err == b"seats: interrupted\n"
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == [f"7-{index:05d}.mp4" for index in range(len(kept))]
    assert 0 < len(kept) < 500
    scene, _, quality = world_clips.scene_of(7, 0)
    world_clips.write_scene(tmp_path / "again.mp4", scene, quality)
    assert (tmp_path / "7-00000.mp4").read_bytes() == (tmp_path / "again.mp4").read_bytes()


def test_a_process_that_is_killed_is_one_line(tmp_path):
    with start(*RUN, "synth", "--n", "500", "--out", tmp_path, "--jobs", "2") as process:
        while not list(tmp_path.glob("7-*.mp4")):
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(worker_of(process.pid), signal.SIGKILL)
        out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (1, b"")
    assert err.splitlines() == [
        b"seats: a process that makes clips was ended",
        b"  hint: run again with fewer --jobs",
    ]


def worker_of(parent: int) -> int:
    """The id of a process that makes clips for one (Linux)."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(after_name[1]) == parent and b"spawn_main" in (entry / "cmdline").read_bytes():
                return int(entry.name)
    raise AssertionError("no worker")

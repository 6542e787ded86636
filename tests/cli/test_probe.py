"""``seats probe`` as a user calls it: a file of questions in; curves, a schedule and a chart out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from seats_cli.selection.schedule_file import read_schedule
from tests.cli.conftest import N_LAYERS
from tests.cli.contract import MODEL, NUMBER, VERSIONS, check
from tests.tiny import write_tiny_checkpoint

POINT = {"layer": int, "correct": int, "accuracy": NUMBER, "ci95": [NUMBER]}
PROBE = {
    "schema_version": int,
    "command": str,
    "file": str,
    "categories": [str],
    "clips": int,
    "rows": int,
    "n": int,
    "failed": int,
    "layers": int,
    "tolerance": NUMBER,
    "curves": {"video": [POINT], "audio": [POINT], "both": [POINT]},
    "proposal": {
        "drop_before_layer": [int],
        "temperature": NUMBER,
        "recovers": (int, type(None)),
        "flat": int,
        "notes": [str],
    },
    "model_drop_before_layer": [int],
    "model": MODEL,
    "versions": VERSIONS,
    "warnings": [str],
}


def row(number: int, media: str = "clip.mp4", answer: str = "A", category: str = "pick") -> dict:
    question = f"Which of {number}?"
    return {
        "media": media,
        "question": question,
        "answer": answer,
        "choices": ["A", "B", "C"],
        "category": category,
    }


ROWS = [row(1), row(2, answer="B", category="other"), row(3, "silent.mp4"), row(4, "sound.m4a", category="other")]


@pytest.fixture
def write(tmp_path, clips):
    """A file of questions; its media are those of the clips."""

    def make(*rows: dict, name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        placed = [one | {"media": str(clips / one["media"])} for one in rows]
        path.write_text("".join(json.dumps(one) + "\n" for one in placed))
        return path

    return make


@pytest.fixture
def probe(seats, checkpoint):
    """With the tiny model, in few tokens."""

    def call(*arguments, model=checkpoint):
        few = ("--device", "cpu", "--max-frames", 4, "--max-pixels", 9 * 784)
        return seats("probe", *arguments, "-m", model, *few)

    return call


def test_json_is_one_object_with_all_that_is_promised(probe, write):
    path = write(*ROWS)
    ended = probe(path, "--json")
    assert ended.code == 0
    report = json.loads(ended.out)
    assert ended.out.count("\n") == 1
    check(report, PROBE)
    assert (report["rows"], report["n"], report["failed"], report["clips"]) == (4, 4, 0, 3)
    assert report["layers"] == N_LAYERS
    for points in report["curves"].values():
        assert [point["layer"] for point in points] == list(range(N_LAYERS + 1))
    assert len({points[-1]["correct"] for points in report["curves"].values()}) == 1


def test_with_nothing_removed_accuracy_is_that_of_eval(probe, seats, checkpoint, write):
    path = write(*ROWS)
    curves = json.loads(probe(path, "--json").out)["curves"]
    few = ("--device", "cpu", "--max-frames", 4, "--max-pixels", 9 * 784)
    whole = json.loads(seats("eval", path, "--method", "full", "--json", "-m", checkpoint, *few).out)
    assert curves["both"][-1]["accuracy"] == whole["accuracy"]
    assert curves["both"][-1]["ci95"] == whole["ci95"]


def test_the_table_the_schedule_and_the_chart(probe, seats, checkpoint, write, clips, tmp_path):
    schedule, chart = tmp_path / "schedule.toml", tmp_path / "probe.png"
    ended = probe(write(*ROWS), "-o", schedule, "--chart", chart)
    assert ended.code == 0
    assert "proposed b1 to b4: " in ended.out
    assert f"{N_LAYERS}, nothing" in ended.out
    assert ended.err.splitlines()[-2:] == [f"seats: written: {schedule}", f"seats: written: {chart}"]
    found = read_schedule(schedule)
    assert found.layers == N_LAYERS
    assert ", ".join(map(str, found.drop_before_layer)) in ended.out
    assert chart.read_bytes().startswith(b"\x89PNG")
    # What is written is what --schedule takes.
    used = seats("ask", clips / "clip.mp4", "What?", "-m", checkpoint, "--schedule", schedule, "--json", "-q",
                 "--max-new-tokens", 1, "--trr", 0.2, "--max-frames", 4)  # fmt: skip
    assert json.loads(used.out)["selection"]["drop_before_layer"] == list(found.drop_before_layer)


def test_limit_and_category_choose_rows(probe, write):
    path = write(*ROWS)
    first = json.loads(probe(path, "--json", "--limit", 2).out)
    assert (first["rows"], first["clips"]) == (2, 1)
    other = json.loads(probe(path, "--json", "--category", "other").out)
    assert (other["rows"], other["clips"], other["categories"]) == (2, 2, ["other"])
    both = json.loads(probe(path, "--json", "--category", "other", "--category", "pick", "--limit", 3).out)
    assert both["rows"] == 3


def test_a_clip_that_fails_is_named_and_left_out(probe, write):
    ended = probe(write(*ROWS, row(5, "text.mp4")), "--json")
    assert ended.code == 6
    report = json.loads(ended.out)
    assert (report["rows"], report["n"], report["failed"]) == (5, 4, 1)
    assert re.search(r"^seats: \S+rows\.jsonl:5: \S+text\.mp4: ", ended.err)
    assert "1 of 5 questions failed" in ended.err
    nothing = probe(write(row(5, "text.mp4")), "-q")
    assert (nothing.code, nothing.out) == (6, "")
    assert "every question failed, 1 in all" in nothing.err


def test_one_is_one(probe, write, tmp_path):
    schedule = tmp_path / "schedule.toml"
    ended = probe(write(row(1)), "-o", schedule)
    for text in (ended.out, schedule.read_text()):
        assert "1 question " in text
        assert "1 questions" not in text
    assert "1 clip" in ended.out
    assert "1 clips" not in ended.out
    assert "1 of 2 questions failed" in probe(write(row(1), row(5, "text.mp4")), "-q").err


def test_quiet_says_nothing_but_the_result(probe, write, tmp_path):
    ended = probe(write(*ROWS), "-q", "-o", tmp_path / "s.toml")
    assert (ended.code, ended.err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tolerance", "1"], ["--tolerance", "1.0"]),
        (["--tolerance", "-0.1"], ["--tolerance", "-0.1"]),
        (["--tolerance", "nan"], ["--tolerance", "nan"]),
        (["--limit", "0"], ["--limit", "0"]),
        (["--category", "none such"], ["'none such'"]),
        (["-o", "schedule.txt"], ["schedule.txt", ".toml"]),
        (["-o", "no/schedule.toml"], ["no/schedule.toml", "no folder"]),
        (["-o", "."], ["is a folder"]),
        (["-o", "seats.toml"], ["seats.toml", "table"]),
        (["-o", ""], ["--output", "the path is empty"]),
        (["-o", "/proc/schedule.toml"], ["--output /proc/schedule.toml cannot be written"]),
        (["--chart", "/proc/probe.png"], ["--chart /proc/probe.png cannot be written"]),
        (["--chart", "probe.jpg"], ["probe.jpg", ".png"]),
        (["--choices", "A"], ["--choices", "two"]),
        (["--fps", "0"], ["--fps"]),
    ],
)
def test_usage_errors_come_before_a_model_is_sought(seats, write, monkeypatch, tmp_path, arguments, words):
    monkeypatch.chdir(tmp_path)
    ended = seats("probe", write(*ROWS), *arguments, "-m", "/no/such/model")
    assert (ended.code, ended.out) == (2, "")
    assert all(word in ended.complaint for word in words)


def test_the_questions_are_not_written_over(seats, write):
    path = write(*ROWS, name="rows.toml")
    ended = seats("probe", path, "-o", path)
    assert ended.code == 2
    assert "is the file of questions" in ended.complaint
    assert seats("probe", "nowhere.jsonl").code == 2


def test_a_model_too_shallow_for_a_schedule(probe, write, tmp_path):
    shallow = write_tiny_checkpoint(tmp_path / "shallow", n_layers=3)
    path = write(row(1))
    ended = probe(path, "-o", tmp_path / "s.toml", model=shallow)
    assert ended.code == 2
    assert "too shallow" in ended.complaint
    curves = probe(path, model=shallow)
    assert curves.code == 0
    assert "proposed b1 to b4: -" in curves.out

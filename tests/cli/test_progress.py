"""How far a run is: a bar on a terminal, lines elsewhere; what it stands beside stays whole."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seats_cli.cli.progress import EVERY, Progress, duration
from tests.cli.conftest import environment

PARTS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
BATCH = """
import sys, time
from pathlib import Path
from seats_cli.cli import many
from tests.cli.made_batch import Engine, SHOWN, work_of
from seats_cli.cli.console import notice
from seats_cli.tasks import Task
import dataclasses

folder, output = Path(sys.argv[1]), sys.argv[2]
tasks = [Task(path=str(path), question="What?") for path in sorted(folder.glob("*.mp4"))]

class Slow(Engine):
    def _outcomes(self, tasks):
        for outcome in super()._outcomes(tasks):
            time.sleep(0.03)
            yield outcome
    def __call__(self, jobs):
        time.sleep(0.3)
        notice("the model says something")
        return super().__call__(jobs)

shown = dataclasses.replace(SHOWN, quiet=False)
try:
    many.answer_many(work_of(tasks, Path(output), shown=shown), Slow(0.1))
except Exception as error:
    print(error, file=sys.stderr)
"""


@given(st.floats(0, 10**6))
def test_a_duration_is_about_right(seconds: float) -> None:
    numbers = [int(number) for number in re.findall("[0-9]+", duration(seconds))]
    units = re.findall("(s|min|h)", duration(seconds))
    told = sum(number * {"s": 1, "min": 60, "h": 3600}[unit] for number, unit in zip(numbers, units, strict=True))
    assert abs(told - seconds) <= (0.5 if seconds < 90 else 31)


def test_without_a_terminal_there_are_lines_now_and_then(capsys):
    with Progress("answers", quiet=False, rate=True) as progress:
        progress.start(3 * EVERY, 3 * EVERY + 10)
        for _ in range(3 * EVERY):
            progress.advance()
    first, *rest = capsys.readouterr().err.splitlines()
    assert first == "seats: 10 of 160 answers are there already"
    assert [line.split(" answers")[0] for line in rest] == [
        "seats: 50 of 160",
        "seats: 100 of 160",
        "seats: 150 of 160",
    ]
    assert all(re.search(r"· [0-9.e+]+ a minute · .* left$", line) for line in rest)


def test_quiet_says_nothing(capsys):
    with Progress("answers", quiet=True) as progress:
        progress.start(200, 300)
        with progress.aside():
            progress.advance(199)
        progress.show_bar()
    assert capsys.readouterr() == ("", "")


def on_terminal(tmp_path: Path, *, stdout_too: bool) -> tuple[str, str]:
    """What a terminal gets of a run, and what stdout gets if that is a file."""
    pty = pytest.importorskip("pty")
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number:02d}.mp4").write_bytes(b"broken" if number == 5 else b"%d" % number)
    ours, theirs = pty.openpty()
    out = tmp_path / "out.txt"
    with out.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", BATCH, str(folder), str(tmp_path / "answers.jsonl")],
            stdout=theirs if stdout_too else file,
            stderr=theirs,
            cwd=Path(__file__).parents[2],
            env=environment(TERM="xterm-256color"),
        )
        os.close(theirs)
        seen = b""
        while True:
            ready, _, _ = select.select([ours], [], [], 120)
            try:
                piece = os.read(ours, 65536) if ready else b""
            except OSError:  # Linux says so when the other end is closed
                piece = b""
            if not piece:
                break
            seen += piece
        os.close(ours)
        assert process.wait(60) == 0
    return seen.decode(), out.read_text()


def screen(text: str) -> list[str]:
    """Lines as they stand on a terminal in the end: carriage return, line up, erase line."""
    rows, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            rows += [""] * (row >= len(rows))
        elif part.endswith("A"):
            row -= int(part[2:-1] or 1)
        elif part.endswith("K"):
            rows[row] = "" if part[2:-1] == "2" else rows[row][:column]
        elif not part.startswith("\x1b"):
            rows[row] = rows[row][:column].ljust(column) + part + rows[row][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in rows]


@pytest.mark.parametrize("stdout_too", [True, False])
def test_a_bar_beside_answers_leaves_every_line_whole(tmp_path: Path, stdout_too: bool) -> None:
    seen, out = on_terminal(tmp_path, stdout_too=stdout_too)
    assert "━" in seen, "there was a bar"
    assert re.search(r"[0-9]+/12", PARTS.sub("", seen))
    lines = screen(seen)
    answers = [line for line in lines if re.fullmatch(r".*\.mp4 *\t? *[0-9a-f]{8}", line.expandtabs(1))]
    if stdout_too:
        assert len(answers) == 11
    else:
        assert not answers
        assert len(out.splitlines()) == 11
        assert not set(out) & set("\x1b\r━")
        assert all(re.fullmatch(r".*\.mp4\t[0-9a-f]{8}", line) for line in out.splitlines())
    assert not [line for line in lines if "━" in line], "and it is gone in the end"
    assert "seats: the model says something" in lines
    assert sum(line.endswith("05.mp4: not media") for line in lines) == 1
    assert any(line.startswith("seats: 11 answered, 1 failed (1 media)") for line in lines)

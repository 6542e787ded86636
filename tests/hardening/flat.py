"""Many clips in one process: whether its memory stays flat, and whether each gets what it gets alone.

``python -m tests.hardening.flat --n 500`` makes synthetic clips, asks the embedded model about each in
one process, prints the resident memory on the way and its slope, and asks about some of them in processes of their
own. The exit code is 1 if an answer differs or memory grows by more than a tenth of a MiB per clip.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from seats_cli import Seats
from seats_cli.dataset import read_questions
from seats_cli.tasks import Task
from seats_cli.world.clips import write_set

MIB = 1 << 20
MOST_GROWTH_MIB = 0.1
"""Per clip, over the second half."""


def resident_bytes() -> int:
    """What this process holds (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmRSS")


def figures(report: dict) -> dict:
    """Of a report what may not depend on what was asked before."""
    return {name: report[name] for name in ("answer", "choices", "tokens", "flops", "selection", "warnings")}


def alone(task: Task, trr: float) -> dict:
    """The report of a process that is asked about one clip."""
    choices = ["--choices", ",".join(task.choices)] if task.choices else []
    command = [sys.executable, "-m", "seats_cli.cli.app", "ask", task.path, task.question, *choices]
    said = subprocess.run(
        [*command, "-m", "tiny", "--device", "cpu", "--trr", str(trr), "--json", "-q"],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(said.stdout)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=500, help="clips")
    parser.add_argument("--every", type=int, default=50, help="clips between two lines")
    parser.add_argument("--readers", type=int, default=1)
    parser.add_argument("--trr", type=float, default=0.35)
    parser.add_argument("--sample", type=int, default=10, help="clips that are asked alone too")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        questions = write_set(Path(folder), chosen.n, 7, jobs=2)
        rows = read_questions(questions)
        tasks = [Task(path=row.path, question=row.text, choices=row.choices) for row in rows]
        return measure(tasks, chosen)


def measure(tasks: list[Task], chosen: argparse.Namespace) -> int:
    """Ask, print, compare."""
    wanted = {tasks[int(i)] for i in np.linspace(0, len(tasks) - 1, chosen.sample)}
    held: dict[Task, dict] = {}
    resident: list[int] = []
    seats = Seats("tiny", device="cpu", trr=chosen.trr)
    began = time.monotonic()
    print("clips\tRSS, MiB\tseconds")
    for n, outcome in enumerate(seats.ask_many(tasks, readers=chosen.readers), 1):
        if outcome.report is None:
            raise outcome.error or RuntimeError("no report")
        if outcome.task in wanted:
            held[outcome.task] = json.loads(outcome.report.to_json())
        resident.append(resident_bytes())
        if n % chosen.every == 0:
            print(f"{n}\t{resident[-1] / MIB:.1f}\t{time.monotonic() - began:.0f}", flush=True)
    half = np.array(resident[len(resident) // 2 :]) / MIB
    slope = float(np.polyfit(np.arange(len(half)), half, 1)[0])
    print(f"slope over the second half: {slope:+.4f} MiB per clip; from {half.min():.1f} to {half.max():.1f} MiB")
    differing = [task.path for task, report in held.items() if figures(report) != figures(alone(task, chosen.trr))]
    print(f"asked alone: {len(held)}, different: {len(differing)}", *differing)
    return int(bool(differing) or slope > MOST_GROWTH_MIB)


if __name__ == "__main__":
    sys.exit(main())

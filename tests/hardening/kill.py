"""Ends a run over many clips at random moments, resumes it until it is done, and looks at what is on file.

    python -m tests.hardening.kill --clips 200 --kills 20 --seed 1

Each kill is SIGKILL. A third comes at any moment, from the start of the process on; a third as soon as the file of
answers has grown, which is about where it is sent to the disk; a third while a line is half written: for these the
run writes its lines in two parts with a pause between, which is the one thing that is not as usual.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RUN = [sys.executable, "-m", "seats_cli.cli.app"]
QUESTION = "What shape is shown?"
SHOWN_SECONDS = 4
KINDS = 3
"""Different clips; the others are copies that differ in bytes alone."""
LOOK_SECONDS = 0.002

SLOW_WRITER = """
import random, sys, time
from seats_cli.cli import lines

def add(self, line):
    file = self._file or self.open()
    place, data = file.seek(0, 2), line.encode() + b"\\n"
    cut = random.randrange(1, len(data))
    for part in (data[:cut], data[cut:]):
        file.write(part)
        file.flush()
        time.sleep(0.03)
    lines._to_disk(file)
    return place

lines.LineFile.add = add
from seats_cli.cli.app import main
sys.argv[0] = "seats"
main()
"""


def environment() -> dict[str, str]:
    """Without settings of whoever runs this."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SEATS_")}
    path = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**kept, "PYTHONPATH": path, "SEATS_CONFIG": "", "HF_HUB_OFFLINE": "1"}


def make_clips(folder: Path, n_clips: int) -> None:
    """Short clips of the synthetic world; a free box at the end of an MP4 makes each copy another file."""
    made = folder.with_name("made")
    scenes = ["synth", "--out", str(made), "--n", str(KINDS), "--seed", "5"]
    subprocess.run([*RUN, *scenes], check=True, env=environment(), capture_output=True)
    sources = [path.read_bytes() for path in sorted(made.rglob("*.mp4"))]
    folder.mkdir()
    for number in range(n_clips):
        box = (12).to_bytes(4, "big") + b"free" + number.to_bytes(4, "big")
        (folder / f"{number:04d}.mp4").write_bytes(sources[number % len(sources)] + box)


class Run:
    """One process of ``seats ask`` on all clips."""

    def __init__(self, clips: Path, output: Path, *, slow: bool = False) -> None:
        self.output = output
        how = [sys.executable, "-c", SLOW_WRITER] if slow else RUN
        asked = ["ask", str(clips), QUESTION, "-m", "tiny", "--device", "cpu", "--end", str(SHOWN_SECONDS)]
        asked += ["-o", str(output), "-q"]
        self.process = subprocess.Popen([*how, *asked], env=environment(), stdout=subprocess.DEVNULL)

    def size(self) -> int:
        """Of the file of answers."""
        return self.output.stat().st_size if self.output.exists() else 0

    def ends_within(self, seconds: float) -> bool:
        """Wait; whether it was over before."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def grown(self, n_times: int) -> None:
        """Wait until the file has grown so often, or the run is over."""
        for _ in range(n_times):
            size = self.size()
            while self.size() == size and self.process.poll() is None:
                time.sleep(LOOK_SECONDS)

    def kill(self) -> bool:
        """End it; whether it still ran."""
        ran = self.process.poll() is None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        return ran


def kill_some(
    clips: Path, output: Path, n_kills: int, pick: random.Random, seconds: float, most_lines: int
) -> Counter[str]:
    """Start, kill, start again. Returns what was killed when, and how many lines were left half written.

    Args:
        clips: Folder.
        output: File of answers.
        n_kills: So many.
        pick: Of the moments.
        seconds: That an undisturbed run took.
        most_lines: Before a kill that waits for lines.
    """
    found: Counter[str] = Counter()
    for number in range(n_kills):
        kind = ("any", "grown", "half")[number % 3]
        run = Run(clips, output, slow=kind == "half")
        if kind == "any":
            # Also while Python, torch and the model are loaded, which is much of a short run.
            run.ends_within(pick.uniform(0.0, 2 * seconds / n_kills + 10.0))
        else:
            n_lines = pick.randint(1, most_lines)
            run.grown(2 * n_lines - 1 if kind == "half" else n_lines)
        if not run.kill():
            found["over before"] += 1
            continue
        found[kind] += 1
        data = output.read_bytes() if output.exists() else b""
        found["half a line"] += bool(data) and not data.endswith(b"\n")
        found["no line yet"] += not data
    return found


def rows_of(output: Path) -> list[dict[str, Any]]:
    """Every line, which must be whole."""
    data = output.read_bytes()
    if not data.endswith(b"\n"):
        raise SystemExit(f"{output} does not end with a line")
    return [json.loads(line) for line in data.splitlines()]


def answers_of(output: Path, clips: Path) -> dict[str, str]:
    """By clip; each must be there exactly once, and none failed."""
    rows = rows_of(output)
    counts = Counter(row["media"]["path"] for row in rows)
    wanted = {str(path) for path in clips.iterdir()}
    if set(counts) != wanted or set(counts.values()) != {1}:
        raise SystemExit(f"not every clip once: {counts.most_common(3)}, {len(wanted - set(counts))} missing")
    failed = [row for row in rows if row.get("error")]
    if failed:
        raise SystemExit(f"{len(failed)} failed: {failed[0]['error']}")
    return {row["media"]["path"]: row["answer"] for row in rows}


def main() -> int:
    """All of it; 0 if every clip was answered exactly once and as without kills."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("--clips", 200), ("--kills", 20), ("--seed", 1)):
        parser.add_argument(name, type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = folder / "clips"
        make_clips(clips, given.clips)
        began = time.monotonic()
        if Run(clips, folder / "undisturbed.jsonl").process.wait() != 0:
            raise SystemExit("the undisturbed run failed")
        seconds = time.monotonic() - began
        print(f"undisturbed: {given.clips} clips in {seconds:.0f} s", flush=True)
        output = folder / "answers.jsonl"
        found = kill_some(
            clips,
            output,
            given.kills,
            random.Random(given.seed),
            seconds,
            max(2 * given.clips // (given.kills + 1), 1),
        )
        print("killed:", ", ".join(f"{n} {kind}" for kind, n in found.items()), flush=True)
        left = given.clips - len({row["media"]["path"] for row in whole_rows(output)})
        code = Run(clips, output).process.wait()
        print(f"the last run answered the {left} that were left and ended with {code}")
        same = answers_of(output, clips) == answers_of(folder / "undisturbed.jsonl", clips)
        print(f"{given.clips} clips, each answered once; answers as without kills: {same}")
        return 0 if same and code == 0 else 1


def whole_rows(output: Path) -> list[dict[str, Any]]:
    """Lines of a file that may end with half a one."""
    data = output.read_bytes() if output.exists() else b""
    return [json.loads(line) for line in data.splitlines(keepends=True) if line.endswith(b"\n")]


if __name__ == "__main__":
    raise SystemExit(main())

"""Every goal of docs/performance.md in one call: load a model once, run all suites, compare with the goals.

    python -m tests.performance.table --weights random --out FOLDER

No suite begins once its time is over (9 minutes); what was left out is said. ``--gpu-tests`` first runs what can
only be tested on a GPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from seats_cli.cli.suite import run_suite
from seats_cli.cli.workload import PAPER_FRAMES, PAPER_SECONDS, SuiteOptions, Workload, load_for_profile
from seats_cli.config import DEFAULT_MODEL, MediaOptions, ModelOptions, SelectionOptions
from seats_cli.errors import SeatsError, explain
from seats_cli.figures import SuiteReport

GIB = 1 << 30


@dataclass(frozen=True)
class Goal:
    """A line of the table."""

    suite: str
    what: str
    published: str
    goal: str
    value: Callable[[SuiteReport], float | None]
    met: Callable[[float], bool]
    show: Callable[[float], str] = "{:.2f}".format


def ratio(name: str) -> Callable[[SuiteReport], float | None]:
    """The median of a ratio."""
    return lambda report: next((one.median for one in report.ratios if one.name.startswith(name)), None)


def ten_minutes(report: SuiteReport) -> float | None:
    """Peak memory of the clip of ten minutes."""
    figure = report.figure("10 min", "memory")
    return None if figure is None else figure.median / GIB


GOALS = (
    Goal("paper", "LLM prefill incl. selection, full / SEATS", "4.8x", "at least 9",
         ratio("LLM prefill"), lambda x: x >= 9),
    Goal("paper", "all selection work, share of the pruned prefill", "", "at most 5 %",
         ratio("selection / pruned"), lambda x: x <= 0.05, "{:.1%}".format),
    Goal("paper", "encode + prefill, stock / SEATS", "", "at least 3.5",
         ratio("encode + prefill, stock"), lambda x: x >= 3.5),
    Goal("end-to-end", "file to first token, stock / SEATS", "", "at least 4 (3 on a CPU)",
         ratio("file to first token, stock"), lambda x: x >= 4),
    Goal("decode", "answer tokens per second, SEATS / generate", "", "at least 2",
         ratio("answer tokens per second, SEATS / stock"), lambda x: x >= 2),
    Goal("memory", "peak memory of 10 minutes, GiB", "over 80 GB, all tokens", "under 24 GB",
         ten_minutes, lambda x: x * GIB < 24e9),
    Goal("growth", "time per minute of clip, longest / shortest", "", "about 1",
         ratio("time per minute"), lambda x: x <= 1.25),
)  # fmt: skip
# Rounds that count, and before them: as many as nine minutes have room for. Peak memory does not vary.
ROUNDS = {"paper": (5, 1), "end-to-end": (3, 1), "decode": (3, 1), "growth": (2, 1), "memory": (1, 0)}


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default=DEFAULT_MODEL)
    parser.add_argument("--weights", default="auto", choices=["auto", "random"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--clip", help="for end-to-end; default: one is written")
    parser.add_argument("--trr", type=float, default=0.1)
    parser.add_argument("--runs", type=int)
    parser.add_argument("--answer-tokens", type=int, default=128)
    parser.add_argument("--minutes", type=int, action="append", help="of memory and growth")
    parser.add_argument("--limit-minutes", type=float, default=9.0, help="no suite begins after this")
    parser.add_argument("--only", action="append", choices=tuple(ROUNDS))
    parser.add_argument("--out", type=Path, help="folder for the JSON of each suite")
    parser.add_argument("--gpu-tests", action="store_true", help="pytest tests/gpu first")
    return parser.parse_args()


def workload_of(suite: str, clip: str | None) -> Workload:
    """The paper's, or the clip."""
    path = clip if suite == "end-to-end" else None
    return Workload(path=path, frames=PAPER_FRAMES, seconds=PAPER_SECONDS, text_tokens=80, media=MediaOptions())


def say(line: str) -> None:
    """To stderr, at once."""
    print(line, file=sys.stderr, flush=True)


def gpu_tests() -> str:
    """How they ended."""
    command = [sys.executable, "-m", "pytest", "-q", "tests/gpu", "-p", "no:cacheprovider"]
    there = {**os.environ, "SEATS_GPU": "1"}
    ended = subprocess.run(command, env=there, capture_output=True, text=True, check=False)
    say(ended.stdout[-4000:] + ended.stderr[-2000:])
    return ended.stdout.strip().splitlines()[-1] if ended.stdout.strip() else f"exit code {ended.returncode}"


def measured(asked: argparse.Namespace, began: float) -> dict[str, SuiteReport | str]:
    """Each suite's report, or why there is none."""
    options = ModelOptions(model=asked.model, weights=asked.weights, device=asked.device, dtype=asked.dtype)
    loaded, note = load_for_profile(options)
    say(note or f"measuring {asked.model}")
    found: dict[str, SuiteReport | str] = {}
    for name in [one for one in ROUNDS if not asked.only or one in asked.only]:
        spent = (time.monotonic() - began) / 60
        if spent > asked.limit_minutes:
            found[name] = f"left out: {spent:.1f} of {asked.limit_minutes:g} minutes were over"
            continue
        lengths = tuple(asked.minutes or ()) if name in ("memory", "growth") else ()
        suite = SuiteOptions(name=name, minutes=lengths, answer_tokens=asked.answer_tokens)
        runs, warmup = ROUNDS[name]
        begun = time.monotonic()
        try:
            report = run_suite(
                suite, workload_of(name, asked.clip), loaded, note, SelectionOptions(trr=asked.trr),
                runs=asked.runs or runs, warmup=warmup, quiet=False,
            )  # fmt: skip
            found[name] = report
        except Exception as error:
            known = error if isinstance(error, SeatsError) else explain(error)
            found[name] = f"failed: {known}"
        say(f"{name}: {time.monotonic() - begun:.0f} s")
        if asked.out is not None and isinstance(found[name], SuiteReport):
            asked.out.mkdir(parents=True, exist_ok=True)
            (asked.out / f"{name}.json").write_text(report.to_json(indent=1) + "\n", encoding="utf-8")
    return found


def main() -> None:
    """Measure, and print the table as Markdown, then every figure."""
    asked, began = arguments(), time.monotonic()
    tests = gpu_tests() if asked.gpu_tests else ""
    found = measured(asked, began)
    print("| | published | goal | measured | met |\n|---|---|---|---|---|")
    for goal in GOALS:
        report = found.get(goal.suite, "not asked for")
        value = goal.value(report) if isinstance(report, SuiteReport) else None
        shown = goal.show(value) if value is not None else report if isinstance(report, str) else "not measured"
        met = "" if value is None else "yes" if goal.met(value) else "no"
        print(f"| {goal.what} | {goal.published} | {goal.goal} | {shown} | {met} |")
    for name, report in found.items():
        if not isinstance(report, SuiteReport):
            continue
        print(f"\n{name}: {report.model.id} {report.model.dtype} {report.model.attention} {report.machine}; "
              f"{report.workload}; {report.runs} runs")  # fmt: skip
        for figure in report.figures:
            low, high, iqr = figure.spread
            print(f"  {figure.variant}, {figure.quantity}: {figure.median:.6g} {figure.unit} "
                  f"({low:.6g} to {high:.6g}, IQR {iqr:.3g})")  # fmt: skip
        for one in report.ratios:
            print(f"  {one.name}: {one.median:.4g} ({one.spread.minimum:.4g} to {one.spread.maximum:.4g})")
        for line in (report.note, *report.warnings):
            if line:
                print(f"  note: {line}")
    if tests:
        print(f"\ntests/gpu: {tests}")


if __name__ == "__main__":
    main()

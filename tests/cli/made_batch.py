"""Runs over many clips with an engine that answers from the bytes of the file: hundreds of them take no time."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seats_cli.cli.answers import Stamp
from seats_cli.cli.batch import Output
from seats_cli.cli.inputs import Inputs
from seats_cli.cli.many import Work, answer_many
from seats_cli.cli.run_options import RunOptions
from seats_cli.config import GenerationOptions, MediaOptions, ModelOptions, SelectionOptions
from seats_cli.engine.batch import Outcome
from seats_cli.errors import MediaError, SeatsError
from seats_cli.tasks import Job, Task
from tests.test_report import REPORT

BROKEN = b"broken"
SHOWN = Output(format=None, detail=None, quiet=True, verbose=False)


class Killed(BaseException):
    """What ends a run in the middle, as a signal would."""


def put(path: Path, content: bytes) -> Path:
    """Write a file whose stamp is not that of before, however coarse the clock of the file system is."""
    before = Stamp.of(str(path))
    path.write_bytes(content)
    while Stamp.of(str(path)) == before:
        time.sleep(0.005)
        path.write_bytes(content)
    return path


def true_answer(task: Task, trr: float) -> str | None:
    """What is right; None: it fails."""
    try:
        content = Path(task.path).read_bytes()
    except OSError:
        return None
    if content.startswith(BROKEN):
        return None
    asked = f"{task.question} {task.choices} {task.start_seconds} {trr}"
    return hashlib.sha256(content + asked.encode("utf-8", "surrogatepass")).hexdigest()[:8]


class Engine:
    """Answers, and remembers what it was asked."""

    def __init__(self, trr: float, *, ends_after: int | None = None) -> None:
        self.trr, self.ends_after = trr, ends_after
        self.asked: list[Task] = []
        self.starts = 0

    def __call__(self, jobs: list[Job]) -> Iterator[Outcome]:
        self.starts += 1
        return self._outcomes([task for job in jobs for task in job.tasks])

    def _outcomes(self, tasks: list[Task]) -> Iterator[Outcome]:
        for task in tasks:
            if len(self.asked) == self.ends_after:
                raise Killed
            self.asked.append(task)
            answer = true_answer(task, self.trr)
            if answer is None:
                yield Outcome(task, None, MediaError(f"{task.path}: not media"))
            else:
                media = dataclasses.replace(REPORT.media, path=task.path)
                report = dataclasses.replace(REPORT, question=task.question, answer=answer, media=media)
                yield Outcome(task, report)


def work_of(
    tasks: list[Task], output: Path | None, *, trr: float = 0.1, shown: Output = SHOWN, **options: Any
) -> Work:
    """A run with the embedded model, of which only files are looked at."""
    return Work(
        loading=ModelOptions(model="tiny", device="cpu"),
        media=MediaOptions(),
        selection=SelectionOptions(trr=trr),
        generation=GenerationOptions(),
        inputs=Inputs(tuple(tasks), many=True),
        output=shown,
        options=RunOptions(output=output, **options),
    )


def go(work: Work, *, ends_after: int | None = None) -> tuple[int, Engine]:
    """Run; the exit code, and what was asked."""
    engine = Engine(work.selection.trr, ends_after=ends_after)
    try:
        return answer_many(work, engine), engine
    except SeatsError as error:
        return error.exit_code, engine
    except Killed:
        return -9, engine


def rows(output: Path) -> list[dict[str, Any]]:
    """Every line of a file, each whole."""
    data = output.read_bytes()
    assert data.endswith(b"\n") or not data
    return [json.loads(line) for line in data.splitlines()]


def last_of(output: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The last line by clip and question."""
    return {(row["media"]["path"], row["question"]): row for row in rows(output)}

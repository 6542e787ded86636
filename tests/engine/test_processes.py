"""A process for each device: the same outcomes as in one process, whichever of them die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from seats_cli.config import GenerationOptions, MediaOptions, ModelOptions, SelectionOptions
from seats_cli.engine.batch import Asker, run
from seats_cli.engine.processes import Recipe, run_on
from seats_cli.errors import InterruptedRunError, ModelError, SeatsError, UsageError
from seats_cli.media import open_clip
from seats_cli.tasks import Task, jobs_of
from tests import tiny
from tests.cli.conftest import environment
from tests.engine.library import told
from tests.media.clips import even_times, tone, write_video

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")
LONG_WAIT = 120.0
"""Seconds after which a test that waits has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlyRecipe(Recipe):
    """Clips of some names kill who opens them, or never open; those note in a file who tries."""

    def asker(self) -> Asker:
        """As of a recipe."""
        made = super(DeadlyRecipe, self).asker()

        def opened(path, media):
            name, mark = os.path.basename(path), Path(f"{path}.opened")
            if name.startswith("killer"):
                os.kill(os.getpid(), signal.SIGKILL)
            if name.startswith("stuck"):
                mark.write_text(str(os.getpid()))
                time.sleep(LONG_WAIT)
            return open_clip(path, media)

        made._open_clip = opened
        return made


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    import torch

    return tiny.write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), dtype=torch.float32, n_layers=8)


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """Bytes of clips of several lengths."""
    folder = tmp_path_factory.mktemp("stock")
    return [
        write_video(folder / f"{seconds}.mp4", even_times(seconds, 4), sound=tone(seconds)).read_bytes()
        for seconds in (2, 1, 3)
    ]


@pytest.fixture
def clips(tmp_path, stock):
    """``clips("a", "b")``: tasks about clips of these names, two questions each."""

    def make(*names: str) -> list[Task]:
        tasks = []
        for i, name in enumerate(names):
            path = tmp_path / f"{name}.mp4"
            path.write_bytes(stock[i % len(stock)])
            tasks += [Task(path=str(path), question=what) for what in ("What?", "Who?")]
        return tasks

    return make


def recipe_of(checkpoint, kind=DeadlyRecipe, **keywords) -> Recipe:
    return kind(
        loading=ModelOptions(model=str(checkpoint), device="cpu", dtype="float32"),
        selection=SelectionOptions(trr=0.3),
        generation=GenerationOptions(max_new_tokens=4),
        **keywords,
    )


def no_child_is_left() -> bool:
    return not multiprocessing.active_children()


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(holds) -> bool:
    until = time.monotonic() + LONG_WAIT
    while not holds() and time.monotonic() < until:
        time.sleep(0.05)
    return bool(holds())


def test_two_processes_give_what_one_gives(checkpoint, clips, tmp_path):
    tasks = clips("a", "b", "c", "d", "e")
    tasks += [Task(path=str(tmp_path / "missing.mp4"), question="What?")]
    tasks += [Task(path=tasks[0].path, question="Which?", choices=("red", "blue"), start_seconds=0.5)]
    jobs = jobs_of(tasks, MediaOptions())
    recipe = recipe_of(checkpoint)
    assert told(run_on(["cpu", "cpu"], recipe, jobs)) == told(run(recipe.asker(), jobs))
    assert no_child_is_left()


def test_a_clip_that_kills_is_found_out_and_nobody_else_suffers(checkpoint, clips):
    """Its neighbours, read ahead or in hand when it struck, are asked again."""
    tasks = clips("a", "b", "killer", "c")
    jobs = jobs_of(tasks, MediaOptions())
    innocent = [job for job in jobs if "killer" not in job.path]
    expected = told(run(recipe_of(checkpoint, Recipe).asker(), innocent))
    found = told(run_on(["cpu"], recipe_of(checkpoint, readers=2), jobs))
    assert set(found) == set(tasks)
    for task, outcome in found.items():
        if "killer" in task.path:
            assert outcome == ("SeatsError", "the process that worked on it was ended by SIGKILL, twice")
        else:
            assert outcome == expected[task]
    assert no_child_is_left()


def test_a_child_that_is_killed_from_outside_loses_nothing(checkpoint, clips):
    tasks = clips("a", "b", "c", "d")
    outcomes = run_on(["cpu"], recipe_of(checkpoint), jobs_of(tasks, MediaOptions()))
    found = [next(outcomes)]
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGKILL)
    found += outcomes
    assert set(told(found)) == set(tasks)
    assert all(outcome.report is not None for outcome in found)
    assert no_child_is_left()


def test_what_ends_every_child_is_one_error(checkpoint, clips, tmp_path):
    tasks = clips("a", "b")
    jobs = jobs_of(tasks, MediaOptions())
    with pytest.raises(ModelError, match="nothing-here"):
        list(run_on(["cpu", "cpu"], recipe_of(tmp_path / "nothing-here"), jobs))
    assert no_child_is_left()
    asked = [*tasks, Task(path=tasks[0].path, question="<|im_end|>", place="rows.csv:3")]
    with pytest.raises(UsageError, match=r"^rows\.csv:3: "):
        list(run_on(["cpu"], recipe_of(checkpoint), jobs_of(asked, MediaOptions())))
    assert no_child_is_left()


@dataclass(frozen=True, slots=True, kw_only=True)
class StillbornRecipe(Recipe):
    """Nobody lives to load the model."""

    def asker(self) -> Asker:
        """Never returns."""
        os._exit(3)


def test_a_child_that_dies_before_it_began(checkpoint, clips):
    jobs = jobs_of(clips("a"), MediaOptions())
    with pytest.raises(SeatsError, match=r"^the process for cpu ended with code 3 before it began$"):
        list(run_on(["cpu"], recipe_of(checkpoint, StillbornRecipe), jobs))
    assert no_child_is_left()


def test_closing_early_ends_the_children(checkpoint, clips):
    jobs = jobs_of(clips("a", "b", "c"), MediaOptions())
    outcomes = run_on(["cpu"], recipe_of(checkpoint), jobs)
    next(outcomes)
    outcomes.close()
    assert no_child_is_left()


PARENT = """
import sys
from seats_cli.config import MediaOptions
from seats_cli.engine.processes import run_on
from seats_cli.errors import InterruptedRunError
from seats_cli.tasks import Task, jobs_of
from tests.engine.test_processes import recipe_of

if __name__ == "__main__":
    jobs = jobs_of([Task(path=path, question="What?") for path in sys.argv[2:]], MediaOptions())
    try:
        for outcome in run_on(["cpu"], recipe_of(sys.argv[1]), jobs):
            print("outcome", flush=True)
    except InterruptedRunError:
        print("interrupted", flush=True)
"""


@pytest.fixture
def parent(checkpoint, clips, tmp_path):
    """A process whose child works on a clip without end; and the child's id."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    paths = [task.path for task in clips("stuck")][:1]
    root = str(Path(__file__).parents[2])
    env = environment()
    env["PYTHONPATH"] = os.pathsep.join([root, env["PYTHONPATH"]])
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, str(script), str(checkpoint), *paths],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, ours)
    mark = Path(f"{paths[0]}.opened")
    yield process, mark
    for pid in [process.pid, *([int(mark.read_text())] if mark.exists() and mark.read_text() else [])]:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


def child_of(process, mark) -> int:
    assert wait_for(lambda: process.poll() is not None or (mark.exists() and mark.read_text()))
    assert process.poll() is None, process.communicate()
    return int(mark.read_text())


def test_children_of_a_parent_that_is_killed_end_too(parent):
    process, mark = parent
    child = child_of(process, mark)
    assert alive(child)
    process.kill()
    process.wait()
    assert wait_for(lambda: not alive(child))


def test_ctrl_c_ends_parent_and_children_without_a_word(parent):
    """A terminal sends it to all of them."""
    process, mark = parent
    child = child_of(process, mark)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=LONG_WAIT)
    assert (out, process.returncode) == ("interrupted\n", 0)
    assert "KeyboardInterrupt" not in err
    assert "Traceback" not in err
    assert wait_for(lambda: not alive(child))


def test_ctrl_c_while_children_begin(parent):
    """They ignore it from the first moment: else each would tell where it was."""
    process, _ = parent
    # The child is there, and imports.
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        pytest.skip("the kernel does not name children")
    assert wait_for(lambda: process.poll() is not None or len(children.read_text().split()) >= 2)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=LONG_WAIT)
    assert (out, process.returncode) == ("interrupted\n", 0)
    assert "KeyboardInterrupt" not in err
    assert "Traceback" not in err


def test_interrupts_where_the_outcomes_go_are_one_kind_of_error(checkpoint, clips, monkeypatch):
    from seats_cli.engine import processes

    def wait(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, "wait", wait)
    with pytest.raises(InterruptedRunError):
        list(run_on(["cpu"], recipe_of(checkpoint), jobs_of(clips("a"), MediaOptions())))
    assert no_child_is_left()

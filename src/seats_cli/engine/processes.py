"""A process for each device over one queue of clips. One that dies takes no answer with it.

A child asks for a clip when it has room for one, so that fast devices do more. Clips that a dead child had in hand
are tried once more, one at a time, by a child of their own: the one that kills a process twice is a failure.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seats_cli.config import GenerationOptions, ModelOptions, SelectionOptions
from seats_cli.engine.admission import load_if_it_fits
from seats_cli.engine.batch import Asker, Outcome, check_tasks, run
from seats_cli.engine.store import ClipStore
from seats_cli.errors import InterruptedRunError, SeatsError, explain
from seats_cli.media.cores import shared_by
from seats_cli.tasks import Job, Task, distinct_questions

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

NEXT, OUTCOME, FATAL, DONE = "next", "outcome", "fatal", "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that a process needs to make an ``Asker`` of its own.

    Attributes:
        loading: The model; its device is the child's.
        selection: Which tokens stay.
        generation: How answers are written.
        timeout_seconds: For a clip and a question about it; None: no limit.
        readers: Clips that are read ahead.
        cache: Folder of encoded windows, and the bytes it may take; None: none is kept.
        n_processes: That decode on this machine at the same time.
    """

    loading: ModelOptions
    selection: SelectionOptions
    generation: GenerationOptions
    timeout_seconds: float | None = None
    readers: int = 1
    cache: tuple[Path, int] | None = None
    n_processes: int = 1

    def asker(self) -> Asker:
        """Load the model.

        Raises:
            ModelError: It cannot be had.
            UsageError: A setting cannot be.
        """
        from seats_cli.engine.analytic import check_settings
        from seats_cli.media import open_clip

        loaded = load_if_it_fits(self.loading)
        check_settings(loaded.model.spec, [self.selection])
        return Asker(
            loaded,
            open_clip,
            self.selection,
            self.generation,
            timeout_seconds=self.timeout_seconds,
            store=None if self.cache is None else ClipStore(*self.cache),
        )


@dataclass(slots=True)
class _Child:
    """A process, what it has in hand, and from which queue it is served.

    Attributes:
        in_hand: Jobs with those of their tasks of which nothing has been heard.
        began: It has asked for a job.
        ended: It has said that it is done.
    """

    device: str
    process: SpawnProcess
    connection: Connection
    queue: deque[Job]
    in_hand: list[tuple[Job, list[Task]]] = field(default_factory=list)
    began: bool = False
    ended: bool = False

    def take(self, task: Task) -> None:
        """Note that a task has an outcome."""
        for place, (_, tasks) in enumerate(self.in_hand):
            if task in tasks:
                tasks.remove(task)
                if not tasks:
                    del self.in_hand[place]
                return


def run_on(devices: Sequence[str], recipe: Recipe, jobs: Sequence[Job]) -> Iterator[Outcome]:
    """Outcomes of all tasks, as they are found.

    Args:
        devices: A process for each, at least one.
        recipe: How each makes its model.
        jobs: What is asked.

    Raises:
        SeatsError: A process cannot begin.
        InterruptedRunError: Ctrl-C.
    """
    devices = devices[: max(len(jobs), 1)]
    crew = _Crew(replace(recipe, n_processes=len(devices)), jobs)
    try:
        for device in devices:
            crew.start(device)
        yield from crew.outcomes()
    except KeyboardInterrupt:
        raise InterruptedRunError("interrupted") from None
    finally:
        crew.end()


class _Crew:
    """The children, and the clips that are left."""

    def __init__(self, recipe: Recipe, jobs: Sequence[Job]) -> None:
        self._recipe = recipe
        self._left = deque(jobs)
        self._asked = distinct_questions(jobs)
        self._context = multiprocessing.get_context("spawn")
        self._children: list[_Child] = []

    def start(self, device: str, suspects: deque[Job] | None = None) -> None:
        """Begin a process; with suspects, one that works on these alone, one by one."""
        loading = replace(self._recipe.loading, device=device)
        recipe = replace(self._recipe, loading=loading)
        if suspects is not None:
            recipe = replace(recipe, readers=0)
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(recipe, theirs, self._asked), daemon=True)
        with _holding_ctrl_c():
            process.start()
        theirs.close()
        self._children.append(_Child(device, process, ours, self._left if suspects is None else suspects))

    def outcomes(self) -> Iterator[Outcome]:
        """Until no child is left."""
        while self._children:
            ready = wait([child.connection for child in self._children])
            for child in [child for child in self._children if child.connection in ready]:
                try:
                    kind, content = child.connection.recv()
                except (EOFError, OSError):
                    yield from self._buried(child)
                    continue
                yield from self._heard(child, kind, content)

    def _heard(self, child: _Child, kind: str, content: Any) -> Iterator[Outcome]:
        if kind == NEXT:
            child.began = True
            job = child.queue.popleft() if child.queue else None
            if job is not None:
                child.in_hand.append((job, list(job.tasks)))
            with suppress(OSError):  # it has died meanwhile, and will be buried
                child.connection.send(job)
        elif kind == OUTCOME:
            child.take(content.task)
            yield content
        elif kind == FATAL:
            raise content
        else:
            child.ended = True

    def _buried(self, child: _Child) -> Iterator[Outcome]:
        """A child whose end of the pipe is closed: it is done, or dead."""
        self._children.remove(child)
        child.connection.close()
        child.process.join()
        careful = child.queue is not self._left
        if child.ended:
            if careful and self._left:
                self.start(child.device)
            return
        how = _ending(child.process.exitcode)
        if not child.began:
            raise SeatsError(f"the process for {child.device} {how} before it began", "is there enough memory?")
        open_jobs = deque(replace(job, tasks=tuple(tasks)) for job, tasks in child.in_hand)
        if careful:
            error = SeatsError(f"the process that worked on it {how}, twice")
            yield from (Outcome(task, None, error) for job in open_jobs for task in job.tasks)
        suspects = child.queue if careful else open_jobs
        if suspects:
            self.start(child.device, suspects)
        elif self._left:
            self.start(child.device)

    def end(self) -> None:
        """Stop what still runs."""
        for child in self._children:
            child.process.terminate()
        for child in self._children:
            child.process.join(5)
            if child.process.is_alive():
                child.process.kill()
                child.process.join()
            child.connection.close()


@contextmanager
def _holding_ctrl_c() -> Iterator[None]:
    """Who is started in here has Ctrl-C blocked from its first moment, long before it could ignore it.

    Ctrl-C goes to all processes of a terminal; this one, which hears of it after the block, ends the others.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Its start would unblock what is blocked here.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return f"ended with code {code}"


def _end_with_parent() -> None:
    """A parent that is killed cannot end its children."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(recipe: Recipe, connection: Connection, tasks: Sequence[Task]) -> None:
    """In the child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="seats-parent", daemon=True).start()
    lock = threading.Lock()

    def send(kind: str, content: Any = None) -> Any:
        with lock:
            connection.send((kind, content))
            return connection.recv() if kind == NEXT else None

    def jobs() -> Iterator[Job]:
        while True:
            job = send(NEXT)
            if job is None:
                return
            yield job

    try:
        asker = recipe.asker()
        check_tasks(asker, tasks)
        with shared_by(recipe.n_processes):
            for outcome in run(asker, jobs(), readers=recipe.readers):
                send(OUTCOME, replace(outcome, caught=None))
        send(DONE)
    except (BrokenPipeError, EOFError, ConnectionResetError):
        return  # the parent has gone
    except BaseException as caught:
        with suppress(OSError):
            send(FATAL, explain(caught))
    finally:
        connection.close()

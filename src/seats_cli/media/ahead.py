"""Work done ahead by threads, its results in order: a bounded number of them wait."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from contextvars import copy_context
from typing import Generic, TypeVar

from seats_cli.errors import light

Task = TypeVar("Task")
Result = TypeVar("Result")

MOST_BYTES = 128 << 20
"""Of results that wait, all together."""
MOST_RESULTS = 32
"""That wait, per thread."""

Worker = Callable[[Task], Iterable[Result]]


class _StoppedError(Exception):
    """Nobody waits for the results any more."""


class _Ahead(Generic[Task, Result]):
    """What the threads and the one who waits know of each other, all of it under one lock."""

    def __init__(
        self,
        tasks: Sequence[Task],
        begin: Callable[[], AbstractContextManager[Worker[Task, Result]]],
        size_of: Callable[[Result], int],
        n_threads: int,
    ) -> None:
        self._tasks, self._begin, self._size_of = tasks, begin, size_of
        self._changed = threading.Condition()
        self._found: list[deque[Result]] = [deque() for _ in tasks]
        self._finished = [False] * len(tasks)
        self._n_begun = self._head = 0
        self._n_bytes = self._n_waiting = 0
        self._most_waiting = MOST_RESULTS * n_threads
        self._failed: BaseException | None = None
        self._stopped = False
        # A thread begins without the context of its maker: neither time limit nor share of the cores.
        self._threads = [
            threading.Thread(target=copy_context().run, args=(self._work,), name=f"seats-decoder-{k}", daemon=True)
            for k in range(n_threads)
        ]

    def results(self) -> Generator[Result]:
        try:
            for thread in self._threads:
                thread.start()
            for number in range(len(self._tasks)):
                while (found := self._next(number)) is not None:
                    yield found.pop()
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            for thread in self._threads:
                if thread.ident is not None:
                    thread.join()

    def _next(self, number: int) -> list[Result] | None:
        """The next result of a task, once it is there, alone in a list that forgets it; None: that was all."""
        with self._changed:
            self._head = number
            self._changed.notify_all()
            while not self._found[number] and not self._finished[number] and self._failed is None:
                self._changed.wait()
            if self._failed is not None:
                raise self._failed
            if not self._found[number]:
                return None
            result = self._found[number].popleft()
            self._n_bytes -= self._size_of(result)
            self._n_waiting -= 1
            self._changed.notify_all()
            return [result]

    def _work(self) -> None:
        try:
            self._work_on()
        except _StoppedError:
            return
        except BaseException as caught:
            with self._changed:
                self._failed = self._failed or light(caught)
                self._changed.notify_all()

    def _work_on(self) -> None:
        number = self._take()
        if number is None:
            return
        with self._begin() as worker:
            while number is not None:
                for result in worker(self._tasks[number]):
                    self._put(number, result)
                    del result
                with self._changed:
                    self._finished[number] = True
                    self._changed.notify_all()
                number = self._take()

    def _take(self) -> int | None:
        with self._changed:
            if self._stopped or self._failed is not None or self._n_begun == len(self._tasks):
                return None
            self._n_begun += 1
            return self._n_begun - 1

    def _put(self, number: int, result: Result) -> None:
        n_bytes = self._size_of(result)
        with self._changed:
            while not self._may_wait(number, n_bytes):
                self._changed.wait()
            self._found[number].append(result)
            self._n_bytes += n_bytes
            self._n_waiting += 1
            self._changed.notify_all()

    def _may_wait(self, number: int, n_bytes: int) -> bool:
        if self._stopped or self._failed is not None:
            raise _StoppedError
        if number == self._head and not self._found[number]:
            # All others may wait for this one.
            return True
        return self._n_waiting < self._most_waiting and self._n_bytes + n_bytes <= MOST_BYTES


def in_order(
    tasks: Sequence[Task],
    begin: Callable[[], AbstractContextManager[Worker[Task, Result]]],
    size_of: Callable[[Result], int],
    n_threads: int,
) -> Generator[Result]:
    """Results of tasks in the order of the tasks, found by threads that are gone when this ends, however it does.

    Each thread enters a context of its own, takes task after task, and leaves it. It runs with the context
    variables of who asks for the first result, so that a limit on time holds in it.

    Args:
        tasks: What is done.
        begin: What a thread enters; gives what makes results out of a task.
        size_of: Bytes of a result. When too many wait, threads do, but for the one whose results come next.
        n_threads: How many.

    Raises:
        BaseException: The first that a thread raises, as soon as it does, though results before it may be lost.
    """
    yield from _Ahead(tasks, begin, size_of, n_threads).results()

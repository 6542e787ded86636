"""How many threads may decode at once, and a way to divide them among those who read several clips."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_most: ContextVar[int | None] = ContextVar("most decoding threads", default=None)


def n_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "process_cpu_count"):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def decoding_threads() -> int:
    """Threads that may decode one clip here and now."""
    most = _most.get()
    return n_cores() if most is None else most


@contextmanager
def at_most(n_threads: int) -> Iterator[None]:
    """Let no clip be decoded by more threads, of all that is begun within the block by this thread.

    Args:
        n_threads: At least 1.
    """
    token = _most.set(max(1, min(n_threads, decoding_threads())))
    try:
        yield
    finally:
        _most.reset(token)


@contextmanager
def shared_by(n_readers: int) -> Iterator[None]:
    """Let one clip have its share of the threads, where so many are read at once.

    Args:
        n_readers: At least 1.
    """
    with at_most(decoding_threads() // max(n_readers, 1)):
        yield

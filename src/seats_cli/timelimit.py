"""A limit on the time one clip may take, asked about by whoever works for long.

It is cooperative: nothing is interrupted from outside. Loops call ``check_time``, and so does the file that
FFmpeg reads through, so that what is between two checks is one packet, one picture or one forward pass.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from seats_cli.errors import InterruptedRunError, TimeLimitError

_HINT = "allow more with --timeout, look at a part with --start and --end, or lower --fps or --max-frames"


@dataclass(frozen=True, slots=True)
class _Limit:
    """When it is over, on the monotonic clock, and how long that was from the start."""

    deadline_seconds: float
    seconds: float


# Of this thread alone: a new thread begins without a limit.
_limit: ContextVar[_Limit | None] = ContextVar("time limit", default=None)
_stops: ContextVar[tuple[threading.Event, ...]] = ContextVar("stops", default=())


@contextmanager
def time_limit(seconds: float | None, *, of: float | None = None) -> Iterator[None]:
    """Limit the time that the block may take; of nested limits the one that is over first holds.

    Args:
        seconds: From now; None: no limit of its own.
        of: What it is the rest of, for the error; None: it is the whole.

    Raises:
        TimeLimitError: From ``check_time``, when it is over. The end of the block itself checks nothing.
    """
    outer = _limit.get()
    limit = None if seconds is None else _Limit(time.monotonic() + seconds, seconds if of is None else of)
    if limit is None or (outer is not None and outer.deadline_seconds <= limit.deadline_seconds):
        limit = outer
    token = _limit.set(limit)
    try:
        yield
    finally:
        _limit.reset(token)


@contextmanager
def stoppable(stop: threading.Event) -> Iterator[None]:
    """Let another thread end the block: from ``check_time``, once the event is set; nested ones all count.

    Args:
        stop: Set by whoever no longer wants the result.
    """
    token = _stops.set((*_stops.get(), stop))
    try:
        yield
    finally:
        _stops.reset(token)


def seconds_left() -> float | None:
    """Seconds until the limit, 0 when it is over; None without one."""
    limit = _limit.get()
    return None if limit is None else max(limit.deadline_seconds - time.monotonic(), 0.0)


def check_time() -> None:
    """Raise if the limit is over, or nobody waits any more. Cheap enough to call for every packet.

    Raises:
        TimeLimitError: It is over.
        InterruptedRunError: The work was called off.
    """
    if any(stop.is_set() for stop in _stops.get()):
        raise InterruptedRunError("interrupted")
    limit = _limit.get()
    if limit is not None and time.monotonic() >= limit.deadline_seconds:
        raise TimeLimitError(f"took longer than {limit.seconds:g} s (--timeout)", _HINT)

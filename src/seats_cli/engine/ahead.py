"""Work done ahead: an iterator that runs in a thread of its own, and pictures on their way to a GPU.

While a batch of windows is encoded the next one is decoded and uploaded. What waits in between is bounded.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import cache
from typing import Generic, Self, TypeVar

import torch

from seats_cli.timelimit import stoppable

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Belt(Generic[T]):
    """Between the two threads; knows neither of them."""

    most: int
    waiting: deque[T] = field(default_factory=deque)
    moved: threading.Condition = field(default_factory=threading.Condition)
    stop: threading.Event = field(default_factory=threading.Event)
    ended: bool = False
    error: BaseException | None = None

    def put(self, item: T) -> bool:
        """Wait for room and put it there; False if nobody wants it any more."""
        with self.moved:
            self.moved.wait_for(lambda: self.stop.is_set() or len(self.waiting) < self.most)
            if self.stop.is_set():
                return False
            self.waiting.append(item)
            self.moved.notify_all()
            return True

    def end(self, error: BaseException | None) -> None:
        with self.moved:
            self.ended, self.error = True, error
            self.moved.notify_all()

    def take(self) -> T:
        """The next item.

        Raises:
            StopIteration: There is none.
            BaseException: What the other thread ended with.
        """
        with self.moved:
            self.moved.wait_for(lambda: self.waiting or self.ended)
            if self.waiting:
                item = self.waiting.popleft()
                self.moved.notify_all()
                return item
            error, self.error = self.error, None
        if error is not None:
            raise error
        raise StopIteration


def _work(items: Generator[T], belt: _Belt[T]) -> None:
    error: BaseException | None = None
    try:
        with stoppable(belt.stop):
            for item in items:
                if not belt.put(item):
                    break
    except BaseException as caught:
        error = caught
    finally:
        items.close()
        belt.end(error)


class Ahead(Generic[T]):
    """An iterator over what a generator makes in another thread, from now on.

    The thread has the time limit of its maker. It ends when this is closed or no longer held: at the next item, or
    where the generator calls ``check_time``.

    Args:
        items: Made ahead; closed at the end.
        most: Items that wait. One more is in the making.
    """

    def __init__(self, items: Generator[T], most: int = 1) -> None:
        self._belt: _Belt[T] = _Belt(most)
        context = copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(_work, items, self._belt), name="seats ahead", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Self:
        """Itself."""
        return self

    def __next__(self) -> T:
        """Wait for the next item.

        Raises:
            Exception: What the generator raised.
        """
        return self._belt.take()

    def close(self) -> None:
        """Call the work off. Does not wait: the thread may be inside a library."""
        self._belt.stop.set()
        with self._belt.moved:
            self._belt.waiting.clear()
            self._belt.moved.notify_all()

    def __del__(self) -> None:
        """Call the work off."""
        self.close()


@dataclass(frozen=True, slots=True)
class OnTheWay:
    """A tensor on its way to a device."""

    _tensor: torch.Tensor
    _arrived: torch.cuda.Event | None

    def here(self) -> torch.Tensor:
        """The tensor, for work on the current stream. The host does not wait, the stream does."""
        if self._arrived is not None:
            stream = torch.cuda.current_stream(self._tensor.device)
            stream.wait_event(self._arrived)
            # Its memory belongs to the stream that copied it, which must not give it away while this one reads.
            self._tensor.record_stream(stream)
        return self._tensor


@cache
def _upload_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all clips: PyTorch has few streams, deals them out in turn, and keeps memory apart for each.

    So the stream of a 33rd clip would be that of the first, or of whoever captures a graph on theirs.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class Uploader:
    """Copies to a device beside what it computes; on a CPU there is nothing to copy.

    Args:
        device: Where to.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = _upload_stream(device) if device.type == "cuda" else None

    def __call__(self, tensor: torch.Tensor) -> OnTheWay:
        """Begin to copy."""
        if self._stream is None:
            return OnTheWay(tensor.to(self._device), None)
        with torch.cuda.stream(self._stream):
            there = tensor.pin_memory().to(self._device, non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record(self._stream)
        return OnTheWay(there, arrived)

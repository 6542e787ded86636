"""When training stops: its time is up, or someone pressed Ctrl-C. Never in the middle of a step."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stop:
    """Asked between steps whether to stop.

    Args:
        seconds: For steps; what is done outside of ``steps`` takes none of them.

    Attributes:
        interrupted: Whether Ctrl-C was pressed during steps.
    """

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._began: float | None = None
        self.interrupted = False

    def __call__(self) -> bool:
        """Whether to stop now."""
        spent = 0.0 if self._began is None else time.monotonic() - self._began
        return self.interrupted or spent >= self._left

    @contextmanager
    def steps(self) -> Iterator[None]:
        """Time counts, and Ctrl-C waits for the end of a step; a second one does not."""
        # Elsewhere than in the main thread, or where Ctrl-C is not as Python has it, others look after it.
        ours = threading.current_thread() is threading.main_thread()
        ours = ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        self._began = time.monotonic()
        if ours:
            signal.signal(signal.SIGINT, self._note)
        try:
            yield
        finally:
            if ours:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            self._left -= time.monotonic() - self._began
            self._began = None

    def _note(self, *_: object) -> None:
        self.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

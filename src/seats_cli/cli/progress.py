"""How far a long run is: a bar on a terminal, a line now and then elsewhere, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from seats_cli.cli.console import notice

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

EVERY = 50
"""Steps between two lines."""
EVERY_SECONDS = 60.0
"""Time after which a line comes anyway."""


def duration(seconds: float) -> str:
    """``42 s``, ``3 min``, ``2 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


class Progress:
    """Counts steps of something, such as ``answers``.

    Args:
        what: Is counted.
        quiet: Says nothing.
        rate: Whether the lines tell how fast it goes, and how long it will take.
    """

    def __init__(self, what: str, *, quiet: bool, rate: bool = False) -> None:
        self._what, self._quiet, self._rate = what, quiet, rate
        self._done = self._total = self._before = 0
        self._began = self._told = time.monotonic()
        self._bar: Bar | None = None

    def start(self, to_do: int, total: int, *, bar: bool = True) -> None:
        """Begin.

        Args:
            to_do: Steps that are left.
            total: Of so many.
            bar: Show the bar at once; else ``show_bar`` does.
        """
        self._done = self._before = total - to_do
        self._total = total
        self._began = self._told = time.monotonic()
        if self._quiet:
            return
        if self._done:
            notice(f"{self._done} of {total} {self._what} are there already")
        if bar:
            self.show_bar()

    def show_bar(self) -> None:
        """Show it, where there is a terminal and something left to do; the time begins now."""
        self._began = self._told = time.monotonic()
        if self._quiet or self._bar is not None or not sys.stderr.isatty() or self._done >= self._total:
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        # What is printed while it shows goes to its own stream, not to that of the bar.
        self._bar = Bar(
            *columns,
            console=Console(stderr=True),
            # Between two long clips minutes may go by, and the time left is still told.
            speed_estimate_period=3600,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._bar.add_task(self._what, total=self._total, completed=self._done)
        self._bar.start()

    def _line(self) -> None:
        now = time.monotonic()
        if self._done >= self._total or (self._done % EVERY and now - self._told < EVERY_SECONDS):
            return
        self._told = now
        line = f"{self._done} of {self._total} {self._what}"
        if self._rate and now > self._began:
            per_second = (self._done - self._before) / (now - self._began)
            left = duration((self._total - self._done) / per_second)
            line += f" · {60 * per_second:.3g} a minute · {left} left"
        notice(line)

    def advance(self, steps: int = 1) -> None:
        """More steps are done."""
        self._done += steps
        if self._quiet:
            return
        if self._bar is None:
            self._line()
        else:
            self._bar.update(self._bar.task_ids[0], completed=self._done)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Around what is written to the terminal beside the bar."""
        if self._bar is None:
            yield
            return
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

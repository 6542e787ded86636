"""How far a long run is: a bar on a terminal, a line now and then elsewhere, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from seats_cli.cli.console import notice

EVERY = 50
"""Steps between two lines."""


class Progress:
    """Counts steps of something, such as ``answers``.

    Args:
        what: Is counted.
        quiet: Says nothing.
    """

    def __init__(self, what: str, *, quiet: bool) -> None:
        self._what, self._quiet = what, quiet
        self._done = self._total = 0
        self._bar = ExitStack()
        self._update: Callable[[], None] = self._line

    def start(self, to_do: int, total: int) -> None:
        """Begin: of ``total`` steps ``to_do`` are left."""
        self._done, self._total = total - to_do, total
        if self._quiet:
            return
        if self._done:
            notice(f"{self._done} of {total} {self._what} are there already")
        if sys.stderr.isatty() and to_do:
            self._update = self._bar_update()

    def _bar_update(self) -> Callable[[], None]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        bar = self._bar.enter_context(Bar(*columns, console=Console(stderr=True), transient=True))
        task = bar.add_task(self._what, total=self._total, completed=self._done)
        return lambda: bar.update(task, completed=self._done)

    def _line(self) -> None:
        if self._done % EVERY == 0 and self._done < self._total:
            notice(f"{self._done} of {self._total} {self._what}")

    def advance(self) -> None:
        """One more step is done."""
        self._done += 1
        if not self._quiet:
            self._update()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

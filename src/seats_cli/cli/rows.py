"""The file of outcomes, one JSON object on a line: what is in it is not asked again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Self

from seats_cli.errors import SeatsError, UsageError
from seats_cli.outputs import cannot_write, check_output

if TYPE_CHECKING:
    from io import BufferedWriter
    from types import TracebackType

    from seats_cli.evaluation import Outcome

START = b'{"key": "'
"""How every line begins; what begins otherwise is another file's."""


class OutcomeFile:
    """Outcomes of earlier runs, and those of this one as they come.

    Lines are only added; of several with one key the last counts. A last line that a run began and did not end is
    taken away. Until ``open`` nothing is changed: what cannot be asked leaves no file behind.

    Args:
        path: May not be there yet.
        questions: The file of questions, which this must not be.

    Attributes:
        done: Outcomes by key, those that failed among them.

    Raises:
        UsageError: It cannot be read or written, or holds something else.
    """

    def __init__(self, path: Path, questions: Path) -> None:
        self._path = path
        self._file: BufferedWriter | None = None
        self._end: tuple[int, bytes] | None = None
        content = b""
        try:
            if path.is_file():
                if os.path.samefile(path, questions):
                    raise UsageError(f"-o {path} is the file of questions", "give a path of its own")
                with path.open("r+b") as file:
                    content = file.read()
            else:
                check_output(path, "-o")
        except OSError as error:
            raise cannot_write(path, "-o", error) from None
        self.done = self._read(content)

    def _read(self, content: bytes) -> dict[str, Outcome]:
        *lines, last = content.split(b"\n")
        found = {}
        for number, line in enumerate(lines, start=1):
            outcome = self._outcome(line)
            if outcome is None and line.strip():
                raise UsageError(
                    f"-o {self._path}:{number} is not a row that seats eval wrote",
                    "give another file, or a new one",
                )
            if outcome is not None:
                found[outcome.key] = outcome
        if last:
            whole = self._outcome(last)
            if whole is not None:
                found[whole.key] = whole
                self._end = len(content), b"\n"
            elif last.startswith(START) or START.startswith(last):
                self._end = len(content) - len(last), b""
            else:
                problem = f"-o {self._path} ends with what seats eval did not write"
                raise UsageError(problem, "give another file, or a new one")
        return found

    def open(self) -> BufferedWriter:
        """Make the file if it is not there; end its last line, or take it away.

        Raises:
            UsageError: It cannot be written.
        """
        try:
            file = self._file = self._path.open("ab")
            if self._end is not None:
                size, end = self._end
                file.truncate(size)
                file.write(end)
                file.flush()
        except OSError as error:
            raise cannot_write(self._path, "-o", error) from None
        return file

    @staticmethod
    def _outcome(line: bytes) -> Outcome | None:
        """What a line says; None if it was not written here."""
        from seats_cli.evaluation import Outcome

        if not line.startswith(START):
            return None
        try:
            return Outcome.from_json(line.decode())
        except (SeatsError, ValueError):
            return None

    def add(self, outcome: Outcome) -> None:
        """Write one line, whole, at once.

        Raises:
            SeatsError: The disk is full, or the like.
        """
        file = self._file or self.open()
        try:
            file.write(outcome.to_json().encode() + b"\n")
            file.flush()
        except OSError as error:
            raise SeatsError(f"{self._path} cannot be written: {error.strerror or error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

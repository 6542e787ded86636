"""The file of outcomes, one JSON object on a line: what is in it is not asked again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Self

from seats_cli.errors import SeatsError, UsageError

if TYPE_CHECKING:
    from io import BufferedRandom
    from types import TracebackType

    from seats_cli.evaluation import Outcome

START = b'{"key": "'
"""How every line begins; what begins otherwise is another file's."""


class OutcomeFile:
    """Outcomes of earlier runs, and those of this one as they come.

    Lines are only added; of several with one key the last counts. A last line that a run began and did not end is
    taken away.

    Args:
        path: Made if it is not there.
        questions: The file of questions, which this must not be.

    Attributes:
        done: Outcomes by key, those that failed among them.

    Raises:
        UsageError: It cannot be read or written, or holds something else.
    """

    def __init__(self, path: Path, questions: Path) -> None:
        self._path = path
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise UsageError(f"-o {path} is {kind}", "give the path of a .jsonl file")
        if not path.parent.is_dir():
            raise UsageError(f"-o {path}: there is no folder {path.parent}", "make it first")
        if path.exists() and os.path.samefile(path, questions):
            raise UsageError(f"-o {path} is the file of questions", "give a path of its own")
        try:
            self._file: BufferedRandom = path.open("a+b")
            self._file.seek(0)
            content = self._file.read()
        except OSError as error:
            raise UsageError(f"-o {path} cannot be used: {error.strerror or error}") from None
        try:
            self.done = self._read(content)
        except BaseException:
            self._file.close()
            raise

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
                self._file.write(b"\n")
                self._file.flush()
            elif last.startswith(START) or START.startswith(last):
                self._file.truncate(len(content) - len(last))
            else:
                problem = f"-o {self._path} ends with what seats eval did not write"
                raise UsageError(problem, "give another file, or a new one")
        return found

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
        try:
            self._file.write(outcome.to_json().encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise SeatsError(f"{self._path} cannot be written: {error.strerror or error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

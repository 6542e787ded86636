"""The file of outcomes of ``seats eval``: what is in it is not asked again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from seats_cli.cli.lines import LineFile
from seats_cli.errors import SeatsError

if TYPE_CHECKING:
    from seats_cli.evaluation import Outcome


class OutcomeFile(LineFile):
    """Outcomes of earlier runs, and those of this one as they come; of several with one key the last counts.

    Args:
        path: May not be there yet.
        questions: The file of questions, which this must not be.

    Attributes:
        done: Outcomes by key, those that failed among them.

    Raises:
        UsageError: It cannot be read or written, another process writes it, or it holds something else.
    """

    def __init__(self, path: Path, questions: Path) -> None:
        super().__init__(path, "seats eval", (questions,))
        self.done: dict[str, Outcome] = {}
        for number, _, line in self.read():
            outcome = self._outcome(line)
            if outcome is None:
                raise self.refuse(number)
            self.done[outcome.key] = outcome

    @staticmethod
    def _outcome(line: bytes) -> Outcome | None:
        """What a line says; None if it was not written here."""
        from seats_cli.evaluation import Outcome

        try:
            return Outcome.from_json(line.decode())
        except (SeatsError, ValueError):
            return None

    def put(self, outcome: Outcome) -> None:
        """Write one line, whole, at once.

        Raises:
            SeatsError: The disk is full, or the like.
        """
        self.add(outcome.to_json())

"""What a suite of measurements found: figures with their spread, ratios of runs made in turn, and their JSON.

docs/report.md gives every field its type, unit and meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from seats_cli.report import SCHEMA_VERSION, JsonRecord, ModelInfo, Spread, Versions
from seats_cli.timing import Samples


def _middle(values: Sequence[float]) -> tuple[float, Spread]:
    """Median; least, greatest and interquartile range."""
    samples = Samples(tuple(values))
    return float(samples.median), Spread(samples.minimum, samples.maximum, samples.iqr)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One quantity of one variant: median and spread over the runs.

    ``unit`` is ``s``, ``bytes``, ``tokens`` or ``tokens/s``.
    """

    variant: str
    quantity: str
    unit: str
    median: float
    spread: Spread

    @classmethod
    def of(cls, variant: str, quantity: str, unit: str, values: Sequence[float]) -> Self:
        """Of the values of the runs, at least one."""
        median, spread = _middle(values)
        return cls(variant=variant, quantity=quantity, unit=unit, median=median, spread=spread)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """One variant against another: each round's own quotient, their median and spread."""

    name: str
    median: float
    spread: Spread

    @classmethod
    def of(cls, name: str, over: Sequence[float], under: Sequence[float]) -> Self | None:
        """Of values round by round; None where a divisor is 0.

        Raises:
            ValueError: The rounds are not as many.
        """
        pairs = list(zip(over, under, strict=True))
        if not all(divisor for _, divisor in pairs):
            return None
        median, spread = _middle([value / divisor for value, divisor in pairs])
        return cls(name=name, median=median, spread=spread)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteReport(JsonRecord):
    """A suite of ``seats profile --suite``: on what, and what came out."""

    schema_version: int = SCHEMA_VERSION
    command: str = "profile"
    suite: str
    model: ModelInfo
    machine: str
    workload: str
    runs: int
    warmup: int
    note: str
    figures: tuple[Figure, ...]
    ratios: tuple[Ratio, ...]
    versions: Versions
    warnings: tuple[str, ...] = ()

    def figure(self, variant: str, quantity: str) -> Figure | None:
        """That figure, if it was measured."""
        found = (one for one in self.figures if (one.variant, one.quantity) == (variant, quantity))
        return next(found, None)

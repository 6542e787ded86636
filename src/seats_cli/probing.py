"""What a probe found: accuracy by what leaves before which layer, and the boundaries that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seats_cli.dataset import Question
from seats_cli.errors import SomeFailedError, UsageError, counted
from seats_cli.report import SCHEMA_VERSION, JsonRecord, ModelInfo, Versions
from seats_cli.selection.proposal import propose
from seats_cli.selection.schedule import SelectionPreset
from seats_cli.selection.schedule_file import DropSchedule
from seats_cli.statistics import Interval, wilson

CURVES = ("video", "audio", "both")
DECISIVE = "both"
"""The curve that the boundaries are read off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Right answers when something leaves before a layer; before layer L nothing leaves."""

    layer: int
    correct: int
    accuracy: float
    ci95: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedSchedule:
    """Boundaries by the curves.

    ``recovers`` and ``flat`` are what the curve says of b1 and b4, ``notes`` why the boundaries are others.
    """

    drop_before_layer: tuple[int, ...]
    temperature: float
    scale: float | None
    recovers: int | None
    flat: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport(JsonRecord):
    """A probe of ``n`` questions; rows that failed are in no curve."""

    schema_version: int = SCHEMA_VERSION
    command: str = "probe"
    file: str
    categories: tuple[str, ...]
    clips: int
    rows: int
    n: int
    failed: int
    layers: int
    tolerance: float
    curves: dict[str, tuple[Point, ...]]
    proposal: ProposedSchedule
    model_drop_before_layer: tuple[int, ...]
    model: ModelInfo
    versions: Versions
    warnings: tuple[str, ...] = ()

    @property
    def schedule(self) -> DropSchedule | None:
        """The proposal as a schedule file has it; None: the model is too shallow for four drops."""
        found = self.proposal
        if not found.drop_before_layer:
            return None
        return DropSchedule(found.drop_before_layer, found.temperature, found.scale, self.layers)

    @property
    def comments(self) -> tuple[str, ...]:
        """What a schedule file says of where it comes from."""
        full, unseen = self.curves[DECISIVE][-1], self.curves[DECISIVE][0]
        return (
            f"written by seats probe {self.versions.seats} for {self.model.id}",
            f"{counted(self.n, 'question')} of {self.file}: {100 * full.accuracy:.1f} % right with everything, "
            f"{100 * unseen.accuracy:.1f} % with the text alone; tolerance {self.tolerance:g}",
            *self.proposal.notes,
        )


def of_categories(questions: Sequence[Question], categories: Sequence[str]) -> list[Question]:
    """The rows of some categories; all where none is named.

    Raises:
        UsageError: A category has no row.
    """
    known = dict.fromkeys(question.category for question in questions if question.category is not None)
    for name in categories:
        if name not in known:
            there = f"there are: {', '.join(known)}" if known else "the rows have none"
            raise UsageError(f"no row is of the category {name!r}", there)
    return [question for question in questions if not categories or question.category in categories]


def curve_of(right: Sequence[Sequence[bool]]) -> tuple[Point, ...]:
    """Count right answers layer by layer.

    Args:
        right: Of every question L + 1 outcomes; at least one question.
    """
    n = len(right)
    points = []
    for layer, column in enumerate(zip(*right, strict=True)):
        correct = sum(column)
        points.append(Point(layer=layer, correct=correct, accuracy=correct / n, ci95=wilson(correct, n)))
    return tuple(points)


def summarise(
    outcomes: Sequence[Mapping[str, Sequence[bool]]],
    preset: SelectionPreset,
    *,
    tolerance: float,
    file: str,
    categories: Sequence[str],
    clips: int,
    rows: int,
    model: ModelInfo,
    versions: Versions,
    warnings: Sequence[str],
) -> ProbeReport:
    """Make the report.

    Args:
        outcomes: Of every question that did not fail, L + 1 outcomes by what was removed.
        preset: Of the model: its temperature stays.
        tolerance: How far below full still counts as full.
        file: Of the questions.
        categories: Whose rows were asked alone; none: all.
        clips: That the rows are about.
        rows: Asked, failed ones included.
        model: What answered.
        versions: Of what computed.
        warnings: A line each; what is said twice is said once.

    Raises:
        SomeFailedError: Every question failed.
    """
    if not outcomes:
        raise SomeFailedError(f"every question failed, {rows} in all: there is nothing to show")
    curves = {name: curve_of([found[name] for found in outcomes]) for name in CURVES}
    found = propose([point.accuracy for point in curves[DECISIVE]], tolerance)
    return ProbeReport(
        file=file,
        categories=tuple(categories),
        clips=clips,
        rows=rows,
        n=len(outcomes),
        failed=rows - len(outcomes),
        layers=len(curves[DECISIVE]) - 1,
        tolerance=tolerance,
        curves=curves,
        proposal=ProposedSchedule(
            drop_before_layer=found.drop_before_layer or (),
            temperature=preset.temperature,
            scale=found.scale,
            recovers=found.recovers,
            flat=found.flat,
            notes=found.notes,
        ),
        model_drop_before_layer=preset.drop_before_layer or (),
        model=model,
        versions=versions,
        warnings=tuple(dict.fromkeys(warnings)),
    )

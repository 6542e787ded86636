"""What an evaluation found: an outcome per question and setting, and the report made of them.

Failed rows are neither right nor wrong: they are counted apart. Settings are compared on the questions that both
answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seats_cli.errors import counted
from seats_cli.report import SCHEMA_VERSION, Choice, JsonRecord, ModelInfo, Versions
from seats_cli.statistics import (
    Interval,
    Pairs,
    difference_interval,
    mcnemar_exact,
    mean,
    median,
    ratio_interval,
    wilson,
)

NO_CATEGORY = "(none)"
"""Rows without a category, where others have one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSeconds:
    """Time per stage. ``decode`` and ``encode`` are the clip's, shared by all that was asked about it."""

    decode: float
    encode: float
    select: float
    prefill: float
    answer: float

    @property
    def own(self) -> float:
        """What the question and the setting take by themselves."""
        return self.select + self.prefill + self.answer


@dataclass(frozen=True, slots=True, kw_only=True)
class RowError:
    """Why a row failed."""

    message: str
    hint: str
    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(JsonRecord):
    """One question under one setting; ``error`` in place of an answer where it failed.

    ``key`` stands for all that the answer depends on: the row, the clip, the setting, the options and the model.
    """

    key: str
    schema_version: int = SCHEMA_VERSION
    id: str
    media: str
    question: str
    expected: tuple[str, ...]
    answer: str | None = None
    correct: bool | None = None
    category: str | None
    setting: str
    finish_reason: str | None = None
    answer_tokens: int = 0
    thinking: str | None = None
    thinking_tokens: int = 0
    choices: tuple[Choice, ...] = ()
    achieved_trr: float | None = None
    prompt_tokens: int | None = None
    seconds: RowSeconds | None = None
    warnings: tuple[str, ...] = ()
    error: RowError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Right answers among the rows that did not fail; None where all did."""

    n: int
    correct: int
    failed: int
    accuracy: float | None
    ci95: Interval | None

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> Score:
        """Count."""
        answered = [outcome.correct for outcome in outcomes if outcome.error is None]
        n, right = len(answered), sum(map(bool, answered))
        return cls(
            n=n,
            correct=right,
            failed=len(outcomes) - n,
            accuracy=right / n if n else None,
            ci95=wilson(right, n) if n else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingScore:
    """One setting: its score, its means and medians over the rows that did not fail."""

    label: str
    settings: dict[str, Any]
    n: int
    correct: int
    failed: int
    accuracy: float | None
    ci95: Interval | None
    by_category: dict[str, Score]
    achieved_trr: float | None
    prompt_tokens: float | None
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A setting against the reference on the ``n`` questions that both answered.

    ``kept`` is the share of the reference's accuracy that is left.
    """

    setting: str
    reference: str
    n: int
    difference: float
    ci95: Interval
    only: int
    only_reference: int
    mcnemar_p: float
    kept: float | None
    kept_ci95: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalReport(JsonRecord):
    """An evaluation. The scores at the top are those of the first setting; all are in ``results``."""

    schema_version: int = SCHEMA_VERSION
    command: str = "eval"
    accuracy: float | None
    ci95: Interval | None
    n: int
    correct: int
    failed: int
    by_category: dict[str, Score]
    settings: dict[str, Any]
    results: tuple[SettingScore, ...]
    paired: tuple[Comparison, ...]
    file: str
    rows: int
    media: dict[str, Any]
    generation: dict[str, Any]
    model: ModelInfo
    versions: Versions
    warnings: tuple[str, ...] = ()

    @property
    def all_failed(self) -> int:
        """Failures under all settings together."""
        return sum(result.failed for result in self.results)


def _by_category(outcomes: Sequence[Outcome]) -> dict[str, Score]:
    """Scores by category, in alphabetical order; none where no row has a category."""
    parts: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        parts.setdefault(NO_CATEGORY if outcome.category is None else outcome.category, []).append(outcome)
    if set(parts) == {NO_CATEGORY}:
        return {}
    return {name: Score.of(part) for name, part in sorted(parts.items())}


def _setting_score(label: str, options: Mapping[str, Any], outcomes: Sequence[Outcome]) -> SettingScore:
    score = Score.of(outcomes)
    ratios = [outcome.achieved_trr for outcome in outcomes if outcome.achieved_trr is not None]
    return SettingScore(
        label=label,
        settings={"label": label, **options},
        n=score.n,
        correct=score.correct,
        failed=score.failed,
        accuracy=score.accuracy,
        ci95=score.ci95,
        by_category=_by_category(outcomes),
        achieved_trr=mean(ratios),
        prompt_tokens=mean(o.prompt_tokens for o in outcomes if o.prompt_tokens is not None),
        seconds=median(o.seconds.own for o in outcomes if o.seconds is not None),
    )


def compare(
    setting: str, outcomes: Sequence[Outcome], reference: str, others: Sequence[Outcome]
) -> Comparison | None:
    """Compare two settings on the same rows, in the same order; None where no row was answered under both."""
    both = [
        (bool(one.correct), bool(other.correct))
        for one, other in zip(outcomes, others, strict=True)
        if one.error is None and other.error is None
    ]
    if not both:
        return None
    pairs = Pairs.of(both)
    return Comparison(
        setting=setting,
        reference=reference,
        n=pairs.n,
        difference=pairs.difference,
        ci95=difference_interval(pairs),
        only=pairs.only,
        only_reference=pairs.only_reference,
        mcnemar_p=mcnemar_exact(pairs.only, pairs.only_reference),
        kept=pairs.ratio,
        kept_ci95=ratio_interval(pairs),
    )


def reference_of(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """What the others are compared with: the setting that keeps everything if there is one, else the first."""
    whole = [label for label, options in settings.items() if options.get("method") == "full"]
    return (whole or list(settings))[0]


def _warnings(outcomes: Mapping[str, Sequence[Outcome]]) -> tuple[str, ...]:
    """One line for all rows that come with warnings; the lines themselves are with the rows."""
    rows = {
        index: outcome for found in outcomes.values() for index, outcome in enumerate(found) if outcome.warnings
    }
    if not rows:
        return ()
    first = rows[min(rows)]
    many = f"{counted(len(rows), 'row')} {'has' if len(rows) == 1 else 'have'} warnings"
    return (f"{many}, the first: {first.media}: {first.warnings[0]}",)


def summarise(
    outcomes: Mapping[str, Sequence[Outcome]],
    settings: Mapping[str, Mapping[str, Any]],
    *,
    file: str,
    media: Mapping[str, Any],
    generation: Mapping[str, Any],
    model: ModelInfo,
    versions: Versions,
) -> EvalReport:
    """Make the report.

    Args:
        outcomes: By label of the setting, at least one; of every setting the same rows in the same order.
        settings: The options of each.
        file: Of the questions.
        media: Options of all.
        generation: Options of all.
        model: What answered.
        versions: Of what computed.
    """
    results = tuple(_setting_score(label, settings[label], found) for label, found in outcomes.items())
    reference = reference_of(settings)
    compared = [
        compare(label, found, reference, outcomes[reference])
        for label, found in outcomes.items()
        if label != reference
    ]
    first = results[0]
    return EvalReport(
        accuracy=first.accuracy,
        ci95=first.ci95,
        n=first.n,
        correct=first.correct,
        failed=first.failed,
        by_category=first.by_category,
        settings=first.settings,
        results=results,
        paired=tuple(one for one in compared if one is not None),
        file=file,
        rows=len(outcomes[first.label]),
        media=dict(media),
        generation=dict(generation),
        model=model,
        versions=versions,
        warnings=_warnings(outcomes),
    )

"""Shares with 95 % intervals, and two runs over the same questions compared. Plain Python.

Every interval is closed-form and deterministic. Those of shares are score intervals: never below 0 or above 1, of
use also where all are right or none. Those of pairs count that both runs saw the same questions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

Z95 = NormalDist().inv_cdf(0.975)
"""Two-sided 95 % quantile of the normal distribution."""

Interval = tuple[float, float]


def wilson(k: int, n: int, z: float = Z95) -> Interval:
    """Score interval of a share (Wilson 1927).

    Args:
        k: Right ones.
        n: Of so many, at least 1.
        z: Quantile of the normal distribution.

    Raises:
        ValueError: Not ``0 <= k <= n``, or ``n`` below 1.
    """
    if not 0 <= k <= n or n < 1:
        raise ValueError(f"{k} of {n} is not a share")
    return _score_bounds(k, n, z)


def _score_bounds(k: float, n: float, z: float) -> Interval:
    middle, reach = k + z * z / 2, z * sqrt(k * (n - k) / n + z * z / 4)
    low = 0.0 if k == 0 else (middle - reach) / (n + z * z)
    high = 1.0 if k == n else (middle + reach) / (n + z * z)
    return low, high


@dataclass(frozen=True, slots=True)
class Pairs:
    """The same questions under two settings, one compared with a reference; at least one question.

    Attributes:
        both: Right under both.
        only: Right under the setting alone.
        only_reference: Right under the reference alone.
        neither: Wrong under both.

    Raises:
        ValueError: A count is negative, or all are 0.
    """

    both: int
    only: int
    only_reference: int
    neither: int

    def __post_init__(self) -> None:
        counts = (self.both, self.only, self.only_reference, self.neither)
        if min(counts) < 0 or not sum(counts):
            raise ValueError(f"{counts} are not counts of pairs")

    @classmethod
    def of(cls, answers: Iterable[tuple[bool, bool]]) -> Pairs:
        """Count (right under the setting, right under the reference)."""
        found = [0, 0, 0, 0]
        for one, other in answers:
            found[2 * (not one) + (not other)] += 1
        return cls(*found)

    @property
    def n(self) -> int:
        """Questions."""
        return self.both + self.only + self.only_reference + self.neither

    @property
    def correct(self) -> int:
        """Right under the setting."""
        return self.both + self.only

    @property
    def correct_reference(self) -> int:
        """Right under the reference."""
        return self.both + self.only_reference

    @property
    def difference(self) -> float:
        """Accuracy minus that of the reference."""
        return (self.only - self.only_reference) / self.n

    @property
    def ratio(self) -> float | None:
        """Accuracy over that of the reference: what is kept of it; None where the reference has none right."""
        return self.correct / self.correct_reference if self.correct_reference else None


def difference_interval(pairs: Pairs, z: float = Z95) -> Interval:
    """Interval of the paired difference of two shares.

    The score intervals of both shares, put together with the correlation of the pairs, which is corrected for
    continuity where it is positive (Newcombe 1998, Statistics in Medicine 17:2635-2650, method 10).
    """
    p, q = pairs.correct / pairs.n, pairs.correct_reference / pairs.n
    (low_p, high_p), (low_q, high_q) = (
        wilson(pairs.correct, pairs.n, z),
        wilson(pairs.correct_reference, pairs.n, z),
    )
    phi = _correlation(pairs)

    def reach(of_p: float, of_q: float) -> float:
        return sqrt(max(of_p * of_p - 2 * phi * of_p * of_q + of_q * of_q, 0.0))

    difference = pairs.difference
    low, high = difference - reach(p - low_p, high_q - q), difference + reach(high_p - p, q - low_q)
    return max(low, -1.0), min(high, 1.0)


def _correlation(pairs: Pairs) -> float:
    n, k, m = pairs.n, pairs.correct, pairs.correct_reference
    scale = sqrt(k * (n - k)) * sqrt(m * (n - m))
    if not scale:
        return 0.0
    excess = float(pairs.both * pairs.neither - pairs.only * pairs.only_reference)
    return (max(excess - n / 2, 0.0) if excess > 0 else excess) / scale


def ratio_interval(pairs: Pairs, z: float = Z95) -> Interval | None:
    """Interval of the paired ratio of two shares; None where either run has none right.

    Score intervals of both shares among the questions that either run has right, of a width that makes their
    quotient's that of the paired ratio (Bonett and Price 2006, Statistics in Medicine 25:3039-3047).
    """
    k, m = pairs.correct, pairs.correct_reference
    if not k or not m:
        return None
    n = pairs.both + pairs.only + pairs.only_reference
    whole = sqrt((pairs.only + pairs.only_reference + 2) / ((k + 1) * (m + 1)))
    parts = [sqrt((1 - (x + 1) / (n + 2)) / (x + 1)) for x in (k, m)]
    narrowed = z * whole / sum(parts)
    (low, high), (low_reference, high_reference) = (_score_bounds(x, n, narrowed) for x in (k, m))
    return low / high_reference, high / low_reference


def mcnemar_exact(only: int, only_reference: int) -> float:
    """Two-sided exact p of McNemar's test: how odd it is that pairs that differ lean to one side so far.

    Under the hypothesis that both are equally good each of these pairs is the toss of a fair coin.

    Args:
        only: Pairs right under the one alone.
        only_reference: Pairs right under the other alone.
    """
    n, fewer = only + only_reference, min(only, only_reference)
    term = tail = 1
    for i in range(fewer):
        term = term * (n - i) // (i + 1)
        tail += term
    # Whole numbers of thousands of digits divide exactly; as floats they would not fit.
    return min(1.0, 2 * tail / (1 << n))


def median(values: Iterable[float]) -> float | None:
    """The middle value; None of none."""
    ordered = sorted(value for value in values if math.isfinite(value))
    if not ordered:
        return None
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def mean(values: Iterable[float]) -> float | None:
    """The mean; None of none."""
    found = list(values)
    return math.fsum(found) / len(found) if found else None

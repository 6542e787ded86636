"""Intervals and tests against brute force: every table of counts, every toss of the coins."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seats_cli.statistics import (
    Z95,
    Pairs,
    difference_interval,
    mcnemar_exact,
    mean,
    median,
    ratio_interval,
    wilson,
)

COUNTS = st.tuples(*[st.integers(0, 60)] * 4).filter(any)


def tables(n: int) -> Iterator[Pairs]:
    """Every way to put n pairs into four cells."""
    for a in range(n + 1):
        for b in range(n + 1 - a):
            for c in range(n + 1 - a - b):
                yield Pairs(a, b, c, n - a - b - c)


def chance(pairs: Pairs, shares: tuple[float, ...]) -> float:
    """Of this table, when each pair falls into a cell with these shares."""
    counts = (pairs.both, pairs.only, pairs.only_reference, pairs.neither)
    ways = math.factorial(pairs.n)
    for count in counts:
        ways //= math.factorial(count)
    return ways * math.prod(share**count for share, count in zip(shares, counts, strict=True))


def test_the_quantile_is_that_of_95_percent() -> None:
    assert math.erf(Z95 / math.sqrt(2)) == pytest.approx(0.95, abs=1e-12)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_ends_where_the_share_is_just_believable(case: tuple[int, int]) -> None:
    """At either end the observed share lies z standard errors away, taken at that end."""
    k, n = case
    low, high = wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert abs(k / n - end) == pytest.approx(Z95 * math.sqrt(end * (1 - end) / n))
    assert (low == 0) == (k == 0)
    assert (high == 1) == (k == n)
    mirrored = wilson(n - k, n)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high))


def test_wilson_covers_95_percent_on_the_average() -> None:
    n = 40
    covered = []
    for p in (i / 101 for i in range(1, 101)):
        inside = (k for k in range(n + 1) if wilson(k, n)[0] <= p <= wilson(k, n)[1])
        covered.append(sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in inside))
    assert sum(covered) / len(covered) == pytest.approx(0.95, abs=0.01)
    assert min(covered) > 0.83


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3), (0, 0)])
def test_what_is_no_share_is_refused(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="share"):
        wilson(k, n)


@pytest.mark.parametrize("n", range(13))
def test_mcnemar_counts_the_tosses(n: int) -> None:
    """Against all 2**n tosses: those at least as far from even as the one seen."""
    heads = [sum(toss) for toss in itertools.product((0, 1), repeat=n)]
    for b in range(n + 1):
        as_odd = sum(abs(2 * h - n) >= abs(2 * b - n) for h in heads) / 2**n
        assert mcnemar_exact(b, n - b) == pytest.approx(as_odd)


def test_mcnemar_of_many_pairs_is_near_the_normal_law() -> None:
    b, c = 5150, 4850
    z = (abs(b - c) - 1) / math.sqrt(b + c)
    assert mcnemar_exact(b, c) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-2)
    assert mcnemar_exact(c, b) == mcnemar_exact(b, c)
    assert mcnemar_exact(0, 5000) == 0.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=50))
def test_pairs_are_counted(answers: list[tuple[bool, bool]]) -> None:
    pairs = Pairs.of(iter(answers))
    assert pairs.n == len(answers)
    assert pairs.both == answers.count((True, True))
    assert pairs.only == answers.count((True, False))
    assert pairs.only_reference == answers.count((False, True))
    assert pairs.correct == sum(one for one, _ in answers)
    assert pairs.correct_reference == sum(other for _, other in answers)
    assert pairs.difference == pytest.approx((pairs.correct - pairs.correct_reference) / len(answers))


@given(COUNTS)
def test_the_difference_lies_in_its_interval_and_turns_with_the_pairs(counts: tuple[int, ...]) -> None:
    pairs = Pairs(*counts)
    low, high = difference_interval(pairs)
    assert -1 <= low <= pairs.difference <= high <= 1
    assert low < high
    turned = difference_interval(Pairs(counts[0], counts[2], counts[1], counts[3]))
    assert turned == pytest.approx((-high, -low))
    if counts[1] == counts[2]:
        assert low == pytest.approx(-high)


@given(COUNTS)
def test_the_ratio_lies_in_its_interval_and_turns_with_the_pairs(counts: tuple[int, ...]) -> None:
    pairs = Pairs(*counts)
    interval = ratio_interval(pairs)
    if pairs.ratio is None or not pairs.ratio:
        assert interval is None
        return
    assert interval is not None
    low, high = interval
    assert 0 < low <= pairs.ratio * (1 + 1e-9)
    assert pairs.ratio <= high * (1 + 1e-9)
    turned = ratio_interval(Pairs(counts[0], counts[2], counts[1], counts[3]))
    assert turned == pytest.approx((1 / high, 1 / low))
    # Questions that neither run has right say nothing about what is kept.
    assert ratio_interval(Pairs(*counts[:3], counts[3] + 7)) == interval


SHARES = [
    (0.55, 0.1, 0.15, 0.2),
    (0.6, 0.15, 0.15, 0.1),
    (0.3, 0.1, 0.3, 0.3),
    (0.35, 0.25, 0.1, 0.3),
    (0.7, 0.05, 0.1, 0.15),
]


@pytest.mark.parametrize("shares", SHARES)
def test_paired_intervals_cover_95_percent(shares: tuple[float, ...]) -> None:
    """Over every table of 30 pairs, weighed with its chance."""
    p, q = shares[0] + shares[1], shares[0] + shares[2]
    difference = ratio = narrow = 0.0
    for pairs in tables(30):
        weight = chance(pairs, shares)
        low, high = difference_interval(pairs)
        difference += weight * (low <= p - q <= high)
        interval = ratio_interval(pairs)
        ratio += weight * (interval is None or interval[0] <= p / q <= interval[1])
        low, high = difference_interval(pairs, z=1.0)
        narrow += weight * (low <= p - q <= high)
    assert 0.94 <= difference <= 0.98
    assert 0.94 <= ratio <= 0.98
    # And not because it is wide: with z = 1 it is what one standard deviation covers.
    assert narrow == pytest.approx(0.683, abs=0.08)


def test_like_pairs_make_the_interval_narrow() -> None:
    """The same shares: the more the runs agree, the surer the difference."""
    agreeing, at_odds = Pairs(60, 10, 10, 20), Pairs(49, 21, 21, 9)
    (low, high), (wide_low, wide_high) = map(difference_interval, (agreeing, at_odds))
    assert high - low < 0.75 * (wide_high - wide_low)


@pytest.mark.parametrize("counts", [(0, 0, 0, 0), (1, -1, 0, 0)])
def test_what_are_no_counts_is_refused(counts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="counts"):
        Pairs(*counts)


def test_middles() -> None:
    assert (median([]), mean([])) == (None, None)
    assert (median([3.0, 1.0, 2.0]), median([4.0, 1.0, 2.0, 3.0])) == (2.0, 2.5)
    assert mean([1.0, 2.0, 6.0]) == 3.0

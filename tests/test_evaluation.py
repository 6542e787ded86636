"""Outcomes to a report: every figure counted again by hand."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seats_cli.evaluation import (
    NO_CATEGORY,
    EvalReport,
    Outcome,
    RowError,
    RowSeconds,
    compare,
    reference_of,
    summarise,
)
from seats_cli.report import ModelInfo, Versions
from seats_cli.statistics import Pairs, difference_interval, mcnemar_exact, ratio_interval, wilson

MODEL = ModelInfo(id="m", revision=None, weights="checkpoint", dtype="float32", device="cpu", attention="sdpa")
VERSIONS = Versions(seats="0", torch=None, transformers=None)
ERROR = RowError(message="no", hint="", exit_code=3)
# Right, wrong or failed, and a category.
RIGHT, CATEGORY = st.sampled_from([True, False, None]), st.sampled_from(["a", "b", None])
ROWS = st.lists(st.tuples(RIGHT, RIGHT, CATEGORY), min_size=1)


def outcome(right: bool | None, category: str | None = None, seconds: float = 1.0, **more: object) -> Outcome:
    """None: failed."""
    blank = Outcome(
        key="k", id="1", media="m", question="q", expected=("e",), category=category, setting="s", warnings=()
    )
    if right is None:
        return dataclasses.replace(blank, error=ERROR, **more)
    spent = RowSeconds(decode=9, encode=9, select=seconds / 4, prefill=seconds / 4, answer=seconds / 2)
    found = {"answer": "x", "correct": right, "achieved_trr": 0.5, "prompt_tokens": 10, "seconds": spent}
    return dataclasses.replace(blank, **{**found, **more})


def report_of(*columns: list[Outcome], **options: dict) -> EvalReport:
    labels = ["one", "two", "three"][: len(columns)]
    settings = {label: options.get(label, {"method": "seats"}) for label in labels}
    return summarise(
        dict(zip(labels, columns, strict=True)),
        settings,
        file="f",
        media={"fps": 2.0},
        generation={"seed": None},
        model=MODEL,
        versions=VERSIONS,
    )


@settings(deadline=None)
@given(ROWS)
def test_everything_is_counted(rows: list[tuple[bool | None, bool | None, str | None]]) -> None:
    one = [outcome(right, category) for right, _, category in rows]
    two = [outcome(right, category) for _, right, category in rows]
    report = report_of(one, two)
    answered = [right for right, _, _ in rows if right is not None]
    assert (report.n, report.failed, report.correct) == (
        len(answered),
        len(rows) - len(answered),
        answered.count(True),
    )
    if answered:
        assert report.accuracy == answered.count(True) / len(answered)
        assert report.ci95 == wilson(answered.count(True), len(answered))
    else:
        assert (report.accuracy, report.ci95) == (None, None)
    assert report.rows == len(rows)
    assert [r.n + r.failed for r in report.results] == [len(rows)] * 2
    assert report.all_failed == sum(right is None for row in rows for right in row[:2])
    top, first = vars_of(report), vars_of(report.results[0])
    assert all(top[name] == first[name] for name in ("n", "correct", "failed", "accuracy", "ci95", "by_category"))
    assert report.settings["label"] == "one"

    names = {category or NO_CATEGORY for *_, category in rows}
    assert set(report.by_category) == (set() if names == {NO_CATEGORY} else names)
    for name, score in report.by_category.items():
        inside = [right for right, _, category in rows if (category or NO_CATEGORY) == name]
        known = [right for right in inside if right is not None]
        assert (score.n, score.correct, score.failed) == (
            len(known),
            known.count(True),
            inside.count(None),
        )

    both = [(b, a) for a, b, _ in rows if a is not None and b is not None]
    if not both:
        assert report.paired == ()
        return
    (pair,) = report.paired
    pairs = Pairs.of(both)
    assert (pair.setting, pair.reference, pair.n) == ("two", "one", len(both))
    assert (pair.only, pair.only_reference) == (both.count((True, False)), both.count((False, True)))
    assert pair.difference == pytest.approx(sum(b - a for b, a in both) / len(both))
    assert (pair.ci95, pair.kept_ci95) == (difference_interval(pairs), ratio_interval(pairs))
    assert pair.mcnemar_p == mcnemar_exact(pair.only, pair.only_reference)


def vars_of(record: object) -> dict:
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def test_the_setting_that_keeps_everything_is_the_reference() -> None:
    column = [outcome(True), outcome(False)]
    report = report_of(column, column, column, three={"method": "full"})
    assert [(pair.setting, pair.reference) for pair in report.paired] == [("one", "three"), ("two", "three")]
    assert reference_of({"x": {"method": "seats"}, "y": {"method": "random"}}) == "x"
    assert report_of(column).paired == ()


def test_middles_are_those_of_rows_that_did_not_fail() -> None:
    column = [outcome(True, seconds=s, achieved_trr=t) for s, t in ((1, 0.1), (2, 0.2), (9, 0.6))]
    (found,) = report_of([*column, outcome(None)]).results
    assert (found.seconds, found.prompt_tokens) == (2, 10)
    assert found.achieved_trr == pytest.approx(0.3)
    (nothing,) = report_of([outcome(None)]).results
    assert (nothing.seconds, nothing.achieved_trr, nothing.prompt_tokens) == (None, None, None)


def test_nothing_is_compared_where_no_row_was_answered_twice() -> None:
    assert compare("one", [outcome(None), outcome(True)], "two", [outcome(True), outcome(None)]) is None


def test_kept_is_not_known_where_the_reference_has_none_right() -> None:
    found = compare("one", [outcome(True)], "two", [outcome(False)])
    assert found is not None
    assert (found.kept, found.kept_ci95, found.difference) == (None, None, 1.0)


def test_warnings_are_told_once_with_their_rows() -> None:
    quiet, loud = outcome(True), outcome(True, warnings=("no sound",), media="a.mp4")
    assert report_of([quiet]).warnings == ()
    assert report_of([quiet, loud], [quiet, loud]).warnings == ("1 row has warnings, the first: a.mp4: no sound",)
    assert report_of([loud, loud], [quiet, loud]).warnings[0].startswith("2 rows have warnings")


@settings(deadline=None)
@given(ROWS)
def test_the_json_reads_back(rows: list[tuple[bool | None, bool | None, str | None]]) -> None:
    columns = [[outcome(right, category) for right, _, category in rows] for _ in range(2)]
    report = report_of(*columns)
    assert EvalReport.from_json(report.to_json()) == report
    content = json.loads(report.to_json())
    assert {"accuracy", "ci95", "n", "by_category", "settings"} <= set(content)
    for one in columns[0]:
        assert Outcome.from_json(one.to_json()) == one
        assert one.to_json().startswith('{"key": "')

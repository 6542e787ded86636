"""The report of a probe: counts, intervals and the proposal agree with the outcomes, and its files with it."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seats_cli.dataset import Question
from seats_cli.errors import SomeFailedError, UsageError
from seats_cli.probing import CURVES, ProbeReport, curve_of, of_categories, summarise
from seats_cli.report import ModelInfo, Versions
from seats_cli.selection.levels import solve_levels
from seats_cli.selection.schedule import SelectionPreset
from seats_cli.selection.schedule_file import DropSchedule, schedule_of, schedule_text
from seats_cli.statistics import wilson

PRESET = SelectionPreset((16, 18, 20, 23), 0.25, ((0.35, 0.30, 0.65), (0.10, 0.06, 0.35)))
MODEL = ModelInfo(id="a/b", revision=None, weights="checkpoint", dtype="float32", device="cpu", attention="sdpa")
VERSIONS = Versions(seats="1", torch="2", transformers="5")


def report_of(outcomes: list[dict[str, tuple[bool, ...]]], **more: Any) -> ProbeReport:
    given: dict[str, Any] = {
        "tolerance": 0.01,
        "file": "questions.jsonl",
        "categories": (),
        "clips": 2,
        "rows": len(outcomes),
        "model": MODEL,
        "versions": VERSIONS,
        "warnings": (),
    }
    return summarise(outcomes, more.pop("preset", PRESET), **{**given, **more})


def outcomes_of(n_layers: int, first_right: list[int], always: int = 0) -> list[dict[str, tuple[bool, ...]]]:
    """One question per layer from which on it is right, whatever is removed; some are right throughout."""
    return [
        dict.fromkeys(CURVES, tuple(layer >= first for layer in range(n_layers + 1)))
        for first in [*first_right, *[0] * always]
    ]


@given(st.integers(1, 12).flatmap(lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1)))
def test_points_count_what_is_right(right: list[list[bool]]) -> None:
    points = curve_of(right)
    assert [point.layer for point in points] == list(range(len(right[0])))
    for point in points:
        correct = sum(row[point.layer] for row in right)
        assert (point.correct, point.accuracy) == (correct, correct / len(right))
        assert point.ci95 == wilson(correct, len(right))


def test_the_report_is_that_of_its_outcomes() -> None:
    outcomes = outcomes_of(28, [16, 17, 18, 20, 22, 23, 29, 29], always=2)
    outcomes[0] = {**outcomes[0], "audio": (True,) * 29}
    report = report_of(outcomes, rows=12, warnings=["a", "b", "a"])
    assert (report.n, report.rows, report.failed, report.layers) == (10, 12, 2, 28)
    assert [point.correct for point in report.curves["both"]][14:] == [2, 2, 3, 4, 5, 5, 6, 6, 7] + [8] * 6
    assert report.curves["audio"][0].correct == report.curves["video"][0].correct + 1
    assert report.proposal.flat == 23
    assert report.warnings == ("a", "b")
    assert report.model_drop_before_layer == PRESET.drop_before_layer
    assert ProbeReport.from_json(report.to_json()) == report
    assert json.loads(report.to_json())["curves"]["both"][28]["correct"] == 8


def test_the_schedule_file_is_the_proposal() -> None:
    report = report_of(outcomes_of(28, [16, 17, 18, 20, 22, 23, 29, 29], always=2))
    schedule = report.schedule
    assert schedule == DropSchedule(
        report.proposal.drop_before_layer, PRESET.temperature, report.proposal.scale, 28
    )
    text = schedule_text(schedule, report.comments)
    assert schedule_of(tomllib.loads(text), "file") == schedule
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert "a/b" in comments[0]
    assert "10 questions of questions.jsonl: 80.0 % right with everything, 20.0 % with the text" in comments[1]
    for ratio in (0.30, 0.65, 0.06, 0.35, 0.10):
        levels = solve_levels(ratio, 28, schedule.drop_before_layer, schedule.scale)
        assert levels.drop_before_layer == schedule.drop_before_layer


def test_the_tolerance_reaches_the_proposal() -> None:
    outcomes = outcomes_of(28, [18, 18, 18, 18, 18, 18, 18, 18, 18, 26])
    assert [report_of(outcomes, tolerance=t).proposal.flat for t in (0.0, 0.05, 0.1)] == [26, 26, 18]


def test_a_shallow_model_has_no_schedule() -> None:
    shallow = dataclasses.replace(PRESET, drop_before_layer=None)
    report = report_of(outcomes_of(4, [1, 2]), preset=shallow)
    assert report.schedule is None
    assert report.proposal.drop_before_layer == report.model_drop_before_layer == ()
    assert "too shallow" in report.proposal.notes[0]


def test_nothing_to_show() -> None:
    with pytest.raises(SomeFailedError, match="every question failed, 7 in all"):
        report_of([], rows=7)


def row(line: int, category: str | None) -> Question:
    return Question(line=line, id=str(line), media="a", path="a", text="?", answers=("b",), category=category)


def test_categories() -> None:
    rows = [row(1, "colour"), row(2, None), row(3, "count"), row(4, "colour")]
    assert of_categories(rows, ()) == rows
    assert [r.line for r in of_categories(rows, ["colour"])] == [1, 4]
    assert [r.line for r in of_categories(rows, ["count", "colour"])] == [1, 3, 4]
    with pytest.raises(UsageError, match="'sound'") as caught:
        of_categories(rows, ["count", "sound"])
    assert caught.value.hint == "there are: colour, count"
    with pytest.raises(UsageError) as caught:
        of_categories([row(1, None)], ["colour"])
    assert caught.value.hint == "the rows have none"

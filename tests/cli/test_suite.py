"""``seats profile --suite``: what it measures, what it refuses, and that its JSON is the documented one."""

from __future__ import annotations

import json

import pytest

from seats_cli.figures import SuiteReport

# A suite's own clip is a minute long: small frames, few of them.
FEW = ("--frames", "4", "--seconds", "2")
ONCE = ("--runs", "1", "--warmup", "0", "--device", "cpu")


def found_in(ended, suite):
    assert ended.code == 0, ended.err
    report = SuiteReport.from_json(ended.out)
    assert (report.suite, report.command) == (suite, "profile")
    assert report.to_json() + "\n" == ended.out
    return report


def test_paper_names_what_it_ran_on(seats, checkpoint):
    report = found_in(seats("profile", "--suite", "paper", "-m", checkpoint, *FEW, *ONCE, "--json"), "paper")
    assert {one.variant for one in report.figures} == {"full", "seats R=0.1", "stock transformers"}
    assert "encode + prefill, stock / SEATS" in {one.name for one in report.ratios}
    assert report.model.device == "cpu"
    assert report.model.attention == "sdpa"
    assert "CPU cores" in report.machine


def test_the_table_shows_variants_and_ratios(seats, checkpoint):
    ended = seats("profile", "--suite", "paper", "-m", checkpoint, *FEW, *ONCE, "--trr", "0.3")
    assert ended.code == 0
    for words in ("seats R=0.3", "stock transformers", "LLM prefill incl. selection, full / SEATS", "in turn"):
        assert words in ended.out
    assert "round 1 of 1: seats R=0.3" in ended.err


def test_decode_counts_tokens_per_second(seats, checkpoint):
    arguments = ("-m", checkpoint, *FEW, *ONCE, "--answer-tokens", "4", "--json", "--quiet")
    ended = seats("profile", "--suite", "decode", *arguments)
    report = found_in(ended, "decode")
    assert {one.unit for one in report.figures} == {"tokens/s"}
    assert all(one.name.startswith("answer tokens per second, SEATS / ") for one in report.ratios)
    assert ended.err == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--suite", "paper", "--analytic"), "--analytic runs nothing"),
        (("--suite", "paper", "--trr", "0.1", "--trr", "0.2"), "measures one ratio"),
        (("--suite", "paper", "--minutes", "2"), "--minutes belongs to"),
        (("--minutes", "2"), "--minutes belongs to"),
        (("--suite", "growth", "--minutes", "0"), "at least 1"),
        (("--suite", "growth", "--minutes", "2", "--minutes", "2"), "twice"),
        (("--suite", "memory", "--frames", "4"), "makes its clips up"),
        (("--suite", "end-to-end", "--frames", "4"), "reads a file"),
        (("--suite", "decode", "--answer-tokens", "1"), "at least 2"),
        (
            (
                "--suite",
                "fast",
            ),
            "fast",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_a_model_is_loaded(seats, monkeypatch, arguments, words):
    monkeypatch.setattr("seats_cli.models.loading.load", None)
    ended = seats("profile", *arguments)
    assert ended.code == 2
    assert words in ended.err
    assert ended.out == ""


def test_end_to_end_says_that_it_cannot_read(seats, checkpoint, tmp_path):
    ended = seats("profile", tmp_path / "none.mp4", "--suite", "end-to-end", "-m", checkpoint, *ONCE)
    assert ended.code == 3
    assert len(ended.err.splitlines()) <= 2
    assert json.dumps("none.mp4")[1:-1] in ended.err

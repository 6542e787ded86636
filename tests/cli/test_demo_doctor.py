"""``seats demo`` and ``seats doctor``: what they promise to whoever tries the tool or reports a bug."""

from __future__ import annotations

import json
import tempfile
from importlib.resources import files
from types import SimpleNamespace

import pytest

from seats_cli.cli import doctor
from seats_cli.report import SCHEMA_VERSION
from tests.cli.contract import ASK, check


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Where temporary files go, and the working and home folders: all empty."""
    for name in ("tmp", "home", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def everything_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_tiny_model_is_part_of_the_package():
    tiny = files("seats_cli") / "assets" / "tiny"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {entry.name for entry in tiny.iterdir()}


def test_demo_answers_three_questions_rightly_with_all_tokens_and_with_few(seats, scratch):
    ended = seats("demo")
    assert ended.code == 0
    rows = [
        json.loads(line) for line in (files("seats_cli") / "assets/demo/questions.jsonl").read_text().splitlines()
    ]
    assert [line.split("\t") for line in ended.out.splitlines()] == [
        [row["question"], row["answer"], row["answer"]] for row in rows
    ]
    assert len(rows) == 3
    assert "synthetic world" in ended.err.splitlines()[0]
    assert any(line.startswith("layers 0") for line in ended.err.splitlines())
    assert everything_in(scratch) == []


def test_demo_in_json_and_a_clip_to_save(seats, scratch):
    ended = seats("demo", "--json", "--save", "saved.mp4")
    shown = json.loads(ended.out)
    assert (shown["schema_version"], shown["command"]) == (SCHEMA_VERSION, "demo")
    reports = shown["reports"]
    assert len(reports) == 6
    for report in reports:
        check(report, ASK)
    assert [report["selection"]["method"] for report in reports] == ["full", "seats"] * 3
    assert all(report["media"]["seconds_audio"] > 0 for report in reports)
    assert everything_in(scratch) == ["here/saved.mp4"]
    assert (scratch / "here" / "saved.mp4").stat().st_size < 300_000
    again = seats("demo", "--save", "saved.mp4")
    assert again.code == 2
    assert "there already" in again.complaint


@pytest.mark.parametrize("answer", [0, 3])
def test_ctrl_c_in_an_answer_ends_the_demo_and_shows_none(seats, scratch, monkeypatch, answer):
    """The first answer is not even shown; of the fourth a word is there."""
    from seats_cli.engine.decode import Sampler

    real, begun = Sampler.choose, []

    def choose(self, logits):
        if self not in begun:
            begun.append(self)
        elif len(begun) == answer + 1:
            raise KeyboardInterrupt
        return real(self, logits)

    monkeypatch.setattr(Sampler, "choose", choose)
    for more in ((), ("--json",)):
        begun.clear()
        ended = seats("demo", *more)
        assert (ended.code, ended.out) == (130, "")
        assert ended.err.splitlines()[1:] == ["seats: interrupted"]


def test_doctor_is_plain_and_complete(seats, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    ended = seats("doctor")
    assert ended.code == 0
    assert ended.err == ""
    assert ended.out.isprintable() or ended.out.replace("\n", "").isprintable()
    titles = [line for line in ended.out.splitlines() if not line.startswith("  ")]
    assert titles == list(doctor.SECTIONS)
    rows = dict(
        line.split(None, 1) for line in ended.out.splitlines() if line.startswith("  ") and line.split()[1:]
    )
    assert rows["sdpa"] == "yes"
    assert rows["h264"] == "yes"
    assert rows["torch"][0].isdigit()
    assert "failed" not in rows


@pytest.mark.parametrize(
    ("raised", "shown"),
    [
        (None, "yes, 0.50"),
        (ModuleNotFoundError("No module named 'bitsandbytes'", name="bitsandbytes"), "no"),
        (ModuleNotFoundError("No module named 'x'", name="x"), "no: No module named 'x'"),
        (OSError("no libcuda\nhere"), "no: OSError: no libcuda here"),
    ],
)
def test_doctor_says_which_quantising_packages_import(seats, monkeypatch, raised, shown):
    def fake(package):
        if raised is not None:
            raise raised
        return SimpleNamespace(__version__="0.50")

    monkeypatch.setattr("seats_cli.models.quantisation.import_library", fake)
    rows = [line.split(None, 1) for line in seats("doctor").out.splitlines()]
    assert ["bitsandbytes", shown] in rows


def test_doctor_tells_no_secrets(seats, monkeypatch):
    hidden = {
        "HF_TOKEN": "hf_abcdefghijklmnop",
        "SEATS_API_KEY": "letmein",
        "HUGGING_FACE_HUB_TOKEN": "another",
        "HF_ENDPOINT": "https://me:letmein@mirror.example/hub",
        "SEATS_REVISION": "hf_abcdefghijklmnop",
    }
    for name, value in hidden.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("UNRELATED", "private")
    monkeypatch.setenv("SEATS_MODEL", "a\x1b[2Jmodel\nx")
    out = seats("doctor").out
    for secret in ("abcdefghijklmnop", "letmein", "another", "private", "UNRELATED", "\x1b"):
        assert secret not in out
    assert "https://(hidden)mirror.example/hub" in out
    assert out.count("(set)") == 3
    assert r"a\x1b[2Jmodel x" in out


def test_doctor_never_fails(seats, monkeypatch):
    def broken():
        raise OSError("no driver for hf_abcdefghijklmnop\nat all")

    monkeypatch.setattr(doctor, "SECTIONS", dict.fromkeys(doctor.SECTIONS, broken))
    ended = seats("doctor")
    assert ended.code == 0
    assert ended.out.count("failed") == len(doctor.SECTIONS)
    assert "OSError: no driver for (hidden) at all" in ended.out

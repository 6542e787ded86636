"""``seats eval`` on real files with a tiny model: the report, the rows on file, and every mistake."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated

import pytest

from seats_cli import Seats, SelectionOptions
from seats_cli.cli import bundles, settings
from seats_cli.cli import options as opt
from seats_cli.cli.evaluate import blinded
from seats_cli.cli.settings import label_of, parse_setting, settings_of
from seats_cli.config import GenerationOptions, MediaOptions
from seats_cli.errors import UsageError
from seats_cli.evaluation import EvalReport, Outcome
from tests.cli.contract import MAYBE, MODEL, NUMBER, VERSIONS, check

SCORE = {
    "n": int,
    "correct": int,
    "failed": int,
    "accuracy": MAYBE,
    "ci95": (list, type(None)),
    "by_category": dict,
}
REPORT = {
    "schema_version": int,
    "command": str,
    **SCORE,
    "settings": {"label": str, "method": str, "trr": NUMBER, "kv_cache": str},
    "results": [
        {**SCORE, "label": str, "settings": dict, "achieved_trr": MAYBE, "prompt_tokens": MAYBE, "seconds": MAYBE}
    ],
    "paired": [
        {
            "setting": str,
            "reference": str,
            "n": int,
            "difference": NUMBER,
            "ci95": [NUMBER],
            "only": int,
            "only_reference": int,
            "mcnemar_p": NUMBER,
            "kept": MAYBE,
            "kept_ci95": (list, type(None)),
        }
    ],
    "file": str,
    "rows": int,
    "media": dict,
    "generation": dict,
    "model": MODEL,
    "versions": VERSIONS,
    "warnings": [str],
}
ROW = {
    "key": str,
    "schema_version": int,
    "id": str,
    "media": str,
    "question": str,
    "expected": [str],
    "answer": str,
    "thinking": (str, type(None)),
    "thinking_tokens": int,
    "correct": bool,
    "category": (str, type(None)),
    "setting": str,
    "achieved_trr": NUMBER,
    "prompt_tokens": int,
    "seconds": dict.fromkeys(("decode", "encode", "select", "prefill", "answer"), NUMBER),
}


def row(question: str, media: str = "clip.mp4", answer: str = "x", **more: object) -> dict:
    return {"media": media, "question": question, "answer": answer, **more}


def labelled(number: int, answer: str = "A", **more: object) -> dict:
    return row(f"Which of {number}?", answer=answer, choices=["A", "B"], category="pick", **more)


@pytest.fixture
def write(tmp_path, clips):
    """A file of questions; its media are those of the clips."""

    def make(*rows: dict, name: str = "rows.jsonl") -> Path:
        placed = [one | {"media": str(clips / one["media"])} for one in rows]
        path = tmp_path / name
        path.write_text("".join(json.dumps(one) + "\n" for one in placed))
        return path

    return make


@pytest.fixture
def evaluate(seats, checkpoint):
    """With the tiny model, in few tokens."""

    def call(*arguments, **more):
        return seats("eval", *arguments, "-m", checkpoint, "--device", "cpu", "--max-new-tokens", 4, **more)

    return call


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_table_says_the_same_as_lines_of_json(evaluate, write, tmp_path):
    path = write(labelled(1), row("What, then?", start=1, end=3))
    clip = lines(path)[0]["media"]
    table = tmp_path / "rows.csv"
    table.write_text(
        "\ufeffmedia,question,answer,choices,category,start,end\r\n"
        f'{clip},Which of 1?,A,"A,B",pick,,\r\n{clip},"What, then?",x,,,0:01,3\r\n',
        encoding="utf-8",
    )
    found = []
    for one in (path, table):
        ended = evaluate(one, "--json", "-q", "-o", tmp_path / f"{one.name}.out")
        assert ended.code == 0
        found.append([{**line, "id": "", "seconds": 0} for line in lines(tmp_path / f"{one.name}.out")])
    assert found[0] == found[1]


def test_one_setting_in_json(evaluate, write):
    path = write(labelled(1), labelled(2, "B"), row("What?", category="free"), row("Who?", "silent.mp4"))
    ended = evaluate(path, "--json")
    assert ended.code == 0
    assert ended.out.count("\n") == 1
    found = json.loads(ended.out)
    check(found, REPORT)
    assert EvalReport.from_json(ended.out).to_json() + "\n" == ended.out
    assert (found["n"], found["failed"], found["rows"], found["paired"]) == (4, 0, 4, [])
    assert set(found["by_category"]) == {"pick", "free", "(none)"}
    assert found["settings"]["label"] == "seats trr=0.1"
    assert found["file"] == str(path)
    # A warning of one row is told, not shown for each.
    assert found["warnings"] == [
        f"1 row has warnings, the first: {lines(path)[3]['media']}: no audio track: "
        "the answer is from the picture alone"
    ]
    assert ended.err == f"seats: {found['warnings'][0]}\n"


def test_answers_are_those_of_ask(evaluate, write, seats, checkpoint, clips, tmp_path):
    path = write(row("What is seen?"), labelled(1), row("Which?", answer="no", choices=["yes", "no"]))
    out = tmp_path / "out.jsonl"
    ended = evaluate(path, "--method", "full,seats", "--trr", "0.3", "-o", out)
    assert ended.code == 0
    found = lines(out)
    for one in found:
        check(one, ROW)
    model = Seats(checkpoint, device="cpu")
    for options, label in (
        (SelectionOptions(method="full", trr=1.0), "full"),
        (SelectionOptions(trr=0.3), "seats trr=0.3"),
    ):
        rows = [one for one in found if one["setting"] == label]
        assert [one["id"] for one in rows] == ["1", "2", "3"]
        for one, asked in zip(rows, lines(path), strict=True):
            generation = GenerationOptions(max_new_tokens=4, choices=tuple(asked.get("choices", ())))
            report = model.ask(clips / "clip.mp4", asked["question"], selection=options, generation=generation)
            assert one["answer"] == report.answer
            assert [c["probability"] for c in one["choices"]] == [c.probability for c in report.choices]
            assert one["achieved_trr"] == report.selection.achieved_trr
            assert one["prompt_tokens"] == report.tokens.total
            assert one["expected"] == [asked["answer"]]
    # What it made right by chance is counted.
    assert sum(one["correct"] for one in found) == sum(one["answer"] in one["expected"] for one in found)


def test_the_tables(evaluate, write, clips):
    rows = [labelled(n, "AB"[n % 2]) for n in range(4)] + [row("What?", category="free [b]")]
    ended = evaluate(write(*rows), "--method", "full,seats", "--trr", "0.35,0.1")
    assert ended.code == 0
    assert ended.err == ""
    text = ended.out
    labels = ("full", "seats trr=0.35", "seats trr=0.1")
    positions = [re.search(rf"^{re.escape(label)} +5 ", text, re.M).start() for label in labels]
    assert positions == sorted(positions)
    for part in ("rows.jsonl", "5 rows", "kept R", "pick", "free [b]", "in pairs", "accuracy kept", "McNemar"):
        assert part in text
    assert re.search(r"^seats trr=0\.1 +5 +[+-]\d+\.\d +[+-]\d", text, re.M)
    assert "against full" in text


def test_what_is_on_file_is_not_asked_again(evaluate, write, tmp_path, monkeypatch):
    out = tmp_path / "out.jsonl"
    path = write(row("What?"), labelled(1))
    first = evaluate(path, "-o", out, "--json")
    before = out.read_bytes()
    assert len(before.splitlines()) == 2
    opened = []
    import seats_cli.media

    real = seats_cli.media.open_clip
    monkeypatch.setattr(seats_cli.media, "open_clip", lambda *a: opened.append(a) or real(*a))
    again = evaluate(path, "-o", out, "--json")
    assert (again.code, out.read_bytes(), opened) == (0, before, [])
    assert again.err == "seats: 2 of 2 answers are there already\n"
    assert json.loads(again.out) == json.loads(first.out)

    # Another row, another setting, another option: only what is new is asked.
    write(row("What?"), labelled(1), row("Who?"))
    ended = evaluate(path, "-o", out, "--trr", "0.1,0.3", "--json")
    assert len(opened) == 1
    assert ended.err == "seats: 2 of 6 answers are there already\n"
    assert out.read_bytes().startswith(before)
    assert [(one["id"], one["setting"]) for one in lines(out)[2:]] == [
        ("1", "seats trr=0.3"),
        ("2", "seats trr=0.3"),
        ("3", "seats trr=0.1"),
        ("3", "seats trr=0.3"),
    ]
    assert [result["n"] for result in json.loads(ended.out)["results"]] == [3, 3]
    evaluate(path, "-o", out, "--audio", "off", "--json")
    assert len(lines(out)) == 9


@pytest.mark.parametrize("cut", [1, 40, 12, -1])
def test_a_last_line_that_was_cut_is_mended(evaluate, write, tmp_path, cut):
    out = tmp_path / "out.jsonl"
    path = write(labelled(1), labelled(2))
    whole = evaluate(path, "-o", out, "--json").out
    first, second = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(first + second[:cut])
    ended = evaluate(path, "-o", out, "--json")
    # Of -1 only the newline is missing.
    assert ended.err == f"seats: {2 if cut == -1 else 1} of 2 answers are there already\n"
    mended = out.read_bytes().splitlines(keepends=True)
    assert mended[0] == first
    assert [Outcome.from_json(line.decode()).id for line in mended] == ["1", "2"]
    assert mended[1].endswith(b"\n")
    told = json.loads(ended.out), json.loads(whole)
    assert told[0]["by_category"] == told[1]["by_category"]


def test_media_that_fail_are_told_and_tried_again(evaluate, write, tmp_path, clips):
    out = tmp_path / "out.jsonl"
    path = write(row("What?", "late.mp4"), labelled(1), row("Who?", "late.mp4"), row("Who?", "text.mp4"))
    ended = evaluate(path, "-o", out, "--json", "--method", "full,seats")
    assert ended.code == 6
    found = json.loads(ended.out)
    assert [(r["n"], r["failed"]) for r in found["results"]] == [(1, 3), (1, 3)]
    late = clips / "late.mp4"
    assert ended.err.splitlines() == [
        f"seats: {path}:1, 3: {late}: no such file",
        "  hint: check the path",
        f"seats: {path}:4: {clips / 'text.mp4'}: text, not media",
        "  hint: give a video or audio file such as mp4, mkv, webm, mov, wav, mp3",
        "seats: 6 of 8 answers failed",
    ]
    failures = [one for one in lines(out) if one["error"]]
    assert len(failures) == 6
    assert {one["error"]["exit_code"] for one in failures} == {3}
    assert all(one["answer"] is one["correct"] is None for one in failures)
    late.write_bytes((clips / "clip.mp4").read_bytes())
    try:
        again = evaluate(path, "-o", out, "--json", "--method", "full,seats")
    finally:
        late.unlink()
    assert [(r["n"], r["failed"]) for r in json.loads(again.out)["results"]] == [(3, 1), (3, 1)]


def test_a_row_that_fails_is_named_by_its_line_and_clip(evaluate, write, clips):
    path = write(labelled(1), row("What?", "silent.mp4", start=60.0))
    ended = evaluate(path, "--json")
    assert ended.code == 6
    assert ended.err.startswith(f"seats: {path}:2: {clips / 'silent.mp4'}: ")


def test_labels_that_one_token_cannot_tell_apart_are_named_by_their_line(evaluate, write):
    path = write(row("Which?"), row("Which?", answer="ab", choices=["ab", "ac"]))
    assert evaluate(path).complaint == f"{path}:2: choices 'ab' and 'ac' begin with the same token"
    plain = write(row("Which?", answer="ab"))
    assert evaluate(plain, "--choices", "ab,ac").complaint == "--choices 'ab' and 'ac' begin with the same token"


def test_all_rows_failed(evaluate, write):
    ended = evaluate(write(row("What?", "none.mp4")), "--method", "seats,full")
    assert ended.code == 6
    assert "1 of 1 answer failed" in evaluate(write(row("What?", "none.mp4"))).err
    # Columns in which nothing is known are left out, and what is said of them.
    assert "seconds" not in ended.out
    assert re.search(r"^setting +n +failed$", ended.out, re.M)
    assert re.search(r"^seats trr=0\.1 +0 +1$", ended.out, re.M)


def test_limit_and_choices_for_all(evaluate, write):
    path = write(*(row(f"Which {n}?", answer="B") for n in range(3)))
    found = json.loads(evaluate(path, "--limit", 2, "--choices", "A,B", "--json").out)
    assert (found["rows"], found["n"]) == (2, 2)
    assert found["generation"]["choices"] == ["A", "B"]


@pytest.mark.parametrize(
    ("without", "file", "tokens"),
    [("picture", "clip.mp4", "audio"), ("sound", "clip.mp4", "video"), ("picture", "sound.m4a", "audio")],
)
def test_without_a_part_only_the_other_is_there(
    evaluate, write, seats, checkpoint, clips, tmp_path, without, file, tokens
):
    out = tmp_path / "out.jsonl"
    path = write(row("What?", file))
    ended = evaluate(path, "--without", without, "--method", "full", "-o", out)
    assert ended.code == 0
    assert f"without {without}" in ended.out
    (found,) = lines(out)
    report = json.loads(seats("ask", clips / file, "What?", "-m", checkpoint, "--method", "full", "--json").out)
    left, markers = report["tokens"][tokens], 2 if file == "clip.mp4" else 0
    assert left > 0
    assert found["prompt_tokens"] == report["tokens"]["text"] - markers + left
    assert not found["warnings"]


def test_without_picture_there_must_be_sound(evaluate, write):
    ended = evaluate(write(row("What?", "silent.mp4")), "--without", "picture", "-q")
    assert ended.code == 6
    assert "no audio track" in ended.err


def test_without_both_the_question_stands_alone(evaluate, write, tmp_path):
    out = tmp_path / "out.jsonl"
    path = write(row("What?", "none.mp4"), labelled(1))
    ended = evaluate(path, "--without", "both", "-o", out)
    assert ended.code == 0
    assert "without picture and sound" in ended.out
    assert {one["setting"] for one in lines(out)} == {"full"}
    assert {one["achieved_trr"] for one in lines(out)} == {None}
    ended = evaluate(path, "--without", "both", "--trr", "0.1,0.2")
    assert ended.code == 2
    assert "seats trr=0.1 and seats trr=0.2 would be the same" in ended.complaint


@pytest.mark.parametrize("asked", [("--audio", "on"), ("--require-audio",)])
def test_without_sound_contradicts_asking_for_it(evaluate, write, asked):
    ended = evaluate(write(row("What?")), "--without", "sound", *asked)
    assert ended.code == 2
    assert ended.complaint == f"--without sound contradicts {' '.join(asked)}"


def test_the_parts_of_media():
    assert blinded(MediaOptions(), "none") == MediaOptions()
    assert blinded(MediaOptions(audio="off"), "picture").nothing
    assert not blinded(MediaOptions(), "picture").nothing


def test_progress_is_a_line_now_and_then(evaluate, write, monkeypatch):
    monkeypatch.setattr("seats_cli.cli.progress.EVERY", 2)
    path = write(*(labelled(n) for n in range(3)))
    assert evaluate(path, "--method", "full,seats").err == "seats: 2 of 6 answers\nseats: 4 of 6 answers\n"
    assert evaluate(path, "-q").err == ""


def test_progress_is_a_bar_on_a_terminal(evaluate, write, monkeypatch):
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    ended = evaluate(write(labelled(1), row("What?", "none.mp4")), "--json")
    assert json.loads(ended.out)["n"] == 1
    assert "no such file" in ended.err


def test_ctrl_c_keeps_what_there_is(evaluate, write, tmp_path, monkeypatch):
    from seats_cli.engine.decode import Sampler

    out = tmp_path / "out.jsonl"
    path = write(labelled(1), row("What?"))
    with monkeypatch.context() as patch:

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(Sampler, "choose", stop)
        ended = evaluate(path, "-o", out)
    assert (ended.code, ended.out) == (130, "")
    assert (ended.complaint, ended.hint) == ("interrupted", "the same command goes on from there")
    assert [one["id"] for one in lines(out)] == ["1"]
    assert evaluate(path, "-o", out).err == "seats: 1 of 2 answers are there already\n"


def test_a_row_that_cannot_be_written_ends_it(evaluate, write, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    out = tmp_path / "out.jsonl"
    monkeypatch.setattr("seats_cli.cli.lines.os.fsync", full)
    ended = evaluate(write(labelled(1)), "-o", out, "-q")
    assert (ended.code, ended.complaint) == (1, f"-o {out} cannot be written: No space left on device")


def test_the_python_face(write, checkpoint):
    path = write(labelled(1), row("What?", "none.mp4"), labelled(2))
    model = Seats(checkpoint, trr=0.2, device="cpu", generation=GenerationOptions(max_new_tokens=2))
    errors = []
    report = model.evaluate(path, limit=2, on_error=lambda caught, about: errors.append(about[0].path))
    assert (report.rows, report.n, report.failed) == (2, 1, 1)
    assert (report.settings["method"], report.settings["trr"]) == ("seats", 0.2)
    assert errors == [str(path.parent / lines(path)[1]["media"])]
    again = model.evaluate(path, {"all": SelectionOptions(method="full"), "few": SelectionOptions(trr=0.1)})
    assert [(pair.setting, pair.reference) for pair in again.paired] == [("few", "all")]


# Mistakes, before the model is looked for


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--limit", "0"], "--limit is 0; it must be at least 1"),
        (["--method", "other"], "'other' is not one of"),
        (["--method", "seats,,full"], "--method is 'seats,,full'"),
        (["--trr", "0.1,x"], "'x' is not a number"),
        (["--trr", "2"], "--trr is 2.0; a token retention ratio lies in (0, 1]"),
        (["--setting", ""], "--setting '' says nothing"),
        (["--setting", "'"], "No closing quotation"),
        (["--setting", "seats full"], "'full' is not an option of the selection"),
        (["--setting", "seats speed=3"], "'speed=3' is not an option of the selection"),
        (["--setting", "seats kv-cache=none"], "'none' is not one of"),
        (["--setting", "magic"], "'magic' is not one of"),
        (["--setting", "trr=much"], "'much' is not a number"),
        (["--setting", "trr=-1"], "--trr is -1.0"),
        (["--setting", "foo"], "--setting 'foo': Invalid value for '--method': 'foo' is not one of"),
        (["--setting", "full trr=7"], "--trr is 7.0; a token retention ratio lies in (0, 1]"),
        (["--setting", "full schedule=early"], "--schedule is 'early'"),
        (["--method", "full", "--trr", "7"], "--trr is 7.0"),
        (["--setting", "seats trr=0.1 trr=0.2"], "trr is given twice, '0.1' and '0.2'"),
        (["--setting", "seats trr=0.1 trr=0.1"], "trr is given twice"),
        (["--setting", "seats method=full"], "method is given twice, 'seats' and 'full'"),
        (["--setting", "schedule=1,2"], "before layers 1, 2 of 8"),
        (["--setting", "schedule=early"], "--schedule is 'early'"),
        (["--video-trr", "0.1"], "--video-trr and --audio-trr go together"),
        (["-o", "no/such/folder.jsonl"], "there is no folder"),
    ],
)
def test_a_mistake_is_one_line(evaluate, write, arguments, complaint):
    ended = evaluate(write(row("What?")), *arguments)
    assert ended.code == 2
    assert ended.out == ""
    assert complaint in ended.complaint


@pytest.mark.parametrize("arguments", [["--setting", "foo"], ["--method", "foo"], ["--setting", "kv-cache=foo"]])
def test_errors_of_settings_name_no_variable_that_is_not_looked_at(evaluate, write, monkeypatch, arguments):
    ended = evaluate(write(row("What?")), *arguments)
    assert ended.code == 2
    assert not any(word in ended.complaint for word in ("env var", "SEATS_", "Value error")), ended.complaint


def test_settings_are_what_is_said_whatever_the_variables(monkeypatch):
    before = settings_of("seats", "0.3", ["kv-cache=text"], {})
    for name in ("SEATS_METHOD", "SEATS_TRR", "SEATS_KV_CACHE"):
        monkeypatch.setenv(name, "nonsense")
    assert settings_of("seats", "0.3", ["kv-cache=text"], {}) == before


def test_a_broken_row_is_found_before_the_model_is_looked_for(seats, write, tmp_path):
    path = write(row("What?"))
    path.write_text(path.read_text() + "\n{}\n")
    ended = seats("eval", path, "-m", tmp_path / "no-model")
    assert ended.code == 2
    assert ended.complaint == f"{path}:3: media is missing"
    ended = seats("eval", tmp_path / "none.jsonl", "-m", tmp_path / "no-model")
    assert (ended.code, ended.complaint) == (
        2,
        f"{tmp_path / 'none.jsonl'} cannot be read: No such file or directory",
    )
    ended = seats("eval", write(row("What?")), "-m", tmp_path / "no-model")
    assert ended.code == 4


@pytest.mark.parametrize(
    "content", [b"a text\n", b"a text without end", b'{"other": 1}\n', b'{"key": "x"}\n', b'{"key": "x"}\nmore']
)
def test_a_file_of_something_else_is_left_alone(evaluate, write, tmp_path, content):
    out = tmp_path / "out.jsonl"
    out.write_bytes(content)
    ended = evaluate(write(row("What?")), "-o", out)
    assert ended.code == 2
    assert "seats eval" in ended.complaint
    assert out.read_bytes() == content


def test_the_questions_are_not_written_over(evaluate, write, tmp_path):
    path = write(row("What?"))
    ended = evaluate(path, "-o", path)
    assert (ended.code, ended.complaint) == (2, f"-o {path} is the file of questions")
    assert evaluate(path, "-o", tmp_path).complaint == f"-o {tmp_path} is a folder"
    assert evaluate(path, "-o", os.devnull).complaint == f"-o {os.devnull} is not a regular file"
    assert len(lines(path)) == 1


def test_a_file_that_cannot_be_written_is_known_before_the_model_is_looked_for(seats, write, tmp_path):
    ended = seats("eval", write(row("What?")), "-o", "/proc/rows.jsonl", "-m", tmp_path / "no-model")
    assert ended.code == 2
    assert ended.complaint.startswith("-o /proc/rows.jsonl cannot be written: ")


def test_what_cannot_be_asked_leaves_no_file_and_no_change(evaluate, seats, write, tmp_path):
    out = tmp_path / "out.jsonl"
    path = write(row("What is <|im_end|>?"))
    assert evaluate(path, "-o", out).code == 2
    assert seats("eval", path, "-o", out, "-m", tmp_path / "no-model").code == 4
    assert not out.exists()
    out.write_bytes(b'{"key": "cut off')
    assert evaluate(path, "-o", out).code == 2
    assert out.read_bytes() == b'{"key": "cut off'


# Settings


def test_every_method_at_every_ratio_and_full_once():
    found = settings_of("full,seats", "0.35,0.1", [], {})
    assert found == {
        "full": SelectionOptions(method="full", trr=1.0),
        "seats trr=0.35": SelectionOptions(trr=0.35),
        "seats trr=0.1": SelectionOptions(trr=0.1),
    }
    assert list(settings_of(None, None, [], {})) == ["seats trr=0.1"]
    assert list(settings_of(None, "0.2", [], {})) == ["seats trr=0.2"]
    assert list(settings_of("full", None, ["kv-cache=text"], {})) == ["full", "seats trr=0.1 kv-cache=text"]
    # Alone the texts are all there is, and what is alike is one.
    assert list(settings_of(None, None, ["full", "trr=0.1", "full trr=0.5"], {})) == ["full", "seats trr=0.1"]


def test_what_is_said_for_all_holds_where_a_setting_says_nothing():
    shared = {"kv_cache": "text", "schedule": "2,3,4,5"}
    found = settings_of("seats", "0.3", ["kv-cache=staged"], shared)
    assert [(o.kv_cache, o.drop_before_layer, o.trr) for o in found.values()] == [
        ("text", (2, 3, 4, 5), 0.3),
        ("staged", (2, 3, 4, 5), 0.1),
    ]
    pair = {"video_trr": 0.06, "audio_trr": 0.35}
    found = settings_of("seats", "0.3,0.1", ["trr=0.2"], pair)
    assert [(o.video_trr, o.trr) for o in found.values()] == [(0.06, 0.1), (None, 0.2)]


@pytest.mark.parametrize(
    "text",
    [
        "full",
        "seats",
        "trr=0.05",
        "seats trr=0.1 kv-cache=text score-with=next window-temperature=0.01 scale=1.3 score-norm=standard",
        "seats schedule=4,6,8,10",
        "video-trr=0.06 audio-trr=0.35",
        "seats trr=1e-2",
        "seats trr=0.1 stages=12 window-budgets=uniform",
        "random trr=0.2 selection-seed=3",
    ],
)
def test_a_label_is_a_setting(text):
    values = parse_setting(text, {})
    (label,) = settings_of(None, None, [text], {})
    assert label == label_of(values)
    assert settings_of(None, None, [label], {}) == settings_of(None, None, [text], {})


Spin = Annotated[float | None, opt.option("--half-spin", panel=opt.SELECTION, help="", **opt.NUMBER)]


def test_an_option_that_is_added_to_the_selection_is_known(monkeypatch):
    seen = []

    def with_spin(method: opt.Method = "seats", spin: Spin = None) -> SelectionOptions:
        seen.append(spin)
        return SelectionOptions(method=method)

    monkeypatch.setattr(bundles, "selection_options", with_spin)
    caches = (settings._parameters, settings._command)
    for cache in caches:
        cache.cache_clear()
    try:
        assert list(settings_of(None, None, ["seats half-spin=0.5"], {})) == ["seats trr=0.1 half-spin=0.5"]
        with pytest.raises(UsageError, match="'kv-cache=text' is not an option") as caught:
            parse_setting("kv-cache=text", {})
    finally:
        for cache in caches:
            cache.cache_clear()
    assert seen == [0.5]
    assert caught.value.hint == "known: trr, method, half-spin"

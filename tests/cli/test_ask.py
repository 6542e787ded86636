"""``seats ask`` on real files with a tiny model: what goes to stdout, what to stderr, and what it ends with."""

from __future__ import annotations

import io
import json
import os
import re
import sys

import numpy as np
import pytest

from seats_cli import Report, Seats
from seats_cli.cli.app import main
from seats_cli.cli.batch import Output, answer_one
from seats_cli.tasks import Task
from tests.cli.conftest import N_LAYERS
from tests.cli.contract import ASK, FAILED, check

SILENT = "no audio track: the answer is from the picture alone"


@pytest.fixture
def ask(seats, checkpoint):
    """With the tiny model, in few tokens."""

    def call(*arguments, **more):
        return seats("ask", *arguments, "-m", checkpoint, "--device", "cpu", "--max-new-tokens", 6, **more)

    return call


def lines(ended):
    return [json.loads(line) for line in ended.out.splitlines()]


def test_one_clip_the_answer_on_stdout_and_the_report_on_stderr(ask, clips, checkpoint):
    ended = ask(clips / "clip.mp4", "What?")
    assert ended.code == 0
    answer = Seats(checkpoint, device="cpu").ask(clips / "clip.mp4", "What?").answer[:4]
    assert answer
    assert ended.out.lstrip().startswith(answer)
    assert ended.out.endswith("\n")
    assert ended.out.count("\n") == 1
    for part in (str(clips / "clip.mp4"), "layers 0", "4.00 s seen", "heard", "paper", "executed", "first token"):
        assert part in ended.err
    assert "seats:" not in ended.err


@pytest.mark.parametrize(("detail", "shown"), [("full", "layers 0"), ("short", "kept"), ("none", "")])
def test_warnings_are_seen_at_every_detail(ask, clips, detail, shown):
    ended = ask(clips / "silent.mp4", "What?", "--report", detail)
    assert ended.code == 0
    assert shown in ended.err
    if detail == "full":
        assert f"warning: {SILENT}" in ended.err
        assert "seats: " not in ended.err
    else:
        assert f"seats: {SILENT}\n" in ended.err
        assert "layers 0" not in ended.err
        assert ended.err.count(SILENT) == 1
    assert ("kept" in ended.err) == (detail != "none")


def test_quiet_is_silent(ask, clips):
    ended = ask(clips / "silent.mp4", "What?", "-q")
    assert ended.err == ""
    assert ended.out.strip()


def test_json_is_one_object_that_reads_back(ask, clips):
    ended = ask(clips / "clip.mp4", "What?", "--json")
    (found,) = lines(ended)
    check(found, ASK)
    assert Report.from_json(ended.out).to_json() + "\n" == ended.out
    assert found["model"]["weights"] == "checkpoint"
    assert found["media"]["audio_track"] is True
    assert found["media"]["seconds_video"] == pytest.approx(4)
    assert len(found["tokens"]["per_layer"]) == N_LAYERS
    assert [layer["layer"] for layer in found["tokens"]["per_layer"]] == list(range(N_LAYERS))
    assert found["finish_reason"] in ("stop", "length")
    assert found["flops"]["paper"]["reduction"] > 1
    assert "layers 0" not in ended.err
    assert "kept" in ended.err


def test_sound_alone(ask, clips):
    (found,) = lines(ask(clips / "sound.m4a", "What is said?", "--json"))
    assert found["media"]["frames"] == 0
    assert found["tokens"]["video"] == 0
    assert found["tokens"]["audio"] > 0


def test_several_clips_a_line_each_and_the_model_loaded_once(ask, clips, monkeypatch):
    from seats_cli.models import loading

    loads = []
    real = loading.load
    monkeypatch.setattr(loading, "load", lambda options: loads.append(options) or real(options))
    paths = [clips / name for name in ("clip.mp4", "text.mp4", "silent.mp4", "missing.mp4")]
    ended = ask(*paths, "What?")
    assert ended.code == 6
    assert len(loads) == 1
    answered = [line.split("\t") for line in ended.out.splitlines()]
    assert [path for path, _ in answered] == [str(paths[0]), str(paths[2])]
    assert all(answer for _, answer in answered)
    shown = ended.err.splitlines()
    assert shown[0] == "seats: 4 clips"
    assert shown[-1] == "seats: 2 of 4 clips failed"
    assert f"seats: {paths[1]}: text, not media" in shown
    assert f"seats: {paths[3]}: no such file" in shown
    assert f"seats: {paths[2]}: {SILENT}" in shown
    # The path stands before the line that tells of it.
    assert shown.index(str(paths[0])) < shown.index(f"seats: {paths[1]}: text, not media")
    assert shown[shown.index(str(paths[2])) + 1].startswith("kept ")


def test_a_batch_in_json_has_an_object_for_each(ask, clips):
    names = ("text.mp4", "clip.mp4", "empty.mp4")
    ended = ask("-", "What?", "--json", "-q", stdin="\n".join(str(clips / name) for name in names).encode())
    found = lines(ended)
    assert ended.code == 6
    assert [row["media"]["path"] for row in found] == [str(clips / name) for name in names]
    check(found[0], FAILED)
    check(found[1], ASK)
    check(found[2], FAILED)
    assert found[0]["error"]["exit_code"] == 3
    assert found[0]["error"]["message"].endswith("text, not media")
    assert "answer" not in found[0]
    complaints = [line for line in ended.err.splitlines() if not line.startswith("  hint: ")]
    assert len(complaints) == 3


def test_one_failed_clip_in_json_is_an_object_too(ask, clips):
    ended = ask(clips / "text.mp4", "What?", "--json")
    (found,) = lines(ended)
    check(found, FAILED)
    assert ended.code == found["error"]["exit_code"] == 3


def test_a_list_on_stdin(ask, clips):
    ended = ask("-", "What?", "-q", stdin=f"{clips / 'clip.mp4'}\r\n\n".encode())
    assert ended.code == 0
    assert ended.out.startswith(f"{clips / 'clip.mp4'}\t")


def test_paths_with_newlines_tabs_and_escapes(ask, clips, tmp_path):
    odd = tmp_path / "a\nb\tc  \x1b[2J\u202e.mp4"
    odd.write_bytes((clips / "silent.mp4").read_bytes())
    ended = ask("--null", "What?", stdin=f"{odd}\0{clips / 'text.mp4'}\0".encode())
    (line,) = ended.out.splitlines()
    assert line.split("\t")[0] == str(tmp_path) + r"/a\nb\tc  \x1b[2J\u202e.mp4"
    for steering in ("\x1b", "\u202e"):
        assert steering not in ended.out
        assert steering not in ended.err
    ended = ask("--null", "What?", "--json", "-q", stdin=f"{odd}\0{odd}x\0".encode())
    good, bad = lines(ended)
    assert good["media"]["path"] == str(odd)
    assert bad["media"]["path"] == f"{odd}x"


def test_paths_that_are_not_utf8_in_json(ask, clips, tmp_path):
    odd = os.fsencode(tmp_path) + b"/\xff.mp4"
    with open(odd, "wb") as file:
        file.write((clips / "silent.mp4").read_bytes())
    ended = ask("--null", "What?", "--json", "-q", stdin=odd + b"\0" + odd + b"x\0")
    good, bad = lines(ended)
    assert good["media"]["path"] == f"{tmp_path}/\\udcff.mp4"
    assert bad["media"]["path"] == f"{tmp_path}/\\udcff.mp4x"


def test_answers_cannot_steer_the_terminal(capsys):
    class Sly:
        def ask(self, path, question, on_text=None, on_thinking=None, trace=None):
            on_text("a\x1b[2Jb\u202e\tc")
            raise LookupError

    output = Output(format=None, detail="none", quiet=True, verbose=False)
    with pytest.raises(LookupError):
        answer_one(Sly(), Task(path="clip.mp4", question="What?"), output, None)
    # The line it began is ended, though the answer was not.
    assert capsys.readouterr().out == "a\\x1b[2Jb\\u202e\tc\n"


def test_choices(ask, clips):
    (found,) = lines(ask(clips / "clip.mp4", "Which?", "--choices", "A, B,C", "--json"))
    check(found, ASK)
    shares = {choice["label"]: choice["probability"] for choice in found["choices"]}
    assert list(shares) == ["A", "B", "C"]
    assert sum(shares.values()) == pytest.approx(1)
    assert found["answer"] == max(shares, key=shares.get)
    assert found["finish_reason"] == "choice"
    ended = ask(clips / "clip.mp4", "Which?", "--choices", "A,B,C")
    assert ended.out == found["answer"] + "\n"
    assert "share" in ended.err


def test_trace(ask, clips, tmp_path):
    ended = ask(clips / "clip.mp4", "What?", "--trace", tmp_path / "trace.npz", "-q")
    assert ended.code == 0
    with np.load(tmp_path / "trace.npz") as arrays:
        assert {"layout/ids", "plan/drop_before_layer", "plan/stage_budgets"} <= set(arrays)
    assert [path.name for path in tmp_path.iterdir()] == ["trace.npz"]


def test_every_option_reaches_the_run(ask, clips):
    options = """
        --fps 1 --max-frames 2 --start 0:01 --end 3 --max-pixels 50000 --min-pixels 10000 --audio off
        --video-trr 0.2 --audio-trr 0.4 --kv-cache text --schedule 3,4,5,6 --score-with next --score-norm standard
        --window-temperature 0.2 --scale 1.1 --stages 12 --window-budgets uniform --selection-seed 9
        --temperature 0.7 --top-p 0.9 --seed 3 --attn eager --dtype bfloat16
    """
    ended = ask(clips / "clip.mp4", "What?", "--json", "-q", "--system", "Be brief.", *options.split())
    assert ended.err == ""
    (found,) = lines(ended)
    assert found["media"]["frames"] == 2
    assert found["media"]["seconds_video"] == pytest.approx(2)
    assert found["media"]["width"] * found["media"]["height"] <= 50_000
    assert found["media"]["seconds_audio"] == 0
    assert found["selection"]["video_trr"] == 0.2
    assert found["selection"]["drop_before_layer"] == [3, 4, 5]
    assert (found["selection"]["stages"], found["selection"]["window_budgets"]) == ("12", "uniform")
    assert found["selection"]["selection_seed"] is None
    assert found["selection"]["kv_cache"] == "text"
    assert found["model"]["attention"] == "eager"
    assert found["model"]["dtype"] == "bfloat16"


def test_the_environment_sets_defaults_and_flags_override_it(seats, clips, checkpoint, monkeypatch):
    settings = f"""
        MODEL={checkpoint} DEVICE=cpu DTYPE=bfloat16 ATTN=eager OFFLINE=1 REVISION= FPS=1 MAX_FRAMES=2
        MIN_PIXELS=10000 MAX_PIXELS=50000 AUDIO=off METHOD=seats TRR=0.3 KV_CACHE=text MAX_NEW_TOKENS=2 REPORT=none
    """
    for name, _, value in (setting.partition("=") for setting in settings.split()):
        monkeypatch.setenv(f"SEATS_{name}", value)
    ended = seats("ask", clips / "clip.mp4", "What?", "--json")
    (found,) = lines(ended)
    assert ended.err == ""
    assert found["model"]["id"] == str(checkpoint)
    assert (found["model"]["dtype"], found["model"]["attention"]) == ("bfloat16", "eager")
    assert (found["media"]["frames"], found["media"]["seconds_audio"]) == (2, 0)
    assert found["media"]["width"] * found["media"]["height"] <= 50_000
    assert (found["selection"]["trr"], found["selection"]["kv_cache"]) == (0.3, "text")
    assert found["answer_tokens"] <= 2
    (found,) = lines(seats("ask", clips / "clip.mp4", "What?", "--json", "--trr", 0.2, "--kv-cache", "staged"))
    assert (found["selection"]["trr"], found["selection"]["kv_cache"]) == (0.2, "staged")
    monkeypatch.setenv("SEATS_AUDIO", "loud")
    assert "SEATS_AUDIO" in seats("ask", clips / "clip.mp4", "What?").complaint


def test_random_says_its_seed_and_draws_the_same_again(ask, clips, tmp_path):
    kept = []
    for seed in (3, 3, 4):
        trace = tmp_path / "trace.npz"
        arguments = ("What?", "--method", "random", "--trr", "0.3", "--selection-seed", seed, "--trace", trace)
        ended = ask(clips / "clip.mp4", *arguments)
        assert f"seed {seed}" in ended.err
        assert "stages" not in ended.err
        with np.load(trace) as arrays:
            kept.append(arrays["before_layer_0/kept_rows"].tolist())
    assert kept[0] == kept[1] != kept[2]
    (found,) = lines(ask(clips / "clip.mp4", *arguments, "--json"))
    assert (found["selection"]["method"], found["selection"]["selection_seed"]) == ("random", 4)
    assert found["selection"]["achieved_trr"] == pytest.approx(0.3, abs=0.02)


def test_fewer_stages_are_shown_and_an_infeasible_one_is_a_line(ask, clips):
    ended = ask(clips / "clip.mp4", "What?", "--stages", "1", "--trr", "0.9")
    assert ended.code == 0
    assert "stages 1" in ended.err
    ended = ask(clips / "clip.mp4", "What?", "--stages", "12", "--scale", "3")
    assert ended.code == 2
    assert "infeasible with drops before layers" in ended.complaint
    assert "--scale from 1 to " in ended.hint


def test_full_keeps_every_token(ask, clips):
    (found,) = lines(ask(clips / "clip.mp4", "What?", "--json", "--method", "full"))
    assert found["selection"]["achieved_trr"] == 1
    assert found["flops"]["paper"]["reduction"] == 1


@pytest.mark.parametrize("columns", ["40", "200"])
def test_any_width_and_no_colour(ask, clips, monkeypatch, columns):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", columns)
    ended = ask(clips / "clip.mp4", "What?")
    assert "\x1b[3" not in ended.err
    seen = re.sub(r"\x1b\[[0-9;]*m", "", ended.err)
    assert max(map(len, seen.splitlines())) <= int(columns)


def test_a_reader_that_has_gone_is_no_matter(clips, checkpoint, monkeypatch, capfd):
    read, write = os.pipe()
    os.close(read)
    for extra in ([], ["--json"], [str(clips / "silent.mp4")]):
        argv = ["seats", "ask", str(clips / "clip.mp4"), *extra, "What?", "-m", str(checkpoint), "-q"]
        with monkeypatch.context() as patch, io.TextIOWrapper(os.fdopen(os.dup(write), "wb", 0)) as gone:
            patch.setattr(sys, "argv", argv)
            patch.setattr(sys, "stdout", gone)
            with pytest.raises(SystemExit) as ended:
                main()
        assert ended.value.code == 1
        assert capfd.readouterr().err == ""
    os.close(write)


def test_some_of_the_model_on_disk(seats, clips, checkpoint, tmp_path):
    def ask(*arguments):
        shown = ("-m", checkpoint, "--max-new-tokens", 6, "--json", "-q")
        ended = seats("ask", clips / "clip.mp4", "What?", *shown, *arguments)
        assert ended.code == 0
        assert ended.err == ""
        return json.loads(ended.out)

    here = ask("--dtype", "float32", "--device", "cpu")
    spread = ("--device-map", "auto", "--max-memory", "cpu=1.6MB", "--offload-folder", tmp_path)
    there = ask("--dtype", "float32", *spread)
    assert there["model"]["device"] == "auto (cpu, disk)"
    assert (here["answer"], here["tokens"]) == (there["answer"], there["tokens"])


@pytest.mark.parametrize("quant", ["bnb-4bit", "bnb-8bit", "torchao-int8"])
@pytest.mark.parametrize("trr", ["0.2", "1"])
def test_a_quantised_model(seats, clips, checkpoint, quant, trr):
    pytest.importorskip("torchao" if quant.startswith("torchao") else "bitsandbytes", reason="an optional package")
    shown = ("-m", checkpoint, "--device", "cpu", "--max-new-tokens", 6, "--trr", trr, "--quant", quant)
    ended = seats("ask", clips / "clip.mp4", "What?", *shown)
    assert ended.code == 0
    assert ended.out.strip()
    assert f" {quant} " in ended.err.splitlines()[0]
    ended = seats("ask", clips / "clip.mp4", "What?", *shown, "--json", "-q")
    assert ended.err == ""
    report = json.loads(ended.out)
    check(report, ASK)
    assert report["model"]["quant"] == quant
    assert report["answer_tokens"] > 0


def test_a_quantising_package_that_is_not_here(seats, clips, checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setenv("SEATS_QUANT", "bnb-8bit")
    ended = seats("ask", clips / "clip.mp4", "What?", "-m", checkpoint, "--device", "cpu")
    assert ended.code == 2
    assert ended.complaint == "--quant bnb-8bit needs bitsandbytes, which is not installed"
    assert ended.hint == "--quant is from SEATS_QUANT; pip install 'seats-cli[bnb]'"
    assert seats("ask", clips / "clip.mp4", "What?", "-m", checkpoint, "--quant", "none", "-q").code == 0


@pytest.fixture
def shelf(tmp_path, clips):
    """Two clips, one of them in a folder, and what is none."""
    (tmp_path / "more").mkdir()
    (tmp_path / "clip2.mp4").symlink_to(clips / "clip.mp4")
    (tmp_path / "more" / "clip10.mp4").symlink_to(clips / "silent.mp4")
    (tmp_path / "notes.txt").write_text("none")
    return tmp_path


def asked(ended):
    return [line.split("\t")[0] for line in ended.out.splitlines()]


def test_folders_and_patterns_stand_for_their_clips(ask, shelf):
    flat, deep = str(shelf / "clip2.mp4"), str(shelf / "more" / "clip10.mp4")
    assert asked(ask(shelf, "What?")) == [flat], "a line, however few there are"
    assert asked(ask(shelf, "What?", "--recursive")) == [flat, deep]
    assert asked(ask(f"{shelf}/**/*.mp4", "What?")) == [flat, deep]
    assert asked(ask(deep, shelf, "What?", "-r")) == [deep, deep, flat], "asked twice, read once"


def test_folders_and_patterns_without_clips_are_said_before_a_model_is_sought(seats, shelf):
    none = ["--model", "none/such", "--offline"]
    for given, word in (
        (shelf / "*.flac", "nothing matches"),
        (shelf / "nowhere" / "*", "nothing matches"),
        (shelf / "more" / "..", None),
    ):
        ended = seats("ask", given, "What?", *none)
        assert ended.code == (2 if word else 4)
        assert not word or (word in ended.complaint and str(given) in ended.complaint)
    (shelf / "clip2.mp4").unlink()
    ended = seats("ask", shelf, "What?", *none)
    assert (ended.code, "no media files" in ended.complaint, "-r" in ended.hint) == (2, True, True)
    ended = seats("ask", shelf / "more", shelf, *none)
    assert (ended.code, "is a folder" in ended.complaint) == (2, True)


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(ask, tmp_path, clips):
    odd = tmp_path / "clip[1].mp4"
    odd.symlink_to(clips / "clip.mp4")
    ended = ask(odd, "What?")
    assert (ended.code, "\t" in ended.out) == (0, False)

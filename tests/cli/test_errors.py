"""Whatever cannot be is one line that says what, perhaps one that says what to do, and the code of its kind."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import sys

import numpy as np
import pytest
import soundfile
import torch

from seats_cli.cli import console
from seats_cli.errors import MemoryLimitError, SeatsError
from tests.media.clips import write_video

ASK = ("ask", "clip.mp4", "What?")


def refused(ended, code, *words):
    assert ended.code == code
    assert ended.out == ""
    line = ended.complaint
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ask", "clip.mp4", ""], ["the question is empty"]),
        (["ask", "clip.mp4", " \n"], ["the question is empty"]),
        (["ask", "clip.mp4"], ["at least one clip"]),
        (["ask", "", "What?"], ["path of a clip is empty"]),
        (["ask", "-", "-", "What?"], ["- is given twice"]),
        ([*ASK, "--trr", "0"], ["--trr", "0.0"]),
        ([*ASK, "--trr", "1.5"], ["--trr", "1.5"]),
        ([*ASK, "--trr", "nan"], ["--trr", "nan"]),
        ([*ASK, "--trr", "abc"], ["--trr", "'abc'"]),
        ([*ASK, "--trr=-0.1"], ["--trr", "-0.1"]),
        ([*ASK, "--video-trr", "0.1"], ["--video-trr", "--audio-trr"]),
        ([*ASK, "--scale", "0.5"], ["--scale", "0.5"]),
        ([*ASK, "--window-temperature", "0"], ["--window-temperature"]),
        ([*ASK, "--schedule", "a,b"], ["--schedule", "'a,b'"]),
        ([*ASK, "--start", "-3"], ["--start", "'-3'"]),
        ([*ASK, "--start", "1:75"], ["--start", "'1:75'"]),
        ([*ASK, "--start", "5", "--end", "4"], ["--end 4", "--start 5"]),
        ([*ASK, "--fps", "0"], ["--fps"]),
        ([*ASK, "--max-frames", "1"], ["--max-frames", "1"]),
        ([*ASK, "--min-pixels", "9", "--max-pixels", "8"], ["--min-pixels 9", "--max-pixels 8"]),
        ([*ASK, "--audio", "off", "--require-audio"], ["--require-audio", "--audio off"]),
        ([*ASK, "--choices", "A"], ["--choices", "two"]),
        ([*ASK, "--choices", "A,A"], ["--choices", "twice"]),
        ([*ASK, "--choices", "A,,B"], ["--choices", "empty"]),
        ([*ASK, "--max-new-tokens", "0"], ["--max-new-tokens", "0"]),
        ([*ASK, "--temperature", "-1"], ["--temperature"]),
        ([*ASK, "--top-p", "0"], ["--top-p"]),
        ([*ASK, "--seed", "-1"], ["--seed"]),
        ([*ASK, "--model", ""], ["--model is empty"]),
        ([*ASK, "--device", "cpu", "--device-map", "auto"], ["--device cpu", "--device-map auto"]),
        (["ask", "a.mp4", *ASK[1:], "--trace", "t.npz"], ["--trace", "one"]),
        (["profile", "--trr", "2"], ["--trr", "2"]),
        (["profile", "--frames", "0", "--seconds", "0"], ["nothing to prefill"]),
        (["profile", "--frames=-1"], ["--frames -1"]),
        (["profile", "--seconds", "inf"], ["--seconds inf"]),
        (["profile", "--text-tokens", "3"], ["--text-tokens", "3"]),
        (["profile", "--runs", "0"], ["--runs", "0"]),
        (["profile", "--warmup=-1"], ["--warmup", "-1"]),
        (["profile", "--weights", "random", "--device-map", "auto"], ["--device-map", "--weights random"]),
        (["profile", "--weights", "random", "--quant", "bnb-4bit"], ["--quant", "--weights random"]),
        ([*ASK, "--max-memory", "cpu=1GB"], ["--max-memory", "several places"]),
        ([*ASK, "--offload-folder", "x"], ["--offload-folder", "several places"]),
        ([*ASK, "--device-map", "auto", "--max-memory", "5GB"], ["--max-memory", "'5GB'"]),
        ([*ASK, "--quant", "int4"], ["--quant", "'int4'"]),
        (["demo", "--trr", "2"], ["--trr", "2"]),
        (["demo", "--save", "clip.mp4"], ["--save clip.mp4", "there already"]),
        (["demo", "--save", "clip.avi"], ["--save", ".mp4"]),
        (["demo", "--save", "none/a.mp4"], ["--save", "no folder none"]),
    ],
)
def test_usage(seats, clips, monkeypatch, arguments, words):
    monkeypatch.chdir(clips)
    refused(seats(*arguments), 2, *words)


@pytest.mark.parametrize("command", [[*ASK], ["profile"], ["profile", "--analytic"]])
@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--trr", "0.9", ["0.9 is infeasible"]),
        ("--schedule", "20,18,16,23", ["20, 18, 16, 23 of 28"]),
        ("--schedule", "1,2,3", ["1, 2, 3 of 28"]),
        ("--schedule", "16,18,20,28", ["16, 18, 20, 28 of 28"]),
    ],
)
def test_a_schedule_that_cannot_be_is_known_before_a_model_is_sought(
    seats, clips, monkeypatch, command, option, value, words
):
    monkeypatch.chdir(clips)
    refused(seats(*command, option, value), 2, *words)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--trr", "0.95", ["0.95 is infeasible"]),
        ("--schedule", "1,2", ["1, 2 of 12"]),
    ],
)
def test_a_schedule_that_the_shipped_model_cannot_have_is_known_before_it_is_loaded(
    seats, clips, monkeypatch, option, value, words
):
    monkeypatch.chdir(clips)
    monkeypatch.setattr("seats_cli.models.loading.load", None)
    refused(seats(*ASK, "-m", "tiny", option, value), 2, *words)
    refused(seats("profile", "-m", "tiny", option, value), 2, *words)
    rows = [{"media": "clip.mp4", "question": "What?", "answer": "x"}]
    (clips / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused(seats("eval", "rows.jsonl", "-m", "tiny", "--setting", f"seats {option[2:]}={value}"), 2, *words)


@pytest.fixture
def on_the_hub(monkeypatch, checkpoint):
    """A model whose dimensions are not known before it is loaded."""
    from seats_cli.models import loading

    real = loading.load
    monkeypatch.setattr(loading, "load", lambda options: real(dataclasses.replace(options, model=str(checkpoint))))
    monkeypatch.setattr("seats_cli.engine.admission._check_weights", lambda _: None)
    return "some/model"


def test_a_schedule_that_a_model_cannot_have_is_said_once_when_it_is_loaded(seats, clips, monkeypatch, on_the_hub):
    monkeypatch.chdir(clips)
    for clip in (["clip.mp4"], ["clip.mp4", "silent.mp4"]):
        refused(seats("ask", *clip, "What?", "-m", on_the_hub, "--trr", "0.95", "-q"), 2, "0.95 is infeasible")
    rows = [{"media": name, "question": "What?", "answer": "x"} for name in ("clip.mp4", "silent.mp4")]
    (clips / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ended = seats("eval", "rows.jsonl", "-m", on_the_hub, "--setting", "seats schedule=1,2")
    refused(ended, 2, "1, 2 of 8")


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("missing.mp4", "no such file"),
        ("empty.mp4", "empty"),
        ("http://example.org/a.mp4", "only local files"),
        ("/dev/null", "not a regular file"),
    ],
)
def test_a_file_that_is_none_is_known_before_a_model_is_sought(seats, clips, monkeypatch, name, word):
    monkeypatch.chdir(clips)
    refused(seats("ask", name, "What?", "--model", "none/such", "--offline"), 3, name, word)
    refused(seats("profile", name, "--model", "none/such", "--offline"), 3, name, word)
    ended = seats("ask", name, "What?", "--json")
    assert ended.code == 3
    assert json.loads(ended.out)["error"]["exit_code"] == 3
    assert ended.complaint.startswith(json.loads(ended.out)["error"]["message"])


def test_a_file_that_is_no_clip(seats, clips, checkpoint, tmp_path):
    soundfile.write(tmp_path / "none.wav", np.zeros(0, np.float32), 16_000)
    key = "00112233445566778899aabbccddeeff"
    locked = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": key, "encryption_kid": key}
    write_video(tmp_path / "locked.m4a", sound=np.ones(9000, np.float32), format="mp4", container_options=locked)
    for path, word in (
        (clips / "text.mp4", "text, not media"),
        (clips / "cut.mp4", "cut short"),
        (tmp_path / "none.wav", "none.wav"),
        (tmp_path / "locked.m4a", "encrypted"),
    ):
        refused(seats("ask", path, "What?", "-m", checkpoint), 3, str(path), word)


def test_what_a_clip_does_not_have(seats, clips, checkpoint):
    refused(seats("ask", clips / "silent.mp4", "What?", "-m", checkpoint, "--require-audio"), 3, "no audio track")
    refused(seats("ask", clips / "clip.mp4", "What?", "-m", checkpoint, "--start", "60"), 2, "60")
    refused(seats("ask", clips / "sound.m4a", "What?", "-m", checkpoint, "--audio", "off"), 2, "--audio off")
    refused(seats("profile", clips / "text.mp4", "-m", checkpoint), 3, "text, not media")


def test_a_question_that_would_steer_the_model(seats, clips, checkpoint):
    for arguments in (["clip.mp4"], ["clip.mp4", "silent.mp4"]):
        paths = [clips / name for name in arguments]
        ended = seats("ask", *paths, "end<|im_end|>", "-m", checkpoint, "--quiet")
        refused(ended, 2, "<|im_end|>")
    refused(seats("ask", clips / "clip.mp4", "What?", "-m", checkpoint, "--system", "<|im_start|>"), 2, "im_start")


def test_a_trace_into_no_folder(seats, clips, checkpoint, tmp_path):
    ended = seats("ask", clips / "clip.mp4", "What?", "-m", checkpoint, "--trace", tmp_path / "none" / "t.npz")
    refused(ended, 2, "--trace", "there is no folder")
    ended = seats("ask", clips / "clip.mp4", "What?", "-m", tmp_path / "none", "--trace", "/proc/t.npz")
    refused(ended, 2, "--trace /proc/t.npz cannot be written")


def test_a_question_that_is_a_file(seats, clips, monkeypatch):
    monkeypatch.chdir(clips)
    refused(seats("ask", "clip.mp4", "silent.mp4"), 2, "last argument is the question", "silent.mp4")


def test_a_list_that_is_empty(seats):
    refused(seats("ask", "-", "What?"), 2, "list of clips on stdin is empty")
    refused(seats("ask", "-0", "What?", stdin=b"\0\0"), 2, "list of clips on stdin is empty")


@pytest.mark.parametrize("stdin", [None, "terminal"])
def test_a_list_from_nowhere(monkeypatch, stdin):
    from seats_cli.cli.inputs import split_inputs

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal() if stdin else None)
    with pytest.raises(SeatsError, match="a terminal" if stdin else "closed"):
        split_inputs(["-", "What?"], null=False)


def test_models_that_are_not_there(seats, clips, checkpoint, tmp_path):
    clip = clips / "clip.mp4"
    refused(seats("ask", clip, "What?", "--model", tmp_path / "none"), 4, "there is no folder", str(tmp_path))
    refused(seats("ask", clip, "What?", "--model", tmp_path), 4, "config.json")
    ended = seats("ask", clip, "What?", "--offline", "--model", "some/model", "--revision", "v1")
    refused(ended, 4, "some/model is not in the cache and --offline is set")
    assert ended.hint == "fetch it with: hf download some/model --revision v1"
    ended = seats("ask", clip, "What?", "--offline")
    assert ended.code == 4
    assert ended.hint == "fetch it with: hf download Qwen/Qwen2.5-Omni-7B"
    refused(seats("profile", "--weights", "random", "--model", "some/model"), 4, "'some/model'")


def test_models_that_cannot_be(seats, clips, checkpoint, tmp_path):
    clip = clips / "clip.mp4"
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    shard = sorted(folder.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:1000])
    refused(seats("ask", clip, "What?", "-m", folder), 4, shard.name, "damaged")
    shard.unlink()
    refused(seats("ask", clip, "What?", "-m", folder), 4, shard.name)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    refused(seats("ask", clip, "What?", "-m", folder), 4, "'llama' is not supported")
    (folder / "config.json").write_text("{")
    refused(seats("ask", clip, "What?", "-m", folder), 4, "config.json")


def test_devices_that_are_not_there(seats, clips, checkpoint):
    refused(seats("ask", clips / "clip.mp4", "What?", "-m", checkpoint, "--device", "gpu"), 2, "--device", "gpu")
    refused(seats("ask", clips / "clip.mp4", "What?", "-m", checkpoint, "--device", "cuda:99"), 2, "cuda:99")


def test_out_of_memory_says_what_to_change(seats, clips, monkeypatch, checkpoint):
    def exhaust(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 60 GiB")

    monkeypatch.setattr("seats_cli.engine.pipeline.answer", exhaust)
    ended = seats("ask", clips / "clip.mp4", "What?", "-m", checkpoint)
    refused(ended, MemoryLimitError.exit_code, "out of memory", "60 GiB")
    assert "--max-frames" in ended.hint


def test_the_unexpected_is_one_line_and_a_trace_on_request(seats, clips, monkeypatch, checkpoint):
    def break_down(*_, **__):
        raise LookupError("no\nsuch\x1b[31m thing")

    monkeypatch.setattr("seats_cli.engine.pipeline.answer", break_down)
    monkeypatch.setattr("seats_cli.engine.batch.reply", break_down)
    arguments = ("ask", clips / "clip.mp4", "What?", "-m", checkpoint)
    ended = seats(*arguments)
    refused(ended, 1, r"LookupError: no such\x1b[31m thing")
    assert "--verbose" in ended.hint
    for verbose in ("-v", "--verbose", "-qv"):
        assert "Traceback" in seats(*arguments, verbose).err
    batch = seats("ask", clips / "clip.mp4", *arguments[1:], "-v")
    assert batch.code == 6
    assert batch.err.count("Traceback") == 2


def test_ctrl_c_before_the_answer_is_130(seats, clips, monkeypatch, checkpoint):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("seats_cli.engine.pipeline.answer", interrupt)
    monkeypatch.setattr("seats_cli.engine.batch.reply", interrupt)
    for paths in (["clip.mp4"], ["clip.mp4", "silent.mp4"]):
        for more in ((), ("--json",)):
            ended = seats("ask", *(clips / path for path in paths), "What?", "-m", checkpoint, "-q", *more)
            refused(ended, 130, "interrupted")


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_full_disk_below_stdout_ends_every_command_alike(seats, clips, checkpoint, monkeypatch, tmp_path, more):
    monkeypatch.chdir(clips)
    row = {"media": "clip.mp4", "question": "Which?", "answer": "A", "choices": ["A", "B"]}
    (clips / "rows.jsonl").write_text(json.dumps(row) + "\n")
    schedule, model = tmp_path / "schedule.toml", ("-m", checkpoint, "--max-frames", 4, "-q")
    for arguments in (
        (*ASK, *model, *more),
        ("ask", "clip.mp4", *ASK[1:], *model, *more),
        ("eval", "rows.jsonl", *model, *more),
        ("probe", "rows.jsonl", *model, "-o", schedule, *more),
        ("profile", "--analytic", *more),
        ("doctor",),
    ):
        with open("/dev/full", "w") as full, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", full)
            ended = seats(*arguments)
        refused(ended, 1, "stdout cannot be written: No space left on device")
        assert ended.hint
    # What was asked for as a file is there.
    assert schedule.exists()


def test_an_error_that_nobody_reads_keeps_its_code(monkeypatch):
    def closed(*_):
        raise BrokenPipeError

    def body():
        raise MemoryError

    monkeypatch.setattr(console, "notice", closed)
    assert console.run(body, verbose=False) == 5
    assert console.run(lambda: closed() or 0, verbose=False) == 1

"""As a user runs it: signals, pipes, bytes. Few, for each process imports everything anew."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from tests.cli.conftest import RUN, environment, run_process
from tests.tiny import write_tiny_checkpoint

WATCH = """
import os, sys

class Watch:
    '''Sees the first import of the hub library.'''
    seen = None

    def find_spec(self, name, path=None, target=None):
        if name == "huggingface_hub" and Watch.seen is None:
            Watch.seen = os.environ.get("HF_HUB_OFFLINE", "unset")

sys.meta_path.insert(0, Watch())
sys.argv = ["seats", *sys.argv[1:]]
from seats_cli.cli.app import main
try:
    main()
finally:
    print("offline when imported:", Watch.seen)
"""


@pytest.fixture(scope="module")
def talkative(tmp_path_factory):
    """A model that never ends an answer by itself."""
    folder = write_tiny_checkpoint(tmp_path_factory.mktemp("talkative"), n_layers=8)
    settings = json.loads((folder / "generation_config.json").read_text())
    settings["eos_token_id"] = settings["pad_token_id"]
    (folder / "generation_config.json").write_text(json.dumps(settings))
    # Nor does it say the tokenizer's own end: of thousands of tokens some are likelier than one of logit 0.
    end = AutoTokenizer.from_pretrained(folder).eos_token_id
    head = "thinker.lm_head.weight"
    file = next(file for file in folder.glob("*.safetensors") if head in load_file(file))
    weights = load_file(file)
    weights[head][[end, settings["pad_token_id"]]] = 0
    save_file(weights, file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("more", [{}, {"SEATS_OFFLINE": "1"}])
def test_offline_is_said_before_the_hub_library_is_imported(more):
    env = environment(**more)
    del env["HF_HUB_OFFLINE"]
    flag = [] if more else ["--offline"]
    arguments = ["profile", "--analytic", "--model", "some/model", *flag]
    ended = subprocess.run(
        [sys.executable, "-c", WATCH, *arguments],
        capture_output=True,
        text=True,
        env=env,
        timeout=120,
        check=False,
    )
    assert ended.stdout == "offline when imported: 1\n"
    assert ended.returncode == 4
    origin = "--offline is from SEATS_OFFLINE; " if more else ""
    assert ended.stderr.splitlines() == [
        "seats: some/model is not in the cache and --offline is set",
        f"  hint: {origin}fetch it with: hf download some/model",
    ]


def start(*command: object) -> subprocess.Popen[bytes]:
    """Start a process that a SIGINT reaches, also where this one runs in the background and ignores it."""
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
        )
    finally:
        signal.signal(signal.SIGINT, ours)


def test_ctrl_c_during_the_answer_keeps_what_has_been_said(talkative, clips):
    options = ["-m", talkative, "--device", "cpu", "--max-new-tokens", "20000"]
    with start(*RUN, "ask", clips / "clip.mp4", "What?", *options) as process:
        first = os.read(process.stdout.fileno(), 1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    text, shown = (first + out).decode(), err.decode()
    assert process.returncode == 130
    assert text.strip()
    assert text.endswith("\n")
    assert "interrupted" in shown
    assert "layers 0" in shown
    assert "Traceback" not in shown


def test_ctrl_c_while_loading(talkative, clips):
    # Python says what it has imported: the signal comes well inside of what takes long.
    run = (RUN[0], "-X", "importtime", *RUN[1:])
    shown, sent = [], False
    with start(*run, "ask", clips / "clip.mp4", "What?", "-m", talkative) as process:
        for line in process.stderr:
            if not line.startswith(b"import time:"):
                shown.append(line.decode())
            elif not sent and line.split(b"|")[-1].strip() == b"torch.cuda":
                process.send_signal(signal.SIGINT)
                sent = True
        assert process.wait(timeout=120) == 130
        assert process.stdout.read() == b""
    assert sent
    assert shown == ["seats: interrupted\n"]


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_reader_that_goes_away(more):
    with start(*RUN, "profile", "--analytic", *more) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=120) == 1


NOWHERE = {
    ">&-": (
        "seats: stdout is closed: the result can go nowhere",
        "  hint: leave out >&-, or give a file: > FILE",
    ),
    "> /dev/full": (
        "seats: stdout cannot be written: No space left on device",
        "  hint: make room there, or send it to another file",
    ),
}


@pytest.mark.parametrize("where", NOWHERE)
@pytest.mark.parametrize("arguments", [["profile", "--analytic"], ["profile", "--analytic", "--json"], ["--help"]])
def test_a_stdout_that_takes_nothing_is_one_line(arguments, where):
    ended = subprocess.run(
        ["sh", "-c", f'exec "$0" "$@" {where}', *RUN, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        timeout=120,
        check=False,
    )
    assert (ended.returncode, tuple(ended.stderr.splitlines())) == (1, NOWHERE[where])


def test_a_stderr_that_is_closed_stops_nothing():
    ended = subprocess.run(
        ["sh", "-c", 'exec "$0" "$@" 2>&-', *RUN, "doctor"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0
    assert ended.stdout.startswith("system\n")


def test_a_batch_with_names_that_are_not_utf8(checkpoint, clips, tmp_path):
    good, bad = (os.fsencode(tmp_path) + b"/" + name for name in (b"caf\xe9.mp4", b"\xff.mp4"))
    for path, source in ((good, "silent.mp4"), (bad, "cut.mp4")):
        with open(path, "wb") as file:
            file.write((clips / source).read_bytes())
    options = ["What?", "-m", str(checkpoint), "--device", "cpu", "--max-new-tokens", "4"]
    ended = run_process("ask", "-0", *options, stdin=good + b"\0" + bad + b"\0", PYTHONIOENCODING="ascii")
    assert ended.returncode == 6
    (line,) = ended.stdout.decode().splitlines()
    assert line.split("\t")[0] == f"{tmp_path}/caf\\udce9.mp4"
    shown = ended.stderr.decode()
    assert f"{tmp_path}/\\udcff.mp4: an mp4 without its index" in shown
    assert "Traceback" not in shown

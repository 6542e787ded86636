"""``seats chat``: lines of a pipe, lines of a terminal, and the commands among them."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import sys
import time
from pathlib import Path

import pytest

from seats_cli import Report, Seats
from seats_cli.cli import session as session_module
from seats_cli.cli.session import COMMANDS, Session, Shown, talk
from tests.cli.conftest import RUN, environment
from tests.cli.contract import ASK, FAILED, check
from tests.cli.test_process import talkative  # noqa: F401 - a fixture

if sys.platform != "win32":
    import pty
    import termios

DEMO = Path(session_module.__file__).parents[1] / "assets" / "demo" / "clip.mp4"
FIRST, SECOND = "What shape is the red thing?", "Which sound comes after the high beep?"


@pytest.fixture
def chat(seats, tiny, monkeypatch):
    """With the embedded model: ``chat(*lines, options=())``."""

    # Loading it is tested elsewhere.
    monkeypatch.setattr("seats_cli.engine.admission.load_if_it_fits", lambda _: tiny.loaded)

    def call(*lines, options=(), clip=DEMO, model="tiny", stdin=None):
        given = "".join(f"{line}\n" for line in lines).encode() if stdin is None else stdin
        return seats("chat", clip, "-m", model, "--device", "cpu", "-q", *options, stdin=given)

    return call


@pytest.fixture(scope="module")
def tiny():
    return Seats("tiny", device="cpu", offline=True)


def objects(ended):
    return [json.loads(line) for line in ended.out.splitlines()]


# A pipe


def test_a_line_for_a_line(chat, tiny):
    ended = chat(FIRST, "", SECOND)
    assert (ended.code, ended.err) == (0, "")
    first, second = ended.out.splitlines()
    assert first == tiny.ask(DEMO, FIRST).answer
    talk = tiny.chat(DEMO)
    assert [talk.ask(FIRST).answer, talk.ask(SECOND).answer] == [first, second]


def test_no_line_is_no_answer(chat):
    for stdin in (b"", b"\n \n\r\n"):
        ended = chat(stdin=stdin)
        assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert chat(stdin=FIRST.encode()).out.count("\n") == 1, "a last line without its end"
    assert chat(stdin=FIRST.encode() + b"\r\n").out == chat(FIRST).out


def test_json_is_a_report_for_each_turn(chat):
    ended = chat(FIRST, "bad <|im_end|>", SECOND, "/reset", SECOND, options=["--json"])
    first, failed, second, again = objects(ended)
    for row in (first, second, again):
        check(row, ASK)
        assert row["command"] == "chat"
        assert Report.from_json(json.dumps(row)).answer == row["answer"]
    check(failed, FAILED)
    assert (failed["command"], failed["question"]) == ("chat", "bad <|im_end|>")
    assert [row["turn"] for row in (first, failed, second, again)] == [1, 2, 2, 1]
    assert [row["media"]["cached"] for row in (first, second, again)] == [False, True, True]
    assert second["tokens"]["text"] > again["tokens"]["text"]


def test_a_line_that_fails_is_one_line_and_the_others_are_answered(chat):
    ended = chat("end<|im_end|>", FIRST, "/frob", "/undo now", "/trr x", "/save x.mp4", "/undo", "/undo")
    assert ended.code == 6
    assert ended.out == "\n" + chat(FIRST).out, "answers stay beside their questions"
    lines = [line for line in ended.err.splitlines() if not line.startswith("  hint")]
    assert lines == [
        "seats: the question contains the reserved token <|im_end|>",
        "seats: there is no command /frob",
        "seats: /undo stands alone",
        "seats: /trr is 'x'; give a number in (0, 1], such as /trr 0.2",
        "seats: /save is 'x.mp4'; give a name that ends in .json or .txt",
        "seats: there is no turn to forget",
        "seats: 6 lines failed",
    ]
    assert "Traceback" not in ended.err
    assert chat(stdin=b"caf\xe9?\n").err.startswith("seats: the question is not valid UTF-8\n")


def test_a_question_that_begins_with_a_slash(chat, tiny):
    ended = chat("//exit?", options=["--json"])
    (row,) = objects(ended)
    assert row["question"] == "/exit?"
    assert row["answer"] == tiny.ask(DEMO, "/exit?").answer


def test_exit_ends_it(chat):
    assert chat("/exit", FIRST).out == ""


def test_another_ratio_and_the_turns_stay(chat):
    first, second = objects(chat(FIRST, "/trr 0.35", SECOND, options=["--json"]))
    assert (first["selection"]["trr"], second["selection"]["trr"]) == (0.1, 0.35)
    assert (second["turn"], second["media"]["cached"]) == (2, False)
    ended = chat(FIRST, "/trr 1.5", SECOND, options=["--json"])
    assert "1.5" in ended.err
    assert objects(ended)[1]["selection"]["trr"] == 0.1
    assert "keeps every token" in chat("/trr 0.5", options=["--method", "full"]).err


@pytest.mark.parametrize("name", ["turns.json", "turns.txt"])
def test_turns_are_saved(chat, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    ended = chat(FIRST, f"/save {name}", SECOND, f"/save {name}")
    assert (ended.code, ended.err) == (0, "")
    text = (tmp_path / name).read_text(encoding="utf-8")
    answers = ended.out.splitlines()
    if name.endswith("json"):
        found = json.loads(text)
        assert found["clip"] == str(DEMO)
        assert [turn["answer"] for turn in found["turns"]] == answers
        assert [turn["turn"] for turn in found["turns"]] == [1, 2]
    else:
        said = [f"> {q}\n{a}\n" for q, a in zip((FIRST, SECOND), answers, strict=True)]
        assert text == "\n".join([f"{DEMO}\n", *said])
    ended = chat(FIRST, f"/save {name}", f"/save nowhere/{name}", "/undo", f"/save 2-{name}", "/save")
    assert [line for line in ended.err.splitlines() if not line.startswith("  hint")] == [
        f"seats: /save {name} is there already",
        f"seats: /save nowhere/{name}: there is no folder nowhere",
        "seats: /save: there are no turns",
        "seats: /save is ''; give a name that ends in .json or .txt",
        "seats: 4 lines failed",
    ]
    assert (tmp_path / name).read_text(encoding="utf-8") == text
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_is_said_on_stderr(seats, chat):
    ended = seats("chat", DEMO, "-m", "tiny", "--stats", stdin=f"{FIRST}\n/help\n/stats\n/reset\n/undo\n".encode())
    assert all(f"  /{name} " in ended.err for name in COMMANDS)
    assert "kept" in ended.err
    assert "layers 0" in ended.err
    assert "1 turn forgotten" in ended.err
    ended = seats("chat", DEMO, "-m", "tiny", "--max-new-tokens", 1, stdin=f"/stats\n{FIRST}\n".encode())
    assert "/stats is about the last turn, and there is none" in ended.err
    assert "kept" not in ended.err


def test_what_is_wrong_with_the_clip_is_said_once(seats, chat, clips):
    silent = "no audio track: the answer is from the picture alone"
    ended = seats("chat", clips / "silent.mp4", "-m", "tiny", stdin=f"{FIRST}\n{SECOND}\n".encode())
    assert ended.err.count(silent) == 1
    rows = objects(chat("A?", "B?", clip=clips / "silent.mp4", options=["--json"]))
    assert [row["warnings"] for row in rows] == [[silent]] * 2


@pytest.mark.parametrize(
    ("clip", "options", "code", "word"),
    [
        ("missing.mp4", [], 3, "no such file"),
        ("text.mp4", [], 3, "text, not media"),
        ("clip.mp4", ["--trr", "7"], 2, "--trr is 7"),
        ("clip.mp4", ["--cache-size", "x"], 2, "--cache-size"),
        ("clip.mp4", ["--no-thinking"], 2, "no such switch"),
    ],
)
def test_what_cannot_be_ends_it_before_a_question(chat, clips, clip, options, code, word):
    ended = chat(FIRST, clip=clips / clip, options=options)
    assert (ended.code, ended.out) == (code, "")
    assert word in ended.complaint


def test_a_cache_serves_it(chat, tmp_path):
    options = ["--cache", tmp_path / "cache", "--json"]
    plain = objects(chat(FIRST, options=["--json"]))
    first = objects(chat(FIRST, "/trr 0.35", FIRST, options=options))
    second = objects(chat(FIRST, options=options))
    assert [row["media"]["cached"] for row in (*first, *second)] == [False, True, True]
    assert plain[0]["answer"] == first[0]["answer"] == second[0]["answer"]


# A terminal


class Typed:
    """Lines of a terminal; an exception is raised in place of a line."""

    def __init__(self, *lines):
        self.lines, self.before = list(lines), ""

    def __call__(self):
        line = self.lines.pop(0) if self.lines else EOFError()
        if isinstance(line, BaseException):
            raise line
        return line


@pytest.fixture
def terminal(tiny, monkeypatch, capsys):
    def call(*lines, before="", **shown):
        typed = Typed(*lines)
        monkeypatch.setattr(session_module, "_reader", lambda: (typed, lambda: before))
        monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())
        capsys.readouterr()
        code = talk(Session(str(DEMO), tiny.chat(DEMO), Shown(**shown)))
        return code, *capsys.readouterr(), typed.lines

    return call


def test_a_terminal_goes_on_after_anything(terminal, tiny):
    code, out, err, _ = terminal(
        FIRST, "bad <|im_end|>", "/frob", UnicodeDecodeError("utf-8", b"", 0, 1, ""), FIRST
    )
    answer = tiny.ask(DEMO, FIRST).answer
    assert code == 0
    assert out.splitlines()[0] == answer
    assert out.count("\n") == 2
    assert "enter the decoder; /help lists commands" in err
    assert "is not valid UTF-8" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("last", [EOFError(), KeyboardInterrupt(), "/exit"])
def test_ways_to_leave(terminal, last):
    code, out, _, left = terminal(last, FIRST, quiet=True)
    assert (code, out, left) == (0, "", [FIRST])


def test_ctrl_c_takes_back_what_was_typed(terminal):
    code, _, err, left = terminal(KeyboardInterrupt(), FIRST, before="What a mist", quiet=True)
    assert (code, err, left) == (0, "\n\n", [])


def test_ctrl_c_before_an_answer_begins(terminal, monkeypatch):
    from seats_cli.engine import chat as chat_module

    real = chat_module.reply
    raised = []

    def reply(*arguments, **more):
        if not raised:
            raised.append(1)
            raise KeyboardInterrupt
        return real(*arguments, **more)

    monkeypatch.setattr(chat_module, "reply", reply)
    code, out, err, _ = terminal(FIRST, FIRST)
    assert code == 0
    assert "seats: interrupted\n" in err
    assert out.count("\n") == 1


def test_json_on_a_terminal(terminal):
    _, out, _, _ = terminal(FIRST, SECOND, as_json=True)
    assert [json.loads(line)["turn"] for line in out.splitlines()] == [1, 2]


class Screen:
    """A process on a terminal of its own, and what it has shown."""

    def __init__(self, *arguments):
        self.pid, self.terminal = pty.fork()
        if not self.pid:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.execvpe(RUN[0], [*RUN, *map(str, arguments)], environment(TERM="dumb", INPUTRC="/dev/null"))
        termios.tcsetwinsize(self.terminal, (24, 200))
        self.shown = ""

    def type(self, text):
        os.write(self.terminal, text.encode())

    def interrupt(self):
        """Ctrl-C, once it has settled: Python's readline misses one that comes while it still shows a key."""
        time.sleep(0.5)
        self.type("\x03")

    def wait_for(self, pattern, seconds=120):
        """Until it is shown; what was shown before is passed over from then on."""
        until = time.monotonic() + seconds
        while not (found := re.search(pattern, self.shown)):
            assert time.monotonic() < until, self.shown
            if select.select([self.terminal], [], [], 1)[0]:
                try:
                    self.shown += os.read(self.terminal, 4096).decode("utf-8", "replace")
                except OSError:  # it has ended
                    assert re.search(pattern, self.shown), self.shown
        before, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return before

    def end(self):
        _, status = os.waitpid(self.pid, 0)
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(status)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
def test_on_a_real_terminal(talkative, clips):  # noqa: F811
    options = ["-m", talkative, "--device", "cpu", "--max-new-tokens", "20000"]
    screen = Screen("chat", clips / "clip.mp4", *options)
    screen.wait_for("lists commands\r\n> ")
    screen.type("What?\n")
    screen.wait_for(r"What\?\r\n\s*\S")
    screen.interrupt()
    screen.wait_for("interrupted: what was said is remembered")
    screen.wait_for("> ")
    screen.type("half a ques")
    screen.wait_for("half a ques")
    screen.interrupt()
    screen.wait_for("> ")
    screen.type("/undo\n")
    screen.wait_for(r"forgotten: What\?\r\n> ")
    # The line before is in the history, and can be edited.
    screen.type("\x1b[A\x7f\x7f\x7f\x7f")
    screen.type("exit\x7f\x7f\x7f\x7fundo\n")
    screen.wait_for("there is no turn to forget\r\n> ")
    screen.interrupt()
    assert screen.end() == 0

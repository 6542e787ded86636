"""A conversation on the terminal or through a pipe: lines that are questions, and lines that are commands."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from seats_cli.cli.batch import Stream
from seats_cli.cli.console import (
    NOBODY_READS,
    cell,
    complain,
    fail,
    harmless,
    notice,
    one_line,
    show,
    whisper,
    write,
)
from seats_cli.errors import InterruptedRunError, SomeFailedError, UsageError, counted, explain
from seats_cli.outputs import cannot_write, check_output, whole
from seats_cli.report import SCHEMA_VERSION, writable
from seats_cli.tasks import Task

if TYPE_CHECKING:
    from seats_cli.engine.chat import Chat
    from seats_cli.report import Report

PROMPT = "> "
SLASH = "/"
COMMANDS = {
    "help": ("", "list the commands"),
    "reset": ("", "forget the turns so far; the clip is not read again"),
    "undo": ("", "forget the last turn"),
    "trr": ("RATIO", "keep another fraction of the clip's tokens; it is read again, and the turns stay"),
    "stats": ("", "what the last turn kept and cost"),
    "save": ("FILE", "write the turns, as .json or as .txt"),
    "exit": ("", "leave; so do Ctrl-D, and Ctrl-C where nothing is typed"),
}
"""By name: what goes behind it, and what it does."""
SAVED = (".json", ".txt")

Took = Literal["nothing", "answered", "failed", "interrupted", "leave"]
"""What became of a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """How turns are shown.

    Attributes:
        as_json: A line of JSON for each.
        stats: What each kept and cost, on stderr.
        thinking: Reasoning on stderr.
        quiet: Nothing but errors on stderr.
        verbose: The trace of errors that were not expected.
        streams: Answers are shown as they come; otherwise each is a line.
    """

    as_json: bool = False
    stats: bool = False
    thinking: bool = False
    quiet: bool = False
    verbose: bool = False
    streams: bool = False


class Session:
    """Takes lines, one after the other.

    Args:
        clip: Path, as it was given.
        chat: About it.
        shown: How turns are shown.
    """

    def __init__(self, clip: str, chat: Chat, shown: Shown) -> None:
        self.clip, self.chat, self.shown = clip, chat, shown
        self._last: Report | None = None
        self._told: set[str] = set()
        self._saved: set[Path] = set()

    def say(self, line: str) -> None:
        """One line on stderr, unless it is to be quiet."""
        if not self.shown.quiet:
            notice(line)

    def begin(self) -> None:
        """Say what is kept of the clip, and what was wrong with it."""
        if self.shown.streams:
            kept, tokens = self.chat.n_kept
            self.say(f"{self.clip}: {kept} of {counted(tokens, 'token')} enter the decoder; /help lists commands")
        self._warn(self.chat.warnings)

    def _warn(self, warnings: tuple[str, ...]) -> None:
        """Those that were not said before: what is wrong with the clip is so in every turn."""
        for warning in warnings:
            if warning not in self._told:
                self._told.add(warning)
                self.say(warning)

    def take(self, line: str) -> Took:
        """A question or a command; what goes wrong is said, and the session goes on.

        Raises:
            KeyboardInterrupt: Ctrl-C before an answer began.
            LostOutputError: Stdout takes nothing.
            BrokenPipeError: Nobody reads it.
        """
        line = line.strip()
        if not line:
            return "nothing"
        doubled = line.startswith(SLASH * 2)
        try:
            if line.startswith(SLASH) and not doubled:
                return self._obey(line)
            return self._ask(line[1:] if doubled else line)
        except NOBODY_READS:
            raise
        except Exception as caught:
            fail(caught, verbose=self.shown.verbose)
            return "failed"

    # Questions

    def _ask(self, question: str) -> Took:
        turn = len(self.chat.turns) + 1
        thinking, answer = Stream(whisper), Stream(write)

        def on_text(piece: str) -> None:
            thinking.close()
            answer(piece)

        streams = self.shown.streams and not self.shown.as_json
        try:
            report = self.chat.ask(
                question,
                on_text=on_text if streams else None,
                on_thinking=thinking if self.shown.thinking else None,
            )
        except Exception as caught:
            if not isinstance(caught, NOBODY_READS):
                self._no_answer(question, turn, caught)
            raise
        finally:
            thinking.close()
            answer.close()
        self._last = report
        if self.shown.as_json:
            write(_line(_row(report, turn)))
        elif not streams:
            write(one_line(report.answer) + "\n")
        self._tell(report)
        return "interrupted" if report.finish_reason == "interrupted" else "answered"

    def _no_answer(self, question: str, turn: int, caught: Exception) -> None:
        """In its place, so that answers stay beside their questions."""
        if self.shown.as_json:
            from seats_cli.cli.answers import failure

            found = failure(Task(path=self.clip, question=question), explain(caught))
            write(_line({**found, "command": "chat", "turn": turn}))
        elif not self.shown.streams:
            write("\n")

    def _tell(self, report: Report) -> None:
        if self.shown.stats and not self.shown.quiet:
            from seats_cli.render import render_report

            show(render_report(report, "short"))
        elif report.finish_reason == "length":
            self.say(f"the answer was cut after {counted(report.answer_tokens, 'token')} (--max-new-tokens)")
        if report.finish_reason == "interrupted":
            kept = "what was said is remembered; /undo forgets it" if report.answer else "nothing was said"
            self.say(f"interrupted: {kept}")
        self._warn(report.warnings)

    # Commands

    def _obey(self, line: str) -> Took:
        name, _, rest = line[1:].partition(" ")
        if name == "exit":
            return "leave"
        argument, _ = COMMANDS.get(name, ("", ""))
        if name not in COMMANDS or (rest and not argument):
            why = f"{SLASH}{name} stands alone" if name in COMMANDS else f"there is no command {SLASH}{name}"
            raise UsageError(why, "/help lists them; a question that begins with / is written with two")
        commands: dict[str, Callable[[str], None]] = {
            "help": self._help,
            "reset": self._reset,
            "undo": self._undo,
            "trr": self._trr,
            "stats": self._stats,
            "save": self._save,
        }
        commands[name](rest.strip())
        return "nothing"

    def _help(self, _: str) -> None:
        for name, (argument, does) in COMMANDS.items():
            notice(f"{SLASH}{name} {argument}".ljust(12) + does, lead="  ")

    def _reset(self, _: str) -> None:
        n = len(self.chat.turns)
        self.chat.reset()
        self.say(f"{counted(n, 'turn')} forgotten")

    def _undo(self, _: str) -> None:
        forgotten = self.chat.undo()
        if forgotten is None:
            raise UsageError("there is no turn to forget")
        self.say(f"forgotten: {forgotten.question}")

    def _trr(self, text: str) -> None:
        now = self.chat.settings.selection
        if now.method == "full":
            raise UsageError("/trr: --method full keeps every token")
        try:
            ratio = float(text)
        except ValueError:
            raise UsageError(f"/trr is {text!r}; give a number in (0, 1], such as /trr 0.2") from None
        selection = replace(now, trr=ratio, video_trr=None, audio_trr=None)
        self.say(f"{self.clip} is read again")
        self.chat.select(selection)
        self.begin()

    def _stats(self, _: str) -> None:
        if self._last is None:
            raise UsageError("/stats is about the last turn, and there is none")
        from seats_cli.render import render_report

        show(render_report(self._last, "full"))

    def _save(self, text: str) -> None:
        path = Path(text).expanduser()
        if path.suffix.lower() not in SAVED:
            raise UsageError(f"/save is {text!r}; give a name that ends in .json or .txt")
        if path.exists() and path.resolve() not in self._saved:
            raise UsageError(f"/save {path} is there already", "give a path where nothing is")
        if not self.chat.turns:
            raise UsageError("/save: there are no turns")
        check_output(path, "/save")
        content = self._as_json() if path.suffix.lower() == ".json" else self._as_text()
        try:
            with whole(path) as part:
                part.write_text(content, encoding="utf-8")
        except OSError as error:
            raise cannot_write(path, "/save", error) from None
        self._saved.add(path.resolve())
        self.say(f"{counted(len(self.chat.turns), 'turn')} written to {path}")

    def _as_json(self) -> str:
        turns = [_row(report, number) for number, report in enumerate(self.chat.reports, 1)]
        found = {"schema_version": SCHEMA_VERSION, "command": "chat", "clip": writable(self.clip), "turns": turns}
        return json.dumps(found, ensure_ascii=False, indent=2) + "\n"

    def _as_text(self) -> str:
        said = [f"{PROMPT}{harmless(turn.question)}\n{harmless(turn.answer)}\n" for turn in self.chat.turns]
        return "\n".join([f"{cell(self.clip)}\n", *said])


def _row(report: Report, turn: int) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(report.to_json())
    return {**row, "turn": turn}


def _line(row: dict[str, Any]) -> str:
    from seats_cli.cli.answers import json_line

    return json_line(row) + "\n"


def check_stdin() -> None:
    """Find out before the work that no question can come.

    Raises:
        UsageError: Stdin is closed.
    """
    if sys.stdin is None:
        raise UsageError("stdin is closed: no question can come", "leave out <&-, or pipe questions in")


def talk(session: Session) -> int:
    """Take lines until they end; returns the exit code.

    Raises:
        SomeFailedError: Lines of a pipe failed. On a terminal that was seen.
        InterruptedRunError: Ctrl-C, unless on a terminal.
    """
    if sys.stdin.isatty():
        session.shown = replace(session.shown, streams=True)
    session.begin()
    return _at_prompt(session) if session.shown.streams else _through_pipe(session)


def _through_pipe(session: Session) -> int:
    failed = 0
    for raw in sys.stdin.buffer:
        took = session.take(raw.decode("utf-8", "surrogateescape"))
        if took == "interrupted":
            return InterruptedRunError.exit_code
        if took == "leave":
            break
        failed += took == "failed"
    if failed:
        raise SomeFailedError(f"{counted(failed, 'line')} failed")
    return 0


def _at_prompt(session: Session) -> int:
    read, typed = _reader()
    while True:
        try:
            line = read()
        except EOFError:
            line = None
        except UnicodeDecodeError:
            complain(UsageError("the question is not valid UTF-8", "check the terminal's encoding"))
            continue
        except KeyboardInterrupt:
            line = None
            if typed():
                sys.stderr.write("\n")
                continue
        if line is None:
            sys.stderr.write("\n")
            return 0
        try:
            if session.take(line) == "leave":
                return 0
        except KeyboardInterrupt:
            session.say("interrupted")


def _reader() -> tuple[Callable[[], str], Callable[[], str]]:
    """What reads a line of the terminal, and what says how much of one was typed when Ctrl-C came."""
    typed: Callable[[], str] = str
    with contextlib.suppress(ImportError):  # Windows has none
        import readline

        typed = readline.get_line_buffer

    def read() -> str:
        if sys.stdout.isatty():
            return input(PROMPT)
        # Answers go elsewhere, and the prompt must not follow them.
        sys.stderr.write(PROMPT)
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line

    return read, typed

"""What goes where: answers and data to stdout, everything else to stderr, an exit code for every ending."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from seats_cli.errors import SeatsError, explain

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from seats_cli.dataset import Question


def harmless(text: str) -> str:
    """``text`` without the power to steer a terminal; its lines and tabs stay."""
    from seats_cli.render import plain

    return "\n".join("\t".join(map(plain, line.split("\t"))) for line in text.split("\n"))


def cell(text: str) -> str:
    """A path as one cell of tab-separated lines: tabs, newlines and the like are escaped, spaces stay."""
    from seats_cli.render import plain

    return plain(text)


def one_line(text: str) -> str:
    """Text as one cell of tab-separated lines: runs of white space become one space."""
    return harmless(" ".join(text.split()))


class LostOutputError(SeatsError):
    """Stdout takes nothing: it is closed, or on a disk that is full."""


NOBODY_READS = (BrokenPipeError, LostOutputError)
"""What ends everything: no more of the result will arrive."""


@contextlib.contextmanager
def to_stdout() -> Iterator[None]:
    """Around what writes to stdout.

    Raises:
        LostOutputError: It takes nothing.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is not None:  # of a file, not of a stream
            raise
        problem = f"stdout cannot be written: {error.strerror or error}"
        raise LostOutputError(problem, "make room there, or send it to another file") from None


def write(text: str) -> None:
    """To stdout, at once.

    Raises:
        LostOutputError: It takes nothing.
    """
    with to_stdout():
        sys.stdout.write(text)
        sys.stdout.flush()


def show(renderable: RenderableType, *, stderr: bool = True) -> None:
    """To stderr or stdout, with rich: for the terminal's width, without colours if NO_COLOR is set.

    Raises:
        LostOutputError: Stdout takes nothing.
    """
    from rich.console import Console

    with contextlib.nullcontext() if stderr else to_stdout():
        Console(stderr=stderr, highlight=False).print(renderable)


def check_streams() -> None:
    """Find out before the work that stdout is closed; what would be said on a closed stderr is said to nobody.

    Raises:
        LostOutputError: Stdout is closed.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        raise LostOutputError(
            "stdout is closed: the result can go nowhere", "leave out >&-, or give a file: > FILE"
        )


def whisper(text: str) -> None:
    """To stderr as it is, at once, dimmed on a terminal."""
    from rich.console import Console

    Console(stderr=True).out(text, style="dim", highlight=False, end="")


def notice(message: str, lead: str = "seats: ") -> None:
    """One plain line to stderr."""
    sys.stderr.write(f"{lead}{cell(message)}\n")
    sys.stderr.flush()


def complain(error: SeatsError, about: str = "", place: str = "") -> None:
    """An error on one line, what to do about it on the next."""
    # Errors hold no runs of white space, and paths may.
    named = not about or " ".join(about.split()) in str(error)
    notice(": ".join(filter(None, [place, "" if named else about, str(error)])))
    if error.hint:
        notice(error.hint, "  hint: ")


def wording(error: Any) -> str:
    """What a usage error of the command line's library says, without what is of some library's making."""
    return str(error.format_message()).replace("Value error, ", "").rstrip(".")


def fail(caught: BaseException, *, verbose: bool, about: str = "", place: str = "") -> SeatsError:
    """Say what went wrong.

    Args:
        caught: Any exception.
        verbose: Print the trace of one that was not expected.
        about: The clip it happened to; named unless the message does.
        place: Where the clip was named, such as a line of a file.

    Returns:
        It, as one for the user.
    """
    known = explain(caught)
    if verbose and known is not caught and not isinstance(caught, KeyboardInterrupt):
        traceback.print_exception(caught)
    complain(known, about, place)
    return known


def row_failure(file: Path, *, verbose: bool) -> Callable[[Exception, Sequence[Question]], None]:
    """What says that rows of a file of questions failed, and on which lines they are."""
    from seats_cli.dataset import place_of

    def on_error(caught: Exception, rows: Sequence[Question]) -> None:
        fail(caught, verbose=verbose, about=rows[0].path, place=place_of(file, rows))

    return on_error


def _hush() -> None:
    """Point the streams that nobody reads any more at nothing, so that the exit is silent too."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def run(body: Callable[[], int], *, verbose: bool) -> int:
    """Call ``body``; turn whatever it raises into a line on stderr and an exit code.

    Args:
        body: Returns an exit code.
        verbose: Print the trace of unexpected errors.
    """
    try:
        check_streams()
        code = body()
        with to_stdout():
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader of stdout has gone (`| head`): nothing to say and nobody to say it to.
        _hush()
        return 1
    except (Exception, KeyboardInterrupt) as caught:
        try:
            return fail(caught, verbose=verbose).exit_code
        except OSError:
            return explain(caught).exit_code
        finally:
            _hush()

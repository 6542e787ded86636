"""What goes where: answers and data to stdout, everything else to stderr, an exit code for every ending."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from seats_cli.errors import SeatsError, explain

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x09, 0x0A)}
"""Terminal control characters, made visible; tab and newline are left to the caller."""


@cache
def stderr() -> Console:
    """The console of reports, notices and errors. Honours NO_COLOR and the terminal's width."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=False)


def harmless(text: str) -> str:
    """``text`` without the power to move a terminal's cursor, and writable as UTF-8."""
    return text.translate(CONTROL).encode("utf-8", "backslashreplace").decode("utf-8")


def one_line(text: str) -> str:
    """``text`` on one line of a tab-separated file: tabs and newlines become spaces."""
    return harmless(" ".join(text.split()))


def write(text: str) -> None:
    """To stdout, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def show(renderable: RenderableType) -> None:
    """To stderr, with rich."""
    stderr().print(renderable)


def notice(message: str) -> None:
    """One plain line to stderr."""
    sys.stderr.write(harmless(f"seats: {message}") + "\n")
    sys.stderr.flush()


def complain(error: SeatsError, about: str = "") -> None:
    """An error on one line, what to do about it on the next."""
    notice(f"{about}: {error}" if about and about not in str(error) else str(error))
    if error.hint:
        sys.stderr.write(harmless(f"  hint: {error.hint}") + "\n")


def run(body: Callable[[], Any], *, verbose: bool) -> int:
    """Call ``body``; turn whatever it raises into a line on stderr and an exit code.

    Args:
        body: Returns an exit code, or None for 0.
        verbose: Print the trace of unexpected errors.
    """
    try:
        return int(body() or 0)
    except BrokenPipeError:
        # The reader of stdout has gone (`| head`): nothing to say and nobody to say it to.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt) as error:
        known = explain(error)
        if verbose and known is not error:
            traceback.print_exc()
        complain(known)
        return known.exit_code

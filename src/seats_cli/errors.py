"""Everything a user can be told, as exceptions.

::

    SeatsError                  1  anything else that went wrong
    ├── UsageError              2  an option, a question or a schedule that cannot be
    ├── MediaError              3  a file that cannot be read, seen or heard
    ├── ModelError              4  a model that is missing, unreachable or of an unknown kind
    ├── MemoryLimitError        5  the device or the machine ran out of memory
    ├── SomeFailedError         6  a batch in which some clips failed
    ├── TimeLimitError        124  a clip that took longer than --timeout
    └── InterruptedRunError   130  Ctrl-C

Each carries one line for the user (``str(error)``), an optional ``hint`` that says what to do, and the
exit code and the ``kind`` of its class, by which failures are counted. ``explain`` turns the exceptions of
other libraries into these.
"""

from __future__ import annotations

import traceback
from typing import ClassVar, TypeVar


class SeatsError(Exception):
    """Base of every error meant for the user.

    Args:
        message: One line: what went wrong, and with which value.
        hint: One line: what to do about it. Empty when there is nothing to say.
    """

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "other"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(" ".join(message.split()))
        self.hint = hint


class UsageError(SeatsError):
    """An option, a question or a schedule that cannot be."""

    exit_code = 2
    kind = "usage"


class MediaError(SeatsError):
    """A file that cannot be read, seen or heard."""

    exit_code = 3
    kind = "media"


class ModelError(SeatsError):
    """A model that is missing, unreachable, damaged or of an unknown kind."""

    exit_code = 4
    kind = "model"


class MemoryLimitError(SeatsError):
    """The device or the machine ran out of memory."""

    exit_code = 5
    kind = "memory"


class SomeFailedError(SeatsError):
    """A batch was finished, but some of its clips failed."""

    exit_code = 6
    kind = "some failed"


class TimeLimitError(SeatsError):
    """A clip took longer than ``--timeout``; the code is that of ``timeout(1)``."""

    exit_code = 124
    kind = "timeout"


class InterruptedRunError(SeatsError):
    """The user pressed Ctrl-C."""

    exit_code = 130
    kind = "interrupted"


MEMORY_HINT = (
    "lower --max-frames or --max-pixels, keep fewer tokens with a smaller --trr, "
    "cut the clip with --start/--end, or use --dtype bfloat16"
)

# What PyTorch's CPU allocator (Linux, Windows) and CUDA's libraries say in a plain RuntimeError.
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "_status_alloc_failed")

# Foreign exceptions by class name, so that no heavy module is imported to recognise one.
_FOREIGN: dict[str, tuple[type[SeatsError], str]] = {
    "OutOfMemoryError": (MemoryLimitError, MEMORY_HINT),
    "MemoryError": (MemoryLimitError, MEMORY_HINT),
    "KeyboardInterrupt": (InterruptedRunError, ""),
}


def counted(n: int, what: str) -> str:
    """``1 clip``, ``2 clips``."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


Caught = TypeVar("Caught", bound=BaseException)


def light(caught: Caught) -> Caught:
    """An exception as it is kept: its frames, which hold pictures and tensors, become words.

    Args:
        caught: Changed, and returned. Where one that is none of ours came from is noted on it.
    """
    if not isinstance(caught, SeatsError):
        caught.add_note("".join(traceback.format_exception(caught)).rstrip())
    caught.__cause__ = caught.__context__ = None
    return caught.with_traceback(None)


def explain(error: BaseException) -> SeatsError:
    """Turn any exception into one the user can be shown.

    Args:
        error: What was caught.

    Returns:
        ``error`` itself when it is a ``SeatsError``; otherwise a new one whose message names the original.
    """
    if isinstance(error, SeatsError):
        return error
    for cls in type(error).__mro__:
        if cls.__name__ in _FOREIGN:
            kind, hint = _FOREIGN[cls.__name__]
            if kind is InterruptedRunError:
                return kind("interrupted")
            return kind(f"out of memory: {error}" if str(error) else "out of memory", hint)
    text = str(error).lower()
    if isinstance(error, RuntimeError) and any(words in text for words in _OUT_OF_MEMORY):
        return MemoryLimitError(f"out of memory: {error}", MEMORY_HINT)
    return SeatsError(f"{type(error).__name__}: {error}", "run with --verbose for the full trace")

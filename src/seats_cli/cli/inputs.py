"""``MEDIA... QUESTION``: which of the arguments are clips, and the clips that come on stdin."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from seats_cli.errors import UsageError

STDIN = "-"
EXAMPLE = 'seats ask clip.mp4 "What happens?"'


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is asked about what.

    Attributes:
        clips: Paths as given; bytes that are not UTF-8 are kept as surrogates.
        question: Not empty.
        many: The answers are lines. A list is a batch however long it is: its readers want lines.
    """

    clips: tuple[str, ...]
    question: str
    many: bool


def split_inputs(arguments: list[str], *, null: bool) -> Inputs:
    """Tell the clips from the question: the question comes last.

    ``-`` among the clips stands for a list of paths on stdin, one a line; with ``null`` they end with NUL, and a
    ``-`` is understood where none is given.

    Raises:
        UsageError: No clip, no question, or a list that cannot be read.
    """
    *clips, question = arguments
    if null and STDIN not in clips:
        clips.append(STDIN)
    if not clips:
        raise UsageError("give at least one clip, then a question", EXAMPLE)
    if not question.strip():
        raise UsageError("the question is empty", EXAMPLE)
    if os.path.isfile(question):
        raise UsageError(f"the last argument is the question, and {question} is a file", EXAMPLE)
    if "" in clips:
        raise UsageError("the path of a clip is empty", EXAMPLE)
    if clips.count(STDIN) > 1:
        raise UsageError("- is given twice; stdin can be read once")
    many = len(clips) > 1 or STDIN in clips
    if STDIN in clips:
        place = clips.index(STDIN)
        clips[place : place + 1] = _read_list(null)
    return Inputs(tuple(clips), question, many)


def _read_list(null: bool) -> list[str]:
    if sys.stdin is None or sys.stdin.isatty():
        state = "closed" if sys.stdin is None else "a terminal"
        raise UsageError(f"the list of clips comes on stdin, and stdin is {state}", "ls *.mp4 | seats ask - ...")
    raw = sys.stdin.buffer.read().split(b"\0" if null else b"\n")
    names = [name if null else name.removesuffix(b"\r") for name in raw]
    found = [os.fsdecode(name) for name in names if name]
    if not found:
        raise UsageError("the list of clips on stdin is empty")
    return found

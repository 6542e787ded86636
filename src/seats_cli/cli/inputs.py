"""``MEDIA... QUESTION``: which of the arguments are clips, what folders and patterns stand for, and stdin."""

from __future__ import annotations

import glob
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


def split_inputs(arguments: list[str], *, null: bool, recursive: bool = False) -> Inputs:
    """Tell the clips from the question: the question comes last.

    ``-`` among the clips stands for a list of paths on stdin, one a line; with ``null`` they end with NUL, and a
    ``-`` is understood where none is given. A folder stands for the media files in it, with ``recursive`` also for
    those in its folders; a pattern that the shell left alone for what it matches.

    Raises:
        UsageError: No clip, no question, a list that cannot be read, or a folder or pattern without a media file.
    """
    *clips, question = arguments
    if not clips and not null:
        raise UsageError("give at least one clip, then a question", EXAMPLE)
    if not question.strip():
        raise UsageError("the question is empty", EXAMPLE)
    if os.path.exists(question):
        kind = "folder" if os.path.isdir(question) else "file"
        raise UsageError(f"the last argument is the question, and {question} is a {kind}", EXAMPLE)
    found, many = resolve_clips(clips, null=null, recursive=recursive, example=EXAMPLE)
    return Inputs(found, question, many)


def resolve_clips(
    given: list[str], *, null: bool, recursive: bool = False, example: str = ""
) -> tuple[tuple[str, ...], bool]:
    """What arguments that are all clips stand for, and whether they are many; see ``split_inputs``.

    Raises:
        UsageError: No clip, a list that cannot be read, or a folder or pattern without a media file.
    """
    clips = [*given, STDIN] if null and STDIN not in given else given
    if not clips:
        raise UsageError("give at least one clip", example)
    if "" in clips:
        raise UsageError("the path of a clip is empty", example)
    if clips.count(STDIN) > 1:
        raise UsageError("- is given twice; stdin can be read once")
    many = len(clips) > 1 or STDIN in clips or any(map(_stands_for_others, clips))
    found = [path for clip in clips for path in (_read_list(null) if clip == STDIN else _meant(clip, recursive))]
    return tuple(found), many


def _stands_for_others(clip: str) -> bool:
    return os.path.isdir(clip) or (not os.path.lexists(clip) and glob.has_magic(clip))


def _meant(clip: str, recursive: bool) -> list[str]:
    """The clips that an argument stands for; mostly itself, be it there or not."""
    if not _stands_for_others(clip):
        return [clip]
    from seats_cli.media.folders import matching, media_in

    try:
        if os.path.isdir(clip):
            found, kind = media_in(clip, recursive=recursive), "folder"
        else:
            found, kind = matching(clip, recursive=recursive), "pattern"
    except OSError as error:
        raise UsageError(f"{error.filename or clip} cannot be read: {error.strerror or error}") from None
    if found:
        return found
    if kind == "pattern":
        raise UsageError(f"nothing matches {clip}", "** stands for any number of folders")
    deeper = "" if recursive else "; -r looks into its folders too"
    raise UsageError(
        f"the folder {clip} has no media files", f"looked for names such as clip.mp4, sound.wav{deeper}"
    )


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

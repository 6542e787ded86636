"""``MEDIA... QUESTION``: which arguments are clips, and what folders, patterns, lists and files stand for."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from seats_cli.errors import UsageError
from seats_cli.tasks import Task

STDIN = "-"
FROM_FILE = "@"
"""Before the path of a file whose text is the question."""
EXAMPLE = 'seats ask clip.mp4 "What happens?"'


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is asked about what.

    Attributes:
        tasks: In the order given; paths keep bytes that are not UTF-8 as surrogates.
        many: The answers are lines. A list is a batch however long it is: its readers want lines.
        several: A clip may be asked several questions, so a line says which.
        files: Of questions.
        passed_over: Rows with a question of their own, for which the one given does not hold.
    """

    tasks: tuple[Task, ...]
    many: bool
    several: bool = False
    files: tuple[Path, ...] = ()
    passed_over: int = 0


def split_inputs(arguments: list[str], *, null: bool, recursive: bool = False, also: Sequence[str] = ()) -> Inputs:
    """Tell the clips from the question: the question comes last, unless a file of questions brings them.

    ``-`` among the clips stands for a list of paths on stdin, one a line; with ``null`` they end with NUL, and a
    ``-`` is understood where none is given. A folder stands for the media files in it, with ``recursive`` also for
    those in its folders; a pattern that the shell left alone for what it matches.

    Args:
        arguments: At least one.
        null: How the list on stdin ends its paths.
        recursive: Look into folders of folders.
        also: More questions.

    Raises:
        UsageError: No clip, no question, a list or file of questions that cannot be read, or a folder or pattern
            without a media file.
    """
    if _is_rows(arguments[-1]) and (os.path.isfile(arguments[-1]) or len(arguments) == 1):
        clips, asked = list(arguments), []
    else:
        clips, asked = list(arguments[:-1]), [arguments[-1]]
    if null and STDIN not in clips:
        if not asked:
            raise UsageError(
                "-0 is about a list on stdin, and none is read", "leave it out, or add a - and a question"
            )
        clips.append(STDIN)
    if not clips:
        raise UsageError("give at least one clip, then a question", EXAMPLE)
    if asked and os.path.exists(asked[0]):
        kind = "folder" if os.path.isdir(asked[0]) else "file"
        hint = f"{EXAMPLE}; {FROM_FILE}FILE is a question that is in a file"
        raise UsageError(f"the last argument is the question, and {asked[0]} is a {kind}", hint)
    questions = [_question(text) for text in (*asked, *also)]
    if clips.count(STDIN) > 1:
        raise UsageError("- is given twice; stdin can be read once")
    rows = [clip for clip in clips if _is_rows(clip)]
    if not questions and len(rows) < len(clips):
        raise UsageError("give at least one clip, then a question", EXAMPLE)
    many = len(clips) > 1 or STDIN in clips or len(questions) > 1 or bool(rows)
    many = many or any(map(_stands_for_others, clips))
    n_also = len(also)
    tasks = [task for clip in clips for task in _tasks(clip, questions, n_also, null=null, recursive=recursive)]
    own = sum(bool(asked and task.place and task.question not in questions) for task in tasks)
    return Inputs(tuple(tasks), many, bool(rows) or len(questions) > 1, tuple(map(Path, rows)), own)


def resolve_clips(
    given: Sequence[str], *, null: bool, recursive: bool = False, example: str = ""
) -> tuple[tuple[str, ...], bool]:
    """What arguments that are all clips stand for, and whether they are many; see ``split_inputs``.

    Raises:
        UsageError: No clip, a list that cannot be read, or a folder or pattern without a media file.
    """
    clips = [*given, STDIN] if null and STDIN not in given else given
    if not clips:
        raise UsageError("give at least one clip", example)
    if clips.count(STDIN) > 1:
        raise UsageError("- is given twice; stdin can be read once")
    many = len(clips) > 1 or STDIN in clips or any(map(_stands_for_others, clips))
    return tuple(path for clip in clips for path in _paths(clip, null=null, recursive=recursive)), many


def _tasks(clip: str, questions: Sequence[str], n_also: int, *, null: bool, recursive: bool) -> Iterator[Task]:
    """What is asked about what a clip stands for; the last ``n_also`` questions are asked of every row too."""
    if not _is_rows(clip):
        for path in _paths(clip, null=null, recursive=recursive):
            yield from (Task(path=path, question=question) for question in questions)
        return
    from seats_cli.dataset import read_asked

    main = questions[: len(questions) - n_also]
    for row in read_asked(Path(clip), question=not main):
        own = [row.text] if row.text else main
        for number, question in enumerate((*own, *questions[len(main) :])):
            yield Task(
                path=row.path,
                question=question,
                id=row.id if row.named else None,
                # Of the row's own question.
                choices=row.choices if number < len(own) else (),
                start_seconds=row.start_seconds,
                end_seconds=row.end_seconds,
                place=f"{clip}:{row.line}",
            )


def _is_rows(argument: str) -> bool:
    from seats_cli.dataset import ROW_SUFFIXES

    return argument.lower().endswith(ROW_SUFFIXES)


def _question(text: str) -> str:
    """A question as it is, or as it stands in a file."""
    if text.startswith(FROM_FILE * 2):
        text = text[1:]
    elif text.startswith(FROM_FILE):
        path = Path(text[1:])
        try:
            text = path.read_text(encoding="utf-8-sig").strip()
        except UnicodeDecodeError:
            raise UsageError(f"the question in {path} is not UTF-8", "save the file as UTF-8") from None
        except OSError as error:
            hint = f"a question that begins with {FROM_FILE} is written with two of them"
            raise UsageError(f"the question in {path} cannot be read: {error.strerror or error}", hint) from None
        if not text:
            raise UsageError(f"the question in {path} is empty")
    if not text.strip():
        raise UsageError("the question is empty", EXAMPLE)
    return text


def _stands_for_others(clip: str) -> bool:
    return os.path.isdir(clip) or (not os.path.lexists(clip) and glob.has_magic(clip))


def _paths(clip: str, *, null: bool, recursive: bool) -> list[str]:
    """The clips that an argument stands for; mostly itself, be it there or not."""
    if clip == STDIN:
        return _read_list(null)
    if not clip:
        raise UsageError("the path of a clip is empty", EXAMPLE)
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

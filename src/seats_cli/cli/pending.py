"""Which tasks of a run are to be asked: not what the file of answers holds, and the same thing once."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from seats_cli.cli.answers import AnswerFile, Asked, Content, Stamp, usual_options
from seats_cli.tasks import Task


@dataclass(slots=True)
class Pending:
    """What a run has to do.

    Attributes:
        ask: Tasks that must be asked.
        copies: Tasks whose answer is there already, under another name, with its line.
        twins: By key, tasks that get the answer of one that is asked.
        keys: Of tasks whose clip had to be read to tell.
        done: Answered before.
        failed: Failed before, and not tried again.
        changed: What was asked with other options before.
    """

    ask: list[Task] = field(default_factory=list)
    copies: list[tuple[Task, dict[str, Any]]] = field(default_factory=list)
    twins: dict[str, list[Task]] = field(default_factory=dict)
    keys: dict[Task, tuple[str, Content]] = field(default_factory=dict)
    done: int = 0
    failed: int = 0
    changed: list[tuple[Task, Mapping[str, Any]]] = field(default_factory=list)


def pending(tasks: Iterable[Task], file: AnswerFile, asked: Asked, *, resume: bool, retry_failed: bool) -> Pending:
    """Sort tasks.

    Args:
        tasks: Of the run.
        file: Of answers.
        asked: With which options.
        resume: Do not ask again what is in the file.
        retry_failed: But what failed.
    """
    found = Pending()
    # Rows may be alike but for their place in a file.
    alike = {dataclasses.replace(task, place=""): task for task in reversed(list(tasks))}
    for task, content in _contents(list(reversed(alike.values())), file):
        key, mark = None if content is None else asked.key(task, content), asked.mark(task)
        if key is not None and content is not None:
            found.keys[task] = key, content
        if resume and key is not None:
            if file.answered(key, mark):
                found.done += 1
                continue
            if file.failed(key, mark) and not retry_failed:
                found.failed += 1
                continue
            line = file.under_another_name(key)
            if line is not None:
                found.copies.append((task, line))
                continue
        before = file.before(key, mark) if resume else None
        if before is not None:
            found.changed.append((task, before))
        if key is not None and key in found.twins:
            found.twins[key].append(task)
            continue
        if key is not None:
            found.twins[key] = []
        found.ask.append(task)
    return found


def _contents(tasks: list[Task], file: AnswerFile) -> Iterator[tuple[Task, Content | None]]:
    """Tasks with what is in their clips; None: nothing that was seen before, in the file or here."""
    stamps = {task.path: Stamp.of(task.path) for task in tasks}
    sizes = Counter(stamp.n_bytes for stamp in stamps.values())
    contents: dict[str, Content | None] = {}
    for task in tasks:
        path, stamp = task.path, stamps[task.path]
        if path not in contents:
            content = file.content_of(path, stamp)
            if content is None and (sizes[stamp.n_bytes] > 1 or file.has_size(stamp.n_bytes)):
                content = Content.of(path)
            contents[path] = content
        yield task, contents[path]


def changes(found: Pending, asked: Asked) -> list[str]:
    """What has changed since what is asked again was asked, in words."""
    lines: dict[str, None] = {}
    usual = usual_options()
    for task, before in found.changed:
        now = asked.options(task)
        differing = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        for name in differing:
            was, is_now = (options.get(name, usual.get(name)) for options in (before, now))
            lines[f"{name.replace('_', '-')} was {was}, is {is_now}"] = None
        if not differing:
            lines["a clip, the model's files, its precision or its kernels are others"] = None
    return list(lines)

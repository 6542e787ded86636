"""Which tasks of a run are to be asked: not what the file of answers holds, and the same thing once."""

from __future__ import annotations

import dataclasses
import json
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
        keys: Of tasks whose content is known.
        stamps: Of clips, by path, before anything was asked.
        done: Answered before.
        failed: Failed before, and not tried again.
        changed: What was asked with other options before.
    """

    ask: list[Task] = field(default_factory=list)
    copies: list[tuple[Task, dict[str, Any]]] = field(default_factory=list)
    twins: dict[str, list[Task]] = field(default_factory=dict)
    keys: dict[Task, tuple[str, Content]] = field(default_factory=dict)
    stamps: dict[str, Stamp] = field(default_factory=dict)
    done: int = 0
    failed: int = 0
    changed: list[tuple[Task, Mapping[str, Any]]] = field(default_factory=list)

    @property
    def to_do(self) -> int:
        """Answers that are to be written."""
        return len(self.ask) + len(self.copies) + sum(map(len, self.twins.values()))

    @property
    def total(self) -> int:
        """Different tasks of the run."""
        return self.to_do + self.done + self.failed


def pending(tasks: Iterable[Task], file: AnswerFile, asked: Asked, *, resume: bool, retry_failed: bool) -> Pending:
    """Sort tasks.

    Args:
        tasks: Of the run.
        file: Of answers.
        asked: With which options.
        resume: Do not ask again what is in the file.
        retry_failed: But what failed.
    """
    # Rows may be alike but for their place in a file.
    alike: dict[Task, Task] = {}
    for task in tasks:
        alike.setdefault(dataclasses.replace(task, place=""), task)
    marks = {task: asked.mark(task) for task in alike.values()}
    of_now = set(marks.values())
    found = Pending(stamps={task.path: Stamp.of(task.path) for task in marks})
    for task, content in _contents(list(marks), found.stamps, file):
        key, mark = None if content is None else asked.key(task, content), marks[task]
        if key is not None and content is not None:
            found.keys[task] = key, content
        if resume and key is not None:
            if file.answered(key, mark):
                found.done += 1
                continue
            line = file.answer(key)
            if line is not None:
                found.copies.append((task, line))
                continue
            if file.failed(key, mark) and not retry_failed:
                found.failed += 1
                continue
        before = file.before(task) if resume else None
        # What is asked about another part, or with other choices, may be another task of this run.
        if before is not None and before.key != key and (before.mark == mark or before.mark not in of_now):
            found.changed.append((task, before.options))
        if key is not None and key in found.twins:
            found.twins[key].append(task)
            continue
        if key is not None:
            found.twins[key] = []
        found.ask.append(task)
    return found


def _contents(
    tasks: list[Task], stamps: Mapping[str, Stamp], file: AnswerFile
) -> Iterator[tuple[Task, Content | None]]:
    """Tasks with what is in their clips; None: nothing that was seen before, in the file or here."""
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
        # As it is in a line: of tuples JSON makes lists.
        now = json.loads(json.dumps(asked.options(task)))
        differing = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        for name in differing:
            was, is_now = (options.get(name, usual.get(name)) for options in (before, now))
            lines[f"{name.replace('_', '-')} was {_short(was)}, is {_short(is_now)}"] = None
        if not differing:
            lines["a clip, the model's files, its precision or its kernels are others"] = None
    return list(lines)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

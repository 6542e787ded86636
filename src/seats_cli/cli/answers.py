"""The file of answers, ``-o answers.jsonl``: what is in it is not asked again.

A line is a report, or why there is none, after a key: a hash of the clip's content, the question, and every option
that changes the answer. Where the clip lies is not part of it, so an answer moves with its clip; the line says for
which path and id it was given. Contents can be the same only where sizes are, and a file whose size and times are
those of its line has not changed: few clips are read to decide what is to be asked.

Of the lines about one thing the last counts. An answer that is to count again is written again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seats_cli.cli.lines import LineFile
from seats_cli.config import GenerationOptions, MediaOptions, SelectionOptions
from seats_cli.errors import SeatsError
from seats_cli.report import SCHEMA_VERSION, writable
from seats_cli.tasks import Task

if TYPE_CHECKING:
    from seats_cli.engine.batch import Outcome

LEAD = ("key", "content", "options")
"""What a line of the file has beside what goes to stdout."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells without reading it whether a file may have changed. Of one that is not there: -1.

    Attributes:
        n_bytes: Its size.
        mtime_ns: When it was written; whoever replaces a file may keep this.
        ctime_ns: When anything about it was changed; nobody sets this.
    """

    n_bytes: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: str) -> Stamp:
        """As it is now."""
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return cls(-1, -1, -1)
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class Content:
    """What is in a file, with its stamp at that time; ``sha256`` is ``missing`` for one that cannot be read."""

    sha256: str
    stamp: Stamp

    @classmethod
    def of(cls, path: str) -> Content:
        """As it is now."""
        from seats_cli.engine.marks import MISSING, digest_of

        stamp = Stamp.of(path)
        try:
            return cls(digest_of(Path(path)), stamp)
        except SeatsError:
            return cls(MISSING, stamp)

    def to_json(self) -> dict[str, Any]:
        """As in a line."""
        stamp = self.stamp
        times = {"mtime_ns": stamp.mtime_ns, "ctime_ns": stamp.ctime_ns}
        return {"sha256": self.sha256, "bytes": stamp.n_bytes, **times}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Content:
        """Of a line."""
        return cls(found["sha256"], Stamp(found["bytes"], found["mtime_ns"], found["ctime_ns"]))


@dataclass(frozen=True, slots=True)
class Asked:
    """All that answers depend on beside clip and question.

    Attributes:
        model: What tells the model from others.
        media: What of a clip is seen and heard.
        selection: Which tokens stay.
        generation: How answers are written.
    """

    model: Mapping[str, Any]
    media: MediaOptions
    selection: SelectionOptions
    generation: GenerationOptions

    def key(self, task: Task, content: Content) -> str:
        """Of a task about a clip of that content."""
        from seats_cli.engine.marks import MISSING

        known = content.sha256 != MISSING
        parts = {
            "model": self.model,
            # Of what cannot be read nobody knows whether it is the same.
            "content": content.sha256 if known else [MISSING, task.path],
            "question": task.question,
            "media": _values(task.media(self.media)),
            "selection": _values(self.selection),
            "generation": _values(task.generation(self.generation)),
        }
        text = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def mark(self, task: Task) -> int:
        """Stands for what is asked: path, part, question, choices and id, whatever the clip holds."""
        media, choices = task.media(self.media), task.generation(self.generation).choices
        part = media.start_seconds, media.end_seconds
        return _mark(writable(task.path), writable(task.question), task.id, *part, *choices)

    def options(self, task: Task) -> dict[str, Any]:
        """What is not as by default, for people and for saying what has changed."""
        said = _by_name(task.media(self.media), self.selection, task.generation(self.generation))
        usual = usual_options()
        return {"model": self.model["id"]} | {name: value for name, value in said.items() if value != usual[name]}


def usual_options() -> dict[str, Any]:
    """Options by name as they are when nothing is said."""
    return _by_name(MediaOptions(), SelectionOptions(), GenerationOptions())


def _by_name(media: MediaOptions, selection: SelectionOptions, generation: GenerationOptions) -> dict[str, Any]:
    chosen = _values(selection)
    # The sampler of the answer has a temperature too.
    return _values(media) | chosen | {"window_temperature": chosen["temperature"]} | _values(generation)


@lru_cache(maxsize=256)
def _values(options: MediaOptions | SelectionOptions | GenerationOptions) -> dict[str, Any]:
    """By name; of a hundred thousand tasks most have the same."""
    return asdict(options)


@dataclass(frozen=True, slots=True)
class Before:
    """What is known of the last line about a clip and a question.

    Attributes:
        mark: Of its task.
        key: Of its answer.
        text: Its options, as JSON.
    """

    mark: int
    key: str
    text: str

    @property
    def options(self) -> Mapping[str, Any]:
        """With which it was asked."""
        return json.loads(self.text) or {}


def _mark(*parts: str | float | None) -> int:
    # A million of them are kept as numbers; equal ones among different parts are not to be feared.
    return int.from_bytes(hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest(), "big")


def mark_of(row: Mapping[str, Any]) -> int:
    """What ``Asked.mark`` gives for the task of a line."""
    options = row.get("options") or {}
    part = options.get("start_seconds"), options.get("end_seconds")
    return _mark(row["media"]["path"], row["question"], row.get("id"), *part, *(options.get("choices") or ()))


class AnswerFile(LineFile):
    """Answers of earlier runs, and those of this one as they come.

    Args:
        path: May not be there yet.
        inputs: Files of questions, which this must not be.

    Raises:
        UsageError: It cannot be read or written, another process writes it, or it holds something else.
    """

    def __init__(self, path: Path, inputs: Iterable[Path] = ()) -> None:
        super().__init__(path, "seats ask", tuple(inputs))
        self._last: dict[int, tuple[str, bool]] = {}
        self._about: dict[int, Before] = {}
        self._places: dict[str, int] = {}
        self._contents: dict[int, Content] = {}
        self._sizes: set[int] = set()
        for number, place, line in self.read():
            row = parse(line)
            if row is None:
                raise self.refuse(number)
            self._note(row, place)

    def _note(self, row: Mapping[str, Any], place: int) -> None:
        key, mark, failed = row["key"], mark_of(row), row.get("error") is not None
        if not failed:
            self._places[key] = place
        self._last[mark] = key, failed
        path = row["media"]["path"]
        options = sys.intern(json.dumps(row.get("options"), sort_keys=True))
        self._about[_mark(path, row["question"], row.get("id"))] = Before(mark, key, options)
        content = Content.from_json(row["content"])
        self._contents[_mark(path)] = content
        self._sizes.add(content.stamp.n_bytes)

    def content_of(self, path: str, stamp: Stamp) -> Content | None:
        """What is in a clip that has not changed since its line was written; None: it must be read."""
        content = self._contents.get(_mark(writable(path)))
        return content if content is not None and content.stamp == stamp and stamp.n_bytes >= 0 else None

    def has_size(self, n_bytes: int) -> bool:
        """Whether some clip of that size is in it; contents of others cannot be."""
        return n_bytes in self._sizes

    def __len__(self) -> int:
        return len(self._last)

    def answered(self, key: str, mark: int) -> bool:
        """Whether the last line about just this is this answer."""
        return self._last.get(mark) == (key, False)

    def failed(self, key: str, mark: int) -> bool:
        """Whether the last line about just this says that it failed."""
        return self._last.get(mark) == (key, True)

    def answer(self, key: str) -> dict[str, Any] | None:
        """A line with that key, under whatever name and however long ago; None: there is none."""
        place = self._places.get(key)
        return None if place is None else parse(self.at(place))

    def before(self, task: Task) -> Before | None:
        """The last line about its clip and question, of whatever part and with whatever options."""
        return self._about.get(_mark(writable(task.path), writable(task.question), task.id))

    def put(self, row: Mapping[str, Any]) -> None:
        """Write one line, whole; it is on the disk when this returns.

        Raises:
            SeatsError: The disk is full, or the like.
        """
        self._note(row, self.add(json_line(row)))


# Controls that JSON leaves as they are, what overrides directions, and what some readers take for ends of lines.
_STEERING = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def json_line(row: Mapping[str, Any]) -> str:
    """An object as a line of JSON that steers no terminal, without its end."""
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def parse(line: bytes) -> dict[str, Any] | None:
    """What a line says; None if it was not written here."""
    try:
        row = json.loads(line)
        ours = isinstance(row["key"], str) and isinstance(row["media"]["path"], str)
        ours = ours and isinstance(row["question"], str) and row["command"] == "ask"
        ours = ours and all(isinstance(row["content"][name], int) for name in ("bytes", "mtime_ns", "ctime_ns"))
        ours = ours and isinstance(row["content"]["sha256"], str)
        return row if ours and row["schema_version"] == SCHEMA_VERSION else None
    except (ValueError, KeyError, TypeError):
        return None


def row_of(outcome: Outcome) -> dict[str, Any]:
    """An outcome as an object of JSON: the report, or what went wrong."""
    task = outcome.task
    if outcome.report is None:
        return failure(task, outcome.error or SeatsError("nothing was found"))
    return {**_id(task), **json.loads(outcome.report.to_json())}


def failure(task: Task, error: SeatsError) -> dict[str, Any]:
    """What went wrong, as an object of JSON."""
    told = {"message": str(error), "hint": error.hint, "kind": error.kind}
    return {
        **_id(task),
        "schema_version": SCHEMA_VERSION,
        "command": "ask",
        "question": writable(task.question),
        "media": {"path": writable(task.path)},
        "error": {name: writable(text) for name, text in told.items()} | {"exit_code": error.exit_code},
    }


def _id(task: Task) -> dict[str, str]:
    return {} if task.id is None else {"id": task.id}


def line_of(row: Mapping[str, Any], task: Task, key: str, content: Content, asked: Asked) -> dict[str, Any]:
    """A line of the file, from what ``row_of`` gives.

    Args:
        row: The answer.
        task: What was asked.
        key: Of it.
        content: Of the clip.
        asked: With which options.
    """
    lead = {"key": key, **_id(task), "content": content.to_json(), "options": asked.options(task)}
    return {**lead, **{name: value for name, value in row.items() if name not in lead}}


def renamed(row: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """What was found, about a clip of the same content under another name."""
    path, was = writable(task.path), row["media"]["path"]
    rest = {name: value for name, value in row.items() if name != "id"}
    error = row.get("error")
    if error is not None:
        rest["error"] = {**error, "message": error["message"].replace(was, path)}
    return {**_id(task), **rest, "media": {**row["media"], "path": path}}

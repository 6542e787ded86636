"""What is asked about many clips: tasks, the clips they share, shards and order. Plain Python."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from seats_cli.config import GenerationOptions, MediaOptions
from seats_cli.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One question about one clip.

    Attributes:
        path: Of the clip.
        question: Plain text.
        id: As a file of questions gives it; None: none given.
        choices: Labels to choose from; none: those of the options.
        start_seconds: Begin of the part to use; None: that of the options.
        end_seconds: Its end, likewise.
        place: Where it was given, such as ``rows.jsonl:4``; empty: on the command line.
    """

    path: str
    question: str
    id: str | None = None
    choices: tuple[str, ...] = ()
    start_seconds: float | None = None
    end_seconds: float | None = None
    place: str = ""

    def media(self, options: MediaOptions) -> MediaOptions:
        """What of the clip is used.

        Raises:
            UsageError: The part ends before it starts; names the place.
        """
        own: dict[str, Any] = {"start_seconds": self.start_seconds, "end_seconds": self.end_seconds}
        try:
            return replace(options, **{name: value for name, value in own.items() if value is not None})
        except UsageError as error:
            raise UsageError(f"{self.place}: {error}" if self.place else str(error), error.hint) from None

    def generation(self, options: GenerationOptions) -> GenerationOptions:
        """How it is answered."""
        return replace(options, choices=self.choices) if self.choices else options


@dataclass(frozen=True, slots=True)
class Job:
    """All that is asked about one part of one clip; it is decoded and encoded once for them.

    Attributes:
        path: Of the clip.
        media: What of it is used.
        tasks: At least one.
    """

    path: str
    media: MediaOptions
    tasks: tuple[Task, ...]


def jobs_of(tasks: Iterable[Task], options: MediaOptions) -> list[Job]:
    """Tasks by clip and part, in the order of the first of each.

    Args:
        tasks: Any.
        options: For what a task does not say.

    Raises:
        UsageError: A part ends before it starts.
    """
    found: dict[tuple[str, MediaOptions], list[Task]] = {}
    for task in tasks:
        found.setdefault((os.path.abspath(task.path), task.media(options)), []).append(task)
    return [Job(together[0].path, media, tuple(together)) for (_, media), together in found.items()]


def distinct_questions(jobs: Iterable[Job]) -> list[Task]:
    """A task for each question with its choices: to know whether it can be asked, one clip is enough."""
    return list({(task.question, task.choices): task for job in jobs for task in job.tasks}.values())


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several shares of the clips, such as 2 of 8; together they are all, and none is in two.

    Attributes:
        index: From 1.
        count: How many there are.
    """

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def has(self, path: str) -> bool:
        """Whether a clip belongs to it. That follows from its path alone, whatever else is there."""
        digest = hashlib.blake2b(os.fsencode(path), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.index - 1


def parse_shard(text: str) -> Shard:
    """Read ``2/8``.

    Raises:
        UsageError: It is no such thing.
    """
    found = re.fullmatch(r"\s*([0-9]{1,9})\s*/\s*([0-9]{1,9})\s*", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(
            f"--shard is {text!r}; give i/n with i from 1 to n, such as 2/8",
            "a Slurm array of 8 is --array=1-8, with --shard $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT",
        )
    return Shard(int(found[1]), int(found[2]))


def longest_first(jobs: Sequence[Job], seconds_of: Callable[[Job], float]) -> list[Job]:
    """The longest clips first, so that what needs the most memory and time is known early.

    Args:
        jobs: In any order; equal ones keep theirs.
        seconds_of: Length of the used part; 0 where it cannot be told.
    """
    return sorted(jobs, key=seconds_of, reverse=True)

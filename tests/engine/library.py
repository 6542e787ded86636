"""Clips made of arrays, found by name, that note who opens them; and outcomes that can be compared."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Callable, Iterable

from seats_cli.config import GenerationOptions, MediaOptions, SelectionOptions
from seats_cli.engine.batch import Asker, Outcome
from seats_cli.engine.pipeline import Settings, answer
from seats_cli.errors import MediaError, MemoryLimitError
from seats_cli.models.loading import LoadedModel
from seats_cli.report import Report, Seconds
from seats_cli.tasks import Job, Task, jobs_of
from tests.array_clip import ArrayClip, random_clip

SHAPES = {  # frames, rows, columns, seconds of sound
    "both": (12, 4, 5, 6.0),
    "picture": (8, 4, 5, 0.0),
    "sound": (0, 4, 5, 6.4),
    "long": (44, 4, 5, 22.0),
    "short": (4, 4, 5, 2.0),
}


class Library:
    """Opens clips by name, such as ``both`` or ``both-2``: the same kind from another seed.

    Attributes:
        media: Options that leave frames as they are.
        opened: How often each was.
        before: Called with the name before a clip is opened.
        inside: Called with the name before each of its frames.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._factor = loaded.model.spec.pixel_factor
        _, self.media = random_clip(*SHAPES["both"], factor=self._factor)
        self.opened: Counter[str] = Counter()
        self.before: Callable[[str], object] = lambda _: None
        self.inside: Callable[[str], object] = lambda _: None
        self._lock = threading.Lock()

    def __call__(self, path: str, media: MediaOptions) -> ArrayClip:
        with self._lock:
            self.opened[path] += 1
        self.before(path)
        kind, _, seed = path.partition("-")
        if kind not in SHAPES:
            raise MediaError(f"{path}: no such file")
        made, _ = random_clip(*SHAPES[kind], seed=int(seed or 0), factor=self._factor)
        clip = _Watched(made._images, made._waveform)
        clip.path, clip.inside = path, self.inside
        return clip

    def jobs(self, *tasks: str | Task, question: str = "What?") -> list[Job]:
        """Jobs of names, or of tasks."""
        return jobs_of(
            (Task(path=one, question=question) if isinstance(one, str) else one for one in tasks), self.media
        )


class _Watched(ArrayClip):
    inside: Callable[[str], object]

    def frames(self, shrink=None):
        for frame in super().frames(shrink):
            self.inside(self.path)
            yield frame


def asker_of(loaded, library, *, selection=None, tokens=4, **keywords) -> Asker:
    """An asker that writes few tokens."""
    generation = GenerationOptions(max_new_tokens=tokens)
    return Asker(loaded, library, selection or SelectionOptions(trr=0.3), generation, **keywords)


def alone(asker: Asker, library: Library, task: Task) -> Report:
    """The answer of ``seats ask`` about this clip and nothing else."""
    media = task.media(library.media)
    settings = Settings(media, asker.selection, task.generation(asker.generation))
    return answer(asker.loaded, lambda: library(task.path, media), task.question, settings)


def timeless(report: Report) -> Report:
    """What is left when times and memory are taken off."""
    return dataclasses.replace(report, seconds=Seconds(), memory_bytes=None)


def told(outcomes: Iterable[Outcome]) -> dict[Task, object]:
    """What became of each task, but for times and memory."""
    found: dict[Task, object] = {}
    for outcome in outcomes:
        assert outcome.task not in found
        assert (outcome.report is None) != (outcome.error is None)
        error = outcome.error
        found[outcome.task] = (
            (type(error).__name__, str(error)) if outcome.report is None else timeless(outcome.report)
        )
    return found


def out_of_memory(error: object) -> bool:
    """Whether that is what an outcome says."""
    return isinstance(error, MemoryLimitError)


def reader_threads() -> list[threading.Thread]:
    """That are alive."""
    return [thread for thread in threading.enumerate() if thread.name == "seats-reader"]

"""Many clips: while one is asked about, the next ones are decoded and encoded.

Readers are threads; each opens a clip, encodes it and keeps what Stage I leaves. No more clips are read than there
are readers, so memory is bounded by the clip in hand and one per reader. Questions are asked in the thread that
takes the outcomes. What a clip gives does not depend on any of this.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace

from seats_cli.config import GenerationOptions, MediaOptions, SelectionOptions
from seats_cli.engine.pipeline import Settings, check_question, reply
from seats_cli.engine.reading import Cached, ReadClip, read_clip, release_memory
from seats_cli.engine.store import ClipStore
from seats_cli.errors import (
    InterruptedRunError,
    MemoryLimitError,
    SeatsError,
    TimeLimitError,
    UsageError,
    explain,
    light,
)
from seats_cli.media.cores import at_most, decoding_threads
from seats_cli.media.held import HeldClip
from seats_cli.media.types import Clip
from seats_cli.models.loading import LoadedModel
from seats_cli.report import Report
from seats_cli.tasks import Job, Task
from seats_cli.timelimit import stoppable, time_limit
from seats_cli.timing import PeakMemory

OpenClip = Callable[[str, MediaOptions], Clip]
LOOK_SECONDS = 0.2
"""Between two looks for readers that take too long."""
GRACE_SECONDS = 5.0
"""Past the time limit, before a reader that does not come back is given up."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task: a report, or why there is none, with the exception before it was explained."""

    task: Task
    report: Report | None
    error: SeatsError | None = None
    caught: Exception | None = None


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a reader found, or why it found nothing."""

    job: Job
    read: ReadClip | None
    caught: Exception | None = None

    @property
    def why(self) -> Exception:
        """Why there is none."""
        return self.caught or SeatsError("nothing was read")


class Asker:
    """Reads clips and answers what is asked about them: ``asker(job)`` gives the outcomes of its tasks.

    Args:
        loaded: The model.
        open_clip: Opens a path.
        selection: Which tokens stay.
        generation: How answers are written; choices are a task's own if it has any.
        timeout_seconds: For a clip and a question about it, from opening the file to the answer; None: no limit.
        store: Where encoded windows are looked for, and kept; None: nowhere.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        open_clip: OpenClip,
        selection: SelectionOptions,
        generation: GenerationOptions,
        *,
        timeout_seconds: float | None = None,
        store: ClipStore | None = None,
    ) -> None:
        self.loaded = loaded
        self.selection, self.generation = selection, generation
        self.timeout_seconds = timeout_seconds
        self._open_clip = open_clip
        self._store = store

    def __call__(self, job: Job, clip: HeldClip | None = None) -> list[Outcome]:
        """Read and answer, one after the other.

        Args:
            job: What is asked about a clip.
            clip: It, decoded elsewhere; None: it is opened here.
        """
        reading = _read(self, job, clip)
        if reading.read is None:
            return list(all_failed(job, reading.why))
        return list(self.answers(job, reading.read))

    def read(self, job: Job, clip: HeldClip | None = None) -> ReadClip:
        """Decode, encode and thin a clip, within the time limit.

        Raises:
            SeatsError: Any of its subclasses.
        """
        # Warnings are told apart by where they were noted, so no two threads share a list of them.
        cached = None if self._store is None else Cached(self._store.apart(), job.path)
        spent = 0.0 if clip is None else clip.decoding_seconds
        with self._limit(spent):
            read = read_clip(
                self.loaded,
                (lambda: self._open_clip(job.path, job.media)) if clip is None else clip.again,
                job.media,
                self.selection,
                cached,
            )
        if not spent:
            return read
        seconds = {**read.seconds, "decode": read.seconds.get("decode", 0.0) + spent}
        return replace(read, seconds=seconds, wall_seconds=read.wall_seconds + spent)

    def _limit(self, spent_seconds: float) -> AbstractContextManager[None]:
        limit = self.timeout_seconds
        return time_limit(None if limit is None else max(limit - spent_seconds, 0.0), of=limit)

    def answers(self, job: Job, read: ReadClip) -> Iterator[Outcome]:
        """Outcomes of a clip's tasks, each as it is found.

        Raises:
            InterruptedRunError: Ctrl-C while an answer was written.
        """
        for task in job.tasks:
            yield self._answer(task, read)

    def _answer(self, task: Task, read: ReadClip) -> Outcome:
        try:
            return self._reply(task, read)
        except Exception as caught:
            if not isinstance(explain(caught), MemoryLimitError):
                return _failed(task, light(caught))
        # Another clip may have been encoded at the same time: once more, with the device to itself.
        release_memory()
        try:
            with self.loaded.model.encoding:
                outcome = self._reply(task, read)
        except Exception as caught:
            return _failed(task, light(caught))
        again = "out of memory while it was answered: answered again with nothing beside it"
        return replace(outcome, report=outcome.report and _warned(outcome.report, again))

    def _reply(self, task: Task, read: ReadClip) -> Outcome:
        generation = task.generation(self.generation)
        settings = Settings(selection=self.selection, generation=generation)
        with self._limit(read.wall_seconds):
            report = reply(self.loaded, read, task.question, settings)
        if report.finish_reason == "interrupted":
            raise KeyboardInterrupt
        # The clip is known by the name that this task gives it.
        return Outcome(task, replace(report, media=replace(report.media, path=task.path)))


def _warned(report: Report, line: str) -> Report:
    return replace(report, warnings=(*report.warnings, line))


def _failed(task: Task, caught: Exception) -> Outcome:
    return Outcome(task, None, explain(caught), caught)


def all_failed(job: Job, caught: Exception) -> Iterator[Outcome]:
    """Of a job whose clip could not be read."""
    return (_failed(task, caught) for task in job.tasks)


def check_tasks(asker: Asker, tasks: Iterable[Task]) -> None:
    """Find out before anything is read what cannot be asked of this model.

    Args:
        asker: Has it.
        tasks: One for each question is enough: ``distinct_questions``.

    Raises:
        UsageError: A question holds a special token, or choices cannot be told apart; names where it was given.
    """
    for task in tasks:
        try:
            check_question(asker.loaded.model, task.question, task.generation(asker.generation))
        except UsageError as error:
            raise UsageError(f"{task.place}: {error}" if task.place else str(error), error.hint) from None


def run(asker: Asker, jobs: Iterable[Job], *, readers: int = 1) -> Iterator[Outcome]:
    """Outcomes of all tasks, as they are found; with one reader in the order of the jobs.

    A clip that cannot be read, or a question that fails, becomes an outcome with an error, and the rest goes on.

    Args:
        asker: Reads and answers.
        jobs: What is asked.
        readers: Clips that are read ahead, each by a thread; 0: none, clips are read one by one.

    Raises:
        InterruptedRunError: Ctrl-C.
    """
    with closing(_outcomes(asker, jobs, readers)) as outcomes:
        while True:
            # The most that was held since the one before, clips that are read ahead included.
            with PeakMemory(asker.loaded.model.devices) as peak:
                outcome = next(outcomes, None)
            if outcome is None:
                return
            report = outcome.report and replace(outcome.report, memory_bytes=peak.n_bytes)
            yield replace(outcome, report=report)


def _outcomes(asker: Asker, jobs: Iterable[Job], n_readers: int) -> Generator[Outcome, None, None]:
    readers = None
    # A clip on which FFmpeg hangs can be given up by another thread alone.
    if n_readers or asker.timeout_seconds is not None:
        readers = _Readers(asker, jobs, max(n_readers, 1), ahead=n_readers > 0)
    try:
        for reading in readers or (_read(asker, job) for job in jobs):
            if reading.read is None:
                yield from all_failed(reading.job, reading.why)
            else:
                yield from asker.answers(reading.job, reading.read)
            # While the next one is waited for, this one is held no more.
            del reading
    except KeyboardInterrupt:
        raise InterruptedRunError("interrupted") from None
    finally:
        if readers is not None:
            readers.close()


def _read(asker: Asker, job: Job, clip: HeldClip | None = None) -> _Reading:
    try:
        return _Reading(job, asker.read(job, clip))
    except Exception as caught:
        return _Reading(job, None, light(caught))


@dataclass(frozen=True, slots=True)
class _Begun:
    """A clip that is being read, since when, and by whom."""

    job: Job
    seconds: float
    thread: threading.Thread


class _Readers:
    """Threads that read ahead. Iterating gives what they found, and takes the room for the next clip.

    A reader that does not come back, deep inside a decoder, is given up after the time limit and another takes its
    place: threads cannot be ended from outside.

    Args:
        asker: Reads.
        jobs: What is asked; taken one by one as there is room. What it raises is raised to who iterates.
        n_readers: Threads.
        ahead: Whether a clip is read while another one is in hand.
    """

    def __init__(self, asker: Asker, jobs: Iterable[Job], n_readers: int, *, ahead: bool) -> None:
        self._asker, self._jobs, self._ahead = asker, iter(jobs), ahead
        self._found: queue.Queue[_Reading | BaseException | None] = queue.Queue()
        self._room = threading.Semaphore(n_readers)
        self._stop = threading.Event()
        # Jobs may be waited for long; meanwhile other readers come back.
        self._next, self._lock = threading.Lock(), threading.Lock()
        # Whoever takes an entry out of here, the reader or the one who gives it up, speaks for the job.
        self._begun: dict[int, _Begun] = {}
        self._n_begun = 0
        self._threads: list[threading.Thread] = []
        # Told to each: a thread begins without the context of its maker.
        self._n_decoding = max(1, decoding_threads() // n_readers)
        for _ in range(n_readers):
            self._add()

    def _add(self) -> None:
        thread = threading.Thread(target=self._work, name="seats-reader", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        try:
            with stoppable(self._stop), at_most(self._n_decoding):
                while (begun := self._begin()) is not None:
                    number, job = begun
                    reading = _read(self._asker, job)
                    with self._lock:
                        wanted = self._begun.pop(number, None) is not None
                    if not wanted:
                        return
                    self._found.put(reading)
                    del reading
        except BaseException as caught:
            self._found.put(caught)
        else:
            self._found.put(None)

    def _begin(self) -> tuple[int, Job] | None:
        """The next job and a number for it, when there is room; None: there are no more."""
        self._room.acquire()
        with self._next:
            job = None if self._stop.is_set() else next(self._jobs, None)
        if job is None:
            return None
        with self._lock:
            self._n_begun += 1
            self._begun[self._n_begun] = _Begun(job, time.monotonic(), threading.current_thread())
            return self._n_begun, job

    def __iter__(self) -> Iterator[_Reading]:
        working = len(self._threads)
        while working:
            try:
                found = self._found.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                yield from self._given_up()
                continue
            if isinstance(found, BaseException):
                raise found
            if found is None:
                working -= 1
                self._room.release()
                continue
            if self._ahead:
                self._room.release()
            yield found
            del found
            if not self._ahead:
                self._room.release()

    def _given_up(self) -> Iterator[_Reading]:
        limit = self._asker.timeout_seconds
        if limit is None:
            return
        latest = time.monotonic() - limit - GRACE_SECONDS
        with self._lock:
            late = [number for number, begun in self._begun.items() if begun.seconds < latest]
            all_begun = [self._begun.pop(number) for number in late]
        for begun in all_begun:
            self._threads.remove(begun.thread)
            self._add()
            self._room.release()
            problem = f"{begun.job.path}: took longer than {limit:g} s (--timeout) and did not stop when told to"
            yield _Reading(begun.job, None, TimeLimitError(problem))

    def close(self) -> None:
        """Call off what is being read."""
        self._stop.set()
        for _ in self._threads:
            self._room.release()
        until = time.monotonic() + GRACE_SECONDS
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0.0))

"""Many clips: each gets what it would get alone, whoever reads it, whatever becomes of the others."""

from __future__ import annotations

import dataclasses
import gc
import threading
import time
import traceback
import weakref
from types import SimpleNamespace

import pytest
import torch

from seats_cli import Seats
from seats_cli.config import MediaOptions, SelectionOptions
from seats_cli.engine import batch, reading
from seats_cli.engine.batch import Outcome, check_tasks, run
from seats_cli.engine.store import ClipStore
from seats_cli.errors import InterruptedRunError, MediaError, MemoryLimitError, TimeLimitError, UsageError
from seats_cli.media import open_clip
from seats_cli.tasks import Task, jobs_of
from seats_cli.timelimit import check_time
from tests.engine.library import SHAPES, Library, alone, asker_of, reader_threads, timeless, told
from tests.media.clips import even_times, tone, write_video

METHODS = {
    "seats": SelectionOptions(trr=0.3),
    "full": SelectionOptions(method="full", trr=1.0),
    "random": SelectionOptions(method="random", trr=0.3),
    "all kept": SelectionOptions(trr=1.0),
}
MANY = 1_000_000_000
LONG_WAIT = 30.0
"""Seconds after which a test that waits has failed; none waits as long when it passes."""


@pytest.fixture
def library(loaded):
    return Library(loaded)


@pytest.fixture(autouse=True)
def no_reader_is_left():
    yield
    assert reader_threads() == []


# The same as alone


@pytest.mark.parametrize("readers", [0, 1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_each_clip_gets_what_it_would_get_alone(loaded, library, method, readers):
    asker = asker_of(loaded, library, selection=METHODS[method])
    asked = [Task(path=path, question=what) for path in (*SHAPES, "both-2") for what in ("What?", "Where is it?")]
    expected = {task: timeless(alone(asker, library, task)) for task in asked}
    library.opened.clear()
    assert told(run(asker, library.jobs(*asked), readers=readers)) == expected
    # However many questions there are.
    assert library.opened == dict.fromkeys((*SHAPES, "both-2"), 1)


def test_a_task_brings_its_own_choices(loaded, library):
    asker = asker_of(loaded, library)
    asked = [Task(path="both", question="Which?", choices=("red", "blue")), Task(path="both", question="Which?")]
    outcomes = list(run(asker, library.jobs(*asked)))
    assert [timeless(outcome.report) for outcome in outcomes] == [
        timeless(alone(asker, library, task)) for task in asked
    ]
    assert [choice.label for choice in outcomes[0].report.choices] == ["red", "blue"]
    assert outcomes[1].report.choices == ()
    assert library.opened["both"] == 3


def test_parts_of_one_file_are_clips_of_their_own(loaded, library, tmp_path):
    path = str(write_video(tmp_path / "clip.mp4", even_times(6, 5), sound=tone(6)))
    parts = [(None, None), (1.0, 3.0), (2.0, None), (1.0, 3.0)]
    asked = [
        Task(path=path, question=f"What? {i}", start_seconds=start, end_seconds=end)
        for i, (start, end) in enumerate(parts)
    ]
    opened = []

    def counting(path, media):
        opened.append((media.start_seconds, media.end_seconds))
        return open_clip(path, media)

    asker = asker_of(loaded, counting)
    found = told(run(asker, jobs_of(asked, MediaOptions()), readers=2))
    assert sorted(opened, key=str) == sorted(set(parts), key=str)
    for task, (start, end) in zip(asked, parts, strict=True):
        media = MediaOptions(start_seconds=start, end_seconds=end)
        settings = dataclasses.replace(library_settings(asker), media=media)
        from seats_cli.engine.pipeline import answer

        expected = answer(loaded, lambda media=media: open_clip(path, media), task.question, settings)
        assert found[task] == timeless(expected)


def library_settings(asker):
    from seats_cli.engine.pipeline import Settings

    return Settings(MediaOptions(), asker.selection, asker.generation)


@pytest.mark.parametrize("readers", [0, 2])
def test_a_cache_changes_nothing_but_the_work(loaded, library, tmp_path, readers):
    # The cache looks at the bytes of a file: these stand for the clips of the same names.
    folder = tmp_path / "clips"
    folder.mkdir()
    names = ["both", "picture", "sound", "short"]
    for name in names:
        (folder / name).write_text(name)

    def from_folder(path, media):
        return library(path.rpartition("/")[2], media)

    asker = asker_of(loaded, from_folder, store=ClipStore(tmp_path / "cache", MANY))
    jobs = [
        [Task(path=str(folder / name), question=f"What {i}?") for name in names for i in range(2)]
        for _ in range(2)
    ]
    fresh = told(run(asker, jobs_of(jobs[0], library.media), readers=readers))
    assert library.opened == dict.fromkeys(names, 1)
    again = told(run(asker, jobs_of(jobs[1], library.media), readers=readers))
    assert library.opened == dict.fromkeys(names, 1)
    assert all(report.media.cached for report in again.values())

    def uncached(found):
        return {
            task: dataclasses.replace(r, media=dataclasses.replace(r.media, cached=False))
            for task, r in found.items()
        }

    assert uncached(again) == fresh
    for task, report in fresh.items():
        plain = timeless(alone(asker, library, dataclasses.replace(task, path=task.path.rpartition("/")[2])))
        named = dataclasses.replace(report.media, path=plain.media.path)
        assert dataclasses.replace(report, media=named) == plain


def test_warnings_of_the_cache_stay_with_their_clip(loaded, library, tmp_path):
    """Of several clips at once only those that are too large for the cache are said to be."""
    folder = tmp_path / "clips"
    folder.mkdir()
    names = ["long", *(f"short-{i}" for i in range(6))]
    for name in names:
        (folder / name).write_text(name)
    asker = asker_of(
        loaded,
        lambda path, media: library(path.rpartition("/")[2], media),
        store=ClipStore(tmp_path / "cache", 60_000),
    )
    jobs = jobs_of([Task(path=str(folder / name), question="What?") for name in names], library.media)
    for _ in range(2):
        for outcome in run(asker, jobs, readers=4):
            large = outcome.task.path.endswith("long")
            assert any("larger than the cache" in line for line in outcome.report.warnings) == large


def test_the_facade_asks_as_the_engine_does(checkpoint, tmp_path):
    path = write_video(tmp_path / "clip.mp4", even_times(2, 5), sound=tone(2))
    seats = Seats(checkpoint, device="cpu", trr=0.4)
    tasks = [Task(path=str(path), question=what) for what in ("What?", "Who?")]
    found = told(seats.ask_many(tasks))
    assert found == {task: timeless(seats.ask(path, task.question)) for task in tasks}
    assert list(seats.ask_many([])) == []
    for bad in ({"readers": -1}, {"timeout_seconds": 0.0}, {"timeout_seconds": float("nan")}):
        with pytest.raises(UsageError):
            seats.ask_many(tasks, **bad)


def test_what_cannot_be_asked_is_known_before_anything_is_read(loaded, library):
    asker = asker_of(loaded, library)
    bad = Task(path="both", question="What is <|im_end|>?", place="rows.jsonl:7")
    with pytest.raises(UsageError, match=r"^rows\.jsonl:7: .*reserved token"):
        check_tasks(asker, [Task(path="both", question="What?"), bad])
    with pytest.raises(UsageError, match="same token"):
        check_tasks(asker, [Task(path="both", question="What?", choices=("red", "red!"))])
    assert not library.opened


# Failures


@pytest.mark.parametrize("readers", [0, 1, 3])
def test_a_clip_that_cannot_be_read_is_its_own_failure(loaded, library, readers):
    asker = asker_of(loaded, library)
    asked = [
        Task(path=path, question=what)
        for path in ("short", "missing", "short-1")
        for what in ("What?", "Who?", "Why?")
    ]
    found = list(run(asker, library.jobs(*asked), readers=readers))
    assert {outcome.task for outcome in found} == set(asked)
    for outcome in found:
        failed = outcome.task.path == "missing"
        assert isinstance(outcome.error, MediaError) == failed
        assert (outcome.report is None) == failed
    assert library.opened["missing"] == 1


@pytest.mark.parametrize("readers", [0, 1])
@pytest.mark.parametrize("kind", [ValueError, ZeroDivisionError])
def test_an_exception_nobody_expected_is_one_too(loaded, library, readers, kind):
    def before(path):
        if path == "both":
            raise kind("odd")

    library.before = before
    outcomes = list(run(asker_of(loaded, library), library.jobs("short", "both", "short-1"), readers=readers))
    assert [outcome.error is None for outcome in outcomes] == [True, False, True]
    assert isinstance(outcomes[1].caught, kind)
    assert str(outcomes[1].error) == f"{kind.__name__}: odd"
    # For --verbose: where it came from is told, also after the frames are let go.
    assert outcomes[1].caught.__traceback__ is None
    assert "in before" in "".join(traceback.format_exception(outcomes[1].caught))


@pytest.mark.parametrize("readers", [0, 1])
def test_a_question_that_fails_leaves_the_others_of_its_clip(loaded, library, readers):
    asker = asker_of(loaded, library)
    asked = [Task(path="both", question=what) for what in ("What?", "<|im_end|>", "Who?")]
    outcomes = list(run(asker, library.jobs(*asked), readers=readers))
    assert [type(outcome.error) for outcome in outcomes] == [type(None), UsageError, type(None)]
    assert library.opened["both"] == 1


class _OddError(Exception):
    pass


def test_what_the_jobs_raise_is_raised(loaded, library):
    def jobs():
        yield from library.jobs("short")
        raise _OddError

    for readers in (0, 1, 3):
        outcomes = run(asker_of(loaded, library), jobs(), readers=readers)
        with pytest.raises(_OddError):
            list(outcomes)


def test_what_no_handler_catches_ends_the_run(loaded, library):
    """Such as a panic of a library in Rust, which is no ``Exception``."""

    class Panic(BaseException):
        pass

    def before(path):
        raise Panic

    library.before = before
    for readers in (0, 2):
        with pytest.raises(Panic):
            list(run(asker_of(loaded, library), library.jobs("short", "both"), readers=readers))


# How much is read ahead


class Meter:
    """How many clips are held: opened, and not yet answered. Readers wait until the test lets them go on."""

    def __init__(self, library: Library) -> None:
        self.lock, self.n_begun = threading.Lock(), 0
        self.changed = threading.Condition(self.lock)
        library.before = self.begin

    def begin(self, _):
        with self.lock:
            self.n_begun += 1
            self.changed.notify_all()

    def reaches(self, n: int) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.n_begun >= n, LONG_WAIT)


@pytest.mark.parametrize("readers", [1, 2, 3])
def test_no_more_is_read_ahead_than_there_are_readers(loaded, library, readers):
    meter = Meter(library)
    outcomes = run(asker_of(loaded, library), library.jobs(*(f"short-{i}" for i in range(9))), readers=readers)
    for n_answered, _ in enumerate(outcomes, 1):
        # They do read ahead, as far as they may, ...
        assert meter.reaches(min(n_answered + readers, 9))
        # ... and no farther while this one is in hand, however long that is.
        time.sleep(0.05)
        assert meter.n_begun <= n_answered + readers
    assert n_answered == 9


@pytest.mark.parametrize("limit", [None, 100.0])
def test_without_readers_nothing_is_read_ahead(loaded, library, limit):
    meter = Meter(library)
    asker = asker_of(loaded, library, timeout_seconds=limit)
    for n_answered, _ in enumerate(run(asker, library.jobs("short", "both", "sound"), readers=0), 1):
        time.sleep(0.05)
        assert meter.n_begun == n_answered


@pytest.mark.parametrize("readers", [0, 1])
def test_one_reader_keeps_the_order(loaded, library, readers):
    names = ["both", "short", "sound", "picture", "short-1"]
    asked = [Task(path=name, question=what) for name in names for what in ("What?", "Who?")]
    found = [outcome.task for outcome in run(asker_of(loaded, library), library.jobs(*asked), readers=readers)]
    assert found == asked


def test_clips_in_hand_are_let_go(loaded, library, monkeypatch):
    """Of the clips that were read no more are alive than one in hand and one per reader."""
    alive = weakref.WeakSet()
    most = 0
    read = batch.read_clip

    def watched(*arguments):
        nonlocal most
        found = read(*arguments)
        gc.collect()
        alive.update(tokens.embeddings for tokens in found.kept.values())
        most = max(most, len(alive))
        return found

    monkeypatch.setattr(batch, "read_clip", watched)
    jobs = library.jobs(*(f"picture-{i}" for i in range(6)))
    n = sum(1 for _ in run(asker_of(loaded, library), jobs, readers=1))
    assert n == 6
    assert most <= 2
    gc.collect()
    assert len(alive) == 0


# Ends


def test_closing_early_ends_the_readers(loaded, library):
    outcomes = run(asker_of(loaded, library), library.jobs(*(f"both-{i}" for i in range(20))), readers=3)
    next(outcomes)
    assert reader_threads()
    outcomes.close()
    assert reader_threads() == []
    assert sum(library.opened.values()) <= 5


def test_so_does_an_exception_where_the_outcomes_go(loaded, library):
    def consume():
        for _ in run(asker_of(loaded, library), library.jobs(*(f"both-{i}" for i in range(20))), readers=3):
            raise _OddError

    with pytest.raises(_OddError):
        consume()
    gc.collect()
    assert reader_threads() == []


def test_readers_that_are_called_off_stop_in_the_middle(loaded, library):
    """A clip that would take minutes ends with the run, at its next frame."""
    begun = threading.Event()

    def inside(path):
        if path == "long":
            begun.set()
            time.sleep(1e-3)
            check_time()

    library.inside = inside
    outcomes = run(asker_of(loaded, library), library.jobs("short", "long", "both"), readers=1)
    next(outcomes)
    assert begun.wait(LONG_WAIT)
    outcomes.close()
    assert library.opened["both"] == 0


@pytest.mark.parametrize("readers", [0, 1])
@pytest.mark.parametrize("where", ["first", "later"])
def test_ctrl_c_while_an_answer_is_written(loaded, library, monkeypatch, readers, where):
    """Half an answer is no outcome."""
    steps = 0
    stock = type(loaded.model).last_logits

    def last_logits(self, hidden):
        nonlocal steps
        steps += 1
        if steps == (1 if where == "first" else 7):
            raise KeyboardInterrupt
        return stock(self, hidden)

    monkeypatch.setattr(type(loaded.model), "last_logits", last_logits)
    outcomes, found = run(asker_of(loaded, library), library.jobs("short", "both"), readers=readers), []
    with pytest.raises(InterruptedRunError):
        found.extend(outcomes)
    expected = {"first": 0, "later": 1}[where]
    assert len(found) <= expected
    assert all(outcome.report.finish_reason != "interrupted" for outcome in found)


# Memory


@pytest.fixture
def crowded(loaded, monkeypatch):
    """A device on which no more than so many grids are encoded at once; says what was tried.

    Every tensor that a failed attempt was given is watched.
    """
    stock = type(loaded.model).encode_video

    device = SimpleNamespace(most=10**6, tried=[], failed=[])

    def encode_video(self, patches, grid, *, saliency):
        device.tried.append(grid[0])
        if grid[0] > device.most:
            device.failed.append(weakref.ref(patches))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        if device.failed and device.most:
            gc.collect()
            assert all(tensor() is None for tensor in device.failed), "held while it is tried again"
        return stock(self, patches, grid, saliency=saliency)

    monkeypatch.setattr(type(loaded.model), "encode_video", encode_video)
    return device


@pytest.mark.parametrize("readers", [0, 1])
def test_out_of_memory_is_tried_again_a_window_at_a_time(loaded, library, crowded, readers):
    asker = asker_of(loaded, library)
    crowded.most = 10**6
    plain = told(run(asker, library.jobs("long", "short"), readers=0))
    grids = crowded.tried[-1]  # of a clip of one window
    crowded.most, crowded.tried = grids, []
    found = told(run(asker, library.jobs("long", "short"), readers=readers))
    assert max(crowded.tried[1:]) <= grids
    for task, report in found.items():
        before = plain[task]
        if task.path == "short":
            assert report == before
            continue
        assert [line for line in report.warnings if line not in before.warnings] == [
            "out of memory with 8 windows encoded at once: encoded again, one at a time"
        ]
        assert (report.answer, report.tokens, report.media) == (before.answer, before.tokens, before.media)
    assert library.opened["long"] == 3


@pytest.mark.parametrize("readers", [0, 1])
def test_out_of_memory_twice_is_the_failure_of_that_clip(loaded, library, crowded, readers):
    crowded.most = 0
    outcomes = list(run(asker_of(loaded, library), library.jobs("sound", "both", "sound-1"), readers=readers))
    assert [outcome.error is None for outcome in outcomes] == [True, False, True]
    error = outcomes[1].error
    assert isinstance(error, MemoryLimitError)
    assert error.exit_code == 5
    assert "--max-frames" in error.hint
    assert len(crowded.tried) == 2
    # Though the outcome is kept, and the exception with it.
    assert outcomes[1].caught is not None
    gc.collect()
    assert all(tensor() is None for tensor in crowded.failed)


def test_what_cannot_fit_by_our_own_count_is_not_tried_twice(loaded, library, monkeypatch):
    def refuse(*_):
        raise MemoryLimitError("needs more than there is")

    monkeypatch.setattr(reading, "check_clip_fits", refuse)
    (outcome,) = run(asker_of(loaded, library), library.jobs("both"), readers=0)
    assert isinstance(outcome.error, MemoryLimitError)
    assert library.opened["both"] == 1


@pytest.mark.parametrize("readers", [0, 1])
@pytest.mark.parametrize("times", [1, 99])
def test_out_of_memory_while_it_is_answered(loaded, library, monkeypatch, readers, times):
    """Once more, with no encoder beside it; then it is the failure of that question."""
    stock = type(loaded.model).query_attention
    failures, held = [], []

    def query_attention(self, index, hidden, rope):
        if library.opened["both"] and len(failures) < times and library.opened["short"] == 0:
            failures.append(weakref.ref(hidden))
            held.append(self.encoding.locked())
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return stock(self, index, hidden, rope)

    asker = asker_of(loaded, library)
    (plain,) = run(asker, library.jobs("both"), readers=0)
    monkeypatch.setattr(type(loaded.model), "query_attention", query_attention)
    (outcome,) = run(asker, library.jobs("both"), readers=readers)
    gc.collect()
    assert all(tensor() is None for tensor in failures)
    if times == 1:
        line = "out of memory while it was answered: answered again with nothing beside it"
        warned = dataclasses.replace(plain.report, warnings=(*plain.report.warnings, line))
        assert timeless(outcome.report) == timeless(warned)
    else:
        assert isinstance(outcome.error, MemoryLimitError)
        assert held == [False, True]
    assert not loaded.model.encoding.locked()
    (after,) = run(asker, library.jobs("short"), readers=readers)
    assert after.error is None


# Time


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(batch, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(batch, "GRACE_SECONDS", 0.5)


def slow_inside(name, *, heeds):
    """Frames of one clip that never come to an end, in the time of a test; ends when ``over`` is set."""
    over = threading.Event()

    def inside(path):
        if path == name:
            until = time.monotonic() + LONG_WAIT
            while time.monotonic() < until and not over.wait(0.01):
                if heeds:
                    check_time()

    return inside, over


@pytest.mark.parametrize("readers", [0, 1, 2])
def test_a_clip_that_takes_too_long_is_its_own_failure(loaded, library, readers):
    library.inside, _ = slow_inside("both", heeds=True)
    asker = asker_of(loaded, library, timeout_seconds=2.0)
    found = {
        outcome.task.path: outcome
        for outcome in run(asker, library.jobs("short", "both", "sound"), readers=readers)
    }
    assert {path: type(outcome.error) for path, outcome in found.items()} == {
        "short": type(None),
        "both": TimeLimitError,
        "sound": type(None),
    }
    assert "2 s (--timeout)" in str(found["both"].error)


@pytest.mark.parametrize("readers", [0, 1, 2])
@pytest.mark.usefixtures("impatient")
def test_a_reader_that_does_not_come_back_is_given_up(loaded, library, readers):
    library.inside, over = slow_inside("both", heeds=False)
    asker = asker_of(loaded, library, timeout_seconds=2.0)
    outcomes, found = run(asker, library.jobs("short", "both", "sound", "short-1"), readers=readers), []
    try:
        for outcome in outcomes:
            found.append(outcome)
            if outcome.task.path == "both":
                # What it finds after all is nobody's any more.
                over.set()
    finally:
        over.set()
    assert sorted(outcome.task.path for outcome in found) == ["both", "short", "short-1", "sound"]
    errors = {outcome.task.path: outcome.error for outcome in found}
    assert isinstance(errors.pop("both"), TimeLimitError)
    assert set(errors.values()) == {None}
    for thread in reader_threads():
        thread.join(LONG_WAIT)


@pytest.mark.usefixtures("impatient")
def test_the_end_does_not_wait_for_a_reader_that_was_given_up(loaded, library, monkeypatch):
    library.inside, over = slow_inside("both", heeds=False)
    asker = asker_of(loaded, library, timeout_seconds=1.0)
    (outcome,) = run(asker, library.jobs("both"), readers=1)
    try:
        assert isinstance(outcome.error, TimeLimitError)
        assert len(reader_threads()) == 1
    finally:
        over.set()
    for thread in reader_threads():
        thread.join(LONG_WAIT)


@pytest.mark.parametrize("readers", [0, 1])
def test_the_limit_is_for_the_answer_too(loaded, library, monkeypatch, readers):
    stock = type(loaded.model).last_logits
    slow = threading.Event()

    def last_logits(self, hidden):
        if slow.is_set():
            time.sleep(0.7)
        return stock(self, hidden)

    monkeypatch.setattr(type(loaded.model), "last_logits", last_logits)
    asker = asker_of(loaded, library, timeout_seconds=2.0, tokens=64)
    outcomes = run(asker, library.jobs("short", "both"), readers=readers)
    slow.set()
    first = next(outcomes)
    slow.clear()
    assert isinstance(first.error, TimeLimitError)
    assert [outcome.error for outcome in outcomes] == [None]


def test_what_one_question_spends_is_not_taken_from_the_next(loaded, library, monkeypatch):
    """The limit is for the clip and one question about it."""
    stock = type(loaded.model).last_logits

    def last_logits(self, hidden):
        time.sleep(0.05)
        return stock(self, hidden)

    monkeypatch.setattr(type(loaded.model), "last_logits", last_logits)
    asker = asker_of(loaded, library, timeout_seconds=4.0, tokens=20)
    asked = [Task(path="short", question=f"What {i}?") for i in range(6)]
    assert [outcome.error for outcome in run(asker, library.jobs(*asked))] == [None] * 6


# Threads


def test_a_new_thread_computes_with_as_many_threads():
    """Another number would split sums elsewhere, and give other last bits."""
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert found == [torch.get_num_threads()]


def test_outcomes_can_be_sent_to_another_process(loaded, library):
    import pickle

    outcomes = list(run(asker_of(loaded, library), library.jobs("short", "missing")))
    for outcome in outcomes:
        light = dataclasses.replace(outcome, caught=None)
        again: Outcome = pickle.loads(pickle.dumps(light))
        assert (again.task, again.report) == (light.task, light.report)
        if light.error is not None:
            assert (type(again.error), str(again.error), again.error.hint) == (
                type(light.error),
                str(light.error),
                light.error.hint,
            )

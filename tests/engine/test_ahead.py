"""An iterator in a thread of its own: the same items, bounded, and gone when nobody wants it."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Generator, Iterator

import pytest
import torch

from seats_cli.engine import ahead
from seats_cli.engine.ahead import Ahead, Uploader
from seats_cli.errors import InterruptedRunError, TimeLimitError
from seats_cli.timelimit import check_time, stoppable, time_limit

PATIENCE_SECONDS = 20


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "seats ahead"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    for thread in threads():
        thread.join(PATIENCE_SECONDS)
    assert not threads()


class Source:
    """Counts what it made, and notes that it was closed."""

    def __init__(self, n: int) -> None:
        self.n, self.n_made = n, 0
        self.closed = threading.Event()
        self.made = threading.Semaphore(0)

    def items(self) -> Generator[int]:
        try:
            for i in range(self.n):
                check_time()
                self.n_made += 1
                self.made.release()
                yield i
        finally:
            self.closed.set()


@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize("most", [1, 3])
def test_the_same_items_in_order(n: int, most: int) -> None:
    ahead = Ahead(Source(n).items(), most)
    assert list(ahead) == list(range(n))
    assert list(ahead) == []


@pytest.mark.parametrize("most", [1, 3])
def test_it_begins_at_once_and_goes_no_further_than_it_may(most: int) -> None:
    source = Source(100)
    ahead = Ahead(source.items(), most)
    for _ in range(most + 1):
        assert source.made.acquire(timeout=PATIENCE_SECONDS)
    assert not source.made.acquire(timeout=0.05)
    assert next(ahead) == 0
    assert source.made.acquire(timeout=PATIENCE_SECONDS)
    ahead.close()
    assert source.closed.wait(PATIENCE_SECONDS)
    assert source.n_made <= most + 3


def test_what_is_raised_arrives_behind_the_items_before_it() -> None:
    def items() -> Generator[int]:
        yield 1
        raise KeyError("gone")

    ahead = Ahead(items())
    assert next(ahead) == 1
    with pytest.raises(KeyError, match="gone"):
        next(ahead)
    assert list(ahead) == []


def test_one_that_is_let_go_ends() -> None:
    source = Source(100)
    ahead = Ahead(source.items())
    assert next(ahead) == 0
    del ahead
    assert source.closed.wait(PATIENCE_SECONDS)


def test_it_is_called_off_inside_an_item_too() -> None:
    begun = threading.Event()

    def endless() -> Generator[int]:
        begun.set()
        while True:
            check_time()
            time.sleep(0.001)
        yield 0

    ahead = Ahead(endless())
    assert begun.wait(PATIENCE_SECONDS)
    ahead.close()
    with pytest.raises(InterruptedRunError):
        next(ahead)


def test_the_limits_of_its_maker_hold_there() -> None:
    with time_limit(0.0), pytest.raises(TimeLimitError):
        next(Ahead(Source(1).items()))
    stop = threading.Event()
    stop.set()
    with stoppable(stop), pytest.raises(InterruptedRunError):
        next(Ahead(Source(1).items()))


def test_on_a_cpu_nothing_is_copied() -> None:
    tensor = torch.arange(3)
    assert Uploader(torch.device("cpu"))(tensor).here() is tensor


def test_uploads_of_all_clips_share_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch deals the same few out again and again: a clip's own would be another's, in the end a graph's."""
    made: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "Stream", made.append)
    ahead._upload_stream.cache_clear()
    for _ in range(40):
        Uploader(torch.device("cuda", 0))
    Uploader(torch.device("cuda", 1))
    ahead._upload_stream.cache_clear()
    assert made == [torch.device("cuda", 0), torch.device("cuda", 1)]

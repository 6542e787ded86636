"""A limit holds for its block, the earlier of two holds, and nothing is raised but by asking."""

from __future__ import annotations

import threading

import pytest

from seats_cli import timelimit
from seats_cli.errors import TimeLimitError
from seats_cli.timelimit import check_time, seconds_left, time_limit


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is set."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(timelimit.time, "monotonic", lambda: Clock.now)
    return Clock


def test_without_a_limit_nothing_is_over(clock):
    check_time()
    assert seconds_left() is None
    with time_limit(None):
        clock.now += 1e9
        check_time()
        assert seconds_left() is None


def test_over_at_the_deadline_and_not_before(clock):
    with time_limit(30):
        clock.now += 29.5
        check_time()
        assert seconds_left() == 0.5
        clock.now += 0.5
        with pytest.raises(TimeLimitError, match=r"^took longer than 30 s \(--timeout\)$") as caught:
            check_time()
        assert caught.value.exit_code == 124
        assert "--timeout" in caught.value.hint
        assert seconds_left() == 0
    check_time()


@pytest.mark.parametrize(("outer", "inner"), [(5, 9), (9, 5), (5, None), (None, 5)])
def test_the_earlier_of_two_holds(clock, outer, inner):
    with time_limit(outer), time_limit(inner):
        clock.now += 4
        check_time()
        clock.now += 2
        with pytest.raises(TimeLimitError, match="than 5 s"):
            check_time()


def test_the_outer_one_is_back_afterwards_also_after_an_error(clock):
    with time_limit(9):
        with pytest.raises(KeyError), time_limit(5):
            raise KeyError
        clock.now += 6
        check_time()
        clock.now += 6
        with pytest.raises(TimeLimitError, match="than 9 s"):
            check_time()


def test_leaving_late_is_no_error(clock):
    with time_limit(1):
        clock.now += 2


def test_it_is_of_its_thread(clock):
    found = []
    with time_limit(1):
        clock.now += 2
        thread = threading.Thread(target=lambda: found.append(seconds_left()))
        thread.start()
        thread.join()
    assert found == [None]

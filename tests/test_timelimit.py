"""A limit on time: of nested ones the first that is over, of this thread alone."""

from __future__ import annotations

import threading

import pytest

from seats_cli import timelimit
from seats_cli.errors import InterruptedRunError, TimeLimitError
from seats_cli.timelimit import check_time, seconds_left, stoppable, time_limit


@pytest.fixture
def clock(monkeypatch):
    """``clock.now`` is the time."""

    class Clock:
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    made = Clock()
    monkeypatch.setattr(timelimit, "time", made)
    return made


def test_without_a_limit_nothing_is_over(clock):
    check_time()
    assert seconds_left() is None
    with time_limit(None):
        clock.now += 1e9
        check_time()
        assert seconds_left() is None


def test_a_limit_is_over_when_it_is(clock):
    with time_limit(3.0):
        clock.now += 2.9
        check_time()
        assert seconds_left() == pytest.approx(0.1)
        clock.now += 0.1
        with pytest.raises(TimeLimitError, match=r"longer than 3 s \(--timeout\)") as caught:
            check_time()
        assert caught.value.exit_code == 124
        assert caught.value.hint
        clock.now += 5
        assert seconds_left() == 0.0
    check_time()
    assert seconds_left() is None


@pytest.mark.parametrize(("outer", "inner"), [(1.0, 5.0), (5.0, 1.0), (None, 1.0), (1.0, None), (2.0, 2.0)])
def test_of_nested_limits_the_first_that_is_over_holds(clock, outer, inner):
    first = min(one for one in (outer, inner) if one is not None)
    with time_limit(outer):
        with time_limit(inner):
            assert seconds_left() == pytest.approx(first)
            clock.now += first
            with pytest.raises(TimeLimitError, match=f"longer than {first:g} s"):
                check_time()
        assert seconds_left() == (None if outer is None else pytest.approx(outer - first))


def test_a_rest_names_the_whole(clock):
    with time_limit(0.5, of=60.0):
        clock.now += 1
        with pytest.raises(TimeLimitError, match="longer than 60 s"):
            check_time()


def test_a_limit_ends_with_its_block_whatever_is_raised():
    with pytest.raises(ValueError, match="odd"), time_limit(1.0):
        raise ValueError("odd")
    assert seconds_left() is None


def test_limits_and_stops_are_of_one_thread():
    found = []

    def other():
        check_time()
        found.append(seconds_left())

    stop = threading.Event()
    stop.set()
    with time_limit(0.0), stoppable(stop):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        with pytest.raises(InterruptedRunError):
            check_time()
    assert found == [None]
    check_time()


def test_who_is_called_off_hears_of_it_before_the_limit():
    stop = threading.Event()
    with stoppable(stop), time_limit(0.0):
        with pytest.raises(TimeLimitError):
            check_time()
        stop.set()
        with pytest.raises(InterruptedRunError):
            check_time()

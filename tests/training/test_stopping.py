"""Training stops between steps: when their time is up, or at Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from seats_cli.training.stopping import Stop


@pytest.fixture(autouse=True)
def pythons_own():
    """Also where whoever runs the tests ignores Ctrl-C."""
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, ours)


def test_only_steps_take_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stop = Stop(10)
    now[0] = 100
    assert not stop()
    for passed, over in ((4, False), (6, True)):
        with stop.steps():
            now[0] += passed - 1
            assert not stop()
            now[0] += 1
            assert stop() == over
        now[0] += 50
        assert stop() == over
    assert Stop(0)()


def test_ctrl_c_waits_for_the_end_of_a_step_and_a_second_one_does_not():
    stop = Stop(1e9)
    with stop.steps():
        signal.raise_signal(signal.SIGINT)
        assert stop()
        assert stop.interrupted
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_ctrl_c_that_is_ignored_or_not_ours_stays_so():
    stop = Stop(1e9)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop.steps():
        signal.raise_signal(signal.SIGINT)
    assert not stop()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    entered = []

    def elsewhere() -> None:
        with stop.steps():
            entered.append(stop())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert entered == [False]

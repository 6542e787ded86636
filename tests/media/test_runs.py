"""Plans of what is decoded: every wanted frame once, in order, and nothing that is not needed."""

from __future__ import annotations

import threading
import time
from contextlib import closing, contextmanager
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seats_cli.media import ahead, cores
from seats_cli.media.ahead import in_order
from seats_cli.media.cores import at_most, decoding_threads, shared_by
from seats_cli.media.h264 import FrameNumbers, UnknownHeaderError, _Bits
from seats_cli.media.runs import plan_runs, share_runs

TICKS = st.lists(st.integers(-500, 5000), min_size=1, max_size=60)


@given(TICKS, TICKS, st.integers(1, 9))
def test_every_wanted_frame_is_in_one_run_behind_its_keyframe(keyframes, wanted, n_threads):
    keys, due = np.unique(keyframes), np.sort(np.array(wanted))
    runs = plan_runs(keys, due)
    assert list(chain.from_iterable(run.wanted for run in runs)) == np.unique(due).tolist()
    assert [run.interval for run in runs] == sorted({run.interval for run in runs})
    for run in runs:
        after = keys[keys > run.wanted[0]]
        if run.keyframe is None:
            # From the start of the file: no keyframe but the first lies between.
            assert run.interval == 0
            assert not (keys[1:] <= run.wanted[0]).any()
        else:
            assert run.keyframe == max(keys[keys <= run.wanted[0]])
            assert run.keyframe == keys[run.interval]
        assert not after.size or run.wanted[-1] < after[0] or run.interval == 0
    shares = share_runs(runs, n_threads)
    assert list(chain.from_iterable(shares)) == runs
    assert all(shares)


@given(TICKS, TICKS)
def test_no_interval_without_a_wanted_frame_is_in_a_plan(keyframes, wanted):
    keys, due = np.unique(keyframes), np.unique(wanted)
    bounds = [-(10**9), *keys[1:].tolist(), 10**9]
    holding = {k for k in range(len(keys)) if ((due >= bounds[k]) & (due < bounds[k + 1])).any()}
    assert {run.interval for run in plan_runs(keys, due)} == holding


def test_without_keyframes_there_is_one_run():
    (run,) = plan_runs(np.zeros(0, np.int64), np.array([3, 3, 9]))
    assert (run.keyframe, run.wanted) == (None, (3, 9))


# Threads


def test_cores_are_shared(monkeypatch):
    monkeypatch.setattr(cores, "n_cores", lambda: 16)
    assert decoding_threads() == 16
    with shared_by(3):
        assert decoding_threads() == 5
        with at_most(100):
            assert decoding_threads() == 5
        with shared_by(100):
            assert decoding_threads() == 1
    assert decoding_threads() == 16


class Watch:
    """Workers that yield numbers, and how many of these were made and not yet taken."""

    def __init__(self, n_results: int) -> None:
        self.n_results, self.n_made, self.n_begun, self.n_ended = n_results, 0, 0, 0
        self.lock = threading.Lock()

    @contextmanager
    def begin(self):
        with self.lock:
            self.n_begun += 1
        try:
            yield self.work
        finally:
            with self.lock:
                self.n_ended += 1

    def work(self, task):
        for k in range(self.n_results):
            with self.lock:
                self.n_made += 1
            yield task, k


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("n_tasks", [1, 3, 20])
def test_results_come_in_order(n_threads, n_tasks):
    watch = Watch(7)
    found = list(in_order(range(n_tasks), watch.begin, lambda _: 1, n_threads))
    assert found == [(task, k) for task in range(n_tasks) for k in range(7)]
    assert watch.n_begun == watch.n_ended <= n_threads


@pytest.mark.parametrize(("n_bytes", "most"), [(1, ahead.MOST_RESULTS * 2), (ahead.MOST_BYTES // 4, 4)])
def test_a_bounded_number_waits(n_bytes, most):
    watch, n_taken = Watch(100), 0
    with closing(in_order(range(6), watch.begin, lambda _: n_bytes, 2)) as found:
        for _ in found:
            n_taken += 1
            if n_taken % 100 == 50:
                time.sleep(0.05)
            # One more is in the hands of each thread, and one may always wait where it is taken next.
            assert watch.n_made - n_taken <= most + 2 + 1
    assert n_taken == 600


def test_nothing_is_left_of_threads_that_are_called_off():
    watch = Watch(1000)
    found = in_order(range(4), watch.begin, lambda _: 1, 3)
    next(found)
    assert watch.n_begun
    found.close()
    assert watch.n_begun == watch.n_ended
    assert not any(thread.name.startswith("seats-decoder") for thread in threading.enumerate())


def test_what_a_thread_raises_is_raised_without_its_frames():
    @contextmanager
    def begin():
        def work(task):
            yield task
            raise OSError("gone")

        yield work

    with pytest.raises(OSError, match="gone") as caught:
        list(in_order(range(3), begin, lambda _: 1, 2))
    assert caught.value.__context__ is None
    assert not any(frame.name == "work" for frame in caught.traceback)


# Headers


def golomb(number: int) -> str:
    code = bin(number + 1)[2:]
    return "0" * (len(code) - 1) + code


def unit(kind: int, reference: int, bits: str) -> bytes:
    bits += "1" + "0" * (-(len(bits) + 1) % 8) + "0" * 64
    body = int(bits, 2).to_bytes(len(bits) // 8)
    # 7.4.1: what could look like a start code gets a 3.
    out = bytearray()
    for byte in body:
        if byte <= 3 and out[-2:] == b"\0\0":
            out.append(3)
        out.append(byte)
    return bytes([reference << 5 | kind]) + bytes(out)


@given(st.integers(0, 2**20), st.integers(0, 70_000))
def test_numbers_in_exp_golomb_code(number, other):
    bits = _Bits(int("1" + golomb(number) + golomb(other) + "0" * 8, 2).to_bytes(16))
    while not bits.read(1):
        pass
    assert (bits.golomb(), bits.golomb()) == (number, other)


def boxed(*units: bytes) -> bytes:
    return b"".join(len(one).to_bytes(4) + one for one in units)


@given(st.integers(4, 16), st.data())
def test_a_missing_reference_is_found_and_no_other(n_bits, data):
    parameters = bytes([7 | 3 << 5, 66, 0, 30]) + unit(0, 0, golomb(0) + golomb(n_bits - 4))[1:]
    box = bytes([1, 66, 0, 30, 255, 225]) + len(parameters).to_bytes(2) + parameters
    in_box, behind_codes = FrameNumbers(box), FrameNumbers(b"\0\0\0\1" + parameters)
    is_reference = data.draw(st.lists(st.booleans(), min_size=2, max_size=40))
    number, pictures = 0, []
    for k, reference in enumerate(is_reference):
        kind = 5 if k == 0 else 1
        bits = golomb(0) + golomb(7) + golomb(0) + f"{number % 2**n_bits:0{n_bits}b}"
        pictures.append((unit(kind, int(reference or k == 0), bits), reference or k == 0))
        number += reference or k == 0
    missing = data.draw(st.integers(0, len(pictures)))
    found = []
    for k, (picture, _) in enumerate(pictures):
        if k != missing:
            follows = in_box.follows(boxed(picture))
            assert behind_codes.follows(b"\0\0\0\1" + picture) == follows
            found.append(follows)
    told = 0 < missing < len(pictures) - 1 and pictures[missing][1]
    # Until the next reference all pictures behind it tell of it.
    assert (False in found) == told


@pytest.mark.parametrize("extradata", [None, b"", b"\1\2\3", b"\0\0\1\x67", bytes(40)])
def test_headers_that_say_nothing(extradata):
    with pytest.raises(UnknownHeaderError):
        FrameNumbers(extradata)

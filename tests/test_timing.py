"""Sampling, synchronisation and peak memory. No test asserts how long anything takes."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seats_cli import timing
from seats_cli.timing import PeakMemory, Samples, Stopwatch, alternate, by_stage, measure, synchronize

MIB = 1024**2


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of CUDA and of the clock, in order; the clock advances a second per reading."""
    events: list[str] = []
    ticks = count()

    def clock() -> float:
        events.append("clock")
        return float(next(ticks))

    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: events.append(f"synchronize {device}"))
    monkeypatch.setattr(timing.time, "perf_counter", clock)
    return events


def test_with_several_devices_the_clock_is_read_only_after_synchronising(journal: list[str]) -> None:
    watch = Stopwatch(["cuda:1", "cpu", "cuda:0"])
    with watch("encode"):
        journal.append("work")
    both = ["synchronize cuda:1", "synchronize cuda:0"]
    assert journal == [*both, "clock", "work", *both, "clock"]


class FakeEvents:
    """In place of CUDA's: an event notes how much work was queued before it, a second each."""

    def __init__(self, journal: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        class Event:
            def __init__(self, *, enable_timing: bool) -> None:
                assert enable_timing

            def record(self, stream: str) -> None:
                assert stream == "stream of cuda:1"
                self.after = journal.count("work")

            def synchronize(self) -> None:
                journal.append("wait")

            def elapsed_time(self, other: Event) -> float:
                return 1000.0 * (other.after - self.after)

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")


@pytest.mark.parametrize("device", ["cuda:1", torch.device("cuda", 1), ["cpu", "cuda:1"]])
def test_on_one_device_nothing_waits_until_the_seconds_are_asked_for(
    journal: list[str], device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeEvents(journal, monkeypatch)
    watch = Stopwatch(device)
    with watch("encode"):
        journal.append("work")
    with suppress(ZeroDivisionError), watch("select"):
        journal.extend(["work", "work"])
        raise ZeroDivisionError
    with watch("encode"), watch("select"):
        journal.append("work")
    assert set(journal) == {"work"}
    assert watch.seconds == {"encode": 2.0, "select": 3.0} == watch.seconds
    assert journal.count("wait") == 4


def test_what_the_host_does_beside_is_timed_by_its_clock(journal: list[str]) -> None:
    watch = Stopwatch("cuda:1")
    with watch.host("decode"):
        journal.append("work")
    assert journal == ["clock", "work", "clock"]
    assert watch.seconds == {"decode": 1.0}


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), "meta", []])
def test_only_cuda_is_synchronised(journal: list[str], device: Any) -> None:
    synchronize(device)
    assert journal == []


@pytest.mark.usefixtures("journal")
def test_stages_add_up_and_nest() -> None:
    watch = Stopwatch()
    with watch("prefill"), watch("select"):
        pass
    with watch("select"):
        pass
    assert watch.seconds == {"select": 2.0, "prefill": 3.0}


@pytest.mark.usefixtures("journal")
def test_a_stage_that_raised_counts_and_lets_the_exception_pass() -> None:
    watch = Stopwatch()
    with pytest.raises(KeyboardInterrupt), watch("answer"):
        raise KeyboardInterrupt
    assert watch.seconds == {"answer": 1.0}


def test_a_cpu_stopwatch_and_peak_memory_import_no_torch() -> None:
    code = (
        "import sys; from seats_cli.timing import PeakMemory, Stopwatch\n"
        "with PeakMemory('cpu'), Stopwatch('cpu')('x'): pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_variants_alternate_and_warm_up_does_not_count() -> None:
    calls: list[str] = []

    def variant(label: str) -> Any:
        def fn() -> int:
            calls.append(label)
            return len(calls)

        return fn

    results = alternate({label: variant(label) for label in "ABC"}, runs=3, warmup=2)
    assert "".join(calls) == "ABC" * 5
    assert results == {"A": [7, 10, 13], "B": [8, 11, 14], "C": [9, 12, 15]}


@pytest.mark.usefixtures("journal")
def test_measure_times_whole_calls() -> None:
    def slow() -> None:
        time.perf_counter()

    samples = measure({"fast": lambda: None, "slow": slow}, runs=2, warmup=1)
    assert samples == {"fast": Samples((1.0, 1.0)), "slow": Samples((2.0, 2.0))}


@pytest.mark.parametrize(("runs", "warmup"), [(0, 0), (1, -1)])
def test_measure_needs_a_run(runs: int, warmup: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        measure({"a": lambda: None}, runs=runs, warmup=warmup)


def test_by_stage_keeps_order_and_takes_what_is_there() -> None:
    laps = [{"encode": 1.0, "prefill": 2.0}, {"prefill": 4.0}]
    assert by_stage(laps) == {"encode": Samples((1.0,)), "prefill": Samples((2.0, 4.0))}
    assert list(by_stage(laps)) == ["encode", "prefill"]
    assert by_stage([]) == {}


def test_known_quartiles() -> None:
    samples = Samples((4.0, 1.0, 3.0, 2.0, 5.0))
    assert (samples.median, samples.iqr, samples.minimum, samples.maximum) == (3.0, 2.0, 1.0, 5.0)
    assert Samples((7.0,)).iqr == 0.0
    with pytest.raises(ValueError, match="no samples"):
        Samples(())


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.floats(-1e3, 1e3))
def test_sample_laws(values: list[float], shift: float) -> None:
    samples, moved = Samples(tuple(values)), Samples(tuple(value + shift for value in values))
    assert samples.minimum <= samples.median <= samples.maximum
    assert 0.0 <= samples.iqr <= samples.maximum - samples.minimum + 1e-6
    assert math.isclose(moved.median, samples.median + shift, abs_tol=1e-6)
    assert math.isclose(moved.iqr, samples.iqr, abs_tol=1e-6)


def test_resident_peak_sees_memory_that_is_gone_at_the_end() -> None:
    # A young process has no earlier peak, so the growth shows with and without setting the mark back.
    code = (
        "from seats_cli.timing import PeakMemory\n"
        "with PeakMemory('cpu') as memory:\n"
        f"    block = bytearray(b'x') * {64 * MIB}\n"
        "    del block\n"
        "print(memory.n_bytes, memory.growth_bytes)"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    peak, growth = map(int, output.split())
    assert 60 * MIB < growth < peak


def test_peak_is_unknown_before_the_block_ends() -> None:
    with PeakMemory("cpu") as memory:
        assert memory.n_bytes is None
        assert memory.growth_bytes is None
    assert memory.n_bytes is not None
    assert memory.growth_bytes is not None


def test_resident_mark_is_set_back_on_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, str]] = []

    def write_text(path: Path, text: str, **kwargs: object) -> None:
        written.append((str(path), text))

    monkeypatch.setattr(Path, "write_text", write_text)
    with PeakMemory("cpu"):
        assert written == [("/proc/self/clear_refs", "5")]


def test_resident_peak_is_read_after_an_exception() -> None:
    memory = PeakMemory("cpu")
    with pytest.raises(ZeroDivisionError), memory:
        raise ZeroDivisionError
    assert memory.n_bytes is not None


def test_without_proc_the_system_call_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *args: object, **kwargs: object) -> str:
        raise FileNotFoundError(path)

    with PeakMemory("cpu") as from_proc:
        pass
    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr(Path, "write_text", refuse)
    with PeakMemory("cpu") as from_call:
        pass
    assert from_call.n_bytes is not None
    assert from_proc.n_bytes is not None
    assert from_call.n_bytes >= from_proc.n_bytes // 2


def test_cuda_peaks_are_reset_and_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    reset: list[str] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    monkeypatch.setattr(torch.cuda, "memory_allocated", {"cuda:0": 10, "cuda:1": 20}.__getitem__)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", {"cuda:0": 100, "cuda:1": 200}.__getitem__)
    with PeakMemory(["cuda:0", torch.device("cuda:1")]) as memory:
        assert reset == ["cuda:0", "cuda:1"]
    assert (memory.n_bytes, memory.growth_bytes) == (300, 270)

"""A lane's order of calls, on an object that stands in for CUDA; tests/gpu has the rest."""

from __future__ import annotations

import gc
from contextlib import contextmanager

import pytest
import torch

from seats_cli.engine import graphs

LOG: list[str] = []
NEW = (0, 7)


class Stream:
    def __init__(self, device: object = None, priority: int = 0, name: str = "side") -> None:
        if device is not None:
            assert priority < 0, "out of the streams that nobody else is dealt"
        self.name, self.device = name, device

    def wait_stream(self, other: Stream) -> None:
        LOG.append(f"{self.name} waits for {other.name}")

    def synchronize(self) -> None:
        LOG.append(f"{self.name} done")


class Graph:
    def __init__(self) -> None:
        self.replayed = 0

    def capture_begin(self, pool: object = None, capture_error_mode: str = "global") -> None:
        assert not gc.isenabled()
        LOG.append(f"begin {'new' if pool == NEW else 'shared'} {capture_error_mode}")

    def capture_end(self) -> None:
        LOG.append("end")

    def pool(self) -> object:
        return self

    def replay(self) -> None:
        LOG.append("replay")


@pytest.fixture
def lane(monkeypatch: pytest.MonkeyPatch) -> graphs.CudaLane:
    @contextmanager
    def stream(one: Stream):
        LOG.append(f"on {one.name}")
        yield
        LOG.append(f"off {one.name}")

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: NEW)
    ended = lambda index, pool: LOG.append(f"allocating ended {index} {pool}")  # noqa: E731
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", ended, raising=False)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Stream(name="usual"))
    LOG.clear()
    return graphs.CudaLane(torch.device("cuda:0"))


def test_work_goes_there_and_is_done_at_the_end(lane: graphs.CudaLane) -> None:
    with pytest.raises(KeyError), lane.used():
        raise KeyError
    assert LOG == ["side waits for usual", "on side", "usual waits for side", "side done"]


def test_the_next_graph_is_made_in_the_memory_of_the_last(lane: graphs.CudaLane) -> None:
    for pool in ("new", "shared"):
        LOG.clear()
        replay = lane.record(lambda: LOG.append("work"))
        replay()
        expected = ["side done", f"begin {pool} thread_local", "work", "end", "replay"]
        assert expected == LOG
        assert gc.isenabled()


def test_what_failed_once_is_not_tried_again(lane: graphs.CudaLane) -> None:
    def fails() -> None:
        raise RuntimeError("not permitted")

    with pytest.raises(RuntimeError, match="not permitted"):
        lane.record(fails)
    # Or the allocator would believe in a capture for ever, and give no memory back that streams shared.
    assert LOG == ["side done", "begin new thread_local", "end", "allocating ended 0 (0, 7)"]
    assert gc.isenabled()
    with pytest.raises(RuntimeError, match="not permitted"):
        lane.record(lambda: LOG.append("work"))
    assert len(LOG) == 4


def test_ctrl_c_in_a_capture_is_no_failure_of_it(lane: graphs.CudaLane) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lane.record(interrupted)
    assert LOG[-1] == "end"
    lane.record(lambda: LOG.append("work"))
    assert LOG[-2:] == ["work", "end"]


def test_a_lane_per_thread_and_device(lane: graphs.CudaLane, monkeypatch: pytest.MonkeyPatch) -> None:
    from threading import Thread

    monkeypatch.setattr(graphs, "_lanes", {})
    one, other = torch.device("cuda:0"), torch.device("cuda:1")
    found = [graphs.lane_of(one)]
    thread = Thread(target=lambda: found.append(graphs.lane_of(one)))
    thread.start()
    thread.join()
    assert graphs.lane_of(one) is found[0]
    assert len({*found, graphs.lane_of(other)}) == 3

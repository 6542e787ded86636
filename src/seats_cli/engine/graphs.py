"""CUDA's side of writing an answer: a stream, graphs, and tokens on their way to the host."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch


class Mail:
    """Tokens that a GPU chose, read by the host without holding up the GPU: two may be on their way.

    ``post`` and ``take`` in turn, or one ``post`` ahead, on one stream.
    """

    def __init__(self) -> None:
        self._slots = torch.zeros(2, 1, dtype=torch.long, pin_memory=True)
        # Blocking: whoever waits sleeps, and leaves the core to the threads that read clips.
        self._sent = [torch.cuda.Event(blocking=True) for _ in range(2)]  # type: ignore[no-untyped-call]
        self._posted = self._taken = 0

    def post(self, token: torch.Tensor) -> None:
        """Send int64 [1]."""
        slot = self._posted % 2
        self._slots[slot].copy_(token, non_blocking=True)
        self._sent[slot].record()
        self._posted += 1

    def take(self) -> int:
        """The oldest token that was not taken; waits for it."""
        slot = self._taken % 2
        self._sent[slot].synchronize()
        self._taken += 1
        return int(self._slots[slot])


class CudaLane:
    """A stream beside the usual one, on which answers are written: graphs cannot be captured on the usual one.

    It stays for the process, since cuBLAS gives every stream a workspace that it never takes back. So does the
    last graph: the next is made in its memory, which otherwise would be taken anew for each answer.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # Streams of another priority are others: of the usual ones PyTorch deals out the same 32 again and again,
        # and what another thread does on a stream that is captured becomes part of the graph.
        self._stream = torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]
        self._last: torch.cuda.CUDAGraph | None = None
        self._failed: tuple[torch.cuda.CUDAGraph, str] | None = None

    @contextmanager
    def used(self) -> Iterator[None]:
        """Work goes to this stream. When it ends, also by an exception, all of it is done."""
        usual = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(usual)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            usual.wait_stream(self._stream)
            self._stream.synchronize()  # a step too many may be running, and its buffers are about to go

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Capture ``work``, which has been run on this stream before; what is returned runs it.

        Raises:
            RuntimeError: Something in it cannot be captured, or there is no memory for it; or so it was before.
        """
        if self._failed is not None:
            raise RuntimeError(self._failed[1])
        graph = torch.cuda.CUDAGraph()
        # A handle of ours, not one made inside: after a capture that failed PyTorch no longer tells it.
        pool = torch.cuda.graph_pool_handle() if self._last is None else self._last.pool()
        self._stream.synchronize()
        collecting = gc.isenabled()
        gc.disable()  # collected tensors would be freed, and graphs destroyed, in the midst of a capture
        try:
            # Other threads read clips and may allocate meanwhile; that is no business of this graph.
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                work()
            finally:
                graph.capture_end()
        except RuntimeError as error:
            # What failed once would fail again. PyTorch's allocator goes on asking this graph whose a stream is.
            self._failed = (graph, str(error))
            self._end_allocating(pool)
            raise
        finally:
            if collecting:
                gc.enable()
        self._last = graph
        return graph.replay

    def _end_allocating(self, pool: tuple[int, int]) -> None:
        """Tell the allocator that a capture which failed is over: ``capture_end`` gives up before it does.

        As long as it believes in one, memory that another stream has read, such as uploaded pictures, is never
        used again.
        """
        index = self._stream.device.index
        with suppress(AttributeError, RuntimeError):  # another PyTorch, or it knows already
            torch._C._cuda_endAllocateToPool(index, pool)

    def mail(self) -> Mail:
        """For the tokens of one answer."""
        return Mail()


_lanes: dict[tuple[torch.device, int], CudaLane] = {}


def lane_of(device: torch.device) -> CudaLane:
    """The lane of this thread on a CUDA device."""
    key = (device, threading.get_ident())
    if key not in _lanes:
        _lanes[key] = CudaLane(device)
    return _lanes[key]

"""Warm up, synchronise, sample: seconds with their median and spread, and peak memory.

A GPU answers before it is done: its stages are timed by events of its own, and whole runs by a clock that is read
after a synchronisation. Variants run in turn (A B C A B C), so that a machine that grows warm or busy slows all of
them alike.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    import torch

    Device = str | torch.device
    Devices = Device | Sequence[Device]

T = TypeVar("T")


def _cuda_devices(devices: Devices) -> list[str]:
    """The CUDA devices among one device or several, as text."""
    several = devices if isinstance(devices, (list, tuple)) else [devices]
    return [name for name in map(str, several) if name.partition(":")[0] == "cuda"]


def synchronize(devices: Devices) -> None:
    """Wait until the devices have done what they were given; nothing to do on a CPU.

    Args:
        devices: ``cpu``, ``cuda``, ``cuda:1``, a ``torch.device``, or a list of them. CUDA alone needs torch.
    """
    for name in _cuda_devices(devices):
        import torch

        torch.cuda.synchronize(name)


class Stopwatch:
    """Seconds per stage, added up: ``with watch("encode"): ...``. A nested stage counts in both.

    On one CUDA device nothing waits: the device itself notes when it begins and ends a stage, and the notes are
    read when somebody asks for the seconds. On several the clock is read between synchronisations, since no event
    of one device tells what another does.

    Args:
        devices: Where the stages compute.
    """

    def __init__(self, devices: Devices = "cpu") -> None:
        self._seconds: dict[str, float] = {}
        self._devices = devices
        cuda = dict.fromkeys(_cuda_devices(devices))
        self._alone = next(iter(cuda)) if len(cuda) == 1 else None
        self._noted: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds so far, by stage. A stage that raised counts too. Waits for what the device has not done yet."""
        while self._noted:
            stage, begin, end = self._noted[0]
            end.synchronize()
            self._add(stage, begin.elapsed_time(end) / 1000)
            del self._noted[0]
        return dict(self._seconds)

    def _add(self, stage: str, seconds: float) -> None:
        self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time one stretch of ``stage``, from where the device begins it to where it is done."""
        if self._alone is not None:
            begin = self._note(self._alone)
            try:
                yield
            finally:
                self._noted.append((stage, begin, self._note(self._alone)))
            return
        synchronize(self._devices)
        with self.host(stage):
            try:
                yield
            finally:
                synchronize(self._devices)

    @contextmanager
    def host(self, stage: str) -> Iterator[None]:
        """Time one stretch of ``stage`` on the host's clock alone: work that runs beside the device's."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._add(stage, time.perf_counter() - start)

    @staticmethod
    def _note(device: str) -> torch.cuda.Event:
        import torch

        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(device))
        return event


@dataclass(frozen=True, slots=True)
class Samples:
    """Measurements of one thing, at least one, in the order taken.

    Raises:
        ValueError: There is none.
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("no samples")

    @property
    def median(self) -> float:
        """The middle value, or the mean of the two in the middle."""
        return statistics.median(self.values)

    @property
    def minimum(self) -> float:
        """The least value."""
        return min(self.values)

    @property
    def maximum(self) -> float:
        """The greatest value."""
        return max(self.values)

    @property
    def iqr(self) -> float:
        """Interquartile range, quartiles interpolated between values; 0 of a single one."""
        if len(self.values) == 1:
            return 0.0
        first, _, third = statistics.quantiles(self.values, n=4, method="inclusive")
        return third - first


def alternate(
    fn_by_label: Mapping[str, Callable[[], T]],
    runs: int,
    warmup: int,
    on_round: Callable[[str], None] | None = None,
) -> dict[str, list[T]]:
    """Call the variants in turn and keep what the counted rounds return.

    Args:
        fn_by_label: The variants.
        runs: Rounds that count.
        warmup: Rounds before them that do not.
        on_round: Called with a variant's label before each call of it.

    Returns:
        By label, one result per counted round.

    Raises:
        ValueError: ``runs`` is below 1 or ``warmup`` below 0.
    """
    if runs < 1 or warmup < 0:
        raise ValueError(f"{runs} runs after {warmup} warm-up rounds; at least 1 after 0 are needed")
    results: dict[str, list[T]] = {label: [] for label in fn_by_label}
    for round_index in range(-warmup, runs):
        for label, fn in fn_by_label.items():
            if on_round is not None:
                on_round(label)
            result = fn()
            if round_index >= 0:
                results[label].append(result)
    return results


def measure(
    fn_by_label: Mapping[str, Callable[[], object]], runs: int, warmup: int, devices: Devices = "cpu"
) -> dict[str, Samples]:
    """Seconds of whole calls, variants in turn, synchronised before and after each.

    Args:
        fn_by_label: The variants.
        runs: Rounds that count.
        warmup: Rounds before them that do not.
        devices: What to synchronise with.

    Raises:
        ValueError: ``runs`` is below 1 or ``warmup`` below 0.
    """

    def timed(fn: Callable[[], object]) -> Callable[[], Mapping[str, float]]:
        def call() -> Mapping[str, float]:
            watch = Stopwatch(devices)
            with watch("call"):
                fn()
            return watch.seconds

        return call

    laps = alternate({label: timed(fn) for label, fn in fn_by_label.items()}, runs, warmup)
    return {label: by_stage(seconds)["call"] for label, seconds in laps.items()}


def by_stage(laps: Sequence[Mapping[str, float]]) -> dict[str, Samples]:
    """Turn the stage seconds of several runs into samples per stage; a stage counts the runs that had it.

    Args:
        laps: ``Stopwatch.seconds`` of each run.
    """
    stages = dict.fromkeys(stage for lap in laps for stage in lap)
    return {stage: Samples(tuple(lap[stage] for lap in laps if stage in lap)) for stage in stages}


def _resident_high_water_bytes() -> int | None:
    """Largest resident set of this process so far; None where the system does not tell (Windows)."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    kib_elsewhere = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kib_elsewhere


class PeakMemory:
    """Peak memory of a block: ``with PeakMemory("cuda") as memory: ...``, then ``memory.n_bytes``.

    On CUDA devices: the most that PyTorch had allocated at one time, weights included, summed. On a CPU: the
    high-water mark of the process's resident set, with Python, libraries and weights in it. The mark is set
    back on entry where the kernel allows it (Linux). Elsewhere it never falls: a block that needs less than
    an earlier one shows that one's peak.

    Args:
        devices: Where the model is held.

    Attributes:
        n_bytes: The peak; None before the block ends, or where the system does not tell.
        growth_bytes: The peak less what was held on entry; None likewise.
    """

    def __init__(self, devices: Devices = "cpu") -> None:
        self.n_bytes: int | None = None
        self.growth_bytes: int | None = None
        self._cuda = _cuda_devices(devices)
        self._held: int | None = None

    def __enter__(self) -> Self:
        """Set the marks back."""
        if not self._cuda:
            with suppress(OSError):  # not Linux, or not allowed: the mark stays
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # 5: VmHWM only
            self._held = _resident_high_water_bytes()
            return self
        import torch

        for name in self._cuda:
            torch.cuda.reset_peak_memory_stats(name)
        self._held = sum(torch.cuda.memory_allocated(name) for name in self._cuda)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Read the marks, also after an exception."""
        if self._cuda:
            import torch

            self.n_bytes = sum(torch.cuda.max_memory_allocated(name) for name in self._cuda)
        else:
            self.n_bytes = _resident_high_water_bytes()
        if self.n_bytes is not None and self._held is not None:
            self.growth_bytes = self.n_bytes - self._held

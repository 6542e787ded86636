"""Decoded sound laid on the clip's clock: mono float32 at 16 kHz, silence where there is none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from seats_cli.media.types import SAMPLE_RATE_HZ, Float32
from seats_cli.timelimit import check_time

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

JITTER_SECONDS = 0.05
"""Presentation times off by less than this are taken for rounding of the container's clock."""

MAX_SECONDS = 8 * 3600.0
"""The longest waveform, 1.8 GB; a header that lies can make a small file much longer."""

_REPORTED_LEAD_SECONDS = 0.1
_MAX_OVERLAP_SECONDS = 1.0
_MAX_GAP_SECONDS = 3600.0
_BATCH_SECONDS = 0.5
_FOREVER = 2**62
# Samples in one array while they are collected: large ones go back to the system at once.
_SLAB = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Consecutive samples as decoded.

    Attributes:
        samples: float32 [n], the mean of the channels.
        rate_hz: Samples per second.
        start_seconds: Presentation time of the first on the container's clock; None if it is not known.
        n_bad: How many values were not finite and were replaced by 0.
    """

    samples: Float32
    rate_hz: int
    start_seconds: float | None
    n_bad: int = 0


class _Resampler:
    """Consecutive mono samples at one rate to 16 kHz; ``n`` in give ``round(n * 16000 / rate)`` out."""

    def __init__(self, rate_hz: int) -> None:
        import av

        self._rate_hz = rate_hz
        self._n_in = 0
        self._n_out = 0
        self._filter = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)

    def push(self, samples: Float32) -> Float32:
        """Feed float32 [n]; what is ready comes back."""
        import av

        if self._rate_hz == SAMPLE_RATE_HZ or samples.size == 0:
            return samples
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate = self._rate_hz
        frame.time_base = Fraction(1, self._rate_hz)
        frame.pts = self._n_in
        self._n_in += samples.size
        ready = self._join(self._filter.resample(frame))
        self._n_out += ready.size
        return ready

    def flush(self) -> Float32:
        """The rest, made up or cut by the odd sample so that the length is exact."""
        missing = round(Fraction(self._n_in * SAMPLE_RATE_HZ, self._rate_hz)) - self._n_out
        rest = self._join(self._filter.resample(None)) if self._n_in else np.zeros(0, np.float32)
        return np.pad(rest[: max(missing, 0)], (0, max(missing - rest.size, 0)))

    @staticmethod
    def _join(frames: list[AudioFrame]) -> Float32:
        parts = [frame.to_ndarray()[0].astype(np.float32, copy=False) for frame in frames]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)


@dataclass(slots=True)
class Placed:
    """What placing did to the sound.

    Attributes:
        start_seconds: Presentation time of the first sample; None if there was none, or it is not known.
        n_samples: Decoded, at the source's rate.
        n_bad: Values that were not finite.
        lead_seconds: Sound before the origin, cut.
        gap_seconds: Silence filled in.
        overlap_seconds: Sound cut because it was due while other sound was still on.
        n_jumps: Times the clock jumped so far that it was not believed.
        too_long: There is more than ``MAX_SECONDS`` to keep.
    """

    start_seconds: float | None = None
    n_samples: int = 0
    n_bad: int = 0
    lead_seconds: float = 0.0
    gap_seconds: float = 0.0
    overlap_seconds: float = 0.0
    n_jumps: int = 0
    too_long: bool = False

    def lines(self) -> list[str]:
        """A warning for everything worth one."""
        lead = self.lead_seconds if self.lead_seconds > _REPORTED_LEAD_SECONDS else 0
        told = (
            (lead, f"{lead:.2f} s of sound come before the picture and were cut"),
            (self.gap_seconds, f"{self.gap_seconds:.2f} s of gaps in the sound were filled with silence"),
            (self.overlap_seconds, f"{self.overlap_seconds:.2f} s of overlapping sound were cut"),
            (self.n_jumps, f"the clock of the sound jumps ({self.n_jumps} x); it was joined without a gap"),
            (self.n_bad, f"{self.n_bad} sound samples were not numbers and were replaced by 0"),
        )
        return [line for amount, line in told if amount > 0]


@dataclass(slots=True, eq=False)
class _Placer:
    """Lays blocks on the clip's clock, sample 0 at the origin, and keeps ``[begin, stop)`` of it."""

    origin_seconds: float | None
    begin: int
    stop: int
    placed: Placed = field(default_factory=Placed)
    _slabs: list[Float32] = field(default_factory=list)
    _kept: list[Float32] = field(default_factory=list)
    _n_kept: int = 0
    _kept_until: int = 0
    _position: int = 0
    _resampler: _Resampler | None = None
    _rate_hz: int = 0
    _due_seconds: float = 0.0
    _clock_offset: int = 0
    _pending: list[Float32] = field(default_factory=list)
    _n_pending: int = 0

    def __post_init__(self) -> None:
        self._kept_until = self.begin

    @property
    def full(self) -> bool:
        """Whether all that is to be kept has been laid down."""
        return self._position >= self.stop

    def add(self, block: Block) -> None:
        """Place the next block in decoding order."""
        start = self._due_seconds if block.start_seconds is None else block.start_seconds
        first = self._resampler is None
        if first:
            self.placed.start_seconds = start
            if self.origin_seconds is None:
                self.origin_seconds = start
        if first or block.rate_hz != self._rate_hz or abs(start - self._due_seconds) > JITTER_SECONDS:
            self._begin_run(start, block.rate_hz, first)
        self._pending.append(block.samples)
        self._n_pending += block.samples.size
        self._due_seconds += block.samples.size / block.rate_hz
        self.placed.n_samples += block.samples.size
        self.placed.n_bad += block.n_bad
        if self._n_pending >= _BATCH_SECONDS * self._rate_hz:
            self._feed()

    def finish(self) -> Float32:
        """float32 [n]: the waveform from ``begin``, to ``stop`` or the end of the sound."""
        self._end_run()
        if self._kept_until == self.begin:
            return np.zeros(0, np.float32)
        if self.full:
            # The part ends in a gap, behind which the sound goes on.
            self._keep(np.zeros(self.stop - self._kept_until, np.float32))
        slabs = [*self._slabs, *self._kept]
        self._slabs, self._kept = [], []
        whole = np.empty(sum(slab.size for slab in slabs), np.float32)
        place = whole.size
        # From the end, and each let go once it is copied, so that the sound is not held twice.
        while slabs:
            slab = slabs.pop()
            whole[place - slab.size : place] = slab
            place -= slab.size
        return whole

    def _keep(self, samples: Float32) -> None:
        self._kept.append(samples)
        self._n_kept += samples.size
        if self._n_kept >= _SLAB:
            self._slabs.append(np.concatenate(self._kept))
            self._kept, self._n_kept = [], 0

    def _begin_run(self, start_seconds: float, rate_hz: int, first: bool) -> None:
        """Consecutive samples at one rate share a resampler; here a new run begins."""
        self._end_run()
        self._resampler, self._rate_hz, self._due_seconds = _Resampler(rate_hz), rate_hz, start_seconds
        on_clock = round((start_seconds - (self.origin_seconds or 0.0)) * SAMPLE_RATE_HZ)
        target = on_clock + self._clock_offset
        jump_seconds = (target - self._position) / SAMPLE_RATE_HZ
        if abs(jump_seconds) <= JITTER_SECONDS and not first:
            return
        if not self._believable(jump_seconds, first):
            self.placed.n_jumps += 1
            self._clock_offset = self._position - on_clock
            return
        if not first:
            self.placed.gap_seconds += self._silence_seconds(target)
            self.placed.overlap_seconds += max(-jump_seconds, 0.0)
        self._position = target

    def _believable(self, jump_seconds: float, first: bool) -> bool:
        """Whether a clock may run on like this; the first block may be one from just before the part."""
        if first:
            return -_MAX_GAP_SECONDS <= jump_seconds <= self.begin / SAMPLE_RATE_HZ + _MAX_GAP_SECONDS
        return -_MAX_OVERLAP_SECONDS <= jump_seconds <= _MAX_GAP_SECONDS

    def _silence_seconds(self, target: int) -> float:
        """Length of the silence up to ``target`` that falls into what is kept."""
        return max(min(target, self.stop) - max(self._position, self.begin), 0) / SAMPLE_RATE_HZ

    def _end_run(self) -> None:
        self._feed()
        if self._resampler is not None:
            self._lay(self._resampler.flush())

    def _feed(self) -> None:
        if self._pending and self._resampler is not None:
            self._lay(self._resampler.push(np.concatenate(self._pending)))
        self._pending, self._n_pending = [], 0

    def _lay(self, samples: Float32) -> None:
        """Keep what of ``samples`` is wanted and not yet there; what was skipped becomes silence."""
        start, end = self._position, self._position + samples.size
        self._position = end
        self.placed.lead_seconds += max(min(end, 0) - start, 0) / SAMPLE_RATE_HZ
        low, high = max(start, self._kept_until), min(end, self.stop)
        if high <= low:
            return
        if low > self._kept_until:
            self._keep(np.zeros(low - self._kept_until, np.float32))
        self._keep(samples[low - start : high - start])
        self._kept_until = high


def place_blocks(
    blocks: Iterable[Block], origin_seconds: float | None, start_seconds: float, end_seconds: float | None
) -> tuple[Float32, Placed]:
    """Lay decoded sound on the clip's clock.

    Sound that begins after the origin is preceded by silence; what comes before it is cut. Gaps of more than
    ``JITTER_SECONDS`` are filled with silence. Where times run back, by up to a second the overlap is cut,
    and beyond that, or over a gap of more than an hour, the clock is not believed and the sound is joined.

    Args:
        blocks: In decoding order.
        origin_seconds: The container's time that is 0 for the clip; None: that of the first sample.
        start_seconds: Begin of the used part, from the origin.
        end_seconds: Its end; None: that of the sound.

    Returns:
        float32 [n], mono, 16 kHz, from ``start_seconds``; and what was done to it. Nothing is given of what
        is ``too_long``.

    Raises:
        TimeLimitError: The time is over.
    """
    begin = round(start_seconds * SAMPLE_RATE_HZ)
    stop = _FOREVER if end_seconds is None else round(end_seconds * SAMPLE_RATE_HZ)
    limit = begin + round(MAX_SECONDS * SAMPLE_RATE_HZ)
    placer = _Placer(origin_seconds, begin, min(stop, limit + 1))
    for block in blocks:
        check_time()
        placer.add(block)
        if placer.full:
            placer.placed.too_long = stop > limit
            break
    if placer.placed.too_long:
        return np.zeros(0, np.float32), placer.placed
    return placer.finish(), placer.placed

"""The pictures of a plan: decoded by threads without what they do not need, or else in one pass over all."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seats_cli.errors import MediaError
from seats_cli.media.ahead import in_order
from seats_cli.media.frames import Converter, FirstFrame, Losses, count_flaws, pick_frames
from seats_cli.media.runs import Run
from seats_cli.media.skipping import InexactError, RunReader, Work, plan_work
from seats_cli.media.source import open_container
from seats_cli.media.timeline import Int64, Timeline
from seats_cli.media.types import Shrink, Uint8
from seats_cli.timelimit import check_time

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """Which pictures of a file are wanted.

    Attributes:
        path: The file.
        stream_index: Its video stream.
        codec: FFmpeg's name.
        timeline: The stream's times.
        first: What the first frame tells.
        ticks: int64 [n], ascending, out of ``timeline.ticks``; may repeat.
    """

    path: str
    stream_index: int
    codec: str
    timeline: Timeline
    first: FirstFrame
    ticks: Int64


@dataclass(frozen=True, slots=True, eq=False)
class _Shown:
    """A picture as it is handed from one thread to another."""

    ticks: int
    image: Uint8
    resized: bool


def pictures(wanted: Wanted, losses: Losses, shrink: Shrink | None) -> Generator[tuple[int, Uint8]]:
    """The pictures due at some times, upright; what serves several times is converted once.

    They are those of ``frames.pick_frames``. Where the file allows it, only what they need is decoded, by several
    threads; the first sign that something is wrong ends that, and one pass over all goes on from there.

    Args:
        wanted: Which.
        losses: Counts of what went wrong, added to in the end.
        shrink: Applied to each picture in the thread that decoded it; None: it stays as it is.

    Yields:
        ``n`` pairs: the shown frame's time in ticks, and uint8 [H, W, 3].

    Raises:
        MediaError: Nothing could be decoded.
        TimeLimitError: The time is over.
    """
    n_done, quick = 0, Losses()
    work = _plan(wanted)
    if work is not None:
        try:
            with closing(_quickly(work, wanted, quick, shrink)) as shown:
                for pair in shown:
                    n_done += 1
                    yield pair
                    del pair
        except (InexactError, MediaError):
            # One pass over all will tell what is wrong; begun outside of this handler, which holds frames.
            pass
        else:
            losses.resized += quick.resized
            return
    with closing(_surely(wanted, losses, shrink, n_done)) as shown:
        yield from shown


def _plan(wanted: Wanted) -> Work | None:
    first = wanted.first
    return plan_work(
        wanted.path,
        wanted.stream_index,
        wanted.codec,
        wanted.timeline,
        wanted.ticks,
        first.width * first.height,
        fields=first.interlaced,
    )


def _quickly(work: Work, wanted: Wanted, losses: Losses, shrink: Shrink | None) -> Generator[tuple[int, Uint8]]:
    """As ``pictures``; what went wrong is another size at most.

    Raises:
        InexactError: This way does not give the pictures; those that were given are right.
    """
    counts = {int(ticks): n for ticks, n in zip(*_counted(wanted.ticks), strict=True)}
    with closing(_distinct(work, wanted, shrink)) as shown:
        for one in shown:
            losses.resized += one.resized
            for _ in range(counts[one.ticks]):
                yield one.ticks, one.image
            del one


def _counted(ticks: Int64) -> tuple[list[int], list[int]]:
    import numpy as np

    values, counts = np.unique(ticks, return_counts=True)
    return values.tolist(), counts.tolist()


def _distinct(work: Work, wanted: Wanted, shrink: Shrink | None) -> Generator[_Shown]:
    @contextmanager
    def begin() -> Iterator[Callable[[tuple[Run, ...]], Generator[_Shown]]]:
        convert = Converter(wanted.path, wanted.first)
        with (
            open_container(wanted.path) as container,
            closing(RunReader(container, work.source, work.n_threads)) as reader,
        ):

            def read(runs: tuple[Run, ...]) -> Generator[_Shown]:
                for run in runs:
                    with closing(reader.read(run)) as frames:
                        for ticks, frame in frames:
                            yield _shown(ticks, frame, wanted.first, convert, shrink)
                            del frame

            yield read

    if work.n_workers > 1:
        with closing(in_order(work.shares, begin, lambda one: one.image.nbytes, work.n_workers)) as found:
            yield from found
        return
    with begin() as read:
        for runs in work.shares:
            with closing(read(runs)) as found:
                yield from found


def _shown(ticks: int, frame: VideoFrame, first: FirstFrame, convert: Converter, shrink: Shrink | None) -> _Shown:
    if frame.interlaced_frame and not first.interlaced:
        raise InexactError("pictures made of two fields begin on the way")
    image = convert.to_rgb(frame)
    return _Shown(ticks, image if shrink is None else shrink(image), not first.has_size_of(frame))


def _surely(wanted: Wanted, losses: Losses, shrink: Shrink | None, n_done: int) -> Generator[tuple[int, Uint8]]:
    """As ``pictures``, in one pass; without the first so many, of which only the flaws are counted."""
    convert = Converter(wanted.path, wanted.first)
    shown_ticks: int | None = None
    image: Uint8 | None = None
    picked = pick_frames(wanted.path, wanted.stream_index, wanted.timeline, wanted.ticks, losses)
    with closing(picked):
        for index, (ticks, frame) in enumerate(picked):
            check_time()
            new = ticks != shown_ticks
            if new:
                count_flaws(frame, wanted.first, losses)
                shown_ticks, image = ticks, None
            if index < n_done:
                continue
            if image is None:
                image = convert.to_rgb(frame)
                image = image if shrink is None else shrink(image)
            yield ticks, image

"""The pictures of a plan: decoded by threads without what they do not need, or else in one pass over all."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seats_cli.errors import MediaError
from seats_cli.media.ahead import in_order
from seats_cli.media.decoders import by_nvdec, by_torchcodec, shrunk, whole_pass
from seats_cli.media.frames import Converter, FirstFrame, Losses
from seats_cli.media.runs import Run
from seats_cli.media.skipping import InexactError, RunReader, Work, plan_work
from seats_cli.media.source import open_container
from seats_cli.media.timeline import Int64
from seats_cli.media.types import Shrink, Uint8
from seats_cli.media.wanted import Wanted

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


@dataclass(frozen=True, slots=True, eq=False)
class _Shown:
    """A picture as it is handed from one thread to another."""

    ticks: int
    image: Uint8
    resized: bool


def pictures(wanted: Wanted, losses: Losses, shrink: Shrink | None) -> Generator[tuple[int, Uint8]]:
    """The pictures due at some times, upright; what serves several times is converted once.

    They are those of ``frames.pick_frames``. Where the file allows it, only what they need is decoded, by several
    threads; the first sign that something is wrong ends that, and one pass over all goes on from there. Another
    decoder, where one is named, has its own way.

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
    if wanted.decoder != "pyav":
        others = {"torchcodec": by_torchcodec, "nvdec": by_nvdec}
        with closing(others[wanted.decoder](wanted, losses, shrink)) as shown:
            yield from shown
        return
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
    with closing(whole_pass(wanted, losses, shrink, n_done)) as shown:
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
            open_container(wanted.path, by_header=wanted.by_header) as container,
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
    return _Shown(ticks, shrunk(convert.to_rgb(frame), shrink), not first.has_size_of(frame))

"""Decoders other than FFmpeg's own on the CPU. None of them is ever put in place of another."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from seats_cli.config import Decoder
from seats_cli.errors import MediaError, UsageError
from seats_cli.media.cores import decoding_threads
from seats_cli.media.frames import Converter, Losses, count_flaws, pick_frames
from seats_cli.media.source import open_container
from seats_cli.media.timeline import Timeline
from seats_cli.media.types import Shrink, Uint8
from seats_cli.media.wanted import Wanted
from seats_cli.timelimit import check_time

if TYPE_CHECKING:
    from av.container import InputContainer

# Pictures that torchcodec holds at once.
_AT_ONCE_BYTES = 64 << 20
_BACK = "leave --decoder out"


def check_decoder(name: Decoder) -> None:
    """See that a decoder can be had here.

    Raises:
        UsageError: It cannot.
    """
    if name == "torchcodec" and find_spec("torchcodec") is None:
        hint = f"pip install 'seats-cli[torchcodec]', or {_BACK}"
        raise UsageError("--decoder torchcodec: the package torchcodec is not installed", hint)
    if name == "nvdec":
        import av
        from av.codec.hwaccel import HWAccel

        try:
            HWAccel("cuda", allow_software_fallback=False).create(av.codec.Codec("h264", "r"))
        except (av.FFmpegError, OSError, ValueError, RuntimeError, NotImplementedError) as error:
            reason = _reason(error)
            raise UsageError(f"--decoder nvdec: no NVIDIA GPU that decodes here ({reason})", _BACK) from None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).strip().split("\n")[0] or type(error).__name__


def shrunk(image: Uint8, shrink: Shrink | None) -> Uint8:
    """A picture as it is yielded."""
    return image if shrink is None else np.ascontiguousarray(shrink(image))


def whole_pass(
    wanted: Wanted,
    losses: Losses,
    shrink: Shrink | None,
    n_done: int = 0,
    opened: Callable[[str], AbstractContextManager[InputContainer]] = open_container,
) -> Generator[tuple[int, Uint8]]:
    """Pictures as ``frames.pick_frames`` gives them, in one pass.

    Args:
        wanted: Which.
        losses: Counts of what went wrong, added to.
        shrink: Applied to each picture; None: it stays as it is.
        n_done: Of so many at the beginning only the flaws are counted.
        opened: Opens the file.

    Yields:
        Pairs: the shown frame's time in ticks, and uint8 [H, W, 3].

    Raises:
        MediaError: Nothing could be decoded.
        TimeLimitError: The time is over.
    """
    convert = Converter(wanted.path, wanted.first)
    shown_ticks: int | None = None
    image: Uint8 | None = None
    picked = pick_frames(wanted.path, wanted.stream_index, wanted.timeline, wanted.ticks, losses, opened)
    with closing(picked):
        for index, (ticks, frame) in enumerate(picked):
            check_time()
            if ticks != shown_ticks:
                count_flaws(frame, wanted.first, losses)
                shown_ticks, image = ticks, None
            if index < n_done:
                continue
            if image is None:
                image = shrunk(convert.to_rgb(frame), shrink)
            yield ticks, image


def by_nvdec(wanted: Wanted, losses: Losses, shrink: Shrink | None) -> Generator[tuple[int, Uint8]]:
    """Pictures in one pass of an NVIDIA GPU's decoder; they come to the host as NV12 and are converted there.

    Raises:
        UsageError: There is no such GPU.
        MediaError: It cannot decode the file.
        TimeLimitError: The time is over.
    """
    check_decoder("nvdec")
    with closing(whole_pass(wanted, losses, shrink, opened=partial(open_container, on_gpu=True))) as shown:
        try:
            yield from shown
        except MediaError as error:
            if not losses.packets or error.hint == _BACK:
                raise
            raise MediaError(f"{error}, with --decoder nvdec", _BACK) from None


def by_torchcodec(wanted: Wanted, losses: Losses, shrink: Shrink | None) -> Generator[tuple[int, Uint8]]:
    """Pictures at the same times, as torchcodec decodes and turns them.

    Raises:
        UsageError: It is not installed, or cannot be loaded.
        MediaError: It cannot decode the file, or not at these times, or not upright.
        TimeLimitError: The time is over.
    """
    # It counts no losses: what it does not have is an error.
    del losses
    check_decoder("torchcodec")
    decoder = _torchcodec(wanted)
    first, timeline = wanted.first, wanted.timeline
    sides = (first.height, first.width)
    shape = (*(sides[::-1] if first.orientation.clockwise_turns % 2 else sides), 3)
    ticks, counts = np.unique(wanted.ticks, return_counts=True)
    step = max(1, _AT_ONCE_BYTES // (3 * first.width * first.height))
    for begin in range(0, ticks.size, step):
        check_time()
        part = ticks[begin : begin + step]
        try:
            batch = decoder.get_frames_played_at(_middles(timeline, part).tolist())
        except (RuntimeError, ValueError, IndexError) as error:
            raise _refused(wanted.path, _reason(error)) from None
        images, times = batch.data.numpy(), batch.pts_seconds.tolist()
        if images.shape[1:] != shape:
            raise _refused(wanted.path, f"a picture is {images.shape[2]} x {images.shape[1]}, another size")
        for place, (due, seconds) in enumerate(zip(part.tolist(), times, strict=True)):
            shown = round(seconds / timeline.time_base)
            if abs(shown - due) > timeline.gap_ticks / 2:
                raise _refused(wanted.path, f"at {seconds:.3f} s it has a frame that is due at another time")
            image: Uint8 = shrunk(np.ascontiguousarray(images[place]), shrink)
            for _ in range(counts[begin + place]):
                yield shown, image


def _torchcodec(wanted: Wanted) -> Any:
    if wanted.timeline.by_order:
        raise _refused(wanted.path, "its packets have no times of presentation")
    if wanted.first.orientation.mirrored:
        raise _refused(wanted.path, "its picture is to be mirrored, which torchcodec does not do")
    try:
        # It does not say itself that it exports this.
        video_decoder = import_module("torchcodec.decoders").VideoDecoder
    except (ImportError, RuntimeError, OSError) as error:
        problem = f"--decoder torchcodec: the package torchcodec cannot be loaded ({_reason(error)})"
        raise UsageError(problem, f"it needs FFmpeg's libraries and a matching torch; or {_BACK}") from None
    try:
        return video_decoder(
            # FFmpeg there takes some names for more than files.
            os.path.abspath(wanted.path),
            stream_index=wanted.stream_index,
            dimension_order="NHWC",
            num_ffmpeg_threads=decoding_threads(),
            seek_mode="exact",
        )
    except (RuntimeError, ValueError) as error:
        raise _refused(wanted.path, _reason(error)) from None


def _refused(path: str, why: str) -> MediaError:
    return MediaError(f"{path}: --decoder torchcodec cannot give its pictures: {why}", _BACK)


def _middles(
    timeline: Timeline, ticks: np.ndarray[Any, np.dtype[np.int64]]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Seconds in the middle of frames, where no rounding leads to a neighbour."""
    ends = np.append(timeline.ticks[1:], timeline.ticks[-1] + timeline.last_duration_ticks)
    places = np.searchsorted(timeline.ticks, ticks)
    return cast(
        "np.ndarray[Any, np.dtype[np.float64]]",
        (ticks + (ends[places] - ticks) / 2) * (timeline.time_base.numerator / timeline.time_base.denominator),
    )

"""One local regular file, opened so that nothing else can be: no URL, no playlist, no second file."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from seats_cli.errors import MediaError
from seats_cli.media.boxes import read_mp4_facts
from seats_cli.media.decoding import DECODER_PIXELS
from seats_cli.media.reading import LocalFile, unreadable
from seats_cli.timelimit import check_time, seconds_left

if TYPE_CHECKING:
    from av.container import Container, InputContainer

# Small, since a badly interleaved file makes FFmpeg jump and fill this anew for every packet.
_READ_BYTES = 1 << 15
_HEAD_BYTES = 4096
# No protocol has this name, so whatever a file asks FFmpeg to open besides itself is refused.
_NO_PROTOCOL = "none"
_NOT_MEDIA_HINT = "give a video or audio file such as mp4, mkv, webm, mov, wav, mp3"
# Formats that are lists of other files or streams. They could open none, and are not even begun.
_LISTS = frozenset(
    (
        *("concat", "dash", "ffmetadata", "hls", "imf", "lavfi", "rtp", "rtsp", "sap", "sdp", "vobsub"),
        *("webm_dash_manifest",),
    )
)
# Their headers state each stream's codec and what its decoder must know.
_TELL_STREAMS = frozenset(("mov", "matroska"))
_NO_PICTURE = {"skip_frame": "all"}
_PLAYLIST_STARTS = (b"#EXTM3U", b"ffconcat", b"v=0", b"[playlist]")


class NotMediaError(MediaError):
    """FFmpeg knows no format that a file could be in; another reader may."""


def check_path(path: str) -> None:
    """See that a path is a local regular file with something in it.

    Raises:
        MediaError: It is missing, a URL, a directory, a device, empty or not reachable.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        if "://" in path:
            hint = "download it first"
            raise MediaError(f"{path}: a URL; only local files are read", hint) from None
        raise MediaError(f"{path}: no such file", "check the path") from None
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    if stat.S_ISDIR(status.st_mode):
        raise MediaError(f"{path}: a directory, not a file", "give the files in it")
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(f"{path}: not a regular file", "save the stream to a file first")
    if status.st_size == 0:
        raise MediaError(f"{path}: an empty file", "copy or download it again")


class _Quiet:
    """Keeps FFmpeg from logging while any container is open; afterwards the level is as it was.

    Other libraries turn its log on for the whole process. Then its lines reach stderr, and a decoder thread
    that wants to log waits for the interpreter's lock while the thread that closes the decoder holds it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_open = 0
        self._level: int | None = None

    def __enter__(self) -> None:
        import av

        with self._lock:
            if self._n_open == 0:
                self._level = av.logging.get_level()
            self._n_open += 1
            av.logging.set_level(None)

    def __exit__(self, *_: object) -> None:
        import av

        with self._lock:
            self._n_open -= 1
            if self._n_open == 0:
                av.logging.set_level(self._level)


_quiet = _Quiet()


@contextmanager
def open_container(path: str, *, on_gpu: bool = False, by_header: bool = False) -> Iterator[InputContainer]:
    """Open a file with FFmpeg; closed again however the block is left.

    Args:
        path: A local file.
        on_gpu: Decode its picture on an NVIDIA GPU.
        by_header: No picture is decoded to find out more than its header says; see ``header_tells_streams``.

    Raises:
        NotMediaError: It is not media that FFmpeg knows; the message says why.
        MediaError: It cannot be read; also at the end of the block, if the disk failed within it.
        TimeLimitError: The time is over; also at the end of the block.
    """
    import av

    check_path(path)
    check_time()
    # By a RuntimeError PyAV says that a GPU decodes none of the streams.
    failures = (av.FFmpegError, OSError, ValueError, RuntimeError)[: 4 if on_gpu else 3]
    with _quiet, LocalFile(path) as file:
        try:
            container = av.open(
                file,
                "r",
                # These are for looking at the first packets alone.
                options={"max_pixels": str(DECODER_PIXELS), **(_NO_PICTURE if by_header else {})},
                container_options={"protocol_whitelist": _NO_PROTOCOL, "format_whitelist": _formats()},
                metadata_errors="replace",
                buffer_size=_READ_BYTES,
                # Looking at the first packets of each stream may take long; reading on is watched by the file.
                timeout=(seconds_left(), None),
                **(_gpu() if on_gpu else {}),
            )
        except failures as error:
            file.raise_trouble()
            check_time()
            if on_gpu:
                reason = getattr(error, "strerror", None) or str(error)
                problem = f"{path}: the GPU does not decode it (--decoder nvdec): {reason}"
                raise MediaError(problem, "leave --decoder out") from None
            raise _explain(path, error) from None
        try:
            file.found(alone=len(container.streams) == 1)
            with container:
                # FFmpeg draws text files as pictures of a terminal.
                if container.format.name == "tty":
                    raise NotMediaError(f"{path}: text, not media", _NOT_MEDIA_HINT)
                yield container
        finally:
            file.raise_trouble()


def header_tells_streams(container: Container) -> bool:
    """Whether a file's streams are known without their first packets, so that it can be opened again quickly.

    Nothing is known then of what a decoder finds out, such as pixel formats.
    """
    return not _TELL_STREAMS.isdisjoint(container.format.name.split(","))


def _gpu() -> dict[str, Any]:
    from av.codec.hwaccel import HWAccel

    return {"hwaccel": HWAccel("cuda", allow_software_fallback=False)}


@cache
def _formats() -> str:
    """All formats that FFmpeg reads but lists of files, as it wants them told."""
    import av

    names = {name for entry in av.formats_available for name in entry.split(",")}
    return ",".join(sorted(names - _LISTS))


def _explain(path: str, error: Exception) -> NotMediaError:
    """Why FFmpeg would not open a file, in words a user can act on."""
    with LocalFile(path) as file:
        head = file.read(_HEAD_BYTES)
    text = _looks_like_text(head)
    if text and (head.lstrip().startswith(_PLAYLIST_STARTS) or b"<MPD" in head):
        reason = f"{path}: a playlist that points to other files; these are never opened"
        return NotMediaError(reason, "give the media file it points to")
    if text:
        return NotMediaError(f"{path}: text, not media", _NOT_MEDIA_HINT)
    facts = read_mp4_facts(path)
    if facts is not None and not facts.has_moov:
        hint = "copy or download it again"
        return NotMediaError(f"{path}: an mp4 without its index (moov): the file was cut short", hint)
    if facts is not None and facts.broken_off:
        return NotMediaError(f"{path}: an mp4 that breaks off", "copy or download it again")
    reason = getattr(error, "strerror", None) or str(error)
    return NotMediaError(f"{path}: not media that FFmpeg can read ({reason})", _NOT_MEDIA_HINT)


def _looks_like_text(head: bytes) -> bool:
    """Whether the first bytes of a file are UTF-8 without control characters."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The last character may be cut in two by the end of the head.
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return all(char.isprintable() or char in "\n\r\t\f" for char in text)

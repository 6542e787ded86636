"""A local file as FFmpeg reads it: what goes wrong meanwhile is kept until it can be raised."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cache, partial
from typing import Self

from seats_cli.errors import MediaError, TimeLimitError
from seats_cli.timelimit import check_time

MAX_SEARCH_BYTES = 1 << 29
"""Read on end without a packet; more than the largest picture, uncompressed."""


def unreadable(path: str, error: OSError | ValueError) -> MediaError:
    """What is said of a file that the system does not open."""
    if isinstance(error, PermissionError):
        return MediaError(f"{path}: permission denied", "check who may read it: ls -l")
    return MediaError(f"{path}: {getattr(error, 'strerror', None) or error}")


class LocalFile:
    """A checked path, opened for FFmpeg to read.

    It shows its suffix only, as ``name``: a ``%d`` in a name means an image series to FFmpeg. Unlike Python's
    own file objects it closes without complaint when an abandoned iterator is collected.

    FFmpeg calls ``read`` from C, where an exception is printed or comes up anywhere. So nothing is raised there:
    the file seems to end, and ``raise_trouble`` raises afterwards what stopped it.

    Attributes:
        name: What FFmpeg takes for the name.
        read: At most so many bytes, none at the end; also when the time is over or Ctrl-C was pressed.
        seek: Go to a place, from ``os.SEEK_SET`` or so; returns it, or below 0 where no file can have one.

    Raises:
        MediaError: It may not be read.
    """

    def __init__(self, path: str) -> None:
        self._descriptor = -1
        self._path = path
        self._state = _State()
        self.name = "input" + os.path.splitext(path)[1]
        try:
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise unreadable(path, error) from None
        reads = _reads(self._descriptor, self._state)
        next(reads)
        self.read: Callable[[int], bytes] = reads.send
        self.seek: Callable[[int, int], int] = partial(_lseek(), self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close it; again does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def raise_trouble(self) -> None:
        """Raise what kept ``read`` from reading, if anything did.

        Raises:
            MediaError: The disk failed, or nothing was found for too long.
            TimeLimitError: The time is over.
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        error = self._state.trouble
        if error is not None:
            if isinstance(error, OSError):
                hint = "the disk or the network may be failing; copy the file elsewhere"
                raise MediaError(f"{self._path}: reading failed: {error.strerror or error}", hint) from None
            if isinstance(error, _NothingFoundError):
                stretch = f"nothing to decode in {MAX_SEARCH_BYTES >> 20} MiB on end"
                raise MediaError(f"{self._path}: {stretch}", "the file may be damaged") from None
            raise error

    def found(self, *, alone: bool) -> None:
        """Say that a packet was found, so that the search for the next begins.

        Args:
            alone: Of the only stream, so that nothing else can lie before the next.
        """
        self._state.n_searched, self._state.searching = 0, alone

    def tell(self) -> int:
        """The place."""
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)


class _NothingFoundError(Exception):
    """FFmpeg read on and on. Some of its parsers remember all that they search through."""


@dataclass(slots=True)
class _State:
    """How reading goes.

    Attributes:
        trouble: What ended it.
        searching: Whether a packet must come soon; so while a file is opened.
        n_searched: Bytes since the last one.
    """

    trouble: BaseException | None = None
    searching: bool = True
    n_searched: int = 0

    def count(self, n_bytes: int) -> None:
        """Note that so many were read."""
        self.n_searched += n_bytes
        if self.searching and self.n_searched > MAX_SEARCH_BYTES:
            raise _NothingFoundError


def _reads(descriptor: int, state: _State) -> Generator[bytes, int]:
    """Sent a number of bytes, yields these; nothing from the first trouble on, which is put into the state.

    A generator, since Python looks for Ctrl-C when a function begins, before any ``try`` in it: in a function
    that C calls it would be lost. Here that place is inside the ``try``.
    """
    data = b""
    while True:
        try:
            n_bytes = yield data
            data = b""
            if state.trouble is None:
                check_time()
                state.count(n_bytes)
                data = os.read(descriptor, n_bytes)
        except (OSError, TimeLimitError, KeyboardInterrupt, _NothingFoundError) as error:
            state.trouble = error


@cache
def _lseek() -> Callable[[int, int, int], int]:
    """``lseek`` of C where it can be had: it runs no Python that Ctrl-C could end, and raises nothing."""
    import ctypes

    try:
        function = ctypes.CDLL(None).lseek
    except (TypeError, OSError, AttributeError):
        return os.lseek
    function.argtypes, function.restype = (ctypes.c_int, ctypes.c_ssize_t, ctypes.c_int), ctypes.c_ssize_t
    return function

"""A file to which lines of JSON are added, by one process at a time; what is written is not lost."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from seats_cli.errors import SeatsError, UsageError
from seats_cli.outputs import cannot_write, check_output

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedRandom
    from types import TracebackType

START = b'{"key": "'
"""How every line begins; what begins otherwise is another file's."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)


class LineFile:
    """Lines of earlier runs, and those of this one as they come.

    Lines are only added. A last line that a run began and did not end is taken away. Until ``open`` nothing is
    changed: what cannot be asked leaves no file behind. While it is open no other process can open it.

    Args:
        path: May not be there yet.
        wrote: The command whose lines these are, for errors.
        inputs: Files that this must not be.

    Raises:
        UsageError: It cannot be read or written, another process writes it, or it holds something else.
    """

    def __init__(self, path: Path, wrote: str, inputs: tuple[Path, ...] = ()) -> None:
        self.path = path
        self._wrote = wrote
        self._file: BufferedRandom | None = None
        self._size = 0
        self._mend = b""
        try:
            if not path.is_file():
                check_output(path, "-o")
                return
            for other in inputs:
                if os.path.samefile(path, other):
                    raise UsageError(f"-o {path} is the file of questions", "give a path of its own")
            self._file = path.open("r+b")
            self._lock()
        except OSError as error:
            raise cannot_write(path, "-o", error) from None

    def _lock(self) -> None:
        """Keep other processes out, until the file is closed or this process ends, however it ends."""
        if self._file is None:
            return
        try:
            _lock(self._file)
        except OSError as error:
            if error.errno in _NO_LOCKS:  # a file system without locks
                return
            self.close()
            raise UsageError(
                f"-o {self.path} is being written by another process",
                "wait for it, give another file, or share the clips: --shard 1/2 here, --shard 2/2 there",
            ) from None

    def read(self) -> Iterator[tuple[int, int, bytes]]:
        """Number, place and text of every whole line that is not blank; sees how the last one is to be mended.

        Raises:
            UsageError: A line is another file's.
        """
        if self._file is None:
            return
        place = 0
        self._file.seek(0)
        for number, line in enumerate(self._file, start=1):
            ended = line.endswith(b"\n")
            if not ended and not self._is_whole(line):
                # Where the power failed, some file systems leave zeros.
                begun = line.rstrip(b"\0")
                if not (begun.startswith(START) or START.startswith(begun)):
                    raise self.refuse(None)
                break
            if line.strip():
                if not line.startswith(START):
                    raise self.refuse(number)
                yield number, place, line.rstrip(b"\n")
            self._mend = b"" if ended else b"\n"
            place += len(line)
        self._size = place

    @staticmethod
    def _is_whole(line: bytes) -> bool:
        """Whether a last line lacks nothing but its end; else it is taken away."""
        import json

        try:
            return isinstance(json.loads(line), dict)
        except ValueError:
            return False

    def refuse(self, number: int | None) -> UsageError:
        """Let go of a file that another command wrote.

        Args:
            number: Of the line that says so; None: the unfinished one at the end.
        """
        self.close()
        what = "ends with what" if number is None else "is not a row that"
        where = self.path if number is None else f"{self.path}:{number}"
        verb = "did not write" if number is None else "wrote"
        return UsageError(f"-o {where} {what} {self._wrote} {verb}", "give another file, or a new one")

    def open(self) -> BufferedRandom:
        """Make the file if it is not there; end its last line, or take it away.

        Raises:
            UsageError: It cannot be written, or another process has begun to.
        """
        try:
            if self._file is None:
                self._file = self.path.open("a+b")
                self._lock()
                if self._file.seek(0, os.SEEK_END):
                    self.close()
                    raise UsageError(
                        f"-o {self.path} was written by another process in the meantime",
                        "the same command goes on from there",
                    )
            if self._file.seek(0, os.SEEK_END) != self._size or self._mend:
                self._file.truncate(self._size)
                self._file.seek(self._size)
                self._file.write(self._mend)
                self._file.flush()
        except OSError as error:
            raise cannot_write(self.path, "-o", error) from None
        return self._file

    def at(self, place: int) -> bytes:
        """The line that begins there."""
        file = self._file or self.open()
        file.seek(place)
        line = file.readline().rstrip(b"\n")
        file.seek(0, os.SEEK_END)
        return line

    def add(self, line: str) -> int:
        """Write one line, whole; it is on the disk when this returns.

        Args:
            line: Without its end.

        Returns:
            Where it begins.

        Raises:
            SeatsError: The disk is full, or the like.
        """
        file = self._file or self.open()
        try:
            place = file.seek(0, os.SEEK_END)
            file.write(line.encode() + b"\n")
            file.flush()
            _to_disk(file)
        except OSError as error:
            raise SeatsError(
                f"-o {self.path} cannot be written: {error.strerror or error}",
                "make room; the same command goes on from there",
            ) from None
        return place

    def close(self) -> None:
        """Let other processes have it."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # what could not be written is tried once more
                self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _lock(file: BufferedRandom) -> None:
    if sys.platform == "win32":
        import msvcrt

        # Bytes that are locked there cannot be read: one is taken that no file reaches.
        file.seek(1 << 40)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _to_disk(file: BufferedRandom) -> None:
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in _NO_LOCKS:  # of some file systems: not supported
            raise

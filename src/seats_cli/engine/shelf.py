"""The folder of a cache: how it is known, what lies in it, what is swept and what is evicted. No torch.

An entry is one file that comes into being by a rename and goes by being unlinked, so whoever has it open has all
of it. Until then it is a part: its writer holds a lock on it, which the system frees when the writer is gone,
however it went. Nothing but entries and parts is ever removed.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from seats_cli.errors import UsageError
from seats_cli.outputs import cannot_write

TAG_FILE, FORMAT_FILE, FORMAT = "CACHEDIR.TAG", "SEATS-CACHE", "1"
TAG = """Signature: 8a477f597d28d172789f06886806bc55
# This folder is a cache made by seats (seats cache ls, seats cache clear). It can be removed.
# About cache directory tags see https://bford.info/cachedir/
"""
ENTRY = re.compile(r"([0-9a-f]{64})\.clip")
PART = re.compile(r"\.part-[0-9a-f]{16}")
OLD_PART_SECONDS = 86_400.0
"""Where files cannot be locked, parts that nobody has written to for so long are swept."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as the folder shows it.

    Attributes:
        path: Of the file.
        key: Its name.
        n_bytes: Its size.
        used: When it was written or read last, in seconds since 1970.
    """

    path: Path
    key: str
    n_bytes: int
    used: float


@dataclass(frozen=True, slots=True)
class Freed:
    """What was removed: how many entries, and how many bytes with the parts of writers that are gone."""

    entries: int = 0
    n_bytes: int = 0


def entry_path(folder: Path, key: str) -> Path:
    """Where the entry of a key lies, if there is one."""
    return folder / f"{key}.clip"


def is_marked(folder: Path) -> bool:
    """Whether a folder is a cache.

    Raises:
        UsageError: It is one of another version.
        OSError: It cannot be read.
    """
    try:
        found = (folder / FORMAT_FILE).read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return False
    if found != FORMAT:
        raise UsageError(
            f"--cache {folder} is a cache of another version of seats, {found!r}", "give another folder"
        )
    return True


def check_cache(folder: Path) -> None:
    """See that a folder is a cache.

    Raises:
        UsageError: It is not.
    """
    try:
        marked = is_marked(folder)
        if not marked and not folder.is_dir():
            raise UsageError(f"--cache {folder}: there is no such folder", "check the path")
    except OSError as error:
        raise UsageError(f"--cache {folder} cannot be read: {error.strerror or error}") from None
    if not marked:
        raise UsageError(f"--cache {folder} is not a cache of seats: it has no {FORMAT_FILE}", "check the path")


def claim(folder: Path) -> None:
    """Make a folder a cache if it is none: one that is new or empty.

    Raises:
        UsageError: It holds something else, is a cache of another version, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--cache {folder} is not a folder", "give a folder, or a path where nothing is")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if is_marked(folder):
            return
        foreign = sorted(name for name in os.listdir(folder) if name != TAG_FILE and not PART.fullmatch(name))
        # Another process may have been as quick.
        if foreign and not is_marked(folder):
            problem = f"--cache {folder} holds other files, {foreign[0]} for one, and is not a cache of seats"
            raise UsageError(problem, "give a folder that is empty or new")
        # The one that is looked for comes last.
        for name, text in ((TAG_FILE, TAG), (FORMAT_FILE, f"{FORMAT}\n")):
            with new_part(folder) as (part, file):
                write_all(file, text.encode())
                os.replace(part, folder / name)
    except OSError as error:
        raise cannot_write(folder, "--cache", error) from None


def entries(folder: Path) -> list[Entry]:
    """What lies in a cache, longest unused first.

    Raises:
        OSError: The folder cannot be read.
    """
    found = []
    with os.scandir(folder) as names:
        for one in names:
            named = ENTRY.fullmatch(one.name)
            with suppress(FileNotFoundError):  # evicted just now
                if named and one.is_file(follow_symlinks=False):
                    status = one.stat(follow_symlinks=False)
                    found.append(Entry(folder / one.name, named[1], status.st_size, status.st_mtime))
    return sorted(found, key=lambda entry: (entry.used, entry.key))


def _lock(file: int) -> bool | None:
    """Take the lock of a file; False: somebody has it; None: it cannot be locked here."""
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems
        return None
    return True


@contextmanager
def new_part(folder: Path) -> Iterator[tuple[Path, FileIO]]:
    """A file to write to, locked. What is not renamed by the end is removed.

    It has no buffer, so that closing it on a full disk raises nothing.

    Raises:
        OSError: It cannot be made.
    """
    while True:
        path = folder / f".part-{secrets.token_hex(8)}"
        with path.open("xb", buffering=0) as file:
            # A sweep may have come between; what it locks or unlinks is not ours any more.
            if _lock(file.fileno()) is False or not path.exists():
                continue
            try:
                yield path, file
            finally:
                with suppress(OSError):
                    path.unlink()
        return


def write_all(file: FileIO, content: bytes) -> None:
    """Write all of it; the system may take less at once.

    Raises:
        OSError: It cannot be written.
    """
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def _sweep_part(path: Path) -> int:
    """Remove a part whose writer is gone; returns its bytes."""
    file = os.open(path, os.O_RDWR)
    try:
        status, locked = os.fstat(file), _lock(file)
        if locked or (locked is None and time.time() - status.st_mtime > OLD_PART_SECONDS):
            path.unlink()
            return status.st_size
        return 0
    finally:
        os.close(file)


def sweep(folder: Path) -> int:
    """Remove what writers left that were killed; returns the bytes freed."""
    freed = 0
    with suppress(OSError):
        for name in os.listdir(folder):
            if PART.fullmatch(name):
                with suppress(OSError):  # just made an entry, another user's, or on a disk that cannot be written
                    freed += _sweep_part(folder / name)
    return freed


def make_room(folder: Path, limit_bytes: int, keep: str) -> None:
    """Remove the entries that are longest unused until the rest is within the limit.

    Args:
        folder: Of the cache.
        limit_bytes: For all entries together.
        keep: The key of one that stays.

    Raises:
        OSError: One cannot be removed.
    """
    found = entries(folder)
    total = sum(entry.n_bytes for entry in found)
    for entry in found:
        if total <= limit_bytes:
            return
        if entry.key != keep:
            entry.path.unlink(missing_ok=True)
            total -= entry.n_bytes


def clear(folder: Path, unused_seconds: float = 0.0) -> Freed:
    """Remove entries, and what writers left that are gone.

    Args:
        folder: Of the cache.
        unused_seconds: Those that were used since stay.

    Raises:
        UsageError: The folder is not a cache, or something in it cannot be removed.
    """
    check_cache(folder)
    freed, now = Freed(n_bytes=sweep(folder)), time.time()
    try:
        for entry in entries(folder):
            # Without an age all go, also those from the future: clocks are set, and differ between machines.
            if unused_seconds and now - entry.used < unused_seconds:
                continue
            with suppress(FileNotFoundError):
                entry.path.unlink()
                freed = Freed(freed.entries + 1, freed.n_bytes + entry.n_bytes)
    except OSError as error:
        raise UsageError(f"--cache {folder} cannot be cleared: {error.strerror or error}") from None
    return freed

"""Files that are written: checked before the work, and whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from seats_cli.errors import UsageError


def _part(path: Path) -> Path:
    """A name beside it, with its ending: some writers choose the format by that."""
    return path.with_name(f".part-{os.getpid()}-{path.name}")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes ``path`` when all went well and is removed otherwise.

    Raises:
        OSError: It cannot be written.
    """
    part = _part(path)
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def check_output(path: Path, option: str) -> None:
    """Find out before the work, not after it, that a file cannot be written: by writing one beside it.

    Args:
        path: To be written.
        option: That names it, for the error.

    Raises:
        UsageError: It cannot be, or something else is there.
    """
    try:
        if path.is_dir():
            raise UsageError(f"{option} {path} is a folder", "give the path of a file")
        if path.exists() and not path.is_file():
            raise UsageError(f"{option} {path} is not a regular file", "give the path of a file")
        if not path.parent.is_dir():
            raise UsageError(f"{option} {path}: there is no folder {path.parent}", "make it first")
        part = _part(path)
        part.open("xb").close()
        part.unlink()
    except OSError as error:
        raise cannot_write(path, option, error) from None


def cannot_write(path: Path, option: str, error: OSError) -> UsageError:
    """Say that a file cannot be written, and why."""
    problem = f"{option} {path} cannot be written: {error.strerror or error}"
    return UsageError(problem, "give a place that can be written to")

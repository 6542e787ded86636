"""Folders and patterns -> the media files they stand for, in an order people expect."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import PurePath

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *(
            "3g2",
            "3gp",
            "asf",
            "avi",
            "flv",
            "m2ts",
            "m4v",
            "mkv",
            "mov",
            "mp4",
            "mpeg",
            "mpg",
            "mts",
            "mxf",
            "ogv",
        ),
        *("rm", "ts", "vob", "webm", "wmv"),
    )
)
AUDIO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("aac", "ac3", "aif", "aiff", "amr", "ape", "flac", "m4a", "mka", "mp3", "oga", "ogg", "opus", "wav"),
        *("weba", "wma"),
    )
)
MEDIA_SUFFIXES = VIDEO_SUFFIXES | AUDIO_SUFFIXES
"""How names of media files end. Only where names are all there is to choose by: a file that is named is tried."""


def matching(pattern: str, *, recursive: bool) -> list[str]:
    """Files a pattern stands for, and of folders among them the media files.

    Args:
        pattern: ``**`` stands for any number of folders.
        recursive: Look into folders of folders too.
    """
    found: list[str] = []
    for path in in_order(glob.glob(pattern, recursive=True)):
        found += media_in(path, recursive=recursive) if os.path.isdir(path) else [path]
    # A file may be found by its name and in its folder too.
    return list(dict.fromkeys(found))


def media_in(folder: str, *, recursive: bool) -> list[str]:
    """Media files of a folder by their names' endings, in order; hidden ones are passed over.

    Links to folders are not followed below the folder, so that no loop is walked.

    Args:
        folder: May itself be a link.
        recursive: Look into its folders too.

    Raises:
        OSError: The folder cannot be read.
    """
    found = []
    for where, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        found += [os.path.join(where, name) for name in names if _is_media(name)]
    return in_order(found)


def _is_media(name: str) -> bool:
    return not name.startswith(".") and PurePath(name).suffix.lower() in MEDIA_SUFFIXES


def _raise(error: OSError) -> None:
    raise error


def in_order(paths: Iterable[str]) -> list[str]:
    """By folder and name, numbers in names by their value: ``clip2`` before ``clip10``."""
    return sorted(paths, key=lambda path: [tuple(_parts(part)) for part in PurePath(path).parts])


def _parts(name: str) -> Iterator[tuple[bool, int, str]]:
    for part in re.split(r"([0-9]+)", name):
        if part.isascii() and part.isdigit():
            yield False, int(part), part
        else:
            yield True, 0, part

"""Folders and patterns stand for media files: by their endings, in the order people expect, without loops."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seats_cli.media.folders import AUDIO_SUFFIXES, MEDIA_SUFFIXES, VIDEO_SUFFIXES, in_order, matching, media_in


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(found: list[str], folder: Path) -> list[str]:
    return [os.path.relpath(path, folder) for path in found]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    make(tmp_path, "b.MP4", "a.wav", "notes.txt", ".hidden.mp4", "list.m3u8", "mp4", "part.mp4.part")
    make(tmp_path, "deep/c.mkv", "deep/deeper/d.webm", ".git/e.mp4", "empty/readme.md")
    return tmp_path


def test_a_folder_stands_for_its_media_files(tree: Path) -> None:
    assert names(media_in(str(tree), recursive=False), tree) == ["a.wav", "b.MP4"]
    deep = ["a.wav", "b.MP4", "deep/c.mkv", "deep/deeper/d.webm"]
    assert names(media_in(str(tree), recursive=True), tree) == deep
    assert media_in(str(tree / "empty"), recursive=True) == []


def test_loops_of_links_are_not_walked(tree: Path) -> None:
    (tree / "deep" / "again").symlink_to(tree, target_is_directory=True)
    (tree / "self.mp4").symlink_to("self.mp4")
    (tree / "linked.mp4").symlink_to("b.MP4")
    found = names(media_in(str(tree), recursive=True), tree)
    assert found == ["a.wav", "b.MP4", "deep/c.mkv", "deep/deeper/d.webm", "linked.mp4", "self.mp4"]
    (tree / "entry").symlink_to(tree / "deep", target_is_directory=True)
    assert names(media_in(str(tree / "entry"), recursive=False), tree) == ["entry/c.mkv"], "a link that is named"


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        media_in(str(tmp_path / "nowhere"), recursive=False)


def test_patterns(tree: Path) -> None:
    assert names(matching(f"{tree}/*.wav", recursive=False), tree) == ["a.wav"]
    assert names(matching(f"{tree}/**/*.[mw]*", recursive=False), tree) == [
        "a.wav",
        "deep/c.mkv",
        "deep/deeper/d.webm",
        "empty/readme.md",  # whoever names it gets it
        "list.m3u8",
        "part.mp4.part",
    ]
    assert names(matching(f"{tree}/d*", recursive=False), tree) == ["deep/c.mkv"]
    assert names(matching(f"{tree}/d*", recursive=True), tree) == ["deep/c.mkv", "deep/deeper/d.webm"]
    assert matching(f"{tree}/*.flac", recursive=True) == []


def test_what_is_matched_twice_is_there_once(tree: Path) -> None:
    found = names(matching(f"{tree}/**", recursive=True), tree)
    assert found.count("deep/c.mkv") == 1


def test_numbers_go_by_their_value() -> None:
    given = ["clip10.mp4", "clip2.mp4", "clip1.mp4", "b/clip1.mp4", "a/clip02.mp4", "a/clip2.mp4", "clip.mp4"]
    expected = ["a/clip02.mp4", "a/clip2.mp4", "b/clip1.mp4", "clip1.mp4", "clip2.mp4", "clip10.mp4", "clip.mp4"]
    assert in_order(given) == expected


@given(st.lists(st.text(st.characters(exclude_characters="\0"), min_size=1), unique=True))
def test_the_order_is_one_whatever_it_was(paths: list[str]) -> None:
    ordered = in_order(paths)
    assert sorted(ordered) == sorted(paths)
    assert in_order(reversed(ordered)) == in_order(ordered)


def test_endings() -> None:
    assert VIDEO_SUFFIXES.isdisjoint(AUDIO_SUFFIXES)
    for suffix in MEDIA_SUFFIXES:
        assert suffix.startswith(".")
        assert suffix == suffix.lower()
    assert {".m3u8", ".m3u", ".pls", ".txt", ".jsonl"}.isdisjoint(MEDIA_SUFFIXES)

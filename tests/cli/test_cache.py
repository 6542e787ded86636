"""``seats cache``: what is listed is what is there, what is removed is nothing else, and mistakes are one line."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from datetime import UTC, datetime

import pytest

from seats_cli.cli.app import EPILOG, GROUPS
from seats_cli.engine import shelf
from seats_cli.engine.store import ClipStore
from tests.cli.test_help import probe
from tests.engine.made_windows import FACTS, SHAPE, batches_of, key, record

NAMES = ["first.mp4", "a\ttab and a \x1b[31m colour.mp4", "größer.mkv"]
DAY = 86_400


@pytest.fixture
def cache(tmp_path):
    """Three clips, used one, two and three days ago."""
    store = ClipStore(tmp_path / "cache", 10**9)
    for number, name in enumerate(NAMES):
        with store.recording(key(number), batches_of(number)) as recording:
            for stream in recording.batches.values():
                list(stream)
            recording.commit(SHAPE, dataclasses.replace(FACTS, name=name), ())
        used = time.time() - (number + 1) * DAY
        os.utime(shelf.entry_path(store.folder, key(number)), (used, used))
    return store.folder


def names(folder):
    return sorted(name for name in os.listdir(folder) if name.endswith(".clip"))


@pytest.mark.parametrize("arguments", [["cache", "--help"], ["cache", "ls", "-h"], ["cache", "clear", "-h"]])
def test_help_has_the_exit_codes_and_imports_nothing_heavy(arguments):
    out, imported = probe(*arguments)
    assert imported == ""
    assert out.split()[-len(EPILOG.split()) :] == EPILOG.split()


def test_groups_are_listed_and_alone_they_are_help(seats):
    text = seats("--help").out
    for name, group in GROUPS.items():
        assert f"\n  {name} " in text
        ended = seats(name)
        assert (ended.code, ended.out) == (2, "")
        assert all(f"\n  {command.name} " in ended.err for command in group.registered_commands)


@pytest.mark.parametrize(
    ("arguments", "complaint", "place"),
    [
        (["cache", "frob"], "No such command 'frob'", "cache"),
        (["cache", "--frob"], "No such option", "cache"),
        (["cache", "ls", "--frob"], "No such option", "cache ls"),
        (["cache", "clear", "x"], "Got unexpected extra argument", "cache clear"),
        (["cache", "clear", "--older-than", "week"], "Invalid value for '--older-than'", "cache clear"),
        (["cache", "ls", "--cache", " "], "Invalid value for '--cache'", "cache ls"),
    ],
)
def test_what_is_not_known_is_one_line_and_where_to_look(seats, arguments, complaint, place):
    ended = seats(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.complaint.startswith(complaint)
    assert ended.hint == f"see: seats {place} --help"


def test_a_line_per_clip_longest_unused_first(seats, cache):
    ended = seats("cache", "ls", "--cache", cache)
    assert ended.code == 0
    rows = [line.split("\t") for line in ended.out.splitlines()]
    assert [row[-1] for row in rows] == [NAMES[2], r"a\ttab and a \x1b[31m colour.mp4", NAMES[0]]
    assert [row[0] for row in rows] == [key(number)[:12] for number in (2, 1, 0)]
    assert all(row[3:5] == ["4.1 s", FACTS.model] for row in rows)
    assert [row[2][:10] for row in rows] == [
        datetime.fromtimestamp(shelf.entry_path(cache, key(number)).stat().st_mtime).strftime("%Y-%m-%d")
        for number in (2, 1, 0)
    ]
    assert ended.err.startswith("seats: 3 clips, ")
    assert ended.err.endswith(f" in {cache}\n")


def test_the_same_as_json_by_the_variable(seats, cache, monkeypatch):
    monkeypatch.setenv("SEATS_CACHE", str(cache))
    ended = seats("cache", "ls", "--json")
    assert (ended.code, ended.err) == (0, "")
    found = json.loads(ended.out)
    assert ended.out.count("\n") == 1
    entries = found.pop("entries")
    sizes = [shelf.entry_path(cache, key(number)).stat().st_size for number in (2, 1, 0)]
    assert found == {"schema_version": 1, "command": "cache ls", "folder": str(cache), "bytes": sum(sizes)}
    assert [entry["clip"] for entry in entries] == NAMES[::-1]
    assert [entry["bytes"] for entry in entries] == sizes
    for number, entry in zip((2, 1, 0), entries, strict=True):
        assert (entry["key"], entry["model"], entry["seconds"]) == (key(number), FACTS.model, 4.1)
        assert entry["damaged"] is False
        used = datetime.fromisoformat(entry["used"])
        assert used.tzinfo == UTC
        assert abs(used.timestamp() - shelf.entry_path(cache, key(number)).stat().st_mtime) <= 1


def test_looking_is_no_use(seats, cache):
    before = [shelf.entry_path(cache, key(number)).stat().st_mtime_ns for number in range(3)]
    seats("cache", "ls", "--cache", cache)
    assert before == [shelf.entry_path(cache, key(number)).stat().st_mtime_ns for number in range(3)]


def test_a_damaged_entry_is_listed_and_stops_nothing(seats, cache):
    shelf.entry_path(cache, key(1)).write_bytes(b"no clip")
    ended = seats("cache", "ls", "--cache", cache)
    assert ended.code == 0
    assert len(ended.out.splitlines()) == 3
    assert [line for line in ended.out.splitlines() if line.endswith("\t(damaged)")]
    entries = json.loads(seats("cache", "ls", "--cache", cache, "--json").out)["entries"]
    (damaged,) = [entry for entry in entries if entry["damaged"]]
    assert (damaged["key"], damaged["clip"], damaged["bytes"]) == (key(1), None, 7)
    assert seats("cache", "clear", "--cache", cache).err.startswith("seats: 3 clips removed, ")


def test_clear_removes_the_clips_and_says_how_much(seats, cache):
    assert seats("cache", "clear", "--cache", cache, "--older-than", "2.5").err.startswith(
        "seats: 1 clip removed, "
    )
    assert names(cache) == [f"{key(number)}.clip" for number in (0, 1)]
    ended = seats("cache", "clear", "--cache", cache)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err.startswith("seats: 2 clips removed, ")
    assert sorted(os.listdir(cache)) == sorted([shelf.TAG_FILE, shelf.FORMAT_FILE])
    for arguments in ([], ["--older-than", "0"]):
        ended = seats("cache", "clear", "--cache", cache, *arguments)
        assert (ended.code, ended.out) == (0, "")
        assert ended.err == f"seats: 0 clips removed, 0 B freed in {cache}\n"
    ended = seats("cache", "ls", "--cache", cache)
    assert (ended.code, ended.out, ended.err) == (0, "", f"seats: 0 clips, 0 B in {cache}\n")
    record(ClipStore(cache, 10**9), key(0), batches_of(0))
    assert names(cache) == [f"{key(0)}.clip"]


@pytest.mark.parametrize("command", ["ls", "clear"])
def test_without_a_name_there_is_no_cache(seats, command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEATS_CACHE", "")
    ended = seats("cache", command)
    assert (ended.code, ended.out) == (2, "")
    assert ended.complaint == "no cache was named"
    assert ended.hint == "give --cache DIR, or set SEATS_CACHE"


@pytest.mark.parametrize("command", ["ls", "clear"])
def test_a_folder_that_is_no_cache_is_left_alone(seats, command, tmp_path):
    other = tmp_path / "videos"
    other.mkdir()
    (other / f"{key(0)}.clip").write_text("mine")
    ended = seats("cache", command, "--cache", other)
    assert (ended.code, ended.out) == (2, "")
    assert ended.complaint == f"--cache {other} is not a cache of seats: it has no SEATS-CACHE"
    assert (other / f"{key(0)}.clip").read_text() == "mine"
    for path in (tmp_path / "none", other / f"{key(0)}.clip", other / f"{key(0)}.clip" / "in"):
        ended = seats("cache", command, "--cache", path)
        assert (ended.code, ended.out) == (2, "")
        assert ended.complaint == f"--cache {path}: there is no such folder"
    assert sorted(os.listdir(tmp_path)) == ["videos"]


@pytest.mark.parametrize("days", ["-1", "nan", "inf", "1e9"])
def test_an_age_that_cannot_be_removes_nothing(seats, cache, days):
    ended = seats("cache", "clear", "--cache", cache, "--older-than", days)
    assert (ended.code, ended.out) == (2, "")
    assert ended.complaint.startswith("--older-than is ")
    assert len(names(cache)) == 3

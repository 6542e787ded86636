"""Files to which lines are added: one process at a time, and nothing that is whole is lost."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seats_cli.cli.lines import START, LineFile
from seats_cli.errors import SeatsError, UsageError
from tests.cli.conftest import environment

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="locks and rights of POSIX")
HOLDER = """
import sys, pathlib
from seats_cli.cli.lines import LineFile
file = LineFile(pathlib.Path(sys.argv[1]), "seats ask")
list(file.read())
file.open()
file.add('{"key": "b"}')
print("open", flush=True)
sys.stdin.read()
"""


def line(key: str) -> str:
    return json.dumps({"key": key})


def contents(path: Path) -> list[str]:
    """Keys of the whole lines, as a run that resumes sees them."""
    with LineFile(path, "seats ask") as file:
        return [json.loads(text)["key"] for _, _, text in file.read()]


def resume(path: Path, *keys: str) -> None:
    with LineFile(path, "seats ask") as file:
        list(file.read())
        file.open()
        for key in keys:
            file.add(line(key))


keys = st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=5), min_size=1, max_size=6)


@settings(deadline=None)
@given(keys, keys, st.integers(0, 10**6))
def test_cut_anywhere_and_resumed_whole_lines_stay_and_nothing_is_torn(
    old: list[str], new: list[str], cut: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a.jsonl"
        resume(path, *old)
        data = path.read_bytes()
        cut %= len(data) + 1
        path.write_bytes(data[:cut])
        # A line that lacks its end alone is whole.
        n_whole = data[:cut].count(b"\n") + (cut < len(data) and data[cut : cut + 1] == b"\n")
        assert contents(path) == old[:n_whole]
        assert path.read_bytes() == data[:cut], "looking changes nothing"
        resume(path, *new)
        assert contents(path) == [*old[:n_whole], *new]
        assert path.read_bytes().endswith(b"\n")


def test_zeros_at_the_end_are_what_a_power_cut_leaves(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for begun in (b"", START + b"x"):
        path.write_bytes(line("a").encode() + b"\n" + begun + b"\0" * 100)
        assert contents(path) == ["a"]
        resume(path, "b")
        assert contents(path) == ["a", "b"]


@pytest.mark.parametrize("text", ["a,b\n", "{}\n", '{"key": "a"}\n\x00\x00\n', "half", '{"media": 1}', "\n\nx\n"])
def test_what_another_wrote_is_refused_and_left_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(UsageError, match="seats ask"):
        list(LineFile(path, "seats ask").read())
    assert path.read_text() == text
    resume(tmp_path / "b.jsonl", "a")


def test_blank_lines_and_an_empty_file_are_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("")
    resume(path, "a")
    with path.open("a") as file:
        file.write("\n \n")
    resume(path, "b")
    assert contents(path) == ["a", "b"]


def test_lines_are_found_by_their_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    resume(path, "a")
    with LineFile(path, "seats ask") as file:
        places = {json.loads(text)["key"]: place for _, place, text in file.read()}
        places |= {key: file.add(line(key)) for key in ("ä", "c")}
        assert {key: json.loads(file.at(place))["key"] for key, place in places.items()} == {k: k for k in places}
        file.add(line("d"))
    assert contents(path) == ["a", "ä", "c", "d"]


def test_until_it_is_opened_there_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with LineFile(path, "seats ask") as file:
        assert list(file.read()) == []
    assert list(tmp_path.iterdir()) == []


@POSIX
def test_while_a_process_has_it_another_is_refused_however_the_first_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    early = LineFile(path, "seats ask")
    for end in (signal.SIGKILL, None):
        command = [sys.executable, "-c", HOLDER, str(path)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, env=environment(), stdin=pipe, stdout=pipe, text=True) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "open\n"
            for begin in (lambda: LineFile(path, "seats ask"), early.open):
                with pytest.raises(UsageError, match="is being written by another process") as caught:
                    begin()
                assert "--shard 1/2" in caught.value.hint
            early = LineFile(tmp_path / "other.jsonl", "seats ask")
            early.path = path
            if end is not None:
                holder.send_signal(end)
            holder.communicate()
    assert contents(path) == ["b", "b"]


def test_a_file_that_came_to_be_after_the_look_is_not_cut(tmp_path: Path) -> None:
    """Two runs begin at once; one is through before the other has read its clips."""
    path = tmp_path / "a.jsonl"
    late = LineFile(path, "seats ask")
    resume(path, "a", "b")
    with pytest.raises(UsageError, match="in the meantime"):
        late.open()
    assert contents(path) == ["a", "b"]


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    path, link = tmp_path / "a.jsonl", tmp_path / "link.jsonl"
    resume(path, "a")
    link.symlink_to(path)
    resume(link, "b")
    assert link.is_symlink()
    assert contents(path) == ["a", "b"]


@POSIX
def test_a_folder_that_may_only_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    resume(folder / "there.jsonl", "a")
    (folder / "there.jsonl").chmod(0o400)
    folder.chmod(0o500)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("root may write everywhere")
        for name in ("new.jsonl", "there.jsonl"):
            with pytest.raises(UsageError, match="cannot be written: Permission denied"):
                LineFile(folder / name, "seats ask")
    finally:
        folder.chmod(0o700)


def test_a_refused_write_of_any_kind_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where everything may be written: by root, on a disk that was made read-only, over a quota."""
    path = tmp_path / "a.jsonl"
    resume(path, "a")
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
        problem = OSError(code, os.strerror(code))

        def refuse(*_: object, problem: OSError = problem) -> None:
            raise problem

        with LineFile(path, "seats ask") as file, monkeypatch.context() as patch:
            list(file.read())
            patch.setattr("os.fsync", refuse)
            with pytest.raises(SeatsError, match=os.strerror(code)) as caught:
                file.add(line("b"))
            assert caught.value.exit_code == 1
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(UsageError, match="cannot be written: "):
            LineFile(path, "seats ask")


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_without_locks_or_fsync_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("seats_cli.cli.lines._lock", refuse)
    monkeypatch.setattr("os.fsync", refuse)
    path = tmp_path / "a.jsonl"
    resume(path, "a")
    resume(path, "b")
    assert contents(path) == ["a", "b"]

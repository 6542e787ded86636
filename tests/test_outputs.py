"""Files that are written: refused before the work where they cannot be, whole or not there otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from seats_cli.errors import UsageError
from seats_cli.outputs import check_output, whole


def test_a_place_to_write_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "there.toml").write_text("as it was")
    for name in ("new.toml", "there.toml"):
        check_output(tmp_path / name, "--output")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("there.toml", "as it was")]


def test_a_place_that_takes_no_file_is_named_with_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, problem in (
        (tmp_path, "is a folder"),
        (Path(os.devnull), "is not a regular file"),
        (tmp_path / "no" / "schedule.toml", f"there is no folder {tmp_path / 'no'}"),
        (tmp_path / "file" / "schedule.toml", f"there is no folder {tmp_path / 'file'}"),
        (tmp_path / f"{'n' * 300}.toml", "cannot be written: File name too long"),
        # A folder that no one can write to, whoever runs this.
        (Path("/proc/schedule.toml"), "cannot be written: "),
    ):
        with pytest.raises(UsageError) as caught:
            check_output(path, "--output")
        assert str(caught.value).startswith(f"--output {path}")
        assert problem in str(caught.value)
        assert caught.value.hint


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_a_file_is_whole_or_as_it_was(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "clip.mp4"
    path.write_text("before")

    def write(content: str, then: BaseException | None = None) -> None:
        with whole(path) as part:
            assert part.suffix == ".mp4"
            part.write_text(content)
            if then is not None:
                raise then

    with pytest.raises(type(error)):
        write("half", error)
    assert path.read_text() == "before"
    write("after")
    assert path.read_text() == "after"
    assert os.listdir(tmp_path) == ["clip.mp4"]

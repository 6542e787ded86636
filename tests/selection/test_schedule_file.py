"""Schedule files: what is written is read, what cannot be is one line with the file and the value."""

from __future__ import annotations

import tomllib
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seats_cli.errors import UsageError
from seats_cli.selection.schedule_file import (
    DropSchedule,
    read_schedule,
    schedule_of,
    schedule_text,
    write_schedule,
)

GOOD = "drop_before_layer = [4, 6, 8, 10]\n"


@given(
    st.integers(1, 60),
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    st.none() | st.floats(1e-6, 1e6),
    st.none() | st.floats(1, 1e6),
    st.none() | st.integers(91, 200),
    st.sampled_from([(), ("one",), ("a # b", "drop_before_layer = [1]", "two\nlines", "\u00e9\u6a21")]),
)
def test_what_is_written_is_read(
    first: int,
    steps: tuple[int, int, int],
    temperature: float | None,
    scale: float | None,
    layers: int | None,
    comments: tuple[str, ...],
) -> None:
    schedule = DropSchedule(tuple(accumulate((first, *steps))), temperature, scale, layers)
    assert schedule_of(tomllib.loads(schedule_text(schedule, comments)), "text") == schedule


def test_a_file_of_either_kind(tmp_path: Path) -> None:
    path = tmp_path / "schedule.toml"
    path.write_text(GOOD)
    assert read_schedule(path) == DropSchedule((4, 6, 8, 10))
    path.write_text("# by hand\n" + GOOD + "temperature = 1  # whole is fine\nscale = 2\nlayers = 12\n")
    assert read_schedule(path) == DropSchedule((4, 6, 8, 10), 1.0, 2.0, 12)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no drop_before_layer"),
        ("temperature = 0.1", "no drop_before_layer"),
        ("drop_before_layer = 4", "4"),
        ("drop_before_layer = [4, 6, 8]", "[4, 6, 8]"),
        ("drop_before_layer = [4, 6, 8, 10, 11]", "[4, 6, 8, 10, 11]"),
        ("drop_before_layer = [4, 6, 8, 1.5]", "1.5"),
        ("drop_before_layer = [true, 6, 8, 9]", "True"),
        ("drop_before_layer = ['a', 6, 8, 9]", "'a'"),
        ("drop_before_layer = '4,6,8,10'", "'4,6,8,10'"),
        (GOOD + "temperature = 0", "temperature is 0"),
        (GOOD + "temperature = -1.5", "temperature is -1.5"),
        (GOOD + "temperature = inf", "temperature is inf"),
        (GOOD + "temperature = nan", "temperature is nan"),
        (GOOD + "temperature = 'warm'", "temperature is 'warm'"),
        (GOOD + "temperature = true", "temperature is True"),
        (GOOD + "scale = 0.99", "scale is 0.99"),
        (GOOD + "scale = inf", "scale is inf"),
        (GOOD + "scale = '1.4'", "scale is '1.4'"),
        (GOOD + "layers = 0", "layers is 0"),
        (GOOD + "layers = 12.0", "layers is 12.0"),
        (GOOD + "layers = 10", "4, 6, 8, 10 of 10"),
        ("layers = 12\ndrop_before_layer = [6, 4, 8, 10]", "6, 4, 8, 10 of 12"),
        ("drop_before_layers = [4, 6, 8, 10]", "drop_before_layers, which is not known"),
        (GOOD + "[media]\nmin_pixels = 4", "media, which is not known"),
        ("drop_before_layer = [4, 6", "not a TOML file"),
        ("drop before = 4", "not a TOML file"),
    ],
)
def test_what_cannot_be_is_one_line_with_file_and_value(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "my schedule.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_schedule(path)
    assert str(caught.value).startswith(str(path))
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(UsageError, match="cannot be read") as caught:
            read_schedule(path)
        assert str(path) in str(caught.value)
    path = tmp_path / "latin.toml"
    path.write_bytes(b"# caf\xe9\n" + GOOD.encode())
    with pytest.raises(UsageError, match="not a TOML file"):
        read_schedule(path)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "schedule.toml"
    schedule = DropSchedule((4, 6, 8, 10), 0.1, 1.2, 12)
    write_schedule(path, schedule, ["made by hand"])
    assert path.read_text().splitlines()[0] == "# made by hand"
    assert read_schedule(path) == schedule
    assert [file.name for file in tmp_path.iterdir()] == ["schedule.toml"]
    with pytest.raises(UsageError, match="cannot be written"):
        write_schedule(tmp_path / "no folder" / "schedule.toml", schedule)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="cannot be written"):
        write_schedule(tmp_path / "folder", schedule)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "schedule.toml"]

"""``--schedule`` with a list or a file: the same schedule either way, and one line for what cannot be."""

from __future__ import annotations

import json
import tomllib
from importlib.resources import files

import pytest

LAYERS, TEXT = "16,18,20,24", "drop_before_layer = [16, 18, 20, 24]\n"


@pytest.fixture
def schedule_of(seats):
    def call(*arguments):
        ended = seats("profile", "--analytic", "--json", *arguments)
        assert ended.code == 0, ended.err
        return json.loads(ended.out)

    return call


@pytest.mark.parametrize("name", ["schedule.toml", "SCHEDULE.TOML", "no ending"])
def test_a_file_is_as_good_as_a_list(schedule_of, tmp_path, name):
    path = tmp_path / name
    path.write_text(TEXT)
    by_list, by_file = schedule_of("--schedule", LAYERS), schedule_of("--schedule", path)
    assert by_file == by_list
    assert by_file["schedule"]["drop_before_layer"] == [16, 18, 20, 24]


def test_the_files_temperature_counts_unless_one_is_given(schedule_of, tmp_path):
    path = tmp_path / "schedule.toml"
    path.write_text(TEXT + "temperature = 0.7\nlayers = 28\n")
    assert schedule_of("--schedule", path)["schedule"]["temperature"] == 0.7
    given = schedule_of("--schedule", path, "--window-temperature", 0.2)
    assert given["schedule"]["temperature"] == 0.2
    assert schedule_of("--schedule", LAYERS)["schedule"]["temperature"] == 0.1


def test_the_scale_goes_with_the_boundaries_unless_one_is_given(schedule_of, tmp_path):
    path = tmp_path / "schedule.toml"
    path.write_text("drop_before_layer = [20, 22, 24, 26]\nscale = 1.2\n")
    assert schedule_of("--schedule", path)["schedule"]["scale"] == 1.2
    assert schedule_of("--schedule", path, "--scale", 1.15)["schedule"]["scale"] == 1.15
    assert schedule_of("--schedule", LAYERS)["schedule"]["scale"] == 1.4
    # Those of the tiny model have their own, which no other boundaries inherit.
    tiny = schedule_of("-m", "tiny")["schedule"]
    own = tomllib.loads((files("seats_cli") / "assets/tiny/seats.toml").read_text())["schedule"]
    assert (tiny["drop_before_layer"], tiny["scale"]) == (own["drop_before_layer"], own["scale"])
    assert schedule_of("-m", "tiny", "--schedule", "5,7,9,11")["schedule"]["scale"] == 1.4


@pytest.mark.parametrize("command", [["ask", "clip.mp4", "What?"], ["profile", "--analytic"]])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["cannot be read"]),
        ("drop_before_layer = [1, 2, 3]", ["[1, 2, 3]"]),
        ("layers = 28\ndrop_before_layer = [16, 18, 20, 28]", ["16, 18, 20, 28 of 28"]),
        ("drop_before_layer = [16, 18, 20, 28]", ["16, 18, 20, 28 of 28"]),
        ("layers = 12\ndrop_before_layer = [4, 6, 8, 10]", ["4, 6, 8, 10", "12 layers", "28"]),
        ("drop_before_layer = [16, 18, 20, 23]\nscale = 0.9", ["scale is 0.9"]),
        ("drop_before_layer = [16, 18, 20, 23]\nlambda = 1.4", ["lambda"]),
    ],
)
def test_a_file_that_cannot_be_is_known_before_a_model_is_sought(
    seats, clips, monkeypatch, tmp_path, command, text, words
):
    monkeypatch.chdir(clips)
    path = tmp_path / "schedule.toml"
    if text is not None:
        path.write_text(text)
    ended = seats(*command, "--schedule", path)
    assert (ended.code, ended.out) == (2, "")
    assert all(word in ended.complaint for word in words)
    # What follows from the model's depth does not lie in the file alone.
    assert str(path) in ended.complaint or " of 28" in ended.complaint or "12 layers" in ended.complaint
    assert ended.hint

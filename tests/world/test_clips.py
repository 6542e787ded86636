"""Sets on disk: the same again, rows that the evaluation reads, files that are whole or not there."""

from __future__ import annotations

import json
import os
from dataclasses import asdict

import numpy as np
import pytest

from seats_cli.config import MediaOptions
from seats_cli.dataset import read_questions
from seats_cli.errors import MediaError
from seats_cli.media import open_clip
from seats_cli.world import clips
from seats_cli.world.clips import QUESTIONS_FILE, scene_of, write_scene, write_set
from seats_cli.world.questions import FAMILIES, all_questions
from seats_cli.world.scene import sample_scene


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    done = []
    path = write_set(folder / "made" / "here", 3, 4, on_clip=done.append)
    assert path == folder / "made" / "here" / QUESTIONS_FILE
    assert done == [1, 2, 3]
    return path.parent


def test_the_same_arguments_give_the_same_bytes_whatever_the_number_of_processes(written, tmp_path):
    done = []
    write_set(tmp_path / "two", 3, 4, jobs=2, on_clip=done.append)
    assert content(tmp_path / "two") == content(written)
    assert done == [1, 2, 3]
    write_set(tmp_path / "two", 2, 4)
    again = content(tmp_path / "two")
    assert {name: again[name] for name in again if name != QUESTIONS_FILE} == {
        name: data for name, data in content(written).items() if name != QUESTIONS_FILE
    }
    # A smaller set is the begin of a larger one.
    assert content(written)[QUESTIONS_FILE].startswith(again[QUESTIONS_FILE])


@pytest.mark.parametrize("ending", [".mkv", ".mov", ".webm"])
def test_other_containers_are_the_same_again_too(tmp_path, ending):
    scene = sample_scene(np.random.default_rng(0), seconds=4, grid=(6, 6))
    for name in ("a", "b"):
        write_scene(tmp_path / f"{name}{ending}", scene)
    assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


def test_a_row_says_what_is_asked_and_what_is_in_the_clip(written):
    lines = (written / QUESTIONS_FILE).read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3
    for index, row in enumerate(map(json.loads, lines)):
        scene, question, _ = scene_of(4, index)
        assert (row["id"], row["media"]) == (index, f"4-{index:05d}.mp4")
        assert (row["question"], row["answer"], row["category"]) == (
            question.text,
            question.answer,
            question.category,
        )
        assert question in all_questions(scene)
        assert row["category"] in FAMILIES
        assert row["scene"] == json.loads(json.dumps(asdict(scene)))


def test_the_evaluation_reads_the_rows(written):
    rows = read_questions(written / QUESTIONS_FILE)
    assert [row.id for row in rows] == ["0", "1", "2"]
    for row in rows:
        assert row.accepts(row.answers[0])
        clip = open_clip(row.path, MediaOptions())
        scene, _, _ = scene_of(4, int(row.id))
        assert clip.warnings == []
        assert clip.seconds_video == pytest.approx(scene.seconds)
        assert clip.plan.n_grids == scene.seconds
        assert (clip.video.width, clip.video.height) == (scene.width, scene.height)
        assert clip.seconds_audio == pytest.approx(scene.seconds, abs=0.1)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("full")])
def test_what_is_cut_short_leaves_whole_files_only(tmp_path, monkeypatch, error):
    def broken(path, scene, quality):
        path.write_bytes(b"half")
        if "00002" in path.name:
            raise error

    monkeypatch.setattr(clips, "write_scene", broken)
    with pytest.raises(type(error) if isinstance(error, OSError) else error):
        write_set(tmp_path, 5, 4)
    assert sorted(os.listdir(tmp_path)) == ["4-00000.mp4", "4-00001.mp4"]


def test_the_questions_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "write_scene", lambda path, scene, quality: path.write_bytes(b"clip"))
    before = write_set(tmp_path, 2, 4).read_bytes()

    def full(source, target):
        if target.name == QUESTIONS_FILE:
            raise OSError("full")
        os.rename(source, target)

    monkeypatch.setattr(clips.os, "replace", full)
    with pytest.raises(OSError, match="full"):
        write_set(tmp_path, 3, 4)
    assert (tmp_path / QUESTIONS_FILE).read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["4-00000.mp4", "4-00001.mp4", "4-00002.mp4", QUESTIONS_FILE]


def test_an_error_in_a_process_is_an_error_here(tmp_path):
    (tmp_path / "4-00001.mp4").mkdir()
    (tmp_path / "4-00001.mp4" / "in the way").touch()
    with pytest.raises(OSError):
        write_set(tmp_path, 3, 4, jobs=2)
    assert not list(tmp_path.glob(".part-*"))
    assert not (tmp_path / QUESTIONS_FILE).exists()


def test_an_ending_that_is_none_is_refused(tmp_path):
    with pytest.raises(MediaError, match=r"\.avi: clips are written as \.mp4"):
        write_set(tmp_path, 1, 4, ending=".avi")
    assert os.listdir(tmp_path) == []

"""Clips to learn from: what the media path yields, drawn again from the seed."""

from __future__ import annotations

import numpy as np

from seats_cli.config import MediaOptions
from seats_cli.media import open_clip
from seats_cli.training.pool import PoolSpec, make_pool, read_clip
from seats_cli.world.clips import write_scene


def test_a_pool_has_the_lengths_that_are_asked_for_and_is_the_same_again():
    spec = PoolSpec(seed=3, n_clips=300, least_seconds=6, most_seconds=9)
    scenes = [spec.scene(index) for index in range(300)]
    assert scenes == [spec.scene(index) for index in range(300)]
    assert {scene.seconds for scene, _ in scenes} == {6, 7, 8, 9}
    assert {18, 31} <= {quality for _, quality in scenes} <= set(range(18, 32))


def test_frames_and_spectrogram_are_those_of_the_encoded_clip(pool, tmp_path):
    for index in (0, 3):
        scene, quality = pool.spec.scene(index)
        write_scene(tmp_path / "clip.mp4", scene, quality)
        clip = open_clip(tmp_path / "clip.mp4", MediaOptions())
        frames, mel = read_clip(pool.folder, index)
        assert frames.shape == (2 * scene.seconds, scene.height, scene.width, 3)
        np.testing.assert_array_equal(frames, np.stack([frame.image for frame in clip.frames()]))
        assert mel.dtype == np.float16
        assert mel.shape[0] == 128
        # A hundred frames a second, to the end of the last packet.
        assert 0 <= mel.shape[1] - 100 * scene.seconds < 10


def test_what_is_there_is_not_made_again(pool):
    before = {path.name: path.stat().st_mtime_ns for path in pool.folder.iterdir()}
    assert sorted(before) == [f"{index:06d}.npz" for index in range(pool.spec.n_clips)]
    make_pool(pool.spec, pool.folder, workers=1)
    assert {path.name: path.stat().st_mtime_ns for path in pool.folder.iterdir()} == before

"""The drawn pictures: the right colour, size and place at the right time, over a background that says nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seats_cli.config import MediaOptions
from seats_cli.media import open_clip
from seats_cli.world.clips import write_scene
from seats_cli.world.picture import FRAMES_PER_SECOND, corner_of, frames, mask_of
from seats_cli.world.questions import all_questions
from seats_cli.world.scene import COLOURS, SHAPES, Scene, Thing
from tests.world.drawn import scenes
from tests.world.watcher import PALETTE, Watcher, listen, look, shape_of, spot

# In a square from -1 to 1. Circle, ring, square, cross: sums of discs and boxes. The triangle's apex is 1.75 above
# its base. The star's outline swings between radius 0.36 and 1.05: the mean of r^2 over the angle, times pi.
AREAS = {
    "circle": np.pi * 0.95**2,
    "ring": np.pi * (1.0 - 0.56**2),
    "square": 1.64**2,
    "triangle": 0.58 * 1.75**2,
    "cross": 2 * 0.6 * 1.96 - 0.6**2,
    "star": np.pi * (0.36**2 + 2 * 0.36 * 0.69 / 2.5 + 0.69**2 / 4),
}


def thing(shape: str, **more) -> Thing:
    values = {
        "shape": shape,
        "colour": "red",
        "motion": "still",
        "radius": 0.18,
        "start_seconds": 1.0,
        "end_seconds": 3.0,
        "begin": (0.5, 0.5),
        "end": (0.5, 0.5),
        "turn": 0.0,
    }
    return Thing(**(values | more))


def scene_with(*things: Thing) -> Scene:
    return Scene(5, 4, 6, 8, things, ())


def test_the_palette_of_the_watcher_is_the_worlds():
    assert PALETTE == COLOURS


@pytest.mark.parametrize("turn", [-0.15, 0.0, 0.15])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_mask_has_the_area_of_its_shape(shape, turn):
    mask = mask_of(thing(shape, turn=turn), 168)
    assert mask.dtype == np.float32
    assert mask.min() == 0.0
    assert mask.max() == 1.0
    # Tips that leave the square are cut.
    assert mask.mean() * 4 == pytest.approx(AREAS[shape], rel=0.03)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_mask_is_turned_about_its_middle(shape):
    """A quarter turn of the mask is the mask of a quarter turn."""
    straight = mask_of(thing(shape, turn=0.0), 168)
    turned = mask_of(thing(shape, turn=float(np.pi / 2)), 168)
    assert np.abs(np.rot90(straight, -1) - turned).mean() < 0.01


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [0.15, 0.2])
@pytest.mark.parametrize("turn", [-0.15, 0.1])
def test_a_shape_looks_like_itself(shape, radius, turn):
    image = list(frames(scene_with(thing(shape, radius=radius, turn=turn)), 2))[2]
    assert shape_of(spot(image, "red", 0)) == shape


def test_a_things_centre_has_its_colour_and_a_rings_shows_what_is_behind():
    for scene in scenes(12):
        images = list(frames(scene, 2))
        behind = list(frames(replace(scene, things=()), 2))
        for one in scene.things:
            for number, image in enumerate(images):
                if not one.start_seconds <= number / 2 < one.end_seconds:
                    continue
                if any(o is not one and o.start_seconds <= number / 2 < o.end_seconds for o in scene.things):
                    continue
                x, y = one.centre(number / 2)
                row, column = round(y * scene.height), round(x * scene.width)
                if one.shape == "ring":
                    np.testing.assert_array_equal(image[row, column], behind[number][row, column])
                else:
                    assert tuple(image[row, column]) == COLOURS[one.colour]


def test_a_thing_is_there_in_its_time_and_changes_nothing_elsewhere():
    one = thing("star", start_seconds=1.5, end_seconds=3.5)
    images, empty = list(frames(scene_with(one))), list(frames(scene_with()))
    left, top = corner_of(one, 2.0, 224, 168)
    side = mask_of(one, 168).shape[0]
    for number, (image, bare) in enumerate(zip(images, empty, strict=True)):
        changed = (image != bare).any(-1)
        assert changed.any() == (12 <= number < 28)
        changed[top : top + side, left : left + side] = False
        assert not changed.any()


def test_frames_are_as_many_as_there_should_be_and_the_same_again():
    scene = scenes(3)[2]
    images = list(frames(scene))
    assert len(images) == scene.seconds * FRAMES_PER_SECOND
    assert {image.shape for image in images} == {(scene.height, scene.width, 3)}
    assert {image.dtype for image in images} == {np.dtype("uint8")}
    np.testing.assert_array_equal(np.stack(images[:9]), np.stack(list(frames(scene))[:9]))
    every_fourth = list(frames(scene, 2))
    assert all((image == other).all() for image, other in zip(images[::4], every_fourth, strict=True))


def test_a_moving_thing_goes_where_it_says():
    one = thing("circle", motion="left", begin=(0.76, 0.3), end=(0.24, 0.3), start_seconds=0.5, end_seconds=3.5)
    for number, image in enumerate(frames(scene_with(one))):
        rows, columns = np.nonzero(spot(image, "red", 0))
        if len(rows):
            part = (number / FRAMES_PER_SECOND - 0.5) / 3.0
            assert columns.mean() == pytest.approx((0.76 - 0.52 * part) * 224, abs=1.5)
            assert rows.mean() == pytest.approx(0.3 * 168, abs=1.5)


def test_the_background_has_no_colour_of_a_thing_and_is_not_flat():
    for scene in scenes(15):
        (image, *rest) = frames(replace(scene, things=(), seconds=1), 2)
        for colour in COLOURS:
            assert not spot(image, colour, 30).any()
        assert image.std() > 5
        assert all((other == image).all() for other in rest)


def test_a_part_outside_the_picture_is_cut():
    one = thing("square", begin=(0.0, 1.0), end=(0.0, 1.0))
    image = list(frames(scene_with(one), 1))[1]
    rows, columns = np.nonzero(spot(image, "red", 0))
    assert columns.min() == 0
    assert rows.max() == 167
    far = thing("square", begin=(3.0, 3.0), end=(3.0, 3.0))
    assert not spot(list(frames(scene_with(far), 1))[1], "red", 60).any()


@pytest.mark.parametrize("quality", [18, 31])
@pytest.mark.parametrize("index", [1, 4])
def test_a_coded_clip_still_gives_every_answer(tmp_path, index, quality):
    """Colours, shapes, places, motions, sounds and their times come through h264 and aac, at low quality too."""
    scene = scenes(10)[index]
    write_scene(tmp_path / "clip.mp4", scene, quality)
    clip = open_clip(tmp_path / "clip.mp4", MediaOptions())
    images = [frame.image for frame in clip.frames()]
    assert len(images) == 2 * scene.seconds
    drawn = list(frames(scene, 2))
    for one in scene.things:
        for number, (image, truth) in enumerate(zip(images, drawn, strict=True)):
            inside = spot(truth, one.colour, 0)
            if one.start_seconds <= number / 2 < one.end_seconds and inside.sum() > 100:
                off = np.abs(image[inside].astype(int) - COLOURS[one.colour])
                assert np.median(off) <= 8
                assert np.quantile(off, 0.9) <= 32
    watcher = Watcher(look(images, 0.5, tolerance=40), listen(clip.waveform(), 16_000))
    for question in all_questions(scene):
        assert watcher.answer(question.text) == question.answer, question

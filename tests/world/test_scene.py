"""Laws that hold for every scene."""

from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest

from seats_cli.world.clips import scene_of
from seats_cli.world.scene import (
    COLOURS,
    GRID_SIZES,
    LEAST_SECONDS,
    MOST_BEEPS,
    MOST_SECONDS,
    MOTIONS,
    PLACES,
    SHAPES,
    SOUNDS,
    Scene,
    Thing,
    nearest_place,
    sample_scene,
)
from tests.world.drawn import AUDIO_TOKENS_PER_SECOND, SEED, TOKEN_PIXELS, scenes

MANY = 400


def together(one: Thing, other: Thing) -> bool:
    return one.start_seconds < other.end_seconds and other.start_seconds < one.end_seconds


def test_the_docs_know_how_many_tokens_clips_have():
    page = (Path(__file__).parents[2] / "docs" / "synth.md").read_text(encoding="utf-8")

    def tokens(seconds: int, size: tuple[int, int]) -> int:
        return seconds * (size[0] * size[1] + AUDIO_TOKENS_PER_SECOND)

    sizes = {
        seconds: {
            (scene.rows, scene.columns)
            for scene in (sample_scene(np.random.default_rng([SEED, i]), seconds=seconds) for i in range(60))
        }
        for seconds in (4, 32)
    }
    assert sizes == {4: set(GRID_SIZES), 32: {GRID_SIZES[-1]}}
    few, most, long = tokens(4, GRID_SIZES[0]), tokens(4, GRID_SIZES[-1]), tokens(32, GRID_SIZES[-1])
    told = f"A clip of 4 s has {few} to {most} visual and audio tokens, one of 32 s has {long:,}."
    assert told in " ".join(page.split())


def test_the_same_seed_gives_the_same_scene_question_and_quality():
    again = [scene_of(SEED, index) for index in range(20)]
    assert again == [scene_of(SEED, index) for index in range(20)]
    assert [scene for scene, _, _ in again] == list(scenes(20))
    others = [scene_of(SEED + 1, index) for index in range(20)]
    assert all(one != other for one, other in zip(again, others, strict=True))


def test_things_differ_in_shape_and_in_colour_and_sounds_in_kind():
    for scene in scenes(MANY):
        assert scene.things
        assert scene.sounds
        for names in (
            [thing.shape for thing in scene.things],
            [thing.colour for thing in scene.things],
            [sound.kind for sound in scene.sounds],
        ):
            assert len(set(names)) == len(names)


def test_every_value_is_one_there_is_and_each_of_them_occurs():
    things = [thing for scene in scenes(MANY) for thing in scene.things]
    sounds = [sound for scene in scenes(MANY) for sound in scene.sounds]
    assert {thing.shape for thing in things} == set(SHAPES)
    assert {thing.colour for thing in things} == set(COLOURS)
    assert {thing.motion for thing in things} == set(MOTIONS)
    assert {thing.place for thing in things} == {*PLACES, None}
    assert {sound.kind for sound in sounds} == set(SOUNDS)
    assert {sound.count for sound in sounds if "beep" in sound.kind} == set(range(1, MOST_BEEPS + 1))
    assert {sound.count for sound in sounds if "beep" not in sound.kind} == {1}
    assert {len(scene.things) for scene in scenes(MANY)} == {1, 2, 3, 4, 5}
    assert {len(scene.sounds) for scene in scenes(MANY)} == {1, 2, 3, 4, 5}
    assert {(scene.rows, scene.columns) for scene in scenes(MANY)} == set(GRID_SIZES)
    assert {scene.seconds for scene in scenes(MANY)} == set(range(LEAST_SECONDS, MOST_SECONDS + 1))


def test_things_come_in_order_stay_a_while_and_are_gone_by_the_end():
    for scene in scenes(MANY):
        assert scene.things[0].start_seconds >= 0
        for thing in scene.things:
            assert thing.end_seconds <= scene.seconds
            assert thing.end_seconds - thing.start_seconds >= 2.0
            # Frames are half a second apart: each shows a thing or does not.
            assert (2 * thing.start_seconds).is_integer()
            assert (2 * thing.end_seconds).is_integer()
        for one, after in pairwise(scene.things):
            assert after.start_seconds - one.start_seconds >= 2.0
            assert after.end_seconds > one.end_seconds


def test_no_three_things_are_there_at_once_and_two_only_still_and_apart():
    seen_together = 0
    for scene in scenes(MANY):
        for one, other in combinations(scene.things, 2):
            if together(one, other):
                seen_together += 1
                assert abs(scene.things.index(one) - scene.things.index(other)) == 1
                assert one.motion == other.motion == "still"
                assert one.place != other.place
        # Each is alone for a second at least, so that it can be told from the others.
        for thing in scene.things:
            times = np.arange(thing.start_seconds, thing.end_seconds, 0.5)
            alone = [t for t in times if sum(o.start_seconds <= t < o.end_seconds for o in scene.things) == 1]
            assert len(alone) >= 2
    assert seen_together > MANY // 20


def test_things_stay_inside_the_picture():
    for scene in scenes(MANY):
        for thing in scene.things:
            for x, y in (thing.begin, thing.end):
                # At most a pixel and its half are cut.
                over = 1.5 / scene.height
                assert thing.radius - over <= y <= 1 - thing.radius + over
                across = thing.radius * scene.height / scene.width
                assert across - over <= x <= 1 - across + over


def test_a_thing_moves_as_it_says():
    for scene in scenes(MANY):
        for thing in scene.things:
            (x0, y0), (x1, y1) = thing.begin, thing.end
            dx, dy = MOTIONS[thing.motion]
            assert ((x1 - x0) > 0.4, (x1 - x0) < -0.4) == (dx > 0, dx < 0)
            assert ((y1 - y0) > 0.4, (y1 - y0) < -0.4) == (dy > 0, dy < 0)
            assert thing.centre(thing.start_seconds) == pytest.approx(thing.begin)
            assert thing.centre(thing.end_seconds) == pytest.approx(thing.end)
            if thing.motion == "still":
                assert thing.begin == thing.end
                x, y = PLACES[thing.place]
                assert abs(x - x0) < 0.06
                assert abs(y - y0) < 0.06


def test_a_moving_thing_is_in_no_place_that_its_begin_middle_and_end_do_not_name():
    for scene in scenes(MANY):
        for thing in scene.things:
            times = np.linspace(thing.start_seconds, thing.end_seconds, 41)
            passed = {nearest_place(thing.centre(float(time))) for time in times}
            assert {place for place in PLACES if thing.visits(place)} == passed


def test_a_sound_lies_in_one_window_and_none_touches_another():
    for scene in scenes(MANY):
        windows = [int(sound.start_seconds // 2) for sound in scene.sounds]
        assert len(set(windows)) == len(windows)
        for sound, window in zip(scene.sounds, windows, strict=True):
            assert 2 * window < sound.start_seconds < sound.end_seconds < 2 * window + 2
            assert sound.end_seconds <= scene.seconds
            assert sound.end_seconds - sound.start_seconds >= 0.14 - 1e-9
        for one, after in pairwise(scene.sounds):
            assert after.start_seconds - one.end_seconds > 0.18


def test_enough_tokens():
    for scene in scenes(MANY):
        assert scene.rows * scene.columns >= 36
        assert (scene.width, scene.height) == (scene.columns * TOKEN_PIXELS, scene.rows * TOKEN_PIXELS)
        assert scene.width % 2 == scene.height % 2 == 0
        if scene.seconds == MOST_SECONDS:
            assert scene.seconds * (scene.rows * scene.columns + AUDIO_TOKENS_PER_SECOND) > 3000


def alone_with(scene: Scene, start: float, end: float) -> list[Thing]:
    """Whatever is there at any of many times from a little before ``start`` to a little after ``end``."""
    times = np.arange(start - 0.3 + 1e-6, end + 0.3, 0.005)
    return [
        thing for thing in scene.things if ((thing.start_seconds <= times) & (times < thing.end_seconds)).any()
    ]


def test_what_is_seen_at_a_sound_is_alone_there_from_begin_to_end():
    asked = 0
    for scene in scenes(150):
        for sound in scene.sounds:
            near = alone_with(scene, sound.start_seconds, sound.end_seconds)
            found = scene.seen_at(sound)
            asked += found is not None
            if found is not None:
                assert near == [found]
                assert found.start_seconds <= sound.start_seconds < sound.end_seconds <= found.end_seconds
            elif len(near) == 1:
                # It comes or goes meanwhile.
                assert not near[0].start_seconds <= sound.start_seconds < sound.end_seconds <= near[0].end_seconds
    assert asked > 150


def test_the_limits_that_are_asked_for_hold():
    rng = np.random.default_rng(3)
    for _ in range(50):
        scene = sample_scene(rng, seconds=9, most_things=2, most_sounds=1, grid=(7, 10))
        assert (scene.seconds, scene.rows, scene.columns) == (9, 7, 10)
        assert len(scene.things) <= 2
        assert len(scene.sounds) == 1


def test_short_clips_are_as_many_as_long_ones_on_a_logarithmic_scale():
    lengths = np.array([scene.seconds for scene in scenes(MANY)])
    halves = np.histogram(np.log(lengths), bins=np.log([4, 8, 16, 33]))[0] / MANY
    np.testing.assert_allclose(halves, [1 / 3] * 3, atol=0.07)

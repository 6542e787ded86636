"""What each token of a clip shows or sounds like, from the scene: targets for the attribute heads.

-100 is "do not ask": the token shows too little of a thing to tell.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from seats_cli.world.picture import corner_of, mask_of
from seats_cli.world.scene import (
    COLOURS,
    MOST_BEEPS,
    MOST_SOUNDS,
    MOST_THINGS,
    MOTIONS,
    PLACES,
    SHAPES,
    SOUNDS,
    TOKEN_PIXELS,
    Scene,
    Thing,
    nearest_place,
)

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
IGNORED = -100
AUDIO_TOKENS_PER_SECOND = 25
# Class 0 of each head is "nothing".
VIDEO_HEADS = {
    "shape": len(SHAPES) + 1,
    "colour": len(COLOURS) + 1,
    "place": len(PLACES) + 1,
    "motion": len(MOTIONS) + 1,
}
AUDIO_HEADS = {"sound": len(SOUNDS) + 1, "count": MOST_BEEPS + 1}
STORY_HEADS = {
    # What the encoders' heads know is not to be lost on the way.
    **VIDEO_HEADS,
    **AUDIO_HEADS,
    # Of tokens that show a thing.
    "shape before": len(SHAPES) + 1,
    "colour before": len(COLOURS) + 1,
    "thing number": MOST_THINGS + 1,
    # Of tokens that hold a sound.
    "sound before": len(SOUNDS) + 1,
    "sound number": MOST_SOUNDS + 1,
    # Of all audio tokens: what is seen at that time.
    "shape now": len(SHAPES) + 1,
    "colour now": len(COLOURS) + 1,
    "place now": len(PLACES) + 1,
    "motion now": len(MOTIONS) + 1,
}
"""Heads on a middle layer of the language model: what a token shows, and what it can only know from others."""

_ENOUGH, _NOTHING = 0.2, 0.02


def _coverage(scene: Scene, thing: Thing, mask: Float32, time_seconds: float) -> Float32:
    """Share of each merged token that a thing covers in one frame: float32 [rows, columns]."""
    canvas = np.zeros((scene.height, scene.width), dtype=np.float32)
    if thing.start_seconds <= time_seconds < thing.end_seconds:
        left, top = corner_of(thing, time_seconds, scene.width, scene.height)
        side = mask.shape[0]
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + side, scene.width), min(top + side, scene.height)
        if x0 < x1 and y0 < y1:
            canvas[y0:y1, x0:x1] = mask[y0 - top : y1 - top, x0 - left : x1 - left]
    shares: Float32 = canvas.reshape(scene.rows, TOKEN_PIXELS, scene.columns, TOKEN_PIXELS).mean((1, 3))
    return shares


def things_in_tokens(scene: Scene) -> Int64:
    """Which thing each visual token shows: int64 [grids * rows * columns]; -1 none, ``IGNORED`` unclear."""
    masks = [mask_of(thing, scene.height) for thing in scene.things]
    found = np.full((scene.seconds, scene.rows * scene.columns), -1, dtype=np.int64)
    for grid in range(scene.seconds):
        shares = np.stack(
            [
                (_coverage(scene, thing, mask, grid) + _coverage(scene, thing, mask, grid + 0.5)).ravel() / 2
                for thing, mask in zip(scene.things, masks, strict=True)
            ]
        )
        most = shares.argmax(0)
        found[grid] = np.where(shares.max(0) >= _ENOUGH, most, np.where(shares.sum(0) > _NOTHING, IGNORED, -1))
    return found.ravel()


def _look_up(which: Int64, table: list[int], nothing: int = 0) -> Int64:
    values = np.array([*table, nothing, IGNORED], dtype=np.int64)
    return values[np.where(which == IGNORED, len(table) + 1, np.where(which < 0, len(table), which))]


def shape_class(thing: Thing) -> int:
    """Of the head ``shape``."""
    return SHAPES.index(thing.shape) + 1


def colour_class(thing: Thing) -> int:
    """Of the head ``colour``."""
    return list(COLOURS).index(thing.colour) + 1


def motion_class(thing: Thing) -> int:
    """Of the head ``motion``."""
    return list(MOTIONS).index(thing.motion) + 1


def _places(scene: Scene, which: Int64) -> Int64:
    """Where the thing is at the time of each token's grid."""
    per_grid = scene.rows * scene.columns
    out = np.where(which == IGNORED, IGNORED, 0)
    for index in np.flatnonzero(which >= 0):
        centre = scene.things[which[index]].centre(index // per_grid + 0.25)
        out[index] = list(PLACES).index(nearest_place(centre)) + 1
    return out


def video_labels(scene: Scene, which: Int64) -> dict[str, Int64]:
    """Per visual token, for ``VIDEO_HEADS``."""
    return {
        "shape": _look_up(which, [shape_class(thing) for thing in scene.things]),
        "colour": _look_up(which, [colour_class(thing) for thing in scene.things]),
        "place": _places(scene, which),
        "motion": _look_up(which, [motion_class(thing) for thing in scene.things]),
    }


def sounds_in_tokens(scene: Scene, n_tokens: int) -> Int64:
    """Which sound each audio token holds: int64 [n_tokens]; -1 none, ``IGNORED`` where one begins or ends."""
    found = np.full(n_tokens, -1, dtype=np.int64)
    for index, sound in enumerate(scene.sounds):
        start, end = sound.start_seconds * AUDIO_TOKENS_PER_SECOND, sound.end_seconds * AUDIO_TOKENS_PER_SECOND
        found[max(int(start) - 1, 0) : int(end) + 2] = IGNORED
        found[int(np.ceil(start)) : int(end)] = index
    return found


def audio_labels(scene: Scene, which: Int64) -> dict[str, Int64]:
    """Per audio token, for ``AUDIO_HEADS``."""
    return {
        "sound": _look_up(which, [SOUNDS.index(sound.kind) + 1 for sound in scene.sounds]),
        "count": _look_up(which, [sound.count for sound in scene.sounds]),
    }


def _seen_now(scene: Scene, n_audio: int) -> Int64:
    """The one thing seen at each audio token; -1 none, ``IGNORED`` two, or one that comes or goes just then."""
    times = (np.arange(n_audio) + 0.5) / AUDIO_TOKENS_PER_SECOND
    now = np.full(n_audio, -1, dtype=np.int64)
    for index, thing in enumerate(scene.things):
        near = (times > thing.start_seconds - 1.0) & (times < thing.end_seconds + 1.0)
        inside = (times >= thing.start_seconds) & (times < thing.end_seconds)
        now = np.where(inside & (now == -1), index, np.where(near & (inside | (now == -1)), IGNORED, now))
    return now


def story_labels(scene: Scene, things: Int64, sounds: Int64) -> tuple[dict[str, Int64], dict[str, Int64]]:
    """For ``STORY_HEADS``: those of the visual tokens, and those of the audio tokens.

    Args:
        scene: What happens.
        things: Of ``things_in_tokens``.
        sounds: Of ``sounds_in_tokens``.
    """
    no_thing = np.where(things < 0, IGNORED, things)
    no_sound = np.where(sounds < 0, IGNORED, sounds)
    earlier = [0, *(shape_class(one) for one, _ in pairwise(scene.things))]
    earlier_colour = [0, *(colour_class(one) for one, _ in pairwise(scene.things))]
    earlier_sound = [0, *(SOUNDS.index(one.kind) + 1 for one, _ in pairwise(scene.sounds))]
    of_video = {
        **video_labels(scene, things),
        "shape before": _look_up(no_thing, earlier),
        "colour before": _look_up(no_thing, earlier_colour),
        "thing number": _look_up(no_thing, [i + 1 for i in range(len(scene.things))]),
    }
    now = _seen_now(scene, len(sounds))
    still = [list(PLACES).index(thing.place) + 1 if thing.place else IGNORED for thing in scene.things]
    of_audio = {
        **audio_labels(scene, sounds),
        "sound before": _look_up(no_sound, earlier_sound),
        "sound number": _look_up(no_sound, [i + 1 for i in range(len(scene.sounds))]),
        "shape now": _look_up(now, [shape_class(thing) for thing in scene.things]),
        "colour now": _look_up(now, [colour_class(thing) for thing in scene.things]),
        "place now": _look_up(now, still),
        "motion now": _look_up(now, [motion_class(thing) for thing in scene.things]),
    }
    return of_video, of_audio

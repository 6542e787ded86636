"""Scenes that several tests look at, and what their tokens show."""

from __future__ import annotations

from functools import cache

import numpy as np

from seats_cli.world.clips import scene_of
from seats_cli.world.picture import frames
from seats_cli.world.scene import Scene
from tests.world.watcher import spot

SEED = 11
AUDIO_TOKENS_PER_SECOND = 25
TOKEN_PIXELS = 28


@cache
def scenes(n: int) -> tuple[Scene, ...]:
    return tuple(scene_of(SEED, index)[0] for index in range(n))


@cache
def coverage(scene: Scene) -> np.ndarray:
    """How much of each visual token shows each thing, from the drawn pixels: float64 [things, grids, tokens].

    A grid is two frames, half a second apart; a pixel shows a thing if it has exactly its colour.
    """
    images = np.stack(list(frames(scene, 2)))
    found = []
    for thing in scene.things:
        inside = spot(images, thing.colour, 0).astype(float)
        grids = inside.reshape(scene.seconds, 2, scene.rows, TOKEN_PIXELS, scene.columns, TOKEN_PIXELS)
        found.append(grids.mean((1, 3, 5)).reshape(scene.seconds, -1))
    return np.stack(found)


def sounding(scene: Scene, number: int) -> np.ndarray:
    """Which audio tokens hold any of a sound: bool [tokens]."""
    sound = scene.sounds[number]
    starts = np.arange(scene.seconds * AUDIO_TOKENS_PER_SECOND) / AUDIO_TOKENS_PER_SECOND
    return (starts < sound.end_seconds) & (sound.start_seconds < starts + 1 / AUDIO_TOKENS_PER_SECOND)

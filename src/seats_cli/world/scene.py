"""What happens in a clip of the synthetic world: which things are seen, which sounds are heard, and when.

A scene is drawn from a seed. Its things differ in shape and in colour, its sounds differ in kind, so that a
question may name one of them. Shapes, colours, places, sounds and their numbers of beeps are uniform: nobody can
guess them from the question. Two of five things stand still, and short clips have room for few things.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = {
    "red": (224, 36, 36),
    "green": (32, 176, 52),
    "blue": (40, 70, 230),
    "yellow": (240, 216, 40),
    "pink": (240, 96, 208),
    "white": (248, 248, 248),
}
PLACES = {
    "top left": (0.24, 0.27),
    "top right": (0.76, 0.27),
    "middle": (0.5, 0.5),
    "bottom left": (0.24, 0.73),
    "bottom right": (0.76, 0.73),
}
"""Name -> centre as fractions of width and height."""
MOTIONS = {"still": (0, 0), "left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SOUNDS = ("high beep", "low beep", "rising tone", "falling tone", "noise", "buzz")
BEEPS = ("high beep", "low beep")
MOST_BEEPS = 4
MOST_THINGS = 5
MOST_SOUNDS = 5

GRID_SIZES = ((6, 6), (6, 8), (7, 10))
"""Rows and columns of merged visual tokens, of 28 pixels each."""
TOKEN_PIXELS = 28
LEAST_SECONDS, MOST_SECONDS = 4, 32
WINDOW_SECONDS = 2.0
PIP_SECONDS, PIP_GAP_SECONDS = 0.14, 0.14

_LIFE_HALF_SECONDS = (4, 12)
_MOVING_LIFE_HALF_SECONDS = (4, 8)
_SHARE_STILL = 0.4
_SHARE_OVERLAPPING = 0.35
_MARGIN_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Thing:
    """Something seen for a while.

    Attributes:
        shape: One of ``SHAPES``.
        colour: One of ``COLOURS``.
        motion: One of ``MOTIONS``.
        radius: Fraction of the frame's height.
        start_seconds: When it comes.
        end_seconds: When it is gone.
        begin: (x, y) of its centre when it comes, fractions of width and height.
        end: (x, y) when it goes.
        turn: Rotation in radians.
    """

    shape: str
    colour: str
    motion: str
    radius: float
    start_seconds: float
    end_seconds: float
    begin: tuple[float, float]
    end: tuple[float, float]
    turn: float

    @property
    def name(self) -> str:
        """Colour and shape."""
        return f"{self.colour} {self.shape}"

    @property
    def place(self) -> str | None:
        """Where it stays; None for a thing that moves."""
        return nearest_place(self.begin) if self.motion == "still" else None

    def seen_in(self, start_seconds: float, end_seconds: float) -> bool:
        """Whether it is there at any time in [start, end)."""
        return self.start_seconds < end_seconds and start_seconds < self.end_seconds

    def visits(self, place: str) -> bool:
        """Whether it comes, is half way, or goes in a place."""
        half = (self.begin[0] + self.end[0]) / 2, (self.begin[1] + self.end[1]) / 2
        return place in map(nearest_place, (self.begin, half, self.end))

    def centre(self, time_seconds: float) -> tuple[float, float]:
        """(x, y) at a time, fractions of width and height."""
        part = (time_seconds - self.start_seconds) / (self.end_seconds - self.start_seconds)
        x, y = (a + (b - a) * part for a, b in zip(self.begin, self.end, strict=True))
        return x, y


@dataclass(frozen=True, slots=True)
class Sound:
    """Something heard for a while, inside one 2 s window of the clip.

    Attributes:
        kind: One of ``SOUNDS``.
        count: Number of beeps; 1 for other kinds.
        start_seconds: First sample.
        end_seconds: After the last one.
        detune: Factor on its frequencies.
    """

    kind: str
    count: int
    start_seconds: float
    end_seconds: float
    detune: float


@dataclass(frozen=True, slots=True)
class Scene:
    """One clip.

    Attributes:
        seed: Of the background and the faint noise.
        seconds: Length.
        rows: Merged visual tokens from top to bottom.
        columns: Likewise from left to right.
        things: In the order in which they come.
        sounds: In order; they never overlap.
    """

    seed: int
    seconds: int
    rows: int
    columns: int
    things: tuple[Thing, ...]
    sounds: tuple[Sound, ...]

    @property
    def width(self) -> int:
        """Pixels."""
        return self.columns * TOKEN_PIXELS

    @property
    def height(self) -> int:
        """Pixels."""
        return self.rows * TOKEN_PIXELS

    def seen_at(self, sound: Sound) -> Thing | None:
        """The thing that alone is there while a sound is heard; None if there is not exactly one all the while."""
        start, end = sound.start_seconds - _MARGIN_SECONDS, sound.end_seconds + _MARGIN_SECONDS
        seen = [thing for thing in self.things if thing.seen_in(start, end)]
        if len(seen) != 1:
            return None
        whole = seen[0].start_seconds <= sound.start_seconds and sound.end_seconds <= seen[0].end_seconds
        return seen[0] if whole else None

    def heard_with(self, thing: Thing) -> Sound | None:
        """The one sound heard while a thing is alone there; None if any other touches its time."""
        near = [
            sound
            for sound in self.sounds
            if thing.seen_in(sound.start_seconds - _MARGIN_SECONDS, sound.end_seconds + _MARGIN_SECONDS)
        ]
        return near[0] if len(near) == 1 and self.seen_at(near[0]) is thing else None


def nearest_place(centre: tuple[float, float]) -> str:
    """The place a point (x, y) lies in, fractions of width and height."""
    return min(PLACES, key=lambda name: sum((a - b) ** 2 for a, b in zip(PLACES[name], centre, strict=True)))


def sample_scene(
    rng: np.random.Generator,
    *,
    seconds: int | None = None,
    most_things: int = MOST_THINGS,
    most_sounds: int = MOST_SOUNDS,
    grid: tuple[int, int] | None = None,
) -> Scene:
    """Draw a scene.

    Args:
        rng: Source of every choice.
        seconds: Length; None: 4 to 32, short ones more often (uniform on a logarithmic scale).
        most_things: Upper limit.
        most_sounds: Upper limit.
        grid: (rows, columns) of merged tokens; None: one of ``GRID_SIZES``, the largest for 28 s and more.
    """
    if seconds is None:
        low, high = np.log(LEAST_SECONDS), np.log(MOST_SECONDS + 1)
        seconds = int(np.exp(rng.uniform(low, high)))
    if grid is None:
        grid = GRID_SIZES[-1] if seconds >= 28 else GRID_SIZES[rng.choice(3, p=(0.5, 0.25, 0.25))]
    things = _sample_things(rng, seconds, most_things)
    sounds = _sample_sounds(rng, seconds, things, most_sounds)
    return Scene(int(rng.integers(2**31)), seconds, *grid, things, sounds)


def _sample_things(rng: np.random.Generator, seconds: int, most: int) -> tuple[Thing, ...]:
    n = int(rng.integers(1, min(most, seconds // 2) + 1))
    motions = [str(rng.choice(list(MOTIONS)[1:])) if rng.random() > _SHARE_STILL else "still" for _ in range(n)]
    ranges = [_LIFE_HALF_SECONDS if motion == "still" else _MOVING_LIFE_HALF_SECONDS for motion in motions]
    lives = [int(rng.integers(low, high + 1)) for low, high in ranges]
    while sum(lives) > 2 * seconds:
        lives[int(np.argmax(lives))] -= 1
    cuts = np.sort(rng.integers(0, 2 * seconds - sum(lives) + 1, n))
    starts = cuts + np.concatenate([[0], np.cumsum(lives)[:-1]])
    shapes, colours = rng.permutation(SHAPES), rng.permutation(list(COLOURS))
    things = [
        _make_thing(rng, str(shape), str(colour), motion, float(start) / 2, float(start + life) / 2)
        for shape, colour, motion, start, life in zip(shapes, colours, motions, starts, lives, strict=False)
    ]
    return tuple(_let_some_overlap(rng, things))


def _make_thing(
    rng: np.random.Generator, shape: str, colour: str, motion: str, start_seconds: float, end_seconds: float
) -> Thing:
    radius = float(rng.uniform(0.15, 0.2))
    if motion == "still":
        x, y = PLACES[str(rng.choice(list(PLACES)))]
        begin = end = (x + rng.uniform(-0.03, 0.03), y + rng.uniform(-0.04, 0.04))
    else:
        dx, dy = MOTIONS[motion]
        across = rng.uniform(0.27, 0.73)
        reach = rng.uniform(0.24, 0.3)
        middle = (0.5 if dx else across, 0.5 if dy else across)
        begin = (middle[0] - dx * reach, middle[1] - dy * reach)
        end = (middle[0] + dx * reach, middle[1] + dy * reach)
    turn = float(rng.uniform(-0.15, 0.15))
    return Thing(shape, colour, motion, radius, start_seconds, end_seconds, begin, end, turn)


def _let_some_overlap(rng: np.random.Generator, things: list[Thing]) -> list[Thing]:
    """Some things stay a while after the next one has come; both still, in different places."""
    for i, (one, after) in enumerate(pairwise(list(things))):
        apart = one.place is not None and after.place is not None and one.place != after.place
        if apart and rng.random() < _SHARE_OVERLAPPING:
            latest = after.end_seconds - 1.0
            end = min(latest, after.start_seconds + float(rng.choice([1.0, 1.5, 2.0])))
            things[i] = replace(one, end_seconds=max(end, one.end_seconds))
    return things


def _sample_sounds(
    rng: np.random.Generator, seconds: int, things: tuple[Thing, ...], most: int
) -> tuple[Sound, ...]:
    n_windows = int(seconds // WINDOW_SECONDS)
    n = int(rng.integers(1, min(most, n_windows) + 1))
    busy = [any(thing.seen_in(2.0 * w, 2.0 * w + 2) for thing in things) for w in range(n_windows)]
    weights = np.where(busy, 3.0, 1.0)
    windows = np.sort(rng.choice(n_windows, n, replace=False, p=weights / weights.sum()))
    kinds = rng.permutation(SOUNDS)[:n]
    return tuple(
        _make_sound(rng, str(kind), float(w) * WINDOW_SECONDS, things)
        for kind, w in zip(kinds, windows, strict=True)
    )


def _make_sound(rng: np.random.Generator, kind: str, window_seconds: float, things: tuple[Thing, ...]) -> Sound:
    count = int(rng.integers(1, MOST_BEEPS + 1)) if kind in BEEPS else 1
    length = count * PIP_SECONDS + (count - 1) * PIP_GAP_SECONDS
    if kind not in BEEPS:
        length = float(rng.uniform(0.6, 1.0))
    latest = WINDOW_SECONDS - length - 0.1
    detune = float(rng.uniform(0.94, 1.06))
    # Most sounds fall where one thing alone is seen, so that there is something to ask about both.
    for _ in range(8):
        start = window_seconds + round(float(rng.uniform(0.1, latest)), 2)
        sound = Sound(kind, count, start, start + length, detune)
        if Scene(0, 0, 0, 0, things, ()).seen_at(sound) is not None:
            break
    return sound

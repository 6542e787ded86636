"""Looks at frames and listens to samples, and answers questions from nothing else.

It knows no scene: things are found by their colour, told apart by how their outline goes round, sounds by their
spectrum. So it holds the questions of the world against what a clip really shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

T = TypeVar("T")

PALETTE = {
    "red": (224, 36, 36),
    "green": (32, 176, 52),
    "blue": (40, 70, 230),
    "yellow": (240, 216, 40),
    "pink": (240, 96, 208),
    "white": (248, 248, 248),
}
NUMBERS = ("zero", "one", "two", "three", "four", "five")
STEP_SECONDS = 0.01


@dataclass(frozen=True)
class Seen:
    """A thing: what it looks like, when, and where in each frame that shows it."""

    colour: str
    shape: str
    times: tuple[float, ...]
    centres: tuple[tuple[float, float], ...]
    step_seconds: float

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def start(self) -> float:
        return self.times[0]

    @property
    def end(self) -> float:
        return self.times[-1] + self.step_seconds

    @property
    def moves(self) -> str | None:
        (x0, y0), (x1, y1) = self.centres[0], self.centres[-1]
        dx, dy = x1 - x0, y1 - y0
        if max(abs(dx), abs(dy)) < 0.1:
            return None
        if abs(dx) > abs(dy):
            return "right" if dx > 0 else "left"
        return "down" if dy > 0 else "up"

    def place_at(self, number: int) -> str:
        x, y = self.centres[number]
        if abs(x - 0.5) < 0.13 and abs(y - 0.5) < 0.13:
            return "middle"
        return f"{'top' if y < 0.5 else 'bottom'} {'left' if x < 0.5 else 'right'}"


@dataclass(frozen=True)
class Heard:
    """A sound: its kind, how many bursts, from when to when."""

    kind: str
    count: int
    start: float
    end: float


def shape_of(inside: np.ndarray) -> str:
    """The shape of a bool [height, width] spot, from the radius of its outline all the way round."""
    rows, columns = np.nonzero(inside)
    y, x = (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2
    radius = np.hypot(rows - y, columns - x)
    if not (radius < 0.3 * radius.max()).any():
        return "ring"
    y, x = rows.mean(), columns.mean()
    radius, angle = np.hypot(rows - y, columns - x), np.arctan2(rows - y, columns - x)
    sector = ((angle + np.pi) / (2 * np.pi) * 40).astype(int) % 40
    outline = np.array([radius[sector == number].max(initial=0.0) for number in range(40)])
    waves = np.abs(np.fft.rfft(outline / outline.mean()))[:8] / 20
    three, four, five = waves[3:6]
    if max(three, four, five) < 0.05:
        return "circle"
    if three == max(three, four, five):
        return "triangle"
    if five == max(three, four, five):
        return "star"
    return "cross" if four > 0.2 else "square"


def spot(image: np.ndarray, colour: str, tolerance: int) -> np.ndarray:
    """Where an image has a colour: bool [height, width]."""
    if tolerance == 0:
        return (image == np.array(PALETTE[colour], dtype=np.uint8)).all(-1)
    return (np.abs(image.astype(int) - PALETTE[colour]) <= tolerance).all(-1)


def look(frames: Iterable[np.ndarray], step_seconds: float, tolerance: int = 0) -> list[Seen]:
    """Every thing in frames uint8 [height, width, 3], by the time it comes.

    Args:
        frames: At times 0, ``step_seconds``, ...
        step_seconds: Between frames.
        tolerance: How far a channel may be off.
    """
    found: dict[str, list[tuple[float, tuple[float, float]]]] = {}
    clear: dict[str, list[str]] = {}
    for number, image in enumerate(frames):
        height, width = image.shape[:2]
        spots = {colour: spot(image, colour, tolerance) for colour in PALETTE}
        spots = {colour: inside for colour, inside in spots.items() if inside.sum() > 100}
        for colour, inside in spots.items():
            rows, columns = np.nonzero(inside)
            # The middle of what it spans: pieces that another thing hides do not matter much.
            centre = (columns.min() + columns.max()) / 2 / width, (rows.min() + rows.max()) / 2 / height
            found.setdefault(colour, []).append((number * step_seconds, centre))
            if len(spots) == 1 and len(clear.setdefault(colour, [])) < 3:
                clear[colour].append(shape_of(inside))
    things = []
    for colour, looks in found.items():
        times, centres = zip(*looks, strict=True)
        shape = max(clear[colour], key=clear[colour].count)
        things.append(Seen(colour, shape, times, centres, step_seconds))
    return sorted(things, key=lambda thing: thing.start)


def loudest_hz(samples: np.ndarray, rate_hz: int) -> float:
    """The frequency with the most power."""
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    return float(np.fft.rfftfreq(len(samples), 1 / rate_hz)[power.argmax()])


def kind_of(samples: np.ndarray, rate_hz: int) -> str:
    """The kind of a sound, from the spectra of its begin and end."""
    third = len(samples) // 3
    power = np.abs(np.fft.rfft(samples[third : 2 * third] * np.hanning(third))) ** 2 + 1e-9
    low = power[: len(power) * 7000 * 2 // rate_hz]
    if np.exp(np.log(low).mean()) / low.mean() > 0.2:
        return "noise"
    first, last = loudest_hz(samples[:third], rate_hz), loudest_hz(samples[-third:], rate_hz)
    if first > 1.5 * last:
        return "falling tone"
    if last > 1.5 * first:
        return "rising tone"
    if first < 200:
        return "buzz"
    return "high beep" if first > 800 else "low beep"


def listen(samples: np.ndarray, rate_hz: int) -> list[Heard]:
    """Every sound in float32 [n]: what stands out from silence, bursts close to each other together."""
    step = round(STEP_SECONDS * rate_hz)
    whole = samples[: len(samples) // step * step].reshape(-1, step)
    loud = np.flatnonzero(np.sqrt((whole.astype(float) ** 2).mean(1)) > 0.04)
    bursts: list[list[int]] = []
    for number in loud.tolist():
        if bursts and number - bursts[-1][1] <= 3:
            bursts[-1][1] = number
        else:
            bursts.append([number, number])
    groups: list[list[list[int]]] = []
    for burst in bursts:
        if groups and burst[0] - groups[-1][-1][1] <= 0.17 / STEP_SECONDS:
            groups[-1].append(burst)
        else:
            groups.append([burst])
    found = []
    for group in groups:
        first, last = group[0][0], group[-1][1] + 1
        # The first burst tells the kind: between bursts there is nothing.
        kind = kind_of(samples[first * step : (group[0][1] + 1) * step], rate_hz)
        found.append(Heard(kind, len(group), first * STEP_SECONDS, last * STEP_SECONDS))
    return found


class Watcher:
    """Answers questions about what it has seen and heard; ``ValueError`` if one has no single answer."""

    def __init__(self, seen: list[Seen], heard: list[Heard]) -> None:
        self.seen, self.heard = seen, heard
        self.rules: tuple[tuple[str, Callable[..., str]], ...] = (
            (r"What colour is the (\w+)\?", lambda shape: self.thing(shape=shape).colour),
            (r"What shape is the (\w+) thing\?", lambda colour: self.thing(colour=colour).shape),
            (r"Where is the (\w+ \w+)\?", self.place),
            (r"Which way does the (\w+ \w+) move\?", lambda name: self.thing(name=name).moves or "nowhere"),
            (r"How many things are shown\?", lambda: NUMBERS[len(self.seen)]),
            (r"Which sound is heard\?", lambda: one([sound.kind for sound in self.heard])),
            (r"How many (.+)s are heard\?", lambda kind: NUMBERS[self.sound(kind).count]),
            (
                r"Which sound comes after the (.+)\?",
                lambda kind: self.next_to(self.heard, self.sound(kind), 1).kind,
            ),
            (r"Name the first two sounds\.", lambda: " then ".join(sound.kind for sound in self.heard[:2])),
            (r"What is shown when the (.+) is heard\?", lambda kind: self.shown_at(kind).name),
            (r"Which sound is heard while the (\w+ \w+) is shown\?", self.heard_while_shown),
            (r"Which sound is heard while something is in the (.+)\?", self.heard_while_in),
            (r"What is shown first\?", lambda: self.seen[0].name),
            (r"What is shown last\?", lambda: self.seen[-1].name),
            (r"What is shown before the (\w+ \w+)\?", lambda name: self.beside(name, -1)),
            (r"What is shown after the (\w+ \w+)\?", lambda name: self.beside(name, 1)),
            (r"Name the first two things\.", lambda: " then ".join(thing.name for thing in self.seen[:2])),
            (r"Describe what happens at the (.+)\.", self.describe),
        )

    def answer(self, question: str) -> str:
        for pattern, rule in self.rules:
            if match := re.fullmatch(pattern, question):
                return rule(*match.groups())
        raise ValueError(f"not understood: {question}")

    def thing(self, **wanted: str) -> Seen:
        return one([thing for thing in self.seen if all(getattr(thing, k) == v for k, v in wanted.items())])

    def sound(self, kind: str) -> Heard:
        return one([sound for sound in self.heard if sound.kind == kind])

    @staticmethod
    def next_to(all_of_them: list[T], this: T, step: int) -> T:
        place = all_of_them.index(this) + step
        if not 0 <= place < len(all_of_them):
            raise ValueError("nothing there")
        return all_of_them[place]

    def beside(self, name: str, step: int) -> str:
        return self.next_to(self.seen, self.thing(name=name), step).name

    def sound_after(self, kind: str) -> str:
        return self.next_to(self.heard, self.sound(kind), 1).kind

    def place(self, name: str) -> str:
        thing = self.thing(name=name)
        return one(sorted({thing.place_at(number) for number in range(len(thing.times))}))

    def shown_at(self, kind: str) -> Seen:
        sound = self.sound(kind)
        return one([thing for thing in self.seen if thing.start < sound.end and sound.start < thing.end])

    def heard_while_shown(self, name: str) -> str:
        thing = self.thing(name=name)
        return one([sound.kind for sound in self.heard if thing.start < sound.end and sound.start < thing.end])

    def heard_while_in(self, place: str) -> str:
        kinds = {
            sound.kind
            for thing in self.seen
            for number, time in enumerate(thing.times)
            for sound in self.heard
            if thing.place_at(number) == place and time < sound.end and sound.start < time + thing.step_seconds
        }
        return one(sorted(kinds))

    def describe(self, kind: str) -> str:
        thing = self.shown_at(kind)
        return f"a {thing.name} {f'moves {thing.moves}' if thing.moves else 'stays still'}"


def one(found: list[T]) -> T:
    """The only one."""
    if len(found) != 1:
        raise ValueError(f"{len(found)} of them")
    return found[0]

"""Questions about a scene, and their answers of one to six words.

Each family is a function from a scene to every (question, answer) it can ask there. A question names what it asks
about, so the answer is well defined; where it would not be, the family does not ask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from seats_cli.world.scene import BEEPS, Scene, Thing

Pairs = list[tuple[str, str]]
NUMBERS = ("zero", "one", "two", "three", "four", "five")
_MOVES = {"still": "stays still", **{way: f"moves {way}" for way in ("left", "right", "up", "down")}}


@dataclass(frozen=True, slots=True)
class Question:
    """One question about a scene.

    Attributes:
        category: The family's name.
        text: What is asked.
        answer: The one right answer.
    """

    category: str
    text: str
    answer: str


def _colour(scene: Scene) -> Pairs:
    return [(f"What colour is the {thing.shape}?", thing.colour) for thing in scene.things]


def _shape(scene: Scene) -> Pairs:
    return [(f"What shape is the {thing.colour} thing?", thing.shape) for thing in scene.things]


def _place(scene: Scene) -> Pairs:
    return [(f"Where is the {thing.name}?", thing.place) for thing in scene.things if thing.place]


def _way(thing: Thing) -> str:
    return "nowhere" if thing.motion == "still" else thing.motion


def _motion(scene: Scene) -> Pairs:
    return [(f"Which way does the {thing.name} move?", _way(thing)) for thing in scene.things]


def _thing_count(scene: Scene) -> Pairs:
    return [("How many things are shown?", NUMBERS[len(scene.things)])]


def _sound_kind(scene: Scene) -> Pairs:
    return [("Which sound is heard?", scene.sounds[0].kind)] if len(scene.sounds) == 1 else []


def _beep_count(scene: Scene) -> Pairs:
    beeps = [sound for sound in scene.sounds if sound.kind in BEEPS]
    return [(f"How many {sound.kind}s are heard?", NUMBERS[sound.count]) for sound in beeps]


def _sound_after(scene: Scene) -> Pairs:
    return [(f"Which sound comes after the {one.kind}?", two.kind) for one, two in pairwise(scene.sounds)]


def _two_sounds(scene: Scene) -> Pairs:
    if len(scene.sounds) < 2:
        return []
    one, two = scene.sounds[:2]
    return [("Name the first two sounds.", f"{one.kind} then {two.kind}")]


def _shown_at_sound(scene: Scene) -> Pairs:
    seen = [(sound, scene.seen_at(sound)) for sound in scene.sounds]
    return [(f"What is shown when the {sound.kind} is heard?", thing.name) for sound, thing in seen if thing]


def _sound_at_thing(scene: Scene) -> Pairs:
    heard = [(thing, scene.heard_with(thing)) for thing in scene.things]
    return [(f"Which sound is heard while the {thing.name} is shown?", one.kind) for thing, one in heard if one]


def _sound_at_place(scene: Scene) -> Pairs:
    pairs = []
    for thing in scene.things:
        sound = scene.heard_with(thing)
        if thing.place and sound and sum(other.visits(thing.place) for other in scene.things) == 1:
            pairs.append((f"Which sound is heard while something is in the {thing.place}?", sound.kind))
    return pairs


def _first(scene: Scene) -> Pairs:
    return [("What is shown first?", scene.things[0].name)] if len(scene.things) > 1 else []


def _last(scene: Scene) -> Pairs:
    return [("What is shown last?", scene.things[-1].name)] if len(scene.things) > 1 else []


def _before(scene: Scene) -> Pairs:
    return [(f"What is shown before the {two.name}?", one.name) for one, two in pairwise(scene.things)]


def _after(scene: Scene) -> Pairs:
    return [(f"What is shown after the {one.name}?", two.name) for one, two in pairwise(scene.things)]


def _two_things(scene: Scene) -> Pairs:
    if len(scene.things) < 2:
        return []
    one, two = scene.things[:2]
    return [("Name the first two things.", f"{one.name} then {two.name}")]


def _describe(scene: Scene) -> Pairs:
    seen = [(sound, scene.seen_at(sound)) for sound in scene.sounds]
    return [
        (f"Describe what happens at the {sound.kind}.", f"a {thing.name} {_MOVES[thing.motion]}")
        for sound, thing in seen
        if thing
    ]


FAMILIES: dict[str, Callable[[Scene], Pairs]] = {
    "colour": _colour,
    "shape": _shape,
    "place": _place,
    "motion": _motion,
    "thing count": _thing_count,
    "sound kind": _sound_kind,
    "beep count": _beep_count,
    "sound after": _sound_after,
    "two sounds": _two_sounds,
    "shown at sound": _shown_at_sound,
    "sound at thing": _sound_at_thing,
    "sound at place": _sound_at_place,
    "first": _first,
    "last": _last,
    "before": _before,
    "after": _after,
    "two things": _two_things,
    "describe": _describe,
}
"""Category -> every question of it about a scene."""


def all_questions(scene: Scene) -> list[Question]:
    """Everything that can be asked about a scene, by category."""
    return [Question(category, text, answer) for category, ask in FAMILIES.items() for text, answer in ask(scene)]


def draw_question(scene: Scene, rng: np.random.Generator) -> Question:
    """One question: a category that can ask here, each as likely, then one of its questions.

    Args:
        scene: What is asked about.
        rng: Source of both choices.
    """
    asked = {category: pairs for category, ask in FAMILIES.items() if (pairs := ask(scene))}
    category = str(rng.choice(list(asked)))
    text, answer = asked[category][int(rng.integers(len(asked[category])))]
    return Question(category, text, answer)

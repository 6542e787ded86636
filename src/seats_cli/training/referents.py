"""What a question and its answer are about: targets for where their tokens look, and for what they then know.

A question names a thing ("the blue cross", "the pink thing") or a sound ("the high beep"). The token that
completes the name should find the visual or audio tokens that it means, and each token before a word of the answer
those that hold the word. From answers alone a small model finds things by their colour only: of hundreds of tokens
a few are meant, and the loss says nothing of where they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seats_cli.training.labels import AUDIO_HEADS, IGNORED, VIDEO_HEADS, colour_class, motion_class, shape_class
from seats_cli.world.questions import Question
from seats_cli.world.scene import COLOURS, PLACES, SHAPES, SOUNDS, Scene

NAME, ANSWER = 0, 1
"""A look of the token that completes a name, or of one before a word of the answer."""
REFERENT_HEADS = VIDEO_HEADS | AUDIO_HEADS
"""What is known of a thing or a sound once its name is read."""

_COLOUR, _SHAPE, _PLACE, _SOUND = ("|".join(words) for words in (COLOURS, SHAPES, PLACES, SOUNDS))
_NAMES = re.compile(
    rf"\b(?:(?:{_COLOUR}) )?(?P<shape>{_SHAPE})\b|\b(?P<colour>{_COLOUR})\b(?: thing)?"
    rf"|\bin the (?P<place>{_PLACE})\b|\b(?P<sound>{_SOUND})s?\b"
)
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Name:
    """A name in a text.

    Attributes:
        start: Its first character.
        end: After its last one.
        is_sound: Whether it means a sound; else a thing.
        number: Which one of the scene.
    """

    start: int
    end: int
    is_sound: bool
    number: int


@dataclass(frozen=True, slots=True)
class Look:
    """A token of a question or of its answer, and the parts of the clip it should look at.

    Attributes:
        token: Which; the answer's follow the question's.
        kind: ``NAME`` or ``ANSWER``.
        things: Numbers of the things that are meant.
        sounds: Numbers of the sounds that are meant.
    """

    token: int
    kind: int
    things: tuple[int, ...]
    sounds: tuple[int, ...]


def names_in(scene: Scene, text: str) -> list[Name]:
    """The names of a scene's things and sounds in a text, in order."""
    found = []
    for match in _NAMES.finditer(text):
        kind = match.lastgroup or ""
        word = match.group(kind)
        owners = scene.sounds if kind == "sound" else scene.things
        field = "kind" if kind == "sound" else kind
        number = next((i for i, owner in enumerate(owners) if getattr(owner, field) == word), None)
        if number is not None:
            found.append(Name(match.start(), match.end(), kind == "sound", number))
    return found


def _look(token: int, kind: int, names: Sequence[Name]) -> Look:
    things = tuple(name.number for name in names if not name.is_sound)
    return Look(token, kind, things, tuple(name.number for name in names if name.is_sound))


def looks_of(scene: Scene, question: Question, asked: Sequence[Span], answer: Sequence[Span]) -> list[Look]:
    """Where the tokens of a question and of its answer should look.

    Args:
        scene: What is asked about.
        question: One of the scene's.
        asked: Characters of each of the question's tokens.
        answer: Characters of each of the answer's tokens.

    Returns:
        One look for each name in the question, at its last token; and one for each token of the answer, whose
        ``token`` counts on after the question's and means the token that is said, not the one before it.
    """
    named = names_in(scene, question.text)
    looks = [
        _look(max(i for i, (start, _) in enumerate(asked) if start < name.end), NAME, [name]) for name in named
    ]
    said = names_in(scene, question.answer)
    for i, (_, end) in enumerate(answer):
        begun = [name for name in said if name.start < end]
        meant = begun[-1:] or said[:1] or named[-1:] or [Name(0, 0, False, len(scene.things) - 1)]
        # What is seen at a sound is known to the sound's tokens too.
        meant = meant + [name for name in named if name.is_sound and not meant[0].is_sound]
        if question.category == "before":
            # No token knows what comes later, so the earlier thing cannot be found by the later one.
            meant = named[-1:]
        looks.append(_look(len(asked) + i, ANSWER, meant))
    return looks


def referent_labels(scene: Scene, look: Look) -> dict[str, int]:
    """Per head of ``REFERENT_HEADS``; ``IGNORED`` where the name does not mean what has it."""
    found = dict.fromkeys(REFERENT_HEADS, IGNORED)
    if look.kind != NAME:
        return found
    for number in look.things:
        thing = scene.things[number]
        found |= {"shape": shape_class(thing), "colour": colour_class(thing), "motion": motion_class(thing)}
        if thing.place:
            found["place"] = list(PLACES).index(thing.place) + 1
    for number in look.sounds:
        sound = scene.sounds[number]
        found |= {"sound": SOUNDS.index(sound.kind) + 1, "count": sound.count}
    return found


def shown_or_heard(look: Look, things: np.ndarray, sounds: np.ndarray) -> np.ndarray:
    """Which tokens hold what a look is for: bool [n].

    Args:
        look: At what.
        things: int64 [n], the thing each token shows, negative for none.
        sounds: int64 [n], the sound each token holds, negative for none.
    """
    return np.isin(things, look.things) | np.isin(sounds, look.sounds)

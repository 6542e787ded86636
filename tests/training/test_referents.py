"""What a question's words mean in a scene that is written down here."""

from __future__ import annotations

import re

import numpy as np
import pytest

from seats_cli.training.labels import IGNORED
from seats_cli.training.referents import ANSWER, NAME, Look, looks_of, names_in, referent_labels, shown_or_heard
from seats_cli.world.questions import Question, all_questions
from seats_cli.world.scene import COLOURS, PLACES, SHAPES, SOUNDS, Scene, Sound, Thing
from tests.world.drawn import scenes


def thing(shape: str, colour: str, motion: str, start: float, begin, end) -> Thing:
    return Thing(shape, colour, motion, 0.17, start, start + 3, begin, end, 0.0)


STILL = thing("ring", "red", "still", 0, (0.76, 0.27), (0.76, 0.27))
MOVING = thing("star", "white", "left", 4, (0.8, 0.5), (0.2, 0.5))
LAST = thing("cross", "blue", "up", 8, (0.5, 0.8), (0.5, 0.2))
BEEP = Sound("low beep", 3, 0.5, 1.3, 1.0)
NOISE = Sound("noise", 1, 4.5, 5.2, 1.0)
SCENE = Scene(1, 12, 6, 8, (STILL, MOVING, LAST), (BEEP, NOISE))


def spans(text: str) -> list[tuple[int, int]]:
    """Words with the space before them, and marks."""
    return [match.span() for match in re.finditer(r" ?\w+|[?.]", text)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("What colour is the star?", [("star", False, 1)]),
        ("What shape is the blue thing?", [("blue thing", False, 2)]),
        ("Where is the red ring?", [("red ring", False, 0)]),
        ("How many low beeps are heard?", [("low beeps", True, 0)]),
        ("Which sound is heard while something is in the top right?", [("in the top right", False, 0)]),
        ("Which sound comes after the low beep?", [("low beep", True, 0)]),
        ("red ring then white star", [("red ring", False, 0), ("white star", False, 1)]),
        ("How many things are shown?", []),
        ("moves left", []),
        ("a blue cross moves up", [("blue cross", False, 2)]),
        ("What colour is the circle?", []),
    ],
)
def test_names(text, wanted):
    found = names_in(SCENE, text)
    assert [(text[name.start : name.end].strip(), name.is_sound, name.number) for name in found] == wanted


def looks(category: str, text: str, answer: str) -> list[tuple[str, int, tuple[int, ...], tuple[int, ...]]]:
    asked, said = spans(text), spans(answer)
    words = [text[a:b].strip() for a, b in asked] + [answer[a:b].strip() for a, b in said]
    found = looks_of(SCENE, Question(category, text, answer), asked, said)
    return [(words[look.token], look.kind, look.things, look.sounds) for look in found]


def test_where_the_tokens_of_a_question_and_its_answer_look():
    assert looks("colour", "What colour is the star?", "white") == [
        ("star", NAME, (1,), ()),
        ("white", ANSWER, (1,), ()),
    ]
    assert looks("beep count", "How many low beeps are heard?", "three") == [
        ("beeps", NAME, (), (0,)),
        ("three", ANSWER, (), (0,)),
    ]
    assert looks("after", "What is shown after the red ring?", "white star") == [
        ("ring", NAME, (0,), ()),
        ("white", ANSWER, (1,), ()),
        ("star", ANSWER, (1,), ()),
    ]
    assert looks("before", "What is shown before the white star?", "red ring") == [
        ("star", NAME, (1,), ()),
        ("red", ANSWER, (1,), ()),
        ("ring", ANSWER, (1,), ()),
    ]
    assert looks("thing count", "How many things are shown?", "three") == [("three", ANSWER, (2,), ())]
    assert looks("two sounds", "Name the first two sounds.", "low beep then noise") == [
        ("low", ANSWER, (), (0,)),
        ("beep", ANSWER, (), (0,)),
        ("then", ANSWER, (), (0,)),
        ("noise", ANSWER, (), (1,)),
    ]
    both = (1,), (1,)
    assert looks("describe", "Describe what happens at the noise.", "a white star moves left") == [
        ("noise", NAME, (), (1,)),
        *((word, ANSWER, *both) for word in ("a", "white", "star", "moves", "left")),
    ]
    assert looks("sound at thing", "Which sound is heard while the red ring is shown?", "low beep") == [
        ("ring", NAME, (0,), ()),
        ("low", ANSWER, (), (0,)),
        ("beep", ANSWER, (), (0,)),
    ]


def test_every_word_of_every_answer_looks_somewhere():
    for scene in scenes(30):
        for question in all_questions(scene):
            asked, said = spans(question.text), spans(question.answer)
            found = looks_of(scene, question, asked, said)
            answers = [look for look in found if look.kind == ANSWER]
            assert [look.token for look in answers] == list(range(len(asked), len(asked) + len(said)))
            assert all(look.things or look.sounds for look in found)
            named = [look for look in found if look.kind == NAME]
            words = question.text.rstrip("?.")
            assert len(named) == any(f" {one}" in words for one in (*SHAPES, *COLOURS, *SOUNDS, *PLACES))


def test_what_is_known_of_a_referent():
    known = referent_labels(SCENE, Look(0, NAME, (0,), ()))
    assert known == {
        "shape": SHAPES.index("ring") + 1,
        "colour": list(COLOURS).index("red") + 1,
        "place": list(PLACES).index("top right") + 1,
        "motion": 1,
        "sound": IGNORED,
        "count": IGNORED,
    }
    assert referent_labels(SCENE, Look(0, NAME, (1,), ()))["place"] == IGNORED
    heard = referent_labels(SCENE, Look(0, NAME, (), (0,)))
    assert (heard["sound"], heard["count"], heard["shape"]) == (SOUNDS.index("low beep") + 1, 3, IGNORED)
    assert set(referent_labels(SCENE, Look(0, ANSWER, (0,), (0,))).values()) == {IGNORED}


def test_tokens_that_hold_what_is_meant():
    things, sounds = np.array([-1, 0, IGNORED, 1, -1, -1]), np.array([-1, -1, -1, -1, 0, IGNORED])
    assert shown_or_heard(Look(0, NAME, (0, 1), ()), things, sounds).tolist() == [
        False,
        True,
        False,
        True,
        *[False] * 2,
    ]
    assert shown_or_heard(Look(0, NAME, (1,), (0,)), things, sounds).tolist() == [False] * 3 + [True, True, False]

"""Answers are right, short, cannot be guessed, and follow from little of what there is."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from seats_cli.world.picture import frames
from seats_cli.world.questions import FAMILIES, all_questions, draw_question
from seats_cli.world.sound import RATE_HZ, waveform
from tests.world.drawn import scenes
from tests.world.figures import evidences, guesses, sets, weighted_quantile
from tests.world.watcher import Watcher, listen, look

N_WATCHED = 14
N_GUESSED = 2000
N_MEASURED = 40
# The best that can be said without the clip. Two of five things stand still; a clip of 4 or 5 s has two at most.
CHANCE = {
    "colour": 1 / 6,
    "shape": 1 / 6,
    "place": 1 / 5,
    "motion": 2 / 5,
    "thing count": 2 / 7,
    "sound kind": 1 / 6,
    "beep count": 1 / 4,
    "sound after": 1 / 5,
    "two sounds": 1 / 30,
    "shown at sound": 1 / 36,
    "sound at thing": 1 / 6,
    "sound at place": 1 / 6,
    "first": 1 / 36,
    "last": 1 / 36,
    "before": 1 / 25,
    "after": 1 / 25,
    "two things": 1 / 900,
    "describe": 1 / 2 / 36,
}


def test_pixels_and_samples_alone_give_every_answer():
    """Whoever looks and listens, and knows nothing of the scene, answers every question alike."""
    asked = Counter()
    for scene in scenes(N_WATCHED):
        watcher = Watcher(look(frames(scene, 2), 0.5), listen(waveform(scene), RATE_HZ))
        for question in all_questions(scene):
            asked[question.category] += 1
            assert watcher.answer(question.text) == question.answer, question
    assert set(asked) == set(FAMILIES)


def test_answers_have_one_to_six_words():
    for scene, _ in sets(N_GUESSED)[:300]:
        for question in all_questions(scene):
            assert 1 <= len(question.answer.split()) <= 6
            assert question.answer == " ".join(question.answer.split())
            assert question.text[-1] in "?."


def test_no_question_has_two_answers():
    for scene, _ in sets(N_GUESSED)[:300]:
        texts = [question.text for question in all_questions(scene)]
        assert len(set(texts)) == len(texts)


def test_every_family_is_asked():
    drawn = Counter(question.category for _, question in sets(N_GUESSED))
    assert set(drawn) == set(FAMILIES)
    assert min(drawn.values()) >= 0.007 * N_GUESSED
    assert max(drawn.values()) <= 0.12 * N_GUESSED
    assert sum(count >= 0.02 * N_GUESSED for count in drawn.values()) >= len(FAMILIES) - 1


def test_a_drawn_question_is_one_of_all_and_families_are_equally_likely():
    scene = next(scene for scene in scenes(50) if len(scene.things) > 2 and len(scene.sounds) > 2)
    rng = np.random.default_rng(0)
    every = all_questions(scene)
    drawn = [draw_question(scene, rng) for _ in range(3000)]
    assert set(drawn) == set(every)
    families = Counter(question.category for question in drawn)
    expected = 3000 / len(families)
    assert all(abs(count - expected) < 5 * expected**0.5 for count in families.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_nobody_can_guess(family):
    right, asked, _ = guesses(N_GUESSED)[family]
    chance = CHANCE[family]
    # Three standard deviations, and a few for the rare ones.
    assert right <= chance * asked + 3 * (chance * asked) ** 0.5 + 3


@pytest.mark.parametrize(("least", "bound"), [(0.2, 0.05), (0.0, 0.06)])
def test_what_is_asked_about_is_in_few_tokens(least, bound):
    """At the median of the questions of a set, each weighted as likely as it is to be drawn."""
    _, values, weights = evidences(N_MEASURED, least)
    assert min(values) > 0 or least > 0
    assert weighted_quantile(values, weights, 0.5) < bound

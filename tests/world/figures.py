"""How well questions can be guessed, and how many of the tokens show what they ask about.

``python -m tests.world.figures`` prints the table of docs/synth.md.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cache

import numpy as np

from seats_cli.world.clips import scene_of
from seats_cli.world.questions import FAMILIES, Question, all_questions
from seats_cli.world.scene import Scene
from tests.world.drawn import AUDIO_TOKENS_PER_SECOND, coverage, scenes, sounding


@cache
def sets(n: int) -> tuple[tuple[Scene, Question], ...]:
    """Scenes of a set, each with its question."""
    return tuple(scene_of(12, index)[:2] for index in range(n))


@cache
def guesses(n: int) -> dict[str, tuple[int, int, int]]:
    """Per family: right guesses, questions, and how many answers there are.

    In the second half of ``n`` scenes every question gets the answer that it most often had in the first half.
    """
    seen: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    right, asked, answers = Counter(), Counter(), defaultdict(set)
    for index, (scene, _) in enumerate(sets(n)):
        for question in all_questions(scene):
            key = question.category, question.text
            answers[question.category].add(question.answer)
            if index < n // 2:
                seen[key][question.answer] += 1
            else:
                asked[question.category] += 1
                right[question.category] += bool(seen[key]) and seen[key].most_common(1)[0][0] == question.answer
    return {family: (right[family], asked[family], len(answers[family])) for family in FAMILIES}


def evidence(scene: Scene, question: Question, least: float) -> float:
    """Share of a scene's tokens that show or sound what a question and its answer name.

    A visual token shows a thing if more than ``least`` of its pixels do; an audio token, if a sound
    touches it. All tokens of everything that is named count, though a few of them would do.
    """
    words = f"{question.text} {question.answer}"
    shows = coverage(scene) > least
    named = {
        "colour": lambda thing: thing.shape in question.text,
        "shape": lambda thing: thing.colour in question.text,
        "thing count": lambda thing: True,
        "sound at place": lambda thing: bool(thing.place) and thing.place in question.text,
    }.get(question.category, lambda thing: thing.name in words)
    seen = np.zeros(shows.shape[1:], dtype=bool)
    for thing, tokens in zip(scene.things, shows, strict=True):
        if named(thing):
            seen |= tokens
    heard = np.zeros(scene.seconds * AUDIO_TOKENS_PER_SECOND, dtype=bool)
    for number, sound in enumerate(scene.sounds):
        if sound.kind in words:
            heard |= sounding(scene, number)
            if question.category == "shown at sound":
                # What was there before and after does not matter.
                seen[: int(sound.start_seconds)] = seen[int(np.ceil(sound.end_seconds)) :] = False
    return float(seen.sum() + heard.sum()) / (seen.size + heard.size)


def evidences(n: int, least: float) -> tuple[list[str], list[float], list[float]]:
    """Family, evidence and weight of every question about ``n`` scenes; the weight is how likely it is drawn."""
    names, values, weights = [], [], []
    for scene in scenes(n):
        asked = all_questions(scene)
        families = Counter(question.category for question in asked)
        for question in asked:
            names.append(question.category)
            values.append(evidence(scene, question, least))
            weights.append(1 / len(families) / families[question.category])
    return names, values, weights


def weighted_quantile(values: list[float], weights: list[float], part: float) -> float:
    """The value below which that part of the weight lies."""
    order = np.argsort(values)
    upto = np.cumsum(np.array(weights)[order])
    return float(np.array(values)[order][np.searchsorted(upto, upto[-1] * part)])


def main(n_guessed: int = 4000, n_measured: int = 150) -> None:
    """Print the table."""
    drawn = Counter(question.category for _, question in sets(n_guessed))
    columns = []
    for least in (0.2, 0.0):
        names, values, weights = evidences(n_measured, least)
        under = sum(w for v, w in zip(values, weights, strict=True) if v < 0.05) / sum(weights)
        quantiles = [100 * weighted_quantile(values, weights, part) for part in (0.5, 0.1, 0.9)]
        print("a set's questions, more than", least, "of a token: {:.1f} ({:.1f} - {:.1f})".format(*quantiles))
        print(f"under 5 %: {under:.2f}")
        of_family = {name: [v for v, own in zip(values, names, strict=True) if own == name] for name in FAMILIES}
        columns.append({name: 100 * np.quantile(own, (0.5, 0.1, 0.9)) for name, own in of_family.items()})
    for family, (right, asked, answers) in guesses(n_guessed).items():
        cells = [f"{answers}", f"{right / asked:.3f}", f"{drawn[family] / n_guessed:.3f}"]
        cells += ["{:.1f} ({:.1f} - {:.1f})".format(*column[family]) for column in columns]
        print(f"| {family} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

"""From a file to the right answer, through the command line: the embedded model in every container.

What is right is written in the scene; the clips are made here.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

from seats_cli.training.sequences import HEARD
from seats_cli.world.clips import write_scene
from seats_cli.world.questions import all_questions
from seats_cli.world.scene import sample_scene
from seats_cli.world.sound import RATE_HZ, waveform

SCENES = [sample_scene(np.random.default_rng([31, index]), seconds=8) for index in range(4)]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder with the scenes in every container, and all questions about them for each."""
    folder = tmp_path_factory.mktemp("clips")
    for ending in ("mp4", "mkv", "webm", "wav"):
        rows = []
        for number, scene in enumerate(SCENES):
            name = f"{number}.{ending}"
            if ending == "wav":
                soundfile.write(folder / name, waveform(scene), RATE_HZ)
            else:
                write_scene(folder / name, scene)
            rows += [
                {"media": name, "question": one.text, "answer": one.answer, "category": one.category}
                for one in all_questions(scene)
                if ending != "wav" or one.category in HEARD
            ]
        (folder / f"{ending}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


@pytest.mark.parametrize("ending", ["mp4", "mkv", "webm", "wav"])
def test_nine_in_ten_of_all_that_can_be_asked(seats, clips, ending):
    ended = seats(
        *("eval", clips / f"{ending}.jsonl", "-m", "tiny", "--device", "cpu"),
        *("--method", "full,seats", "--trr", "0.1", "--json"),
    )
    assert ended.code == 0
    full, pruned = json.loads(ended.out.splitlines()[-1])["results"]
    assert full["failed"] == pruned["failed"] == 0
    assert full["accuracy"] >= 0.9
    assert pruned["accuracy"] >= 0.8


@pytest.mark.parametrize("ending", ["mp4", "mkv", "webm"])
@pytest.mark.parametrize(
    ("clip", "question", "answer"),
    [
        (0, "What colour is the star?", "green"),
        (1, "Where is the green square?", "top left"),
        (3, "How many low beeps are heard?", "three"),
    ],
)
def test_a_question_about_a_clip(seats, clips, ending, clip, question, answer):
    ended = seats("ask", clips / f"{clip}.{ending}", question, "-m", "tiny", "--device", "cpu")
    assert (ended.code, ended.out) == (0, f"{answer}\n")
    assert "synthetic world" in ended.err


def test_a_question_about_a_sound(seats, clips):
    ended = seats("ask", clips / "0.wav", "Which sound comes after the noise?", "-m", "tiny", "--device", "cpu")
    assert (ended.code, ended.out) == (0, "buzz\n")

"""From a file to the right answer, through the command line: the embedded model in every container.

What is right is written in the scene; the clips are made here.
"""

from __future__ import annotations

import json

import pytest
import soundfile

from seats_cli.training.sequences import HEARD
from seats_cli.world.clips import write_scene
from seats_cli.world.questions import all_questions
from seats_cli.world.scene import PLACES, Scene, Sound, Thing
from seats_cli.world.sound import RATE_HZ, waveform

CORNER, MIDDLE = PLACES["top left"], PLACES["middle"]
THINGS = (
    Thing("circle", "red", "still", 0.19, 0.5, 4.0, CORNER, CORNER, 0.0),
    Thing("star", "blue", "right", 0.19, 4.5, 8.0, (0.24, 0.5), (0.76, 0.5), 0.0),
    Thing("triangle", "yellow", "still", 0.19, 8.5, 11.5, MIDDLE, MIDDLE, 0.0),
)
SOUNDS = (
    Sound("high beep", 2, 2.4, 2.82, 1.0),
    Sound("rising tone", 1, 6.3, 7.1, 1.0),
    Sound("buzz", 1, 10.3, 11.1, 1.0),
)
SCENE = Scene(12, 12, 6, 8, THINGS, SOUNDS)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder with the scene in every container, and its questions for each."""
    folder = tmp_path_factory.mktemp("clips")
    for ending in ("mp4", "mkv", "webm"):
        write_scene(folder / f"clip.{ending}", SCENE)
    soundfile.write(folder / "clip.wav", waveform(SCENE), RATE_HZ)
    for ending in ("mp4", "mkv", "webm", "wav"):
        questions = [one for one in all_questions(SCENE) if ending != "wav" or one.category in HEARD]
        rows = [
            {"media": f"clip.{ending}", "question": one.text, "answer": one.answer, "category": one.category}
            for one in questions
        ]
        (folder / f"{ending}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


@pytest.mark.parametrize("ending", ["mp4", "mkv", "webm"])
@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What colour is the star?", "blue"),
        ("Where is the red circle?", "top left"),
        ("What is shown when the buzz is heard?", "yellow triangle"),
    ],
)
def test_a_question_about_a_clip(seats, clips, ending, question, answer):
    ended = seats("ask", clips / f"clip.{ending}", question, "-m", "tiny", "--device", "cpu")
    assert (ended.code, ended.out) == (0, f"{answer}\n")
    assert "synthetic world" in ended.err


@pytest.mark.parametrize(
    ("question", "answer"),
    [("How many high beeps are heard?", "two"), ("Which sound comes after the rising tone?", "buzz")],
)
def test_a_question_about_a_sound(seats, clips, question, answer):
    ended = seats("ask", clips / "clip.wav", question, "-m", "tiny", "--device", "cpu")
    assert (ended.code, ended.out) == (0, f"{answer}\n")


@pytest.mark.parametrize("ending", ["mp4", "mkv", "webm", "wav"])
def test_nine_in_ten_of_all_that_can_be_asked(seats, clips, ending):
    ended = seats(
        *("eval", clips / f"{ending}.jsonl", "-m", "tiny", "--device", "cpu"),
        *("--method", "full,seats", "--trr", "0.35", "--json"),
    )
    assert ended.code == 0
    full, pruned = json.loads(ended.out.splitlines()[-1])["results"]
    assert full["failed"] == pruned["failed"] == 0
    assert full["accuracy"] >= 0.9
    assert pruned["accuracy"] >= 0.8

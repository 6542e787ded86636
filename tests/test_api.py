"""The Python face: what can be imported, what importing costs, and a report for a real file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import seats_cli
from seats_cli import (
    GenerationOptions,
    MediaError,
    MediaOptions,
    Report,
    Seats,
    SeatsError,
    SelectionOptions,
    UsageError,
)
from seats_cli.media import write_demo_clip
from seats_cli.report import Report as ReportOfRoom
from tests import tiny

SOURCE = Path(seats_cli.__file__).parents[1]
HEAVY = ("torch", "numpy", "transformers", "av", "soundfile", "torchvision", "huggingface_hub", "rich", "typer")


@pytest.fixture(scope="module")
def seats(tmp_path_factory: pytest.TempPathFactory) -> Seats:
    folder = tiny.write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), dtype=torch.float32)
    generation = GenerationOptions(max_new_tokens=6)
    return Seats(folder, trr=0.3, device="cpu", dtype="float32", generation=generation)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("media") / "demo.mp4"
    write_demo_clip(path, 4.0, width=160, height=120, fps=10)
    return path


def python(code: str) -> str:
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_public_names() -> None:
    assert set(seats_cli.__all__) <= set(dir(seats_cli))
    for name in seats_cli.__all__:
        assert getattr(seats_cli, name) is not None
    assert seats_cli.Report is ReportOfRoom
    assert seats_cli.__all__ == [*sorted(seats_cli.__all__[:-1]), "__version__"]
    errors = [name for name in seats_cli.__all__ if name.endswith("Error")]
    assert all(issubclass(getattr(seats_cli, name), SeatsError) for name in errors)
    assert len(errors) == 8
    with pytest.raises(AttributeError, match="has no attribute 'Sets'"):
        _ = seats_cli.Sets


@pytest.mark.parametrize("statement", ["import seats_cli", "from seats_cli import *", "import seats_cli.api"])
def test_importing_is_light(statement: str) -> None:
    found = python(f"{statement}\nprint([name for name in {HEAVY!r} if name in sys.modules])")
    assert json.loads(found.replace("'", '"')) == []


def test_wrong_options_cost_no_import() -> None:
    code = (
        "from seats_cli import Seats, UsageError\n"
        "try:\n    Seats('x', trr=7)\n"
        "except UsageError as error:\n    print(error.exit_code, 'torch' in sys.modules)"
    )
    assert python(code).split() == ["2", "False"]


def test_ask(seats: Seats, clip: Path) -> None:
    pieces: list[str] = []
    report = seats.ask(clip, "What happens?", on_text=pieces.append)
    assert isinstance(report, Report)
    assert report.answer == "".join(pieces).strip()
    assert report.question == "What happens?"
    media = report.media
    assert (media.path, media.frames, media.fps, media.audio_track) == (str(clip), 8, 2.0, True)
    assert media.seconds_video == pytest.approx(4.0)
    assert media.seconds_audio == pytest.approx(4.0, abs=0.05)
    assert report.model.id == seats.loaded.model_id
    assert report.selection.trr == 0.3
    assert report.selection.achieved_trr == pytest.approx(0.3, abs=0.02)
    again = seats.ask(str(clip), "What happens?")
    assert (again.answer, again.tokens, again.flops) == (report.answer, report.tokens, report.flops)
    assert Report.from_json(report.to_json()).answer == report.answer


def test_options_of_one_question(seats: Seats, clip: Path, tmp_path: Path) -> None:
    report = seats.ask(
        clip,
        "A or B?",
        selection=SelectionOptions(trr=1.0),
        media=MediaOptions(audio="off", max_frames=4, end_seconds=3.0),
        generation=GenerationOptions(choices=("A", "B")),
        trace=tmp_path / "t.npz",
    )
    assert report.answer in ("A", "B")
    assert (report.media.frames, report.media.seconds_audio) == (4, 0.0)
    assert report.tokens.audio == 0
    assert report.selection.achieved_trr == 1.0
    with np.load(tmp_path / "t.npz") as file:
        assert len(file["layout/ids"]) == report.tokens.total
    assert seats.ask(clip, "And now?").selection.trr == 0.3, "the object's own options are as they were"


def test_sound_alone(seats: Seats, tmp_path: Path) -> None:
    import soundfile

    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "noise.wav", (rng.standard_normal(16000 * 3) * 0.1).astype(np.float32), 16000)
    report = seats.ask(tmp_path / "noise.wav", "What is heard?")
    assert (report.tokens.video, report.tokens.audio, report.media.frames) == (0, 75, 0)
    assert report.media.fps is None
    assert report.selection.video_trr is None


def test_every_frame_size_and_length(seats: Seats, tmp_path: Path) -> None:
    """A short odd clip: one grid, and sound that outlasts it by a little."""
    path = tmp_path / "short.mp4"
    write_demo_clip(path, 0.7, width=62, height=46, fps=5)
    report = seats.ask(path, "What?")
    assert report.media.grids == 1
    assert report.media.windows == 1


@pytest.mark.parametrize("trace", ["", "nowhere/t.npz"])
def test_a_trace_that_cannot_be_is_told_first(
    seats: Seats, clip: Path, tmp_path: Path, trace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seats_cli.engine.pipeline.prepare", None)
    with pytest.raises(UsageError, match="--trace"):
        seats.ask(clip, "What?", trace=tmp_path / trace)


def test_errors(seats: Seats, clip: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaError):
        seats.ask(tmp_path / "nowhere.mp4", "What?")
    with pytest.raises(UsageError, match="question is empty"):
        seats.ask(clip, " ")
    with pytest.raises(UsageError, match="reserved token"):
        seats.ask(clip, "<|im_end|>")
    with pytest.raises(UsageError, match="no such method"):
        seats.ask(clip, "What?", selection=SelectionOptions(method="none"))
    assert seats.ask(clip, "Still there?").answer is not None


def test_defaults() -> None:
    signature = Seats.__init__.__kwdefaults__
    assert signature["trr"] == SelectionOptions().trr == 0.1
    assert Seats.__init__.__defaults__ == (seats_cli.ModelOptions().model,)

"""On a Ray cluster of two cores on this machine: what one process gives."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
from dataclasses import dataclass, replace

import pytest
import torch

from seats_cli.config import GenerationOptions, MediaOptions, ModelOptions, SelectionOptions
from seats_cli.engine.batch import Asker, run
from seats_cli.engine.processes import Recipe
from seats_cli.errors import ModelError, UsageError
from seats_cli.tasks import Task, jobs_of
from tests import tiny
from tests.cli.conftest import RUN, environment
from tests.engine.library import told
from tests.media.clips import even_times, tone, write_video

# Of Ray itself; a test of ours would fail on them.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning"
)
pytest.importorskip("ray")
from seats_cli.engine import cluster


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny.write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), dtype=torch.float32, n_layers=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With picture, sound, or both; one whose frames are fewer than its packets; and one that is broken."""
    folder = tmp_path_factory.mktemp("clips")
    write_video(folder / "both.mp4", even_times(3, 4), sound=tone(3))
    write_video(folder / "hurt.mp4", even_times(4, 8), sound=tone(4), damaged=(5, 6, 7))
    write_video(folder / "picture.mp4", even_times(2, 4))
    write_video(folder / "sound.m4a", sound=tone(3), format="mp4")
    (folder / "broken.mp4").write_bytes(b"\x00\x01\x02" * 1000)
    return folder


def recipe_of(model, **keywords) -> Recipe:
    return Recipe(
        loading=ModelOptions(model=str(model), device="cpu", dtype="float32"),
        selection=SelectionOptions(trr=0.3),
        generation=GenerationOptions(max_new_tokens=4),
        **keywords,
    )


def tasks_of(folder) -> list[Task]:
    names = ("both.mp4", "hurt.mp4", "picture.mp4", "sound.m4a", "broken.mp4")
    return [Task(path=str(folder / name), question=what) for name in names for what in ("What?", "Who?")]


@pytest.fixture(scope="module")
def ray():
    """Begun once: it takes long. What runs on it leaves it alone, since it finds it begun."""
    import ray

    previous = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = "local"
    cluster.begin(n_cpus=2)
    yield ray
    ray.shutdown()
    del os.environ["RAY_ADDRESS"]
    if previous is not None:
        os.environ["RAY_ADDRESS"] = previous


def test_the_actors_pass_on_what_one_process_finds(checkpoint, folder):
    """Without Ray: a clip through both actors is what it is when read here, warnings and their order too."""
    tasks = tasks_of(folder)
    media = MediaOptions(max_frames=6)
    jobs = jobs_of(tasks, media)
    recipe = recipe_of(checkpoint)
    decoder, answerer = cluster.Decoder(recipe.loading, None), cluster.Answerer(recipe, tasks)
    found = []
    for job in jobs:
        row = answerer(decoder({"job": [pickle.dumps(job)]}))
        found += pickle.loads(row["outcomes"][0])
    expected = told(run(recipe.asker(), jobs, readers=0))
    assert told(found) == expected
    assert any(report.warnings for report in expected.values() if not isinstance(report, tuple))


def test_the_time_of_decoding_is_in_the_report_and_in_the_limit(checkpoint, folder, monkeypatch):
    (job,) = jobs_of(tasks_of(folder)[:1], MediaOptions())
    recipe = recipe_of(checkpoint, timeout_seconds=600.0)
    batch = cluster.Decoder(recipe.loading, 600.0)({"job": [pickle.dumps(job)]})
    clip = pickle.loads(batch["clip"][0])
    asker = recipe.asker()
    (outcome,) = asker(job, clip)
    seconds = outcome.report.seconds
    assert seconds.decode >= clip.decoding_seconds > 0
    assert seconds.answer >= seconds.first_token >= seconds.decode
    (outcome,) = asker(job, replace(clip, decoding_seconds=601.0))
    assert outcome.error.kind == "timeout"
    assert "600 s" in str(outcome.error)


class _Deadly(Asker):
    def __call__(self, job, clip=None):
        if "killer" in job.path:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(job, clip)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlyRecipe(Recipe):
    """A clip of one name kills who asks about it."""

    def asker(self) -> Asker:
        """As of a recipe."""
        made = super(DeadlyRecipe, self).asker()
        made.__class__ = _Deadly
        return made


def test_on_ray_as_in_one_process_but_for_a_clip_that_kills(ray, checkpoint, folder, tmp_path):
    killer = tmp_path / "killer.mp4"
    killer.write_bytes((folder / "both.mp4").read_bytes())
    tasks, deadly = tasks_of(folder), Task(path=str(killer), question="What?")
    recipe = recipe_of(checkpoint)
    expected = told(run(recipe.asker(), jobs_of(tasks, MediaOptions())))
    bad = DeadlyRecipe(loading=recipe.loading, selection=recipe.selection, generation=recipe.generation)
    jobs = jobs_of([*tasks[:2], deadly, *tasks[2:]], MediaOptions())
    found = told(cluster.run_on_ray(bad, jobs, decoders=None))
    assert found.pop(deadly) == ("SeatsError", "the worker that it was given to died, twice")
    assert found == expected
    assert ray.is_initialized()


def test_what_every_actor_fails_at_is_one_error(ray, checkpoint, folder):
    asked = [Task(path=str(folder / "both.mp4"), question="<|im_end|>", place="rows.csv:3")]
    with pytest.raises(UsageError, match=r"^rows\.csv:3: "):
        list(cluster.run_on_ray(recipe_of(checkpoint), jobs_of(asked, MediaOptions()), decoders=1))


def test_a_model_that_is_not_there_is_told_by_the_actor_that_lacks_it(folder, tmp_path):
    recipe = recipe_of(tmp_path / "nothing-here")
    (job,) = jobs_of(tasks_of(folder)[:1], MediaOptions())
    row = cluster.Decoder(recipe.loading, None)({"job": [pickle.dumps(job)]})
    found = pickle.loads(cluster.Answerer(recipe, [])(row)["outcomes"][0])
    assert isinstance(found, ModelError)
    assert "nothing-here" in str(found)


def ask(checkpoint, folder, answers) -> subprocess.CompletedProcess[str]:
    env = environment()
    env.pop("RAY_ADDRESS", None)
    command = [*RUN, "ask", str(folder), "What?", "-m", str(checkpoint), "--device", "cpu", "-o", str(answers)]
    return subprocess.run(
        [*command, "--max-new-tokens", "4", "--engine", "ray"],
        capture_output=True,
        text=True,
        env=env,
        timeout=300,
        check=False,
    )


def test_the_command_on_ray_and_its_resume(checkpoint, folder, tmp_path):
    """One cluster for the first run; the second has nothing to ask, and begins none."""
    answers = tmp_path / "answers.jsonl"
    first = ask(checkpoint, folder, answers)
    assert first.returncode == 6, first.stderr
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    paths = [line["media"]["path"] for line in lines if line.get("error") is None]
    assert sorted(map(os.path.basename, paths)) == ["both.mp4", "hurt.mp4", "picture.mp4", "sound.m4a"]
    assert len(lines) == 5
    foreign = [line for line in first.stderr.splitlines() if not line.startswith(("seats: ", "  hint: "))]
    assert foreign == []
    again = ask(checkpoint, folder, answers)
    assert again.returncode == 6
    assert "5 skipped" in again.stderr
    assert [json.loads(line) for line in answers.read_text().splitlines()] == lines

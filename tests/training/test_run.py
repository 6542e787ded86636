"""The whole training in small: clips, both stages, a checkpoint that answers; and going on after Ctrl-C."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seats_cli.api import Seats
from seats_cli.training import __main__ as program
from seats_cli.training import language
from seats_cli.training.model import hub_name
from seats_cli.training.pool import PoolSpec
from seats_cli.training.run import LanguageStage, Recipe, Run
from seats_cli.world.clips import write_scene

TINY = Recipe(
    pools={"a": PoolSpec(1001, 3, 4, 4)},
    held_out=PoolSpec(4001, 1, 4, 4),
    encoder_pools=("a",),
    encoder_steps=1,
    language=(LanguageStage(("a",), 10_000, 1, 1e-3, 900, 3), LanguageStage(("a",), 10_000, 2, 1e-3, 900, 3)),
)


class StopError(Exception):
    """Someone has pressed Ctrl-C."""


def quiet(_: str) -> None:
    pass


def new_run(folder: Path, log: Callable[[str], None] = quiet) -> Run:
    """A run whose heads begin with the same weights as another's."""
    torch.manual_seed(6)
    return Run(folder, TINY, log)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run = new_run(folder)
    run.make_clips(workers=1)
    assert run.go(seconds=1e9)
    return folder, run


def test_a_run_ends_in_a_checkpoint_that_answers(done, tmp_path):
    folder, run = done
    scene, quality = PoolSpec(1, 1, 4, 4).scene(0)
    write_scene(tmp_path / "clip.mp4", scene, quality)
    seats = Seats(str(folder / "checkpoint"), device="cpu", offline=True)
    report = seats.ask(tmp_path / "clip.mp4", "How many things are shown?")
    assert report.answer_tokens > 0
    weights = load_file(folder / "checkpoint" / "model.safetensors")
    state = run.thinker.state_dict()
    assert set(weights) == {hub_name(name) for name in state}
    assert all(torch.equal(weights[hub_name(name)], value.half()) for name, value in state.items())


def test_a_run_that_was_stopped_goes_on_to_the_same_checkpoint(done, tmp_path):
    folder, _ = done
    (tmp_path / "clips").symlink_to(folder / "clips")

    def stop(line: str) -> None:
        if "encoding" in line:
            raise StopError

    with pytest.raises(StopError):
        new_run(tmp_path, stop).go(seconds=1e9)
    again = new_run(tmp_path)
    assert again.state["stage"] == 1
    assert not again.go(seconds=0)
    assert again.go(seconds=1e9)
    one, other = (path / "checkpoint" / "model.safetensors" for path in (folder, tmp_path))
    assert one.read_bytes() == other.read_bytes()


def test_a_run_can_begin_with_finished_encoders(done, tmp_path):
    folder, _ = done
    run = Run(tmp_path, TINY, quiet, encoders=str(folder / "checkpoint"))
    assert run.state["stage"] == 1
    weights = load_file(folder / "checkpoint" / "model.safetensors")
    same = {
        name: torch.equal(weights[hub_name(name)].float(), value)
        for name, value in run.thinker.state_dict().items()
        if value.ndim > 1
    }
    encoders = {name for name in same if "visual." in name or "audio_tower." in name}
    assert encoders == {name for name, alike in same.items() if alike}
    # What the run remembers counts for more, and that is said.
    said = []
    assert Run(folder, TINY, said.append, encoders="nowhere").state["stage"] == 3
    assert said == [f"--encoders nowhere is not used: this run goes on from {folder / 'state.pt'}"]


def test_a_run_that_is_done_stays_done(done):
    folder, _ = done
    before = (folder / "checkpoint" / "model.safetensors").read_bytes()
    assert new_run(folder).go(seconds=1e9)
    assert (folder / "checkpoint" / "model.safetensors").read_bytes() == before


def test_the_program_says_whether_it_is_done(done, monkeypatch, capsys):
    monkeypatch.setattr(program, "Recipe", lambda: TINY)
    threads = torch.get_num_threads()
    assert program.main([str(done[0]), "--minutes", "1", "--workers", "1", "--threads", str(threads)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"done: {done[0] / 'checkpoint'}"


def test_ctrl_c_is_saved_and_is_130(done, tmp_path, monkeypatch, capsys):
    """In the second step of the last stage: it is finished, and going on gives the same bits."""
    folder, _ = done
    (tmp_path / "clips").symlink_to(folder / "clips")
    monkeypatch.setattr(program, "Recipe", lambda: TINY)
    monkeypatch.setattr(program, "Run", lambda folder, _, log, __: new_run(folder, log))
    real, steps = language._learn, []

    def learn(*arguments):
        steps.append(1)
        if len(steps) == 2:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(language, "_learn", learn)
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        arguments = [str(tmp_path), "--workers", "1", "--threads", str(torch.get_num_threads())]
        assert program.main(arguments) == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, ours)
    shown = capsys.readouterr()
    assert shown.err == "interrupted: run the same command again to go on\n"
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert (state["stage"], state["step"]) == (2, 1)
    assert program.main(arguments) == 0
    one, other = (path / "checkpoint" / "model.safetensors" for path in (folder, tmp_path))
    assert one.read_bytes() == other.read_bytes()


def test_ctrl_c_outside_of_steps_is_130_too(tmp_path, monkeypatch, capsys):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "Recipe", lambda: TINY)
    monkeypatch.setattr(Run, "make_clips", interrupted)
    assert program.main([str(tmp_path), "--threads", str(torch.get_num_threads())]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_the_help_says_what_the_minutes_are(capsys):
    with pytest.raises(SystemExit):
        program.main(["--help"])
    assert "of training steps" in " ".join(capsys.readouterr().out.split())


def test_the_recipes_pools_share_no_clip_and_leave_low_seeds_to_evaluation():
    recipe = Recipe()
    specs = [*recipe.pools.values(), recipe.held_out]
    assert min(spec.seed for spec in specs) >= 1000
    assert len({spec.seed for spec in specs}) == len(specs)
    assert {name for stage in recipe.language for name in stage.pools} <= set(recipe.pools)
    assert set(recipe.encoder_pools) <= set(recipe.pools)
    assert dataclasses.replace(recipe) == recipe

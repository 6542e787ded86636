"""``seats profile``: computed and measured, on a clip and on made-up frames, and what it says it ran."""

from __future__ import annotations

import json
import shutil

import pytest

from seats_cli import ProfileReport
from seats_cli.models.qwen2_5_omni import Qwen25Omni
from tests.cli.conftest import N_LAYERS
from tests.cli.contract import MEDIA, PROFILE, check
from tests.tiny import tiny_config

SEVEN = "Qwen/Qwen2.5-Omni-7B"
SMALL = ("--frames", "4", "--seconds", "2", "--runs", "1", "--warmup", "0")


@pytest.fixture
def tiny_names(monkeypatch):
    """The known name and the stand-in, as small as tests want them."""
    config = tiny_config(n_layers=N_LAYERS).thinker_config.to_dict()
    monkeypatch.setattr(Qwen25Omni, "named", {SEVEN: config})
    monkeypatch.setattr(Qwen25Omni, "stand_in", ("stand-in of 8 layers", config))


@pytest.fixture
def no_gpu(monkeypatch):
    """Tests of what happens without one hold on a machine that has one too."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def found_in(ended):
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    check(found, PROFILE)
    assert ProfileReport.from_json(ended.out).to_json() + "\n" == ended.out
    return found


def test_the_paper_s_workload_computed_for_the_7b(seats):
    found = found_in(seats("profile", "--analytic", "--json"))
    assert found["model"]["id"] == SEVEN
    assert found["model"]["weights"] == "none"
    assert found["media"] is None
    work = found["workload"]
    assert (work["source"], work["frames"], work["grids"], work["tokens_per_grid"]) == ("synthetic", 128, 64, 144)
    assert (work["text_tokens"], work["video_tokens"], work["audio_tokens"]) == (80, 9216, 1600)
    settings = {setting["selection"]["trr"]: setting for setting in found["settings_measured"]}
    assert list(settings) == [1.0, 0.35, 0.25, 0.15, 0.1]
    reductions = [setting["flops"]["paper"]["reduction"] for setting in settings.values()]
    assert reductions == sorted(reductions)
    assert reductions[0] == 1
    assert reductions[-1] >= 11
    for ratio, setting in settings.items():
        assert setting["selection"]["achieved_trr"] == pytest.approx(ratio, abs=0.005)
        assert set(setting["seconds"].values()) == {None}


def test_the_table_is_what_stdout_gets(seats):
    ended = seats("profile", "--analytic", "--trr", "0.1")
    assert ended.err == ""
    assert "fewer" in ended.out
    assert "layers 0-15" in ended.out
    assert "nothing was run" in " ".join(ended.out.split())


def test_analytic_takes_a_schedule_and_a_pair_of_ratios(seats):
    pair = ("--video-trr", "0.06", "--audio-trr", "0.35", "--schedule", "16,18,20,24")
    found = found_in(seats("profile", "--analytic", "--json", *pair))
    full, setting = found["settings_measured"]
    assert full["label"] == "full"
    assert setting["label"] == "seats R_v=0.06 R_a=0.35"
    assert setting["selection"]["trr"] is None
    assert (setting["selection"]["video_trr"], setting["selection"]["audio_trr"]) == (0.06, 0.35)
    assert setting["selection"]["drop_before_layer"] == [16, 18, 20, 24]
    layers = setting["tokens"]["per_layer"]
    assert [layer["video"] + layer["audio"] for layer in layers[24:]] == [0] * 4
    assert layers[23]["video"] > 0


@pytest.mark.parametrize(
    ("arguments", "label", "drops"),
    [
        (("--stages", "1"), "seats R=0.9 stages=1", []),
        (("--stages", "12"), "seats R=0.9 stages=12", [16, 18, 20]),
        (("--method", "random", "--selection-seed", "2"), "random R=0.9 selection-seed=2", []),
    ],
)
def test_analytic_of_what_leaves_the_late_layers_their_tokens(seats, arguments, label, drops):
    found = found_in(seats("profile", "--analytic", "--json", "--trr", "0.9", *arguments))
    setting = found["settings_measured"][1]
    assert setting["label"] == label
    assert setting["selection"]["drop_before_layer"] == found["schedule"]["drop_before_layer"] == drops
    assert setting["selection"]["achieved_trr"] == pytest.approx(0.9, abs=0.002)
    assert (setting["flops"]["selection_executed"] > 0) == ("--stages" in arguments)
    assert label in seats("profile", "--analytic", "--trr", "0.9", *arguments).out


def test_analytic_on_a_clip_and_a_folder_without_weights(seats, checkpoint, clips, tmp_path):
    shutil.copy(checkpoint / "config.json", tmp_path)
    found = found_in(seats("profile", clips / "silent.mp4", "--analytic", "--json", "-m", tmp_path, "-R", "0.2"))
    check(found["media"], MEDIA)
    assert found["media"]["path"] == str(clips / "silent.mp4")
    assert found["media"]["frames"] == found["workload"]["frames"] == 8
    assert found["workload"]["source"] == "clip"
    assert found["workload"]["audio_tokens"] == 0
    assert found["schedule"]["layers"] == N_LAYERS
    assert any("no audio track" in warning for warning in found["warnings"])


def test_ratios_are_measured_once_each(seats):
    found = found_in(seats("profile", "--analytic", "--json", "--trr", "0.2", "--trr", "0.2", "--trr", "1"))
    assert [setting["label"] for setting in found["settings_measured"]] == ["full", "seats R=0.2", "seats R=1"]


def test_measured_on_a_clip_beside_stock_transformers(seats, checkpoint, clips):
    arguments = (clips / "clip.mp4", "-m", checkpoint, "--device", "cpu", "--stock", "--runs", "2", "--trr", "0.2")
    ended = seats("profile", *arguments, "--json")
    found = found_in(ended)
    check(found["media"], MEDIA)
    assert [setting["label"] for setting in found["settings_measured"]] == [
        "full",
        "seats R=0.2",
        "stock transformers",
    ]
    assert found["runs"] == 2
    assert found["note"] == ""
    assert found["model"]["weights"] == "checkpoint"
    for setting in found["settings_measured"]:
        assert setting["seconds"]["prefill"] > 0
        low, high, iqr = setting["spread"]["prefill"]
        assert low <= setting["seconds"]["prefill"] <= high
        assert 0 <= iqr <= high - low
        assert setting["speedup"]["prefill"] > 0
    full, pruned, stock = found["settings_measured"]
    assert full["tokens"] == stock["tokens"]
    assert pruned["flops"]["paper"]["reduction"] > 1
    assert ended.err.splitlines() == [f"seats: round {i} of 3" for i in (1, 2, 3)]


def test_random_weights_of_a_known_name(seats, tiny_names):
    arguments = ("profile", *SMALL, "--weights", "random", "--device", "cpu", "--trr", "0.2")
    ended = seats(*arguments)
    assert ended.code == 0
    assert f"random weights of {SEVEN}'s dimensions" in " ".join(ended.out.split())
    assert "random weights" in ended.err
    ended = seats(*arguments, "--quiet", "--json")
    assert ended.err == ""
    found = found_in(ended)
    assert found["model"]["weights"] == "random"
    assert found["model"]["id"] == SEVEN
    assert found["workload"]["frames"] == 4
    assert found["workload"]["tokens_per_grid"] == 144


def test_without_a_gpu_random_weights_are_those_of_a_stand_in(seats, tiny_names, no_gpu):
    found = found_in(seats("profile", *SMALL, "--weights", "random", "--trr", "0.2", "--json"))
    assert found["model"]["id"] == "stand-in of 8 layers"
    assert found["note"].startswith(f"measured on a stand-in of 8 layers, random weights, instead of {SEVEN}: ")
    assert "there is no GPU here" in found["note"]


def test_without_a_gpu_and_without_the_model_it_says_what_it_ran_and_why(seats, tiny_names, no_gpu):
    ended = seats("profile", *SMALL, "--trr", "0.2", "--json", "--offline")
    note = found_in(ended)["note"]
    assert "stand-in of 8 layers" in note
    assert f"instead of {SEVEN}: there is no GPU here, and its weights are not in the cache" in note
    assert f"seats: {note}" in ended.err.splitlines()


def test_a_model_that_is_not_known_has_no_stand_in(seats, tiny_names, no_gpu):
    ended = seats("profile", *SMALL, "--model", "some/model", "--offline")
    assert ended.code == 4
    assert ended.hint == "fetch it with: hf download some/model"


def test_with_a_gpu_and_without_the_model_it_takes_random_weights(monkeypatch, tiny_names):
    import torch

    from seats_cli.cli.workload import load_for_profile
    from seats_cli.config import ModelOptions
    from seats_cli.models import loading

    built = []
    monkeypatch.setattr(loading, "choose_device", lambda *_: torch.device("cuda:0"))
    monkeypatch.setattr(loading, "build_random", lambda options, *_: built.append(options))
    _, note = load_for_profile(ModelOptions(offline=True))
    assert [options.weights for options in built] == ["random"]
    assert note.startswith(f"random weights of {SEVEN}'s dimensions")
    assert "not in the cache" in note


@pytest.mark.parametrize("all_of_it", [("--method", "full"), ("--trr", "1")])
def test_a_profile_of_all_tokens_names_no_drops(seats, all_of_it):
    ended = seats("profile", "--analytic", *all_of_it, "--json")
    assert json.loads(ended.out)["schedule"] == {
        "layers": 28,
        "drop_before_layer": [],
        "scale": 1.0,
        "temperature": None,
    }
    assert "drops before" not in seats("profile", "--analytic", *all_of_it).out

"""Every family through the command line: a checkpoint in the published format, asked about files of each kind."""

from __future__ import annotations

import json

import pytest
import torch

from seats_cli.models import FAMILIES
from tests import tiny, tiny_qwen3

MODULES = {module.MODEL_TYPE: module for module in (tiny, tiny_qwen3)}


@pytest.fixture(scope="module", params=MODULES)
def folder(request, tmp_path_factory):
    module = MODULES[request.param]
    return module.write_tiny_checkpoint(tmp_path_factory.mktemp("family"), dtype=torch.float32, seed=3)


def test_every_family_is_tried():
    assert set(MODULES) == set(FAMILIES)


def test_it_answers_from_a_file(seats, clips, folder):
    given = ["ask", clips / "clip.mp4", "What is seen?", "-m", folder, "--device", "cpu", "--max-new-tokens", 8]
    ended = seats(*given, "--trr", 0.3, "--json")
    assert ended.code == 0, ended.err
    report = json.loads(ended.out)
    tokens, per_layer = report["tokens"], report["tokens"]["per_layer"]
    assert min(tokens["video"], tokens["audio"]) > 0
    assert per_layer[0]["video"] < tokens["video"]
    assert per_layer[-1]["video"] == per_layer[-1]["audio"] == 0
    assert report["selection"]["achieved_trr"] == pytest.approx(0.3, abs=0.03)
    assert report["answer_tokens"] >= 1
    # The same again, and with every token: the engine, not chance, writes it.
    assert json.loads(seats(*given, "--trr", 0.3, "--json").out)["answer"] == report["answer"]
    whole = json.loads(seats(*given, "--trr", 1, "--json").out)
    assert whole["tokens"]["per_layer"][-1]["video"] == tokens["video"]
    assert whole["flops"]["executed"]["pruned"] > report["flops"]["executed"]["pruned"]


def test_the_analytic_profile_agrees_with_the_answer(seats, clips, folder):
    """The same clip, without weights: tokens per layer and encoder FLOPs."""
    asked = json.loads(
        seats("ask", clips / "clip.mp4", "What?", "-m", folder, "--device", "cpu", "--trr", 0.3, "--json").out
    )
    text = asked["tokens"]["text"]
    ended = seats(
        *("profile", clips / "clip.mp4", "--analytic", "-m", folder, "--trr", 0.3, "--text-tokens", text, "--json")
    )
    assert ended.code == 0, ended.err
    setting = json.loads(ended.out)["settings_measured"][-1]
    assert [sum(layer[k] for k in ("text", "video", "audio")) for layer in setting["tokens"]["per_layer"]] == [
        sum(layer[k] for k in ("text", "video", "audio")) for layer in asked["tokens"]["per_layer"]
    ]
    assert setting["flops"]["paper"] == asked["flops"]["paper"]
    assert setting["flops"]["encoders_executed"] == asked["flops"]["encoders_executed"]
    levels = setting["selection"]["video_levels"]
    assert levels == asked["selection"]["video_levels"]
    assert levels["levels"][0] == pytest.approx(1.4 * setting["selection"]["video_trr"])


def test_the_measured_profile_runs_and_the_stock_model_agrees(seats, folder):
    ended = seats(
        *("profile", "-m", folder, "--device", "cpu", "--frames", 8, "--seconds", 4, "--trr", 0.3),
        *("--runs", 1, "--warmup", 0, "--stock", "--json"),
    )
    assert ended.code == 0, ended.err
    labels = [setting["label"] for setting in json.loads(ended.out)["settings_measured"]]
    assert len(labels) == 3


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-Omni-3B", "Qwen/Qwen3-Omni-30B-A3B-Instruct"])
def test_named_schedules(seats, name):
    """Published where it is; for the 3B, of 36 layers, by depth."""
    found = json.loads(seats("profile", "--analytic", "-m", name, "--json").out)
    expected = {36: [21, 23, 26, 30], 48: [27, 31, 35, 39]}
    assert found["schedule"]["drop_before_layer"] == expected[found["schedule"]["layers"]]
    shown = seats("profile", "--analytic", "-m", name, "--trr", 0.1).out
    for part in ("drops before layers", "delta", "levels of video", "levels of audio", "GFLOPs a layer"):
        assert part in shown

"""``seats plan``: what is said of a clip beforehand, against what ``seats ask`` and ``profile`` say."""

from __future__ import annotations

import json
import shutil

import pytest

from seats_cli.engine import room
from seats_cli.planning import PlanReport, PlanTotal
from tests.cli.contract import MEDIA, PLAN, PLAN_TOTAL, check
from tests.cli.test_help import probe as run_probe
from tests.media.clips import even_times, tone, write_video

SEVEN = "Qwen/Qwen2.5-Omni-7B"
QUESTION = "What is seen?"
CPU = ("--device", "cpu")
QUICK = (*CPU, "--no-time")


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """A film whose packets of sound tell its length to the sample: aac pads the last, and may be a token off."""
    path = tmp_path_factory.mktemp("exact") / "film.mkv"
    return write_video(path, even_times(4, 10), sound=tone(4), sound_codec="pcm_s16le")


@pytest.fixture
def much_memory(monkeypatch):
    """Tests of what fits do not depend on the machine."""
    monkeypatch.setattr(room, "_cpu_bytes", lambda: 1 << 40)


@pytest.fixture
def little_memory(monkeypatch):
    """Room for the tests' model, and not for much more."""
    monkeypatch.setattr(room, "_cpu_bytes", lambda: 20 << 30)


def planned(ended):
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    check(found, PLAN)
    assert PlanReport.from_json(ended.out).to_json() + "\n" == ended.out
    return found


@pytest.mark.parametrize("name", ["film.mkv", "silent.mp4", "sound.m4a"])
@pytest.mark.parametrize("trr", ["1", "0.2"])
def test_it_says_beforehand_what_ask_says_afterwards(seats, checkpoint, clips, exact, name, trr, much_memory):
    path = exact if name == exact.name else clips / name
    model = ("-m", checkpoint, *CPU, "--trr", trr)
    found = planned(seats("plan", path, *model, "--no-time", "--question", QUESTION, "--json"))
    asked = json.loads(seats("ask", path, QUESTION, *model, "--max-new-tokens", "2", "--json").out)
    # Of both modalities together: within a layer Stage II moves tokens from one to the other.
    assert totals(found) == totals(asked)
    assert found["flops"]["paper"] == asked["flops"]["paper"]
    assert found["flops"]["executed"]["full"] == asked["flops"]["executed"]["full"]
    assert found["selection"] == asked["selection"]
    seen = {key: found["media"][key] for key in MEDIA if key != "seconds_audio"}
    assert seen == {key: asked["media"][key] for key in seen}
    assert found["media"]["seconds_audio"] == pytest.approx(asked["media"]["seconds_audio"], abs=0.07)
    assert found["text_counted"] == "tokenizer"
    assert found["command"] == "plan"
    assert found["warnings"] == asked["warnings"]


def totals(report):
    tokens = report["tokens"]
    layers = [(layer["text"], layer["video"] + layer["audio"]) for layer in tokens["per_layer"]]
    return tokens["text"], tokens["video"], tokens["audio"], layers


def test_flops_are_those_of_an_analytic_profile(seats, exact):
    options = ("--json", "--trr", "0.1", "--text-tokens", "120")
    found = planned(seats("plan", exact, *QUICK, *options))
    profile = json.loads(seats("profile", exact, "--analytic", *options).out)
    setting = profile["settings_measured"][1]
    assert found["flops"] == setting["flops"]
    assert found["tokens"] == setting["tokens"]
    assert found["tokens"]["text"] == 120
    assert found["text_counted"] == "given"
    assert found["model"]["id"] == SEVEN
    assert found["model"]["weights"] == "none"


def test_the_memory_s_parts_make_its_sum(seats, clips, much_memory):
    found = planned(seats("plan", clips / "clip.mp4", *QUICK, "--json"))
    memory = found["memory"]
    assert memory["least"] == memory["weights"] + memory["embeddings"] + memory["kv_cache"]
    assert memory["weights"] == memory["weights_decoder"] + memory["weights_encoders"]
    assert memory["least"] < memory["expected"]
    assert (memory["available"], memory["fits"]) == (1 << 40, True)
    half = planned(seats("plan", clips / "clip.mp4", *QUICK, "--json", "--dtype", "bfloat16"))
    assert half["memory"]["weights"] * 2 == memory["weights"]
    assert half["model"]["dtype"] == "bfloat16"


def test_times_are_measured_unless_they_are_not_wanted(seats, clips):
    found = planned(seats("plan", clips / "clip.mp4", *CPU, "--json", "--max-new-tokens", "10"))
    seconds, rates = found["seconds"], found["rates"]
    stages = ("decode", "encode", "select", "prefill")
    assert seconds["first_token"] == pytest.approx(sum(seconds[stage] for stage in stages))
    assert seconds["answer"] == pytest.approx(seconds["first_token"] + 10 * seconds["answer_token"])
    assert min(rates.values()) > 0
    for flag in ("--no-time", "--quick"):
        quick = planned(seats("plan", clips / "clip.mp4", *CPU, flag, "--json"))
        assert quick["seconds"] is quick["rates"] is None
        assert quick["tokens"] == found["tokens"]


def test_to_plan_without_times_for_the_cpu_imports_nothing_that_computes(clips):
    _, imported = run_probe("plan", str(clips / "clip.mp4"), *QUICK)
    assert not set(imported.split()) & {"torch", "torchvision", "transformers", "huggingface_hub"}


def test_the_table_of_one_clip(seats, clips, much_memory):
    ended = seats("plan", clips / "clip.mp4", *CPU)
    assert ended.code == 0
    assert ended.err == ""
    for words in ("layers 0-15", "weights", "keys and values", "at least", "there is", "first token", "rough"):
        assert words in " ".join(ended.out.split())
    quick = seats("plan", clips / "clip.mp4", *QUICK).out
    assert "first token" not in quick
    assert "rough" not in quick


def test_memory_that_will_not_do_is_a_warning_with_the_way_out(seats, clips, little_memory):
    ended = seats("plan", clips / "clip.mp4", *QUICK, "--json")
    found = planned(ended)
    assert found["memory"]["fits"] is False
    (warning,) = found["warnings"]
    assert warning.startswith(f"the weights of {SEVEN} need ")
    assert "--dtype bfloat16" in warning
    assert planned(seats("plan", clips / "clip.mp4", *QUICK, "--json", "--dtype", "bfloat16"))["memory"]["fits"]
    assert "warning: the weights of" in " ".join(seats("plan", clips / "clip.mp4", *QUICK).out.split())


def test_a_clip_that_does_not_fit_beside_the_weights(seats, clips, monkeypatch):
    half = ("--dtype", "bfloat16", "--json", "--method", "full")
    memory = planned(seats("plan", clips / "clip.mp4", *QUICK, *half))["memory"]
    monkeypatch.setattr(room, "_cpu_bytes", lambda: memory["least"] - 1)
    found = planned(seats("plan", clips / "clip.mp4", *QUICK, *half))
    (warning,) = found["warnings"]
    assert "needs at least" in warning
    assert "--method seats --trr" in warning
    monkeypatch.setattr(room, "_cpu_bytes", lambda: memory["expected"] - 1)
    (warning,) = planned(seats("plan", clips / "clip.mp4", *QUICK, *half))["warnings"]
    assert warning.startswith("memory may run out")


def test_with_a_map_that_parks_weights_memory_is_not_looked_at(seats, clips, little_memory, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = planned(seats("plan", clips / "clip.mp4", "--no-time", "--device-map", "auto", "--json"))
    assert (found["memory"]["available"], found["memory"]["fits"]) == (None, None)
    assert found["model"]["device"] == "auto"
    assert found["warnings"] == []


def test_positions_past_those_trained_on_are_a_warning(seats, checkpoint, clips, tmp_path, much_memory):
    shutil.copytree(checkpoint, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["thinker_config"]["text_config"]["max_position_embeddings"] = 100
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    found = planned(seats("plan", clips / "clip.mp4", *QUICK, "-m", tmp_path / "model", "--json"))
    (warning,) = found["warnings"]
    assert "past the 100 the model was trained on" in warning
    assert "--start/--end" in warning


def test_what_is_cut_is_told(seats, clips, much_memory):
    found = planned(seats("plan", clips / "clip.mp4", *QUICK, "--end", "60", "--json"))
    assert any("--end 60 s is beyond the end" in warning for warning in found["warnings"])
    silent = planned(seats("plan", clips / "silent.mp4", *QUICK, "--json"))
    assert any("no audio track" in warning for warning in silent["warnings"])


def test_a_question_whose_tokenizer_is_not_here_is_counted_by_its_length(seats, clips, much_memory):
    short, long = (
        planned(seats("plan", clips / "clip.mp4", *QUICK, "--question", "What? " * n, "--json")) for n in (1, 100)
    )
    assert short["text_counted"] == long["text_counted"] == "rough"
    assert long["tokens"]["text"] > short["tokens"]["text"] + 100
    assert any("guess" in warning for warning in short["warnings"])


def test_several_are_a_line_each_and_a_total(seats, checkpoint, clips, much_memory):
    names = ("clip.mp4", "silent.mp4", "sound.m4a")
    ended = seats("plan", *(clips / name for name in names), "-m", checkpoint, *CPU, "--json", "--quiet")
    assert ended.code == 0
    assert ended.err == ""
    *lines, last = ended.out.splitlines()
    plans = [planned_line(line) for line in lines]
    assert [plan["media"]["path"] for plan in plans] == [str(clips / name) for name in names]
    total = json.loads(last)
    check(total, PLAN_TOTAL)
    assert PlanTotal.from_json(last).to_json() == last
    assert (total["command"], total["clips"], total["failed"]) == ("plan-total", 3, 0)
    assert total["frames"] == sum(plan["media"]["frames"] for plan in plans)
    assert total["paper_pruned"] == sum(plan["flops"]["paper"]["pruned"] for plan in plans)
    assert total["expected_bytes"] == max(plan["memory"]["expected"] for plan in plans)
    assert total["seconds_answer"] == pytest.approx(sum(plan["seconds"]["answer"] for plan in plans))
    alone = json.loads(seats("plan", clips / "clip.mp4", "-m", checkpoint, *QUICK, "--json").out)
    assert {key: plans[0][key] for key in ("tokens", "flops", "memory")} == {
        key: alone[key] for key in ("tokens", "flops", "memory")
    }


def planned_line(line):
    found = json.loads(line)
    check(found, PLAN)
    return found


def test_several_in_a_table(seats, checkpoint, clips, much_memory):
    ended = seats("plan", clips / "clip.mp4", clips / "silent.mp4", "-m", checkpoint, *QUICK)
    assert ended.code == 0
    assert "2 clips" in ended.out
    assert ended.out.count(".mp4") == 2
    assert f"{clips / 'silent.mp4'}: no audio track" in " ".join(ended.err.split())


def test_one_that_cannot_be_read_is_named_and_passed_over(seats, checkpoint, clips):
    paths = (clips / "clip.mp4", clips / "text.mp4", clips / "none.mp4")
    ended = seats("plan", *paths, "-m", checkpoint, *QUICK, "--json")
    assert ended.code == 6
    good, bad, gone, total = map(json.loads, ended.out.splitlines())
    assert good["command"] == "plan"
    assert (bad["command"], bad["error"]["exit_code"]) == ("plan", 3)
    assert gone["media"]["path"] == str(clips / "none.mp4")
    assert (total["clips"], total["failed"]) == (3, 2)
    assert "2 of 3 clips failed" in ended.err
    assert seats("plan", *paths[1:], "-m", checkpoint, *QUICK).code == 6
    table = seats("plan", *paths, "-m", checkpoint, *QUICK)
    assert table.code == 6
    assert "cannot be read: 2 clips" in table.out


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_one_clip_alone_ends_with_its_own_code(seats, clips, as_json):
    for name in ("text.mp4", "none.mp4", "empty.mp4"):
        ended = seats("plan", clips / name, *QUICK, *as_json)
        assert ended.code == 3
        assert ended.complaint
        if as_json:
            assert json.loads(ended.out)["error"]["exit_code"] == 3
        else:
            assert ended.out == ""


def test_clips_come_in_all_the_ways_that_ask_takes(seats, checkpoint, clips, tmp_path):
    shutil.copy(clips / "clip.mp4", tmp_path / "a.mp4")
    (tmp_path / "in").mkdir()
    shutil.copy(clips / "silent.mp4", tmp_path / "in" / "b.mp4")
    model = ("-m", checkpoint, *QUICK, "--json", "--quiet")

    def paths(*arguments, **more):
        ended = seats("plan", *arguments, *model, **more)
        assert ended.code == 0, ended.err
        *lines, _ = ended.out.splitlines()
        return [json.loads(line)["media"]["path"] for line in lines]

    both = [str(tmp_path / "a.mp4"), str(tmp_path / "in" / "b.mp4")]
    assert paths(tmp_path) == both[:1]
    assert paths(tmp_path, "-r") == both
    assert paths(tmp_path / "*.mp4") == both[:1]
    assert paths("-", stdin="\n".join(both).encode()) == both
    assert paths("-0", stdin="\0".join(both).encode()) == both


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "give at least one clip"),
        (("",), "the path of a clip is empty"),
        (("clip.mp4", "--text-tokens", "2"), "--text-tokens is 2"),
        (("clip.mp4", "--question", " "), "the question is empty"),
        (("clip.mp4", "--question", "a", "--text-tokens", "20"), "say the same"),
        (("clip.mp4", "--max-new-tokens", "0"), "--max-new-tokens is 0"),
        (("clip.mp4", "--trr", "2"), "--trr is 2"),
    ],
)
def test_what_cannot_be_is_one_line(seats, clips, monkeypatch, arguments, complaint):
    monkeypatch.chdir(clips)
    ended = seats("plan", *arguments, *QUICK)
    assert ended.code == 2
    assert complaint in ended.complaint
    assert ended.out == ""


def test_a_schedule_that_cannot_be_is_refused_before_any_clip(seats, clips):
    ended = seats("plan", clips / "clip.mp4", clips / "silent.mp4", *QUICK, "--schedule", "1,2,3,99")
    assert ended.code == 2
    assert ended.out == ""
    assert ended.complaint


def test_experts_that_are_not_quantised_are_told(seats, clips, much_memory):
    model = "Qwen/Qwen3-Omni-30B-A3B-Instruct"
    found = planned(seats("plan", clips / "clip.mp4", *QUICK, "-m", model, "--quant", "bnb-4bit", "--json"))
    assert any("does not reach the experts" in warning for warning in found["warnings"])

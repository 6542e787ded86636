"""The JSON contract: its keys, its documentation, its strictness, and the way back."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seats_cli.cli.answers import LEAD, Asked, Content, Stamp, failure, line_of
from seats_cli.config import GenerationOptions, MediaOptions, SelectionOptions
from seats_cli.cost import Flops
from seats_cli.errors import InterruptedRunError, MediaError, SeatsError, SomeFailedError
from seats_cli.planning import MemoryInfo, PlannedSeconds, PlanReport, Rates, total_of
from seats_cli.report import (
    Choice,
    FlopsInfo,
    LayerTokens,
    LevelsInfo,
    MediaInfo,
    ModelInfo,
    ProfileReport,
    Report,
    ScheduleInfo,
    Seconds,
    SelectionInfo,
    SettingReport,
    Speedup,
    Spread,
    StageOne,
    TokenCounts,
    Versions,
    Workload,
)
from seats_cli.tasks import Task

DOCS = Path(__file__).parents[1] / "docs" / "report.md"
LEVELS = [(0, 72, 56), (0, 72, 56), (0, 21, 17), (0, 0, 0)]

MODEL = ModelInfo(
    id="Qwen/Qwen2.5-Omni-7B",
    revision="ae9e1690",
    weights="checkpoint",
    dtype="bfloat16",
    device="cuda:0",
    attention="sdpa",
)
MEDIA = MediaInfo(
    path="clip.mp4",
    seconds_video=10.0,
    seconds_audio=10.0,
    frames=20,
    fps=2.0,
    audio_track=True,
    width=504,
    height=280,
    grids=10,
    windows=5,
)
TOKENS = TokenCounts(
    text=80,
    video=1200,
    audio=400,
    per_layer=tuple(LayerTokens(layer=i, text=80, video=v, audio=a) for i, (_, v, a) in enumerate(LEVELS)),
)
SELECTION = SelectionInfo(
    method="seats",
    trr=0.1,
    video_trr=0.06,
    audio_trr=0.35,
    achieved_trr=TOKENS.achieved_trr,
    drop_before_layer=(2, 3),
    kv_cache="staged",
    stage_one=StageOne(video=72, audio=56),
    video_levels=LevelsInfo(levels=(0.084, 0.0781, 0.0621, 0.0185, 0.0), delta=0.0059),
    audio_levels=LevelsInfo(levels=(0.49, 0.4556, 0.3622, 0.1081, 0.0), delta=0.0344),
)
FLOPS = FlopsInfo(
    paper=Flops(12_000, 1_000),
    executed=Flops(24_000, 2_500),
    encoders_executed=9_000,
    selection_executed=500,
    paper_per_layer=(400, 400, 150, 50),
)
VERSIONS = Versions(seats="0.1.0", torch="2.15.0", transformers="5.23.0")
REPORT = Report(
    question="What is said?",
    answer="Nothing.",
    finish_reason="choice",
    answer_tokens=1,
    choices=(Choice(label="A", probability=0.75), Choice(label="B", probability=0.25)),
    model=MODEL,
    media=MEDIA,
    selection=SELECTION,
    tokens=TOKENS,
    flops=FLOPS,
    seconds=Seconds(decode=1.0, encode=0.5, select=0.1, prefill=0.25, first_token=1.9, answer=2.5),
    memory_bytes=17 * 1024**3,
    versions=VERSIONS,
    warnings=("the audio track ends 2 s early",),
)
PROFILE = ProfileReport(
    model=MODEL,
    media=MEDIA,
    workload=Workload(
        source="clip",
        frames=20,
        seconds=10.0,
        grids=10,
        tokens_per_grid=120,
        text_tokens=80,
        video_tokens=1200,
        audio_tokens=400,
    ),
    schedule=ScheduleInfo(layers=4, drop_before_layer=(2, 3), scale=1.4, temperature=0.1),
    runs=3,
    warmup=1,
    note="",
    settings_measured=(
        SettingReport(
            label="seats R=0.1",
            selection=SELECTION,
            tokens=TOKENS,
            flops=FLOPS,
            seconds=Seconds(prefill=0.25),
            spread={"prefill": Spread(0.2, 0.3, 0.05)},
            memory_bytes=17 * 1024**3,
            speedup=Speedup(prefill=4.0),
        ),
    ),
    versions=VERSIONS,
    warnings=("a warning",),
)
PLAN = PlanReport(
    model=replace(MODEL, weights="none"),
    media=MEDIA,
    selection=SELECTION,
    tokens=TOKENS,
    text_counted="given",
    flops=FLOPS,
    max_new_tokens=256,
    memory=MemoryInfo(
        weights=1000,
        weights_decoder=900,
        weights_encoders=100,
        embeddings=10,
        kv_cache=20,
        answer_room=5,
        libraries=0,
        peak_stage="prefill",
        least=1030,
        expected=1100,
        available=None,
        fits=None,
    ),
    seconds=PlannedSeconds(
        decode=1.0, encode=0.5, select=0.1, prefill=0.25, first_token=1.85, answer_token=0.02, answer=7.0
    ),
    rates=Rates(
        flops_per_second=1e12,
        bytes_per_second=1e11,
        pixels_per_second=None,
        encode_efficiency=0.4,
        prefill_efficiency=0.5,
        host_seconds_per_layer=4e-4,
    ),
    versions=VERSIONS,
)


def paths(value: Any, prefix: str = "") -> Iterator[str]:
    """Every key, as docs/report.md writes it."""
    if isinstance(value, dict):
        for key, item in value.items():
            path = f"{prefix}.{key}" if prefix else key
            yield path
            if key == "spread":
                yield f"{path}.<stage>"
            else:
                yield from paths(item, path)
    elif isinstance(value, list):
        for item in value:
            yield from paths(item, f"{prefix}[]")


def documented(section: str, heading: str = "## ", *, column: int = 1) -> dict[str, str]:
    """Key -> type, or another column, of one table of the docs."""
    text = re.split(r"\n#{2,3} ", DOCS.read_text(encoding="utf-8").split(f"\n{heading}`seats {section}`")[1])[0]
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]*)\| ([^|]+) \|$", text, flags=re.MULTILINE)
    assert len(rows) == len([line for line in text.splitlines() if line.startswith("| `")])
    assert len({key for key, *_ in rows}) == len(rows)
    return {row[0]: row[column] for row in rows}


def test_ask_keys_and_documentation_agree() -> None:
    assert set(paths(json.loads(REPORT.to_json()))) == set(documented("ask"))


def test_keys_of_failures_and_of_lines_on_file_and_documentation_agree() -> None:
    task = Task(path="a.mp4", question="What?", id="7")
    row = failure(task, MediaError("a.mp4: no such file"))
    assert set(paths(row)) - {"id"} == set(documented("ask", "### "))
    asked = Asked({"id": "tiny"}, MediaOptions(), SelectionOptions(), GenerationOptions())
    line = line_of(row, task, "k", Content("0", Stamp(1, 2, 3)), asked)
    lead = {path for path in paths(line) if path.split(".")[0] in (*LEAD, "id")}
    assert lead - {"options.model"} == set(documented("ask -o", "### "))
    assert next(iter(line)) == "key"


def test_every_kind_of_failure_is_documented() -> None:
    kinds = documented("ask", "### ", column=3)["error.kind"]
    end_all = {InterruptedRunError, SomeFailedError}
    told = {one.kind for one in (SeatsError, *SeatsError.__subclasses__()) if one not in end_all}
    assert set(re.findall("`([a-z]+)`", kinds)) == told


def with_those_of_ask(table: dict[str, str]) -> set[str]:
    """All keys of a table, those of objects that are "as in `ask`" included."""
    ask, expected = documented("ask"), set(table)
    for key, kind in table.items():
        if kind.startswith("as in `ask`"):
            name = key.rsplit(".", 1)[-1]
            expected |= {key + other.removeprefix(name) for other in ask if re.match(rf"{name}[.\[]", other)}
    return expected


def test_profile_keys_and_documentation_agree() -> None:
    assert set(paths(json.loads(PROFILE.to_json()))) == with_those_of_ask(documented("profile"))


def test_plan_keys_and_documentation_agree() -> None:
    assert set(paths(json.loads(PLAN.to_json()))) == with_those_of_ask(documented("plan"))
    assert set(paths(json.loads(total_of([PLAN], 1).to_json()))) == set(documented("plan", "### "))


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("model", "id revision weights dtype device attention"),
        ("media", "path seconds_video seconds_audio frames fps audio_track"),
        ("selection", "method trr video_trr audio_trr achieved_trr drop_before_layer kv_cache"),
        ("tokens", "text video audio per_layer"),
        ("flops", "paper executed"),
        ("seconds", "decode encode select prefill first_token answer"),
    ],
)
def test_contract_of_both_commands(path: str, keys: str) -> None:
    ask = json.loads(REPORT.to_json())
    setting = json.loads(PROFILE.to_json())["settings_measured"][0]
    assert {"schema_version", "answer", "memory_bytes", "warnings"} <= set(ask)
    assert {"memory_bytes", "spread"} <= set(setting)
    assert set(keys.split()) <= set(ask[path])
    if path not in {"model", "media"}:
        assert list(setting[path]) == list(ask[path])


@pytest.mark.parametrize(
    "kind", [("ask", REPORT), ("profile", PROFILE), ("plan", PLAN)], ids=["ask", "profile", "plan"]
)
def test_documented_types_hold(kind: tuple[str, Report | ProfileReport | PlanReport]) -> None:
    python = {
        "integer": int,
        "number": (int, float),
        "string": str,
        "boolean": bool,
        "object": dict,
        "list": list,
        "null": type(None),
        "as": dict,
    }
    value = json.loads(kind[1].to_json())
    for key, documented_type in documented(kind[0]).items():
        if "[]" in key or "<" in key:
            continue
        item: Any = value
        for part in key.split("."):
            item = item[part]
        allowed = [python[word.split()[0]] for word in re.split(r" or |, or ", documented_type)]
        assert any(isinstance(item, one) for one in allowed), key
        assert not isinstance(item, bool) or documented_type == "boolean", key


def test_schema_version_and_reduction() -> None:
    value = json.loads(REPORT.to_json())
    assert value["schema_version"] == 1
    assert value["command"] == "ask"
    assert value["flops"]["paper"] == {"full": 12_000, "pruned": 1_000, "reduction": 12.0}


@pytest.mark.parametrize("indent", [None, 2])
def test_round_trip(indent: int | None) -> None:
    assert Report.from_json(REPORT.to_json(indent)) == REPORT
    assert ProfileReport.from_json(PROFILE.to_json(indent)) == PROFILE
    assert PlanReport.from_json(PLAN.to_json(indent)) == PLAN


def test_round_trip_of_what_is_absent() -> None:
    bare = replace(
        REPORT,
        choices=(),
        media=replace(MEDIA, path=None, fps=None, width=None, height=None),
        selection=replace(SELECTION, trr=None, achieved_trr=None, drop_before_layer=(), stage_one=None),
        seconds=Seconds(),
        memory_bytes=None,
        warnings=(),
    )
    assert Report.from_json(bare.to_json()) == bare
    analytic = replace(PROFILE, media=None)
    assert ProfileReport.from_json(analytic.to_json()) == analytic


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), np.float32("nan")])
def test_what_is_not_finite_becomes_null(bad: float) -> None:
    text = replace(REPORT, seconds=Seconds(prefill=bad), flops=replace(FLOPS, paper=Flops(1, 0))).to_json()

    def refuse(word: str) -> None:
        raise AssertionError(word)

    value = json.loads(text, parse_constant=refuse)
    assert value["seconds"]["prefill"] is None
    assert value["flops"]["paper"]["reduction"] is None


def test_numbers_of_numpy_are_numbers() -> None:
    odd = replace(REPORT, memory_bytes=np.int64(7), seconds=Seconds(decode=np.float32(0.5), encode=np.float64(1)))
    value = json.loads(odd.to_json())
    assert value["memory_bytes"] == 7
    assert value["seconds"]["decode"] == 0.5
    assert value["media"]["audio_track"] is True


def test_text_is_not_escaped_but_stays_on_its_line() -> None:
    text = replace(REPORT, answer="Grüße, 世界 🎬\nzweite Zeile").to_json()
    assert "Grüße, 世界 🎬" in text
    assert "\n" not in text
    assert Report.from_json(text).answer == "Grüße, 世界 🎬\nzweite Zeile"


def test_file_name_that_is_not_text() -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    text = replace(REPORT, media=replace(MEDIA, path=name)).to_json()
    assert json.loads(text.encode("utf-8"))["media"]["path"] == r"caf\udce9.mp4"


@given(st.text(st.characters(exclude_categories=[])))
def test_any_string_makes_strict_utf8(answer: str) -> None:
    text = replace(REPORT, answer=answer).to_json()
    read = Report.from_json(text.encode("utf-8").decode("utf-8")).answer
    assert read == answer.encode("utf-8", "backslashreplace").decode("utf-8")


def test_unknown_keys_are_passed_over() -> None:
    value = json.loads(REPORT.to_json()) | {"later": 1}
    value["media"]["later"] = {"x": None}
    assert Report.from_json(json.dumps(value)) == REPORT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema_version 2; this version reads 1"),
        ({"answer": 3}, "answer is 3"),
        ({"memory_bytes": 1.5}, "memory_bytes is 1.5"),
        ({"memory_bytes": True}, "memory_bytes is True"),
        ({"model": []}, "model is []"),
        ({"media": {}}, "lacks media.path, media.seconds_video"),
        ({"choices": [{"label": 1, "probability": 0.5}]}, "choices[0].label is 1"),
    ],
)
def test_what_is_not_a_report_is_refused(change: dict[str, Any], message: str) -> None:
    text = json.dumps(json.loads(REPORT.to_json()) | change)
    with pytest.raises(SeatsError, match=re.escape(message)):
        Report.from_json(text)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null"])
def test_what_is_not_an_object_is_refused(text: str) -> None:
    with pytest.raises(SeatsError, match="the report"):
        Report.from_json(text)


def test_achieved_ratio_is_the_mean_over_layers() -> None:
    per_layer = [(72 + 56) / 1600, (72 + 56) / 1600, (21 + 17) / 1600, 0.0]
    assert TOKENS.achieved_trr == pytest.approx(sum(per_layer) / 4)
    assert (TOKENS.total, TOKENS.per_layer[2].total) == (1680, 118)
    assert replace(TOKENS, video=0, audio=0).achieved_trr is None
    assert replace(TOKENS, per_layer=()).achieved_trr is None


def test_speedup_compares_the_same_stages() -> None:
    full = Seconds(encode=2.0, select=0.0, prefill=4.0)
    pruned = Seconds(encode=2.0, select=0.5, prefill=0.5)
    assert Speedup.between(full, pruned) == Speedup(prefill=8.0, select_and_prefill=4.0, encode_and_prefill=2.0)
    assert Speedup.between(full, full) == Speedup(prefill=1.0, select_and_prefill=1.0, encode_and_prefill=1.0)


def test_speedup_of_what_was_not_measured_is_unknown() -> None:
    assert Speedup.between(Seconds(), Seconds()) == Speedup()
    assert Speedup.between(Seconds(prefill=1.0), Seconds(prefill=0.0)) == Speedup()
    assert Speedup.between(Seconds(prefill=4.0), Seconds(prefill=2.0, select=1.0)) == Speedup(prefill=2.0)


def test_a_total_adds_up_times_and_takes_the_largest_memory() -> None:
    larger = replace(PLAN, memory=replace(PLAN.memory, expected=2000, least=1040, fits=False), warnings=("one",))
    total = total_of([PLAN, larger], failed=3)
    assert (total.clips, total.failed, total.do_not_fit, total.warnings) == (5, 3, 1, 1)
    assert (total.frames, total.tokens) == (2 * MEDIA.frames, 2 * TOKENS.total)
    assert (total.least_bytes, total.expected_bytes) == (1040, 2000)
    assert total.seconds_answer == 14.0
    assert total_of([PLAN, replace(PLAN, seconds=None)], 0).seconds_answer is None
    assert total_of([], 1).expected_bytes is None

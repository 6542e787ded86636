"""Every rule of the options, and times as people write them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seats_cli import config
from seats_cli.config import (
    GenerationOptions,
    MediaOptions,
    ModelOptions,
    SelectionOptions,
    parse_max_memory,
    parse_seconds,
    parse_size,
)
from seats_cli.errors import UsageError

KINDS = (MediaOptions, SelectionOptions, GenerationOptions, ModelOptions)
NAN, INF = math.nan, math.inf

REFUSED: list[tuple[type, dict[str, Any], str]] = [
    *[(MediaOptions, {"fps": fps}, "--fps is") for fps in (0, -1.0, NAN, INF)],
    *[(MediaOptions, {"max_frames": n}, "--max-frames is") for n in (1, 0, -4)],
    *[(MediaOptions, {"min_pixels": n}, "--min-pixels is") for n in (0, -1)],
    *[(MediaOptions, {"max_pixels": n}, "--max-pixels is") for n in (0, -1)],
    (MediaOptions, {"min_pixels": 200, "max_pixels": 100}, "--min-pixels 200 is more than --max-pixels 100"),
    *[(MediaOptions, {"start_seconds": s}, "--start is") for s in (-0.1, NAN, INF)],
    *[(MediaOptions, {"end_seconds": s}, "--end is") for s in (-0.1, NAN, INF)],
    (MediaOptions, {"start_seconds": 5.0, "end_seconds": 5.0}, "--end 5 s is not after --start 5 s"),
    (MediaOptions, {"start_seconds": 5.0, "end_seconds": 2.5}, "--end 2.5 s is not after --start 5 s"),
    (MediaOptions, {"end_seconds": 0.0}, "--end 0 s is not after --start 0 s"),
    (MediaOptions, {"audio": "loud"}, "--audio is 'loud'; it must be one of auto, on, off"),
    (MediaOptions, {"decoder": "gpu"}, "--decoder is 'gpu'; it must be one of pyav, torchcodec, nvdec"),
    (MediaOptions, {"audio": "off", "require_audio": True}, "--require-audio contradicts --audio off"),
    *[(SelectionOptions, {"trr": r}, "--trr is") for r in (0.0, -0.1, 1.0001, NAN, INF)],
    *[(SelectionOptions, {"video_trr": r, "audio_trr": 0.5}, "--video-trr is") for r in (0.0, 2, NAN)],
    *[(SelectionOptions, {"audio_trr": r, "video_trr": 0.5}, "--audio-trr is") for r in (0.0, 2, NAN)],
    (SelectionOptions, {"video_trr": 0.5}, "go together"),
    (SelectionOptions, {"audio_trr": 0.5}, "go together"),
    *[(SelectionOptions, {"scale": s}, "--scale is") for s in (0.99, 0, -1, NAN, INF)],
    *[(SelectionOptions, {"temperature": t}, "--window-temperature is") for t in (0, -1, NAN, INF)],
    (SelectionOptions, {"score_with": "both"}, "--score-with is 'both'"),
    (SelectionOptions, {"score_norm": "max"}, "--score-norm is 'max'"),
    (SelectionOptions, {"stages": "2"}, "--stages is '2'; it must be one of 1, 12, 123"),
    (SelectionOptions, {"window_budgets": "even"}, "--window-budgets is 'even'"),
    *[(SelectionOptions, {"selection_seed": s}, "--selection-seed is") for s in (-1, 2**63)],
    (SelectionOptions, {"kv_cache": "none"}, "--kv-cache is 'none'"),
    *[(GenerationOptions, {"max_new_tokens": n}, "--max-new-tokens is") for n in (0, -1)],
    *[(GenerationOptions, {"temperature": t}, "--temperature is") for t in (-0.1, NAN, INF)],
    *[(GenerationOptions, {"top_p": p}, "--top-p is") for p in (0, -1, 1.01, NAN, INF)],
    *[(GenerationOptions, {"seed": s}, "--seed is") for s in (-1, 2**63)],
    (GenerationOptions, {"choices": ("A",)}, "at least two labels"),
    (GenerationOptions, {"choices": ("A", "B", "A")}, "a label twice: A, B, A"),
    (GenerationOptions, {"choices": ("A", " ")}, "an empty label"),
    *[(ModelOptions, {"model": name}, "--model is empty") for name in ("", " \t")],
    (ModelOptions, {"dtype": "int8"}, "--dtype is 'int8'"),
    (ModelOptions, {"attn": "fast"}, "--attn is 'fast'"),
    (ModelOptions, {"weights": "zero"}, "--weights is 'zero'"),
    (
        ModelOptions,
        {"quant": "int4"},
        "--quant is 'int4'; it must be one of none, bnb-4bit, bnb-8bit, torchao-int8",
    ),
    *[
        (ModelOptions, {"device_map": "auto", "max_memory": text}, "--max-memory has ")
        for text in (
            "",
            "20GiB",
            "cpu=5",
            "gpu=1GB",
            "0=1GB,",
            "-1=1GB",
            "cpu=-1GB",
            "cpu=1e3GB",
            "٣=1GB",
            "cpu=.GB",
        )
    ],
    (ModelOptions, {"device_map": "auto", "max_memory": "0=1GB,cuda:0=2GB"}, "--max-memory names 0 twice"),
    *[
        (ModelOptions, {"device_map": given, name: "cpu=1GB"}, f"{option} is for a model in several places")
        for given in (None, "cpu")
        for name, option in (("max_memory", "--max-memory"), ("offload_folder", "--offload-folder"))
    ],
    (ModelOptions, {"device_map": "auto", "offload_folder": " "}, "--offload-folder is empty"),
    (ModelOptions, {"device": "cpu", "device_map": "auto"}, "--device cpu contradicts --device-map auto"),
]

ACCEPTED: list[tuple[type, dict[str, Any]]] = [
    *[(kind, {}) for kind in KINDS],
    (MediaOptions, {"fps": 0.01, "max_frames": 2, "min_pixels": 100, "max_pixels": 100}),
    (MediaOptions, {"start_seconds": 0.0, "end_seconds": 0.001, "audio": "on", "require_audio": True}),
    (SelectionOptions, {"trr": 1.0, "scale": 1.0, "temperature": 1e-9, "score_norm": "standard"}),
    (SelectionOptions, {"trr": 1e-6, "video_trr": 1.0, "audio_trr": 1.0, "drop_before_layer": (1, 2, 3, 4)}),
    (GenerationOptions, {"temperature": 0, "top_p": 1, "seed": 0, "choices": ()}),
    (GenerationOptions, {"temperature": 2.0, "top_p": 1e-9, "seed": 2**63 - 1, "choices": ("yes", "no")}),
    (ModelOptions, {"model": "./x", "device_map": "balanced"}),
    (ModelOptions, {"device_map": "auto", "max_memory": "0=1.5GiB, CPU = 60 gb", "offload_folder": "x"}),
    (ModelOptions, {"quant": "bnb-4bit", "device": "cuda:1"}),
    (ModelOptions, {"device": "cuda:1", "attn": "eager", "dtype": "float16", "weights": "random"}),
]


def describe(value: object) -> str:
    return value.__name__ if isinstance(value, type) else ""


@pytest.mark.parametrize(("kind", "values", "line"), REFUSED, ids=describe)
def test_refused(kind: type, values: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        kind(**values)
    assert line in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("kind", "values"), ACCEPTED, ids=describe)
def test_accepted(kind: type, values: dict[str, Any]) -> None:
    made = kind(**values)
    assert all(getattr(made, name) == value for name, value in values.items())
    assert dataclasses.replace(made) == made


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_keyword_only_and_described(kind: type) -> None:
    made = kind()
    field = dataclasses.fields(kind)[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, field.name, getattr(made, field.name))
    with pytest.raises(TypeError):
        kind(getattr(made, field.name))
    assert not hasattr(made, "__dict__")
    attributes = kind.__doc__.split("Attributes:")[1]
    assert all(f"{one.name}:" in attributes for one in dataclasses.fields(kind))


@pytest.mark.parametrize(
    ("kind", "field", "literal"),
    [
        (MediaOptions, "audio", config.AudioMode),
        (MediaOptions, "picture", config.PictureMode),
        (MediaOptions, "decoder", config.Decoder),
        (SelectionOptions, "kv_cache", config.KvCache),
        (SelectionOptions, "score_with", config.ScoreWith),
        (SelectionOptions, "score_norm", config.ScoreNorm),
        (SelectionOptions, "stages", config.Stages),
        (SelectionOptions, "window_budgets", config.WindowBudgets),
        (ModelOptions, "attn", config.Attention),
        (ModelOptions, "dtype", config.Dtype),
        (ModelOptions, "weights", config.Weights),
    ],
)
def test_every_word_of_a_choice_is_accepted(kind: type, field: str, literal: object) -> None:
    for word in get_args(literal):
        assert getattr(kind(**{field: word}), field) == word


def test_published_defaults() -> None:
    assert (MediaOptions().fps, MediaOptions().max_frames) == (2.0, 768)
    assert (SelectionOptions().trr, SelectionOptions().scale) == (0.1, None)
    assert SelectionOptions().score_with == "previous"
    assert (SelectionOptions().stages, SelectionOptions().window_budgets) == ("123", "query")
    assert GenerationOptions().temperature == 0
    assert config.DEFAULT_TRRS == (0.35, 0.25, 0.15, 0.10)
    assert ModelOptions().model == "Qwen/Qwen2.5-Omni-7B"


# Times


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("12.5", 12.5),
        (".5", 0.5),
        ("90", 90.0),
        ("3600.25", 3600.25),
        ("1e-3", 0.001),
        ("1:02", 62.0),
        ("01:02.5", 62.5),
        ("90:00", 5400.0),
        ("0:59.999", 59.999),
        ("1:02:03.5", 3723.5),
        ("0:0:0", 0.0),
        ("100:00:00", 360000.0),
        (" 7 ", 7.0),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


BAD_TIMES = [
    "",
    " ",
    "x",
    "1:2:3:4",
    ":",
    "1:",
    ":1",
    "-1",
    "+1",
    "-0",
    "1:-2",
    "1:+2",
    "1:60",
    "1:60:00",
    "1:0:60",
]
BAD_TIMES += [
    "1.5:00",
    "0:1.5:00",
    "nan",
    "inf",
    "1:nan",
    "1e999",
    "1_0",
    "1:0_1",
    "１２",
    "٣",
    "1 2",
    "1: 2",
    "0x10",
]
BAD_TIMES += ["12s", "1m30", "1,5", "1e1:00", "--1"]


@pytest.mark.parametrize("text", BAD_TIMES)
def test_not_times(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_seconds(text, "--start")
    assert str(caught.value).startswith("--start is ")
    assert "hh:mm:ss" in str(caught.value)


@given(st.integers(0, 10**6), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_hours_minutes_seconds_round_trip(hours: int, minutes: int, seconds: int, thousandths: int) -> None:
    expected = hours * 3600 + minutes * 60 + seconds + thousandths / 1000
    assert parse_seconds(f"{hours}:{minutes:02}:{seconds:02}.{thousandths:03}") == pytest.approx(expected)
    assert parse_seconds(f"{hours * 60 + minutes}:{seconds}.{thousandths:03}") == pytest.approx(expected)
    assert parse_seconds(f"{expected:.3f}") == pytest.approx(expected)


@given(st.floats(0, 1e15))
def test_plain_seconds_round_trip(seconds: float) -> None:
    assert parse_seconds(repr(seconds).replace("e+", "e")) == seconds


@given(st.text(max_size=12))
def test_any_text_is_a_time_or_one_clear_error(text: str) -> None:
    try:
        seconds = parse_seconds(text)
    except UsageError:
        return
    assert seconds >= 0
    assert math.isfinite(seconds)


def test_max_memory() -> None:
    assert parse_max_memory("0=20GiB,cpu=60GB") == {0: 20 * 1024**3, "cpu": 60 * 1000**3}
    assert parse_max_memory("cuda:1=1.5kib, CPU= 7 b") == {1: 1536, "cpu": 7}


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("20GB", 20 * 1000**3),
        (" 1.5 GiB ", 3 * 1024**3 // 2),
        ("7b", 7),
        ("500mb", 5 * 10**8),
        ("2TiB", 2 * 1024**4),
    ],
)
def test_sizes(text: str, n_bytes: int) -> None:
    assert parse_size(text, "--cache-size") == n_bytes
    assert parse_max_memory(f"cpu={text}") == {"cpu": n_bytes}


@pytest.mark.parametrize(
    "text", ["", "20", "GB", "-1GB", "0GB", "0.1b", "1e3MB", "1 2GB", "1GB,", "٣GB", "9" * 400 + "GB"]
)
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="--cache-size is ") as caught:
        parse_size(text, "--cache-size")
    assert repr(text) in str(caught.value)

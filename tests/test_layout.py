"""The layout equals the processor's expansion and get_rope_index, element for element, where those are defined."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seats_cli.errors import UsageError
from seats_cli.layout import LayoutSpec, Modality, VideoGrids, build_layout, grid_times, text_layout
from seats_cli.models import FAMILIES
from tests import tiny, tiny_qwen3
from tests.tiny import token_ids
from tests.tiny_stock import stock_inputs

QUESTION = "What is that?"


@dataclass(frozen=True)
class Stock:
    """What transformers has of a family, and what we say of it."""

    processor: Any
    thinker: Any
    spec: LayoutSpec
    factor: int


@pytest.fixture(scope="module", params=[tiny, tiny_qwen3], ids=lambda module: module.MODEL_TYPE)
def stock(request, tmp_path_factory) -> Stock:
    from transformers import AutoProcessor

    family, folder = request.param, tmp_path_factory.mktemp("processor")
    family.write_tiny_checkpoint(folder, n_layers=5, talker=False)
    config = json.loads((folder / "config.json").read_text())
    spec = FAMILIES[family.MODEL_TYPE].spec_of("tiny", config["thinker_config"]).layout
    thinker = family.tiny_thinker(n_layers=5)
    return Stock(AutoProcessor.from_pretrained(folder), thinker, spec, family.PIXEL_FACTOR)


def spec() -> LayoutSpec:
    ids = token_ids()
    return LayoutSpec(
        video_id=ids["<|VIDEO|>"],
        audio_id=ids["<|AUDIO|>"],
        video_bos_id=ids["<|vision_bos|>"],
        video_eos_id=ids["<|vision_eos|>"],
        audio_bos_id=ids["<|audio_bos|>"],
        audio_eos_id=ids["<|audio_eos|>"],
        positions_per_second=25,
    )


def split(stock: Stock, kind: str) -> tuple[list[int], list[int]]:
    content = [{"type": kind}, {"type": "text", "text": QUESTION}]
    text = stock.processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    ids = stock.processor.tokenizer(text)["input_ids"]
    place = ids.index(stock.spec.video_id if kind == "video" else stock.spec.audio_id)
    return ids[:place], ids[place + 1 :]


def assert_equal_to_stock(
    stock: Stock, n_frames: int, rows: int, columns: int, audio_seconds: float, fps: float = 2.0
) -> None:
    height, width = rows * stock.factor, columns * stock.factor
    inputs = stock_inputs(stock.processor, n_frames, height, width, audio_seconds, QUESTION, fps=fps)
    n_audio = int((inputs["input_ids"] == stock.spec.audio_id).sum())
    grids = VideoGrids((n_frames + 1) // 2, rows, columns, 2 / fps) if n_frames else None
    layout = build_layout(*split(stock, "video" if n_frames else "audio"), stock.spec, grids, n_audio)

    np.testing.assert_array_equal(layout.ids, inputs["input_ids"][0].numpy())
    lengths = inputs.get("feature_attention_mask")
    positions, delta = stock.thinker.get_rope_index(
        inputs["input_ids"],
        None,
        inputs.get("video_grid_thw"),
        inputs["attention_mask"],
        bool(n_frames and audio_seconds),
        None if lengths is None else lengths.sum(-1),
        torch.tensor([2 / fps]) if n_frames else None,
    )
    np.testing.assert_array_equal(layout.positions, positions[:, 0].numpy())
    assert layout.next_position == pytest.approx(layout.n_tokens + float(delta))


@given(
    n_frames=st.integers(1, 24),
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    audio_seconds=st.sampled_from([0.0, 0.4, 0.99, 1.0, 1.97, 2.0, 2.04, 3.7, 6.0, 9.5, 13.03]),
)
@settings(max_examples=40, deadline=None)
def test_video_equals_transformers(stock, n_frames, rows, columns, audio_seconds):
    assert_equal_to_stock(stock, n_frames, rows, columns, audio_seconds)


def test_sparser_frames_equal_transformers(stock):
    """Merged by time; where windows matter, the processor cuts other ones than ``get_rope_index`` at such rates.

    The steps of the time axis are exact in binary or far from whole, so that no tie hangs on rounding.
    """
    for fps in (1.0,) if stock.spec.by_window else (1.6, 1.25, 1.0, 0.8, 0.5, 0.25):
        assert_equal_to_stock(stock, 14, 2, 3, 9.5, fps)
        assert_equal_to_stock(stock, 14, 9, 11, 0.0, fps)


@given(audio_seconds=st.floats(0.1, 12))
@settings(max_examples=10, deadline=None)
def test_sound_alone_equals_transformers(stock, audio_seconds):
    assert_equal_to_stock(stock, 0, 1, 1, audio_seconds)


def grids(n: int, seconds: float = 1.0) -> VideoGrids:
    return VideoGrids(n, 2, 3, seconds)


BY_TIME = {"by_window": False, "whole_steps": False, "shared_markers": False, "positions_per_second": 13}


@given(
    n_grids=st.integers(0, 30),
    seconds=st.floats(0.2, 9.0),
    n_audio=st.integers(0, 900),
    by_window=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_laws(n_grids, seconds, n_audio, by_window):
    if n_grids == 0 and n_audio == 0:
        return
    video = grids(n_grids, seconds) if n_grids else None
    family = spec() if by_window else replace(spec(), **BY_TIME)
    layout = build_layout([1, 2], [3, 4, 5], family, video, n_audio)
    assert layout.count(Modality.VIDEO) == (video.n_tokens if video else 0)
    assert layout.count(Modality.AUDIO) == n_audio
    content = layout.modality != Modality.TEXT
    assert (np.diff(layout.window[content]) >= 0).all()  # time order
    assert set(layout.window[content]) == set(range(layout.n_windows))  # no gaps
    assert (layout.window[~content] == -1).all()
    for kind in (Modality.VIDEO, Modality.AUDIO):
        rows = layout.rows(kind)
        assert (np.diff(layout.positions[0, rows]) >= 0).all()  # encoder order is sequence order
        counts = np.bincount(layout.window[rows], minlength=layout.n_windows)
        assert tuple(counts) == layout.window_sizes[kind]
    if by_window:
        assert (np.diff(layout.window[content] * 3 + layout.modality[content]) >= 0).all()  # picture before sound
    else:
        times = layout.positions[0, content]
        assert (np.diff(times) >= 0).all()
        same = np.diff(times) == 0
        assert (np.diff(layout.modality[content])[same] >= 0).all()  # at the same time too


def test_every_two_seconds_is_a_window():
    layout = build_layout([1], [2], spec(), grids(6), 150)
    assert layout.window_sizes == {Modality.VIDEO: (12, 12, 12), Modality.AUDIO: (50, 50, 50)}


def test_windows_are_two_seconds_also_where_picture_and_sound_are_merged_by_time():
    layout = build_layout([1], [2], replace(spec(), **BY_TIME), grids(6), 78)
    assert layout.window_sizes == {Modality.VIDEO: (12, 12, 12), Modality.AUDIO: (26, 26, 26)}
    runs = np.flatnonzero(np.diff(layout.modality)).size
    assert runs == 2 * 6 + 1  # one grid, then 13 audio tokens, six times, between text


def test_sound_of_windows_without_a_grid_belongs_to_the_window_before():
    # One grid every 5 s (125 positions): grids in 2 s windows 0, 2, 5; windows 1, 3, 4 have no picture.
    layout = build_layout([1], [2], spec(), grids(3, 5.0), 375)
    assert layout.window_sizes[Modality.VIDEO] == (6, 6, 6)
    assert layout.window_sizes[Modality.AUDIO] == (100, 150, 125)


def test_sound_after_the_picture_has_windows_of_its_own():
    layout = build_layout([1], [2], spec(), grids(2), 175)
    assert layout.window_sizes[Modality.VIDEO] == (12, 0, 0, 0)
    assert layout.window_sizes[Modality.AUDIO] == (50, 50, 50, 25)


def test_true_seconds_per_grid_reach_the_time_axis():
    assert grid_times(grids(4, 3.3), spec()).tolist() == [0, 82, 165, 247]


def test_nothing_is_refused():
    with pytest.raises(UsageError, match="nothing to see and nothing to hear"):
        build_layout([1], [2], spec(), None, 0)


def test_text_alone_counts_from_0():
    layout = text_layout([7, 8, 9])
    assert layout.ids.tolist() == [7, 8, 9]
    assert layout.positions.tolist() == [[0, 1, 2]] * 3
    assert (layout.count(Modality.TEXT), layout.n_windows, layout.next_position) == (3, 0, 3)
    assert layout.window_sizes == {Modality.VIDEO: (), Modality.AUDIO: ()}

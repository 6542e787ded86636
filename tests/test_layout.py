"""The layout equals the processor's expansion and get_rope_index, element for element, where those are defined."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seats_cli.errors import UsageError
from seats_cli.layout import LayoutSpec, Modality, VideoGrids, build_layout, grid_times, text_layout
from tests.tiny import tiny_processor_files, tiny_thinker, token_ids
from tests.tiny_stock import stock_inputs

QUESTION = "What is that?"


@cache
def stock(tmp: str):
    from transformers import Qwen2_5OmniProcessor

    folder = Path(tmp)
    tiny_processor_files(folder)
    return Qwen2_5OmniProcessor.from_pretrained(folder), tiny_thinker(n_layers=1)


@pytest.fixture(scope="module")
def stock_parts(tmp_path_factory):
    return stock(str(tmp_path_factory.mktemp("processor")))


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


def split(processor, kind: str) -> tuple[list[int], list[int]]:
    content = [{"type": kind}, {"type": "text", "text": QUESTION}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    ids = processor.tokenizer(text)["input_ids"]
    place = ids.index(token_ids()["<|VIDEO|>" if kind == "video" else "<|AUDIO|>"])
    return ids[:place], ids[place + 1 :]


def assert_equal_to_stock(parts, n_frames: int, rows: int, columns: int, audio_seconds: float) -> None:
    processor, thinker = parts
    inputs = stock_inputs(processor, n_frames, rows * 28, columns * 28, audio_seconds, QUESTION)
    kind = "video" if n_frames else "audio"
    n_audio = int((inputs["input_ids"] == spec().audio_id).sum())
    grids = VideoGrids((n_frames + 1) // 2, rows, columns, 1.0) if n_frames else None
    layout = build_layout(*split(processor, kind), spec(), grids, n_audio)

    np.testing.assert_array_equal(layout.ids, inputs["input_ids"][0].numpy())
    lengths = inputs.get("feature_attention_mask")
    positions, delta = thinker.get_rope_index(
        inputs["input_ids"],
        None,
        inputs.get("video_grid_thw"),
        inputs["attention_mask"],
        bool(n_frames and audio_seconds),
        None if lengths is None else lengths.sum(-1),
        torch.tensor([1.0]) if n_frames else None,
    )
    np.testing.assert_array_equal(layout.positions, positions[:, 0].numpy())
    assert layout.next_position == layout.n_tokens + int(delta)


@given(
    n_frames=st.integers(1, 24),
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    audio_seconds=st.sampled_from([0.0, 0.4, 0.99, 1.0, 1.97, 2.0, 2.04, 3.7, 6.0, 9.5, 13.03]),
)
@settings(max_examples=40, deadline=None)
def test_video_equals_transformers(stock_parts, n_frames, rows, columns, audio_seconds):
    assert_equal_to_stock(stock_parts, n_frames, rows, columns, audio_seconds)


@given(audio_seconds=st.floats(0.1, 12))
@settings(max_examples=10, deadline=None)
def test_sound_alone_equals_transformers(stock_parts, audio_seconds):
    assert_equal_to_stock(stock_parts, 0, 1, 1, audio_seconds)


def grids(n: int, seconds: float = 1.0) -> VideoGrids:
    return VideoGrids(n, 2, 3, seconds)


@given(n_grids=st.integers(0, 30), seconds=st.floats(0.2, 9.0), n_audio=st.integers(0, 900))
@settings(max_examples=200, deadline=None)
def test_laws(n_grids, seconds, n_audio):
    if n_grids == 0 and n_audio == 0:
        return
    video = grids(n_grids, seconds) if n_grids else None
    layout = build_layout([1, 2], [3, 4, 5], spec(), video, n_audio)
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
    inside = layout.modality[content], layout.window[content]
    by_window = inside[1] * 3 + inside[0]
    assert (np.diff(by_window) >= 0).all()  # in a window, picture before sound


def test_every_two_seconds_is_a_window():
    layout = build_layout([1], [2], spec(), grids(6), 150)
    assert layout.window_sizes == {Modality.VIDEO: (12, 12, 12), Modality.AUDIO: (50, 50, 50)}


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

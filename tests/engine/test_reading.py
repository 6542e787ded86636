"""A clip read once: what waits for questions is all that they need, wherever it came from."""

from __future__ import annotations

import pytest
import torch

from seats_cli.config import SelectionOptions
from seats_cli.engine import reading
from seats_cli.engine.pipeline import Settings, reply
from seats_cli.engine.reading import Cached, read_clip
from seats_cli.engine.store import ClipStore, StoredClip
from seats_cli.errors import MemoryLimitError
from tests.engine.library import Library

MANY = 10**9
SELECTION = SelectionOptions(trr=0.3)
AGAIN = "out of memory with 8 windows encoded at once: encoded again, one at a time"


@pytest.fixture
def library(loaded):
    return Library(loaded)


@pytest.fixture
def cached(tmp_path):
    path = tmp_path / "clip"
    path.write_text("both")
    return Cached(ClipStore(tmp_path / "cache", MANY), str(path))


def read(loaded, library, cached=None, name="both", selection=SELECTION):
    return read_clip(loaded, lambda: library(name, library.media), library.media, selection, cached)


def same(one, other) -> bool:
    """Whether two readings hold the same tokens, bit for bit."""
    return one.shape == other.shape and all(
        torch.equal(one.kept[modality].places, other.kept[modality].places)
        and torch.equal(one.kept[modality].embeddings, other.kept[modality].embeddings)
        for modality in one.kept
    )


def test_asking_leaves_it_as_it_is(loaded, library):
    clip = read(loaded, library)
    before = {modality: tokens.embeddings.clone() for modality, tokens in clip.kept.items()}
    settings = Settings(library.media, SELECTION)
    first = reply(loaded, clip, "What?", settings)
    reply(loaded, clip, "Who is it?", settings)
    again = reply(loaded, clip, "What?", settings)
    assert (first.answer, first.tokens, first.flops) == (again.answer, again.tokens, again.flops)
    for modality, tokens in clip.kept.items():
        assert torch.equal(tokens.embeddings, before[modality])


@pytest.mark.parametrize("method", ["seats", "random", "full"])
def test_from_the_cache_it_is_the_same(loaded, library, cached, method):
    selection = SelectionOptions(method=method, trr=1.0 if method == "full" else 0.3)
    plain = read(loaded, library, selection=selection)
    fresh = read(loaded, library, cached, selection=selection)
    found = read(loaded, library, cached, selection=selection)
    assert library.opened["both"] == 2
    assert same(plain, fresh)
    assert same(plain, found)
    assert found.media.cached
    assert not fresh.media.cached


def test_out_of_memory_on_a_stored_clip_is_tried_again_from_the_file(loaded, library, cached, monkeypatch):
    """Its batches have the size they were stored with."""
    plain = read(loaded, library, cached)

    def batches(self, device):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    monkeypatch.setattr(StoredClip, "batches", batches)
    found = read(loaded, library, cached)
    assert found.warnings == (*plain.warnings, AGAIN)
    assert found.shape == plain.shape
    assert library.opened["both"] == 2


def test_out_of_memory_leaves_nothing_in_the_cache(loaded, library, cached, monkeypatch):
    stock = type(loaded.model).encode_video

    def encode_video(self, *arguments, **keywords):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    monkeypatch.setattr(type(loaded.model), "encode_video", encode_video)
    with pytest.raises(torch.OutOfMemoryError):
        read(loaded, library, cached)
    assert library.opened["both"] == 2
    monkeypatch.setattr(type(loaded.model), "encode_video", stock)
    found = read(loaded, library, cached)
    assert not found.media.cached
    assert AGAIN not in found.warnings


def test_a_refusal_is_not_an_accident(loaded, library, monkeypatch):
    def refuse(*_):
        raise MemoryLimitError("needs more than there is")

    monkeypatch.setattr(reading, "check_clip_fits", refuse)
    with pytest.raises(MemoryLimitError, match="needs more"):
        read(loaded, library)
    assert library.opened["both"] == 1

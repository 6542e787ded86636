"""Tokens per second: every way writes as many tokens, and a way that fails says so."""

from __future__ import annotations

import pytest
import torch

from seats_cli.config import SelectionOptions
from seats_cli.engine.answering import STATIC_STOCK, measure_answering
from seats_cli.engine.benchmark import STOCK, make_workbench
from seats_cli.models.loading import LoadedModel
from tests.array_clip import clip_for


@pytest.fixture
def bench(loaded: LoadedModel):
    clip, media = clip_for(loaded, 8, 4, 5, 4.0)
    return make_workbench(loaded, lambda: clip, media, 30)


def test_every_way(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    from seats_cli.engine import answering

    real = answering.decode

    def counted(*arguments, **keywords):
        decoded = real(*arguments, **keywords)
        written.append(len(decoded.token_ids))
        return decoded

    monkeypatch.setattr(answering, "decode", counted)
    options = [SelectionOptions(trr=0.3)]
    ways = {way.label: way for way in measure_answering(bench, options, n_tokens=6, runs=2, layers=True)}
    ours = ["full", "full, through the layers", "seats R=0.3", "seats R=0.3, through the layers"]
    assert list(ways) == [*ours, STOCK, STATIC_STOCK]
    assert [ways[label].path for label in ours] == ["static", "eager"] * 2
    assert written == [6] * (4 * 3)
    assert ways["seats R=0.3"].prompt_tokens[0] < ways["full"].prompt_tokens[0] == bench.layout.n_tokens
    for way in ways.values():
        assert way.problem == ""
        assert way.tokens_per_second is not None
        assert len(way.tokens_per_second.values) == 2
        assert way.tokens_per_second.minimum > 0


def test_a_way_of_transformers_that_fails(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    thinker = bench.loaded.model.thinker
    real = type(thinker).generate

    def generate(self, *arguments, **keywords):
        if "cache_implementation" in keywords:
            raise ValueError("no such cache")
        return real(self, *arguments, **keywords)

    monkeypatch.setattr(type(thinker), "generate", generate)
    ways = {way.label: way for way in measure_answering(bench, [], n_tokens=3, runs=1, warmup=0)}
    assert ways[STATIC_STOCK].tokens_per_second is None
    assert "no such cache" in ways[STATIC_STOCK].problem
    assert ways[STOCK].tokens_per_second is not None


def test_stock_ends_where_it_should(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many tokens as ours, though every one of them would end an answer."""
    thinker, found = bench.loaded.model.thinker, []
    real = type(thinker).generate

    def generate(self, *arguments, **keywords):
        out = real(self, *arguments, **keywords)
        found.append(out.shape[1] - bench.layout.n_tokens)
        return out

    monkeypatch.setattr(type(thinker), "generate", generate)
    monkeypatch.setattr(thinker.generation_config, "eos_token_id", list(range(320)))
    measure_answering(bench, [], n_tokens=5, runs=1, warmup=0)
    assert found == [5] * len(found)
    assert len(found) == 4


def test_what_would_be_compiled_is_left_out(bench) -> None:
    ways = measure_answering(bench, [], n_tokens=3, runs=1, warmup=0, static_stock=False)
    assert [way.label for way in ways] == ["full", STOCK]


def test_one_token_is_no_measure(bench) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        measure_answering(bench, [], n_tokens=1)
    assert not torch.is_inference_mode_enabled()

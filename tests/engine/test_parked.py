"""Weights that lie elsewhere until a hook of accelerate brings them: the loops give what they give without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload, disk_offload

from seats_cli.config import GenerationOptions, ModelOptions, SelectionOptions
from seats_cli.engine.decode import decode
from seats_cli.models.loading import LoadedModel, load
from tests.engine.test_laws import run

SHAPE = (12, 4, 5, 6.0)
N_TOKENS = 5
VARIANTS = {
    "full": SelectionOptions(method="full"),
    **{
        f"{kv_cache}-{score_with}": SelectionOptions(trr=0.3, kv_cache=kv_cache, score_with=score_with)
        for kv_cache in ("staged", "text")
        for score_with in ("previous", "next")
    },
}


@pytest.fixture(scope="module", params=["map", "memory", "disk"])
def parked(
    request: pytest.FixtureRequest, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> LoadedModel:
    """By the options a user has, and by accelerate's hooks on every module, with weights in memory or on disk."""
    folder, cpu = tmp_path_factory.mktemp("parked"), torch.device("cpu")
    if request.param == "map":
        return load(
            ModelOptions(
                model=str(checkpoint),
                dtype="float32",
                device_map="auto",
                max_memory="cpu=1.3MB",
                offload_folder=str(folder),
            )
        )
    loaded = load(ModelOptions(model=str(checkpoint), device="cpu", dtype="float32"))
    thinker = loaded.model.thinker
    if request.param == "memory":
        cpu_offload(thinker, cpu)
    else:
        disk_offload(thinker, str(folder), cpu)
    return loaded


@pytest.fixture
def meta(parked: LoadedModel) -> Iterator[frozenset[str]]:
    """Names of the weights that are away, before a test and after it."""

    def away() -> frozenset[str]:
        return frozenset(name for name, value in parked.model.thinker.named_parameters() if value.is_meta)

    before = away()
    yield before
    assert away() == before


@torch.inference_mode()
def ids(loaded: LoadedModel, prepared: object, prompted: object) -> list[int]:
    """The answer's tokens, and no stop token in the way."""
    logits, cache = prompted.prefill.logits, prompted.prefill.cache
    options = GenerationOptions(max_new_tokens=N_TOKENS)
    decoded = decode(loaded.model, logits, cache, prepared.layout.next_position, options)
    away = any(value.is_meta for value in loaded.model.thinker.parameters())
    assert decoded.path == ("eager" if away else "static")
    return decoded.token_ids


@pytest.mark.parametrize("variant", VARIANTS)
def test_parked_weights_change_nothing(
    loaded: LoadedModel, parked: LoadedModel, meta: frozenset[str], variant: str
) -> None:
    options, pairs = VARIANTS[variant], []
    for one in (loaded, parked):
        prepared, prompted = run(one, SHAPE, options, seed=3)
        pairs.append((prompted, ids(one, prepared, prompted)))
    (here, here_ids), (there, there_ids) = pairs
    assert torch.equal(here.prefill.logits, there.prefill.logits)
    assert here.prefill.counts == there.prefill.counts
    assert here.prefill.trace.keys() == there.prefill.trace.keys()
    for name, value in here.prefill.trace.items():
        assert torch.equal(value, there.prefill.trace[name]), name
    assert here_ids == there_ids
    # What is used piece by piece was among what is away.
    drop = parked.model.spec.preset.drop_before_layer
    language = parked.model._parts[0]
    names = {id(value): name for name, value in parked.model.thinker.named_parameters()}
    scorers = [language.layers[drop[2]].self_attn.k_proj.weight, language.norm.weight]
    assert {names[id(value)] for value in scorers} <= meta


def test_questions_of_a_scored_layer(loaded: LoadedModel, parked: LoadedModel) -> None:
    """Asked for again and again, also of a layer that has not run yet."""
    model = parked.model
    hidden = torch.randn(1, 9, model.spec.geometry.text.hidden)
    positions = torch.arange(9).expand(3, -1)
    with torch.inference_mode():
        for index in range(len(model.layers)):
            rows = [
                one.query_attention(index, hidden, one.rope(hidden, positions)) for one in (loaded.model, model)
            ]
            assert torch.equal(*rows)
            assert torch.equal(loaded.model.last_logits(hidden), model.last_logits(hidden))

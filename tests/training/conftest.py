"""A few short clips, a model of the shape that is trained with random weights, and its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from seats_cli.config import ModelOptions
from seats_cli.models.loading import load
from seats_cli.training.language import encode_pool
from seats_cli.training.model import new_thinker, vocabulary, write_checkpoint
from seats_cli.training.pool import PoolSpec, make_pool
from seats_cli.training.processor import Vocabulary
from seats_cli.training.sequences import Features


class Pool(NamedTuple):
    """Clips on disk."""

    spec: PoolSpec
    folder: Path


@pytest.fixture(scope="session")
def words() -> Vocabulary:
    return vocabulary()


@pytest.fixture(scope="session")
def pool(tmp_path_factory) -> Pool:
    spec, folder = PoolSpec(seed=5, n_clips=5, least_seconds=4, most_seconds=5), tmp_path_factory.mktemp("pool")
    make_pool(spec, folder, workers=1)
    return Pool(spec, folder)


@torch.no_grad()
def shaken(thinker: Any, seed: int = 1) -> Any:
    """A thinker whose biases and norms are not those it begins with, so that none can be forgotten unseen."""
    generator = torch.Generator().manual_seed(seed)
    for value in thinker.parameters():
        scale = float(value.std()) if value.ndim > 1 else 1.0
        value.add_(0.1 * scale * torch.randn(value.shape, generator=generator))
    return thinker


@pytest.fixture(scope="session")
def loaded(words, tmp_path_factory) -> Any:
    """The model as the engine loads it. Read only."""
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(shaken(new_thinker(words)), words, folder, torch.float32)
    return load(ModelOptions(model=str(folder), device="cpu", dtype="float32"))


@pytest.fixture(scope="session")
def features(loaded, pool) -> list[Features]:
    """The clips through the encoders of ``loaded``."""
    return encode_pool(loaded.model.thinker, pool.spec, pool.folder, range(pool.spec.n_clips))

"""One tiny checkpoint, loaded by the code a user runs."""

from __future__ import annotations

import pytest

from seats_cli.config import ModelOptions
from seats_cli.models.loading import load
from tests.tiny import write_tiny_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    import torch

    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), dtype=torch.float32)


@pytest.fixture(scope="session")
def loaded(checkpoint):
    return load(ModelOptions(model=str(checkpoint), device="cpu", dtype="float32"))

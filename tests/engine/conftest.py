"""A tiny checkpoint of every family, loaded by the code a user runs."""

from __future__ import annotations

import pytest

from seats_cli.config import ModelOptions
from seats_cli.models.loading import load
from tests import tiny, tiny_qwen3

FAMILIES = {module.MODEL_TYPE: module for module in (tiny, tiny_qwen3)}


@pytest.fixture(scope="session", params=FAMILIES)
def checkpoint(request, tmp_path_factory):
    import torch

    return FAMILIES[request.param].write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), dtype=torch.float32)


@pytest.fixture(scope="session")
def loaded(checkpoint):
    return load(ModelOptions(model=str(checkpoint), device="cpu", dtype="float32"))

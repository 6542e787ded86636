"""What needs a GPU: skipped without one, unless SEATS_GPU=1 promises it."""

from __future__ import annotations

import warnings

import pytest
import torch

from seats_cli.config import ModelOptions
from seats_cli.models.loading import load
from tests import tiny, tiny_qwen3
from tests.conftest import GPU_PROMISED

FAMILIES = {module.MODEL_TYPE: module for module in (tiny, tiny_qwen3)}


@pytest.fixture(scope="session", autouse=True)
def gpu() -> torch.device:
    if torch.cuda.is_available():
        with warnings.catch_warnings():
            # Once it says that it is a prototype. As an error that would come behind the change of the mode.
            warnings.simplefilter("ignore")
            torch.cuda.set_sync_debug_mode("default")
        return torch.device("cuda", torch.cuda.current_device())
    if GPU_PROMISED:
        pytest.fail("SEATS_GPU=1, but PyTorch finds no GPU")
    pytest.skip("no GPU")


@pytest.fixture(scope="session", params=FAMILIES)
def loaded(request, gpu, tmp_path_factory):
    """A tiny checkpoint of every family on the GPU, as a user loads it."""
    family = FAMILIES[request.param]
    checkpoint = family.write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), dtype=torch.float32)
    return load(ModelOptions(model=str(checkpoint), device="cuda", dtype="bfloat16"))


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nobody has written is full of what nobody would write."""
    empty, empty_like = torch.empty, torch.empty_like

    def poison(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dtype == torch.bool:
            return tensor.fill_(True)
        return tensor.fill_(float("nan") if tensor.is_floating_point() else torch.iinfo(tensor.dtype).max)

    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: poison(empty(*args, **kwargs)))
    monkeypatch.setattr(torch, "empty_like", lambda *args, **kwargs: poison(empty_like(*args, **kwargs)))

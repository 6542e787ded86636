"""Where weights go: what is asked for, what comes of it, and one clear line for what cannot be."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import accelerate.utils
import pytest
import torch
from accelerate import cpu_offload, disk_offload

from seats_cli.config import ModelOptions
from seats_cli.errors import UsageError
from seats_cli.models.base import call, place_of
from seats_cli.models.loading import load
from seats_cli.models.placement import place
from tests import tiny

SOME = "cpu=1.3MB"
"""Holds a part of the tiny checkpoint, and the rest goes to disk."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_tiny_checkpoint(tmp_path_factory.mktemp("placed"), n_layers=6, dtype=torch.float32)


def spread(folder: object, **more: Any) -> ModelOptions:
    return ModelOptions(model=str(folder), dtype="float32", device_map="auto", **more)


def refused(options: ModelOptions, line: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(options)
    assert str(caught.value) == line
    return caught.value


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as this file asks."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(accelerate.utils, "get_max_memory", lambda: {0: 1000, 1: 2000, "cpu": 3000})


def test_one_device(folder: Path) -> None:
    for options in ({}, {"device": "cpu"}, {"device_map": "cpu"}):
        found = place(ModelOptions(model="x", **options))
        assert not found.spreads
        assert found.max_memory is None
        assert found.offload_folder is None
    assert load(ModelOptions(model=str(folder), device="cpu")).device == "cpu"


@pytest.mark.usefixtures("two_gpus")
def test_limits() -> None:
    assert place(spread("x")).max_memory is None
    assert place(spread("x", max_memory="1=5B")).max_memory == {0: 900, 1: 5, "cpu": 2700}
    assert place(spread("x", max_memory="cpu=0B, cuda:0=1KiB")).max_memory == {0: 1024, 1: 1800, "cpu": 0}
    assert place(spread("x", offload_folder="~/off")).offload_folder == Path.home() / "off"


@pytest.mark.usefixtures("two_gpus")
def test_what_is_quantised_leaves_nothing_to_the_cpu() -> None:
    assert place(spread("x", quant="bnb-4bit")).max_memory == {0: 900, 1: 1800, "cpu": 0}
    assert place(spread("x", quant="torchao-int8", max_memory="cpu=9GB")).max_memory == {0: 900, 1: 1800, "cpu": 0}


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="--max-memory names GPU 2: 2 GPUs here"):
        place(spread("x", max_memory="0=1GB,2=1GB"))


def test_disk_without_a_folder(folder: Path) -> None:
    error = refused(
        spread(folder, max_memory=SOME),
        f"{folder} does not fit within --max-memory {SOME}: some of it would have to go to disk",
    )
    assert "--offload-folder" in error.hint


@pytest.mark.parametrize("limit", [SOME, "cpu=0B"])
def test_disk(folder: Path, tmp_path: Path, limit: str) -> None:
    away = tmp_path / "a" / "way"
    loaded = load(spread(folder, max_memory=limit, offload_folder=str(away)))
    assert loaded.device == ("auto (cpu, disk)" if limit == SOME else "auto (disk)")
    thinker = loaded.model.thinker
    parked = [name for name, value in thinker.named_parameters() if value.is_meta]
    assert parked
    assert (len(parked) < len(list(thinker.parameters()))) == (limit == SOME)
    assert loaded.model.devices == [torch.device("cpu")]
    assert loaded.model.dtype == torch.float32
    (own,) = away.iterdir()
    assert len(list(own.iterdir())) == len(parked)
    # Another run in the same folder is apart, and each takes its own away.
    other = load(spread(folder, max_memory=limit, offload_folder=str(away)))
    assert len(list(away.iterdir())) == 2
    del loaded, thinker
    gc.collect()
    assert not own.exists()
    del other
    gc.collect()
    assert list(away.iterdir()) == []


def test_a_folder_that_is_not_needed_is_not_filled(folder: Path, tmp_path: Path) -> None:
    loaded = load(spread(folder, max_memory="cpu=1GB", offload_folder=str(tmp_path)))
    assert loaded.device == "auto"
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_behind_by_a_failure(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers.integrations.accelerate as offloading

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(offloading, "save_file", full)
    line = f"--offload-folder {tmp_path} cannot be written to: No space left on device"
    refused(spread(folder, max_memory=SOME, offload_folder=str(tmp_path)), line)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for name, why in ((file, "File exists"), (file / "inside", "Not a directory")):
        options = spread(folder, max_memory=SOME, offload_folder=str(name))
        refused(options, f"--offload-folder {name} cannot be written to: {why}")


def test_nothing_is_said_while_weights_are_parked(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    load(spread(folder, max_memory=SOME, offload_folder=str(tmp_path)))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("how", ["cpu", "disk"])
def test_a_piece_brings_its_weights(tmp_path: Path, how: str) -> None:
    whole = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Sequential())
    whole[2].register_buffer("table", torch.ones(2))
    x = torch.randn(2, 3)
    with torch.inference_mode():
        expected = whole[1](whole[0](x))
        if how == "cpu":
            cpu_offload(whole, torch.device("cpu"))
        else:
            disk_offload(whole, os.fspath(tmp_path), torch.device("cpu"))
        assert whole[0].weight.is_meta
        assert torch.equal(call(whole[1], call(whole[0], x)), expected)
        assert whole[0].weight.is_meta
    assert place_of(whole[2]) == torch.device("cpu"), "a module of buffers alone"


def test_inputs_follow_a_piece() -> None:
    """The hook of the larger module, which moves them otherwise, is passed by."""
    piece = torch.nn.Linear(3, 4, device="meta")
    assert call(piece, torch.ones(2, 3)).is_meta

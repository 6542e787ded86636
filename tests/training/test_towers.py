"""Many pieces at once through the encoders: what transformers gives for them, values and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seats_cli.training.model import new_thinker
from seats_cli.training.towers import encode_chunks, encode_grids, parts_of, to_patches
from seats_cli.world.scene import GRID_SIZES
from tests.training.conftest import shaken


@pytest.fixture(scope="module")
def towers(words) -> tuple[Any, Any]:
    return parts_of(shaken(new_thinker(words)))[1:]


def stock_grids(tower: Any, patches: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    grid = torch.tensor([[len(patches), rows, columns]])
    out = tower(patches.flatten(0, 1), grid_thw=grid)
    return getattr(out, "pooler_output", out).view(len(patches), -1, out_size(tower))


def out_size(tower: Any) -> int:
    return tower.config.out_hidden_size


def stock_chunks(tower: Any, mel: torch.Tensor) -> torch.Tensor:
    n = len(mel)
    whole = mel.permute(1, 0, 2).reshape(128, n * 200)
    out = tower(whole, feature_lens=torch.tensor([n * 200]), aftercnn_lens=torch.tensor([n * 100]))
    return out.last_hidden_state.view(n, 50, -1)


def gradients(tower: torch.nn.Module, out: torch.Tensor) -> dict[str, torch.Tensor]:
    tower.zero_grad()
    weights = torch.linspace(-1, 1, out.numel()).view(out.shape)
    (out * weights).sum().backward()
    return {name: value.grad.clone() for name, value in tower.named_parameters() if value.grad is not None}


def assert_alike(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert set(one) == set(other)
    for name, value in one.items():
        scale = float(other[name].abs().max()) + 1e-3
        torch.testing.assert_close(value / scale, other[name] / scale, atol=2e-4, rtol=0, msg=name)


@pytest.mark.parametrize("size", GRID_SIZES)
def test_grids(towers, size):
    vision, (rows, columns) = towers[0], (2 * size[0], 2 * size[1])
    patches = torch.randn(3, rows * columns, 1176, generator=torch.Generator().manual_seed(0))
    out, stock = encode_grids(vision, patches, rows, columns), stock_grids(vision, patches, rows, columns)
    assert out.shape == (3, size[0] * size[1], out_size(vision))
    torch.testing.assert_close(out, stock, atol=1e-4, rtol=1e-4)
    if size == GRID_SIZES[-1]:
        assert_alike(gradients(vision, out), gradients(vision, stock))


@pytest.mark.parametrize("n", [1, 3])
def test_chunks(towers, n):
    mel = torch.randn(n, 128, 200, generator=torch.Generator().manual_seed(0))
    out, stock = encode_chunks(towers[1], mel), stock_chunks(towers[1], mel)
    assert out.shape == (n, 50, towers[1].config.output_dim)
    torch.testing.assert_close(out, stock, atol=1e-4, rtol=1e-4)
    if n > 1:
        assert_alike(gradients(towers[1], out), gradients(towers[1], stock))


def test_grids_know_nothing_of_each_other(towers):
    patches = torch.randn(4, 144, 1176, generator=torch.Generator().manual_seed(0))
    alone = encode_grids(towers[0], patches[2:3], 12, 12)
    torch.testing.assert_close(encode_grids(towers[0], patches, 12, 12)[2:3], alone, atol=1e-5, rtol=1e-5)


def test_patches_are_those_of_two_frames(towers):
    """The first values of a patch are its 14 x 14 pixels in red of the first frame, then of the second."""
    frames = torch.randint(0, 256, (2, 2, 168, 224, 3), generator=torch.Generator().manual_seed(0)).byte()
    patches = to_patches(frames)
    assert patches.shape == (2, 12 * 16, 1176)
    values = patches.view(2, 192, 3, 2, 14, 14)
    # Patches come in squares of 2 x 2: the third is the first of the second row of patches.
    for number, (top, left) in enumerate([(0, 0), (0, 14), (14, 0), (14, 14)]):
        red = frames[1, 1, top : top + 14, left : left + 14, 0].float() / 255
        torch.testing.assert_close(values[1, number, 0, 1], (red - 0.48145466) / 0.26862954, atol=1e-5, rtol=1e-5)

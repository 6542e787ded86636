"""Attention received: against slow loops, and on true towers against a forward written without permutations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from seats_cli.models import FAMILIES, saliency
from seats_cli.models.chunks import last_input
from seats_cli.models.saliency import attention_received
from tests import tiny

FAMILY = FAMILIES["qwen2_5_omni"]


def received_by_loops(query: torch.Tensor, key: torch.Tensor, sizes: Sequence[int], scale: float) -> torch.Tensor:
    """One dot product at a time, in float64."""
    n, heads, _ = query.shape
    total, start = torch.zeros(n, dtype=torch.float64), 0
    for size in sizes:
        for head in range(heads):
            for i in range(start, start + size):
                row = [
                    math.fsum((query[i, head] * key[j, head]).tolist()) * scale for j in range(start, start + size)
                ]
                top = max(row)
                weights = [math.exp(value - top) for value in row]
                for j, weight in enumerate(weights):
                    total[start + j] += weight / sum(weights) / heads
        start += size
    return total


def random_heads(n: int, heads: int = 3, dim: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, n, heads, dim, generator=generator, dtype=torch.float64)
    return query, key


@pytest.mark.parametrize("sizes", [[7], [1], [1, 1, 1], [3, 1, 9, 2], [2, 12], [5, 5, 5]])
@pytest.mark.parametrize("scale", [0.35, 1.0, 4.0])
def test_equals_loops(sizes: list[int], scale: float) -> None:
    query, key = random_heads(sum(sizes), seed=len(sizes))
    got = attention_received(query.float(), key.float(), sizes, scale)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), received_by_loops(query, key, sizes, scale), rtol=1e-4, atol=1e-5)
    # Each query gives away 1.
    for part, size in zip(got.split(sizes), sizes, strict=True):
        torch.testing.assert_close(part.sum(), torch.tensor(float(size)))


@pytest.mark.parametrize("map_bytes", [1, 4 * 9 * 2, 4 * 81 * 2, 4 * 81 * 3 + 1, 1 << 30])
def test_batches_of_maps_change_nothing(monkeypatch: pytest.MonkeyPatch, map_bytes: int) -> None:
    sizes = [3, 9, 1, 4, 9, 2, 7]
    query, key = (part.float() for part in random_heads(sum(sizes)))
    whole = attention_received(query, key, sizes, 0.5)
    maps = []
    true_softmax = torch.softmax

    def spy(logits: torch.Tensor, dim: int) -> torch.Tensor:
        maps.append(logits.shape)
        return true_softmax(logits, dim)

    monkeypatch.setattr(torch, "softmax", spy)
    monkeypatch.setattr(saliency, "_maps_bytes", lambda device: map_bytes)
    torch.testing.assert_close(attention_received(query, key, sizes, 0.5), whole)
    assert all(4 * shape.numel() <= map_bytes or shape[:2] == (1, 1) for shape in maps)
    assert sum(shape.numel() for shape in maps) == 3 * sum(size**2 for size in sizes), "no map is padded"


def test_half_precision_is_summed_in_float32() -> None:
    query, key = random_heads(40)
    got = attention_received(query.bfloat16(), key.bfloat16(), [40], 0.3)
    assert got.dtype == torch.float32
    exact = received_by_loops(query.bfloat16().double(), key.bfloat16().double(), [40], 0.3)
    torch.testing.assert_close(got.double(), exact, rtol=0.05, atol=0.02)


def test_last_input_leaves_nothing_on_the_module() -> None:
    class Block(torch.nn.Module):
        def forward(self, hidden_states: torch.Tensor, fail: bool = False) -> torch.Tensor:
            if fail:
                raise RuntimeError("no")
            return hidden_states

    block, x = Block(), torch.ones(2)
    before = set(vars(block))
    with last_input(block) as caught:
        block(x, fail=False)
    assert caught["hidden"] is x
    assert caught["fail"] is False
    with last_input(block) as caught:
        block(hidden_states=x)
    assert caught["hidden"] is x
    with pytest.raises(RuntimeError, match="no"), last_input(block):
        block(x, fail=True)
    assert not block._forward_pre_hooks
    assert not block._forward_pre_hooks_with_kwargs
    assert set(vars(block)) == before


# The vision tower in plain raster order: masks in place of permutations


def rotate(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Rotary embedding: x [n, H, d] by angles [n, d / 2], halves paired."""
    half = x.shape[-1] // 2
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def patch_places(grid: tuple[int, int, int], merge: int) -> list[tuple[int, int, int]]:
    """(grid, row, column) of every patch in the order the tower is given them."""
    n_grids, rows, columns = grid
    return [
        (t, merge * r + i, merge * c + j)
        for t in range(n_grids)
        for r in range(rows // merge)
        for c in range(columns // merge)
        for i in range(merge)
        for j in range(merge)
    ]


def plain_vision(
    tower: torch.nn.Module, patches: torch.Tensor, grid: tuple[int, int, int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings in raster order, and the last block's queries and keys [n, H, d] in patch order."""
    config = tower.config
    places = torch.tensor(patch_places(grid, config.spatial_merge_size))
    side = config.window_size // config.patch_size
    same_grid = places[:, None, 0] == places[None, :, 0]
    same_window = same_grid & (places[:, None, 1:] // side == places[None, :, 1:] // side).all(-1)
    head_dim = config.hidden_size // config.num_heads
    speeds = 1.0 / 10000 ** (torch.arange(0, head_dim // 2, 2) / (head_dim // 2))
    angles = torch.cat([places[:, 1:2] * speeds, places[:, 2:3] * speeds], dim=1)
    hidden = tower.patch_embed(patches)
    for i, block in enumerate(tower.blocks):
        normed = block.norm1(hidden)
        query, key, value = (
            getattr(block.attn, name)(normed).view(len(hidden), config.num_heads, head_dim) for name in "qkv"
        )
        query, key = rotate(query, angles), rotate(key, angles)
        mask = same_grid if i in config.fullatt_block_indexes else same_window
        logits = torch.einsum("ihd,jhd->hij", query, key) / math.sqrt(head_dim)
        weights = logits.masked_fill(~mask, -torch.inf).softmax(-1)
        mixed = torch.einsum("hij,jhd->ihd", weights, value).reshape(len(hidden), -1)
        hidden = hidden + block.attn.proj(mixed)
        hidden = hidden + block.mlp(block.norm2(hidden))
    return tower.merger(hidden), query, key


@pytest.fixture(scope="module")
def model():
    thinker = tiny.tiny_thinker(seed=1, n_layers=5)
    spec = FAMILY.spec_of("tiny", tiny._config_json(n_layers=5)["thinker_config"])
    return FAMILY(thinker, None, spec)


@pytest.mark.parametrize(
    ("grid", "windows"),
    [
        ((2, 10, 18), (2,)),
        ((3, 10, 18), (2, 1)),
        ((2, 18, 10), (1, 1)),
        ((4, 8, 8), (2, 2)),
        ((3, 2, 22), (3,)),
        ((1, 26, 6), (1,)),
    ],
)
@torch.no_grad()
def test_vision_saliency_is_in_raster_order(model, grid, windows) -> None:
    merge = 2
    per_grid = grid[1] * grid[2]
    patches = torch.randn(grid[0] * per_grid, 3 * 2 * 14 * 14, generator=torch.Generator().manual_seed(7))
    embeddings, query, key = plain_vision(model._parts[1], patches, grid)
    encoded = model.encode_video(patches, grid, saliency=True)
    torch.testing.assert_close(encoded.embeddings, embeddings, rtol=1e-4, atol=1e-4)
    expected, start = [], 0
    for n_grids in windows:
        stop = start + n_grids * per_grid
        logits = torch.einsum("ihd,jhd->hij", query[start:stop], key[start:stop]) / math.sqrt(query.shape[2])
        expected.append(logits.softmax(-1).mean(0).sum(0))
        start = stop
    per_token = torch.cat(expected).view(-1, merge**2).mean(1)
    sizes = [n_grids * per_grid // merge**2 for n_grids in windows]
    got = encoded.attention_received(sizes)
    torch.testing.assert_close(got, per_token, rtol=1e-4, atol=1e-4)
    spread = per_token.max() - per_token.min()
    assert spread > 0.05, "a flat map would hide a wrong order"


@torch.no_grad()
def test_without_saliency_the_embeddings_are_the_same(model) -> None:
    patches, grid = torch.randn(2 * 60, 1176), (2, 10, 6)
    plain, salient = (model.encode_video(patches, grid, saliency=wanted) for wanted in (False, True))
    assert plain.attention_received is None
    assert torch.equal(plain.embeddings, salient.embeddings)
    mel = torch.randn(128, 333)
    plain, salient = (model.encode_audio(mel, saliency=wanted) for wanted in (False, True))
    assert plain.attention_received is None
    assert torch.equal(plain.embeddings, salient.embeddings)


@pytest.mark.parametrize(
    ("n_mel_frames", "windows"),
    [(200, [50]), (333, [50, 33]), (331, [50, 33]), (400, [50, 50]), (397, [99]), (202, [50]), (5, [1])],
)
@torch.no_grad()
def test_audio_saliency(model, n_mel_frames: int, windows: list[int]) -> None:
    """The frames after the convolutions, captured here by a hook of our own; the map built whole."""
    assert FAMILY.audio_tokens(n_mel_frames) == sum(windows)
    tower = model._parts[2]
    mel = torch.randn(128, n_mel_frames, generator=torch.Generator().manual_seed(3))
    layer, seen = tower.layers[-1], []
    handle = layer.self_attn_layer_norm.register_forward_hook(lambda _m, _a, out: seen.append(out))
    encoded = model.encode_audio(mel, saliency=True)
    handle.remove()
    normed, heads = seen[0], layer.self_attn.num_heads
    query = layer.self_attn.q_proj(normed).view(len(normed), heads, -1)
    key = layer.self_attn.k_proj(normed).view(len(normed), heads, -1)
    frames = [2 * size for size in windows]
    frames[-1] = len(normed) - sum(frames[:-1])  # an odd last frame attends and is attended to
    expected, start = [], 0
    for n in frames:
        part = slice(start, start + n)
        logits = torch.einsum("ihd,jhd->hij", query[part], key[part]) / math.sqrt(query.shape[2])
        expected.append(logits.softmax(-1).mean(0).sum(0))
        start += n
    pooled = torch.cat(expected)[: 2 * sum(windows)].view(-1, 2).mean(1)
    torch.testing.assert_close(encoded.attention_received(windows), pooled, rtol=1e-4, atol=1e-4)
    assert encoded.embeddings.shape == (sum(windows), 64)

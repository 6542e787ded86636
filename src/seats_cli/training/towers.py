"""The encoders of a thinker on many equal pieces at once: the same weights and results, one call per layer.

transformers runs attention window by window in a Python loop, which is too slow for training on short windows.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from seats_cli.models.chunks import last_input
from seats_cli.models.preprocess import patchify
from seats_cli.training.processor import CLIP_MEAN, CLIP_STD

PATCH, MERGE = 14, 2


def parts_of(thinker: Any) -> tuple[Any, Any, Any]:
    """Language model, vision tower, audio tower: transformers 5.18 moved them under ``model``."""
    core = thinker.model
    if hasattr(core, "language_model"):
        return core.language_model, core.visual, core.audio_tower
    return core, thinker.visual, thinker.audio_tower


def to_patches(frames: Tensor) -> Tensor:
    """uint8 [grids, 2, height, width, 3] -> float32 [grids, patches, values]."""
    grids, _, height, width, _ = frames.shape
    patches = patchify(
        frames.flatten(0, 1),
        (height, width),
        patch_size=PATCH,
        temporal_patch_size=2,
        merge_size=MERGE,
        mean=CLIP_MEAN,
        std=CLIP_STD,
    )
    return patches.view(grids, -1, patches.shape[-1])


def rotate_half(x: Tensor) -> Tensor:
    """Each half of the last dimension in the other's place, one of them negative, as rotary positions want it."""
    left, right = x.chunk(2, dim=-1)
    return torch.cat([-right, left], dim=-1)


@cache
def _places(tower: Any, rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cos and sin [patches, head_dim] in the tower's order, and the order of the merged tokens, for one grid."""
    from transformers.vision_utils import get_vision_window_index

    grid = torch.tensor([[1, rows, columns]])
    with torch.no_grad(), last_input(tower.blocks[-1]) as caught:
        tower(torch.zeros(rows * columns, 3 * 2 * PATCH**2), grid_thw=grid)
    cos, sin = caught["position_embeddings"]
    order, _ = get_vision_window_index(grid, MERGE, tower.window_size, PATCH)
    return cos, sin, order


def encode_grids(tower: Any, patches: Tensor, rows: int, columns: int) -> Tensor:
    """Merged tokens of many grids of one size.

    Args:
        tower: A vision tower whose blocks all attend to the whole grid.
        patches: float32 [grids, patches, values].
        rows: Patches from top to bottom.
        columns: Patches from left to right.

    Returns:
        [grids, patches / 4, D] in raster order.
    """
    cos, sin, order = _places(tower, rows, columns)
    grids, n, _ = patches.shape
    hidden = patches @ tower.patch_embed.proj.weight.flatten(1).T
    hidden = hidden.view(grids, n // MERGE**2, MERGE**2, -1)[:, order].reshape(grids, n, -1)
    for block in tower.blocks:
        attention, normed = block.attn, block.norm1(hidden)
        shape = (grids, n, attention.num_heads, -1)
        query, key, value = (
            linear(normed).view(shape).transpose(1, 2) for linear in (attention.q, attention.k, attention.v)
        )
        query, key = (x * cos + rotate_half(x) * sin for x in (query, key))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        hidden = hidden + attention.proj(mixed.transpose(1, 2).reshape(grids, n, -1))
        hidden = hidden + block.mlp(block.norm2(hidden))
    merged: Tensor = tower.merger(hidden).view(grids, n // MERGE**2, -1)
    return merged[:, torch.argsort(order)]


def encode_chunks(tower: Any, mel: Tensor) -> Tensor:
    """Audio tokens of many whole 2 s chunks.

    Args:
        tower: An audio tower.
        mel: float32 [chunks, 128, 200].

    Returns:
        [chunks, 50, D].
    """
    hidden = functional.gelu(tower.conv2(functional.gelu(tower.conv1(mel)))).transpose(1, 2)
    hidden = hidden + tower.positional_embedding.positional_embedding[: hidden.shape[1]]
    for layer in tower.layers:
        attention, normed = layer.self_attn, layer.self_attn_layer_norm(hidden)
        shape = (*hidden.shape[:2], attention.num_heads, -1)
        query, key, value = (
            linear(normed).view(shape).transpose(1, 2)
            for linear in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        hidden = hidden + attention.out_proj(mixed.transpose(1, 2).reshape(hidden.shape))
        normed = layer.final_layer_norm(hidden)
        hidden = hidden + layer.fc2(layer.activation_fn(layer.fc1(normed)))
    pooled = (hidden[:, ::2] + hidden[:, 1::2]) / 2
    projected: Tensor = tower.proj(tower.ln_post(pooled))
    return projected

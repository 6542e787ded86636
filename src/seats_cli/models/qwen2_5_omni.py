"""Qwen2.5-Omni (``model_type: qwen2_5_omni``): 3B and 7B.

Facts of the family: one grid per second of 14-pixel patches merged 2 x 2, 25 audio tokens and 25 steps of the
time axis per second, picture and sound interleaved by windows of 2 s, both encoders local.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from seats_cli.models.base import Config, Encoded, ModelSpec, call
from seats_cli.models.qwen2_5_omni_config import NAMED, STAND_IN, read_spec
from seats_cli.models.qwen_omni import QwenOmni

if TYPE_CHECKING:
    import torch

    from seats_cli.models.chunks import Inside


class Qwen25Omni(QwenOmni):
    """The thinker of Qwen2.5-Omni."""

    model_type: ClassVar[str] = "qwen2_5_omni"
    thinker_class: ClassVar[str] = "Qwen2_5OmniThinkerForConditionalGeneration"
    named: ClassVar[Mapping[str, Config]] = NAMED
    stand_in: ClassVar[tuple[str, Config]] = STAND_IN

    @classmethod
    def spec_of(cls, name: str, thinker_config: Config) -> ModelSpec:
        """Read a thinker's config.

        Raises:
            ModelError: A field is missing, or the text layers slide their attention window.
        """
        return read_spec(name, thinker_config)

    @classmethod
    def audio_tokens(cls, n_mel_frames: int) -> int:
        """A stride-2 convolution, then a pooling of pairs; an odd last frame is left out."""
        after_conv = (n_mel_frames - 1) // 2 + 1
        return max(0, (after_conv - 2) // 2 + 1)

    def encode_video(self, patches: torch.Tensor, grid: tuple[int, int, int], *, saliency: bool) -> Encoded:
        """The vision tower on whole grids; its permutation stays inside a grid, so batches are independent."""
        import torch
        from transformers.vision_utils import (
            get_vision_cu_seqlens,
            get_vision_position_ids,
            get_vision_window_index,
        )

        from seats_cli.kernels.transfer import to_device
        from seats_cli.models.chunks import Chunks, in_chunks, lengths_of
        from seats_cli.models.products import as_products

        tower, vision = self._parts[1], self.spec.geometry.vision
        grid_thw = torch.tensor([grid])  # on the host, where it is asked for numbers
        order, bounds = get_vision_window_index(
            grid_thw, vision.merge_size, vision.window_pixels, vision.patch_size
        )
        grids = Chunks(lengths_of(get_vision_cu_seqlens(grid_thw)), patches.device)
        windows = Chunks(lengths_of(bounds), patches.device)
        inputs = {
            "position_ids": to_device(
                get_vision_position_ids(grid_thw, vision.merge_size).numpy(), patches.device
            ),
            "cu_seqlens": grids.bounds,
            "max_seqlen": max(grids.lengths),
            "window_index": to_device(order.numpy(), patches.device),
            "cu_window_seqlens": windows.bounds,
            "max_window_seqlen": max(windows.lengths),
        }
        last = tower.blocks[-1]
        look = in_chunks(tower, (grids, windows), block=last, attention=last.attn, look=saliency)
        with as_products(tower.patch_embed), look as inside:
            embeddings = tower(patches, grid_thw=grid_thw, **inputs).pooler_output
        if not saliency:
            return Encoded(embeddings, None)
        places = torch.argsort(order)
        return Encoded(
            embeddings, lambda sizes: self._video_saliency(inside, places, sizes), projected=not inside.heads
        )

    def _video_saliency(self, inside: Inside, places: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
        """Patch-level attention received, mean over merged patches, back in raster order: float32 [n]."""
        from seats_cli.kernels.transfer import to_device
        from seats_cli.models.saliency import attention_received

        attn, unit = self._parts[1].blocks[-1].attn, self.spec.geometry.vision.merge_size**2
        query, key = inside.heads or self._video_heads(inside.caught)
        received = attention_received(query, key, [size * unit for size in sizes], attn.scaling)
        merged = received.reshape(-1, unit).mean(1)
        return merged[to_device(places.numpy(), merged.device)]

    def _video_heads(self, caught: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and keys of the last block, made again: [n, H, head_dim] each."""
        from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import apply_rotary_pos_emb_vision

        block, vision = self._parts[1].blocks[-1], self.spec.geometry.vision
        hidden = call(block.norm1, caught["hidden"])
        query = call(block.attn.q, hidden).reshape(len(hidden), vision.n_heads, -1)
        key = call(block.attn.k, hidden).reshape(len(hidden), vision.n_heads, -1)
        tables = [table.to(query.device) for table in caught["position_embeddings"]]
        heads: tuple[torch.Tensor, torch.Tensor] = apply_rotary_pos_emb_vision(query, key, *tables)
        return heads

    def encode_audio(self, mel: torch.Tensor, *, saliency: bool) -> Encoded:
        """The audio tower on whole 2 s chunks (the last may be shorter)."""
        import torch
        from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni as theirs

        from seats_cli.kernels.transfer import to_device
        from seats_cli.models.chunks import Chunks, in_chunks, lengths_of

        tower = self._parts[2]
        frames = torch.tensor([mel.shape[1]])  # on the host, where it is asked for numbers
        padded, lengths = theirs.chunk_and_pad_features(mel, frames, tower.n_window)
        chunks = Chunks(lengths_of(theirs.get_audio_cu_seqlens(lengths)), mel.device)
        inputs = {
            "padded_feature": padded,
            "chunk_lengths": to_device(lengths.numpy(), mel.device),
            "valid_indices": to_device(theirs.get_valid_indices(lengths).numpy(), mel.device),
            "pool_indices": to_device(theirs.get_pool_indices(frames).numpy(), mel.device),
            "cu_seqlens": chunks.bounds,
            "max_seqlen": max(chunks.lengths),
        }
        last = tower.layers[-1]
        with in_chunks(tower, (chunks,), block=last, attention=last.self_attn, look=saliency) as inside:
            embeddings = tower(mel, feature_lens=frames, **inputs).last_hidden_state
        if not saliency:
            return Encoded(embeddings, None)
        return Encoded(embeddings, lambda sizes: self._audio_saliency(inside, sizes), projected=not inside.heads)

    def _audio_saliency(self, inside: Inside, sizes: Sequence[int]) -> torch.Tensor:
        """Attention received before pooling, mean over the two frames pooled into a token: float32 [n]."""
        from seats_cli.models.saliency import attention_received

        query, key = inside.heads or self._audio_heads(inside.caught)
        frames = [2 * size for size in sizes]
        spare = len(query) - sum(frames)  # an odd last frame attends, but no token pools it
        frames[-1] += spare
        received = attention_received(query, key, frames, self._parts[2].layers[-1].self_attn.scaling)
        return received[: 2 * sum(sizes)].reshape(-1, 2).mean(1)

"""Qwen3-Omni (``model_type: qwen3_omni_moe``): 30B-A3B, Instruct and Thinking.

Facts of the family: one grid per second of 16-pixel patches merged 2 x 2, 13 audio tokens and 13 steps of the time
axis per second, picture and sound merged by time, token by token. The vision tower attends whole grids and hands
more features to the first decoder layers (deepstack); the audio tower attends blocks of 8 s. Layers have experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from seats_cli.models.base import Config, Encoded, ModelSpec, PixelNorm, call
from seats_cli.models.qwen3_omni_moe_config import NAMED, STAND_IN, read_spec
from seats_cli.models.qwen_omni import QwenOmni

if TYPE_CHECKING:
    import torch

    from seats_cli.models.chunks import Inside


class Qwen3Omni(QwenOmni):
    """The thinker of Qwen3-Omni."""

    model_type: ClassVar[str] = "qwen3_omni_moe"
    thinker_class: ClassVar[str] = "Qwen3OmniMoeThinkerForConditionalGeneration"
    named: ClassVar[Mapping[str, Config]] = NAMED
    stand_in: ClassVar[tuple[str, Config]] = STAND_IN
    usual_pixel_norm: ClassVar[PixelNorm] = PixelNorm(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

    @classmethod
    def spec_of(cls, name: str, thinker_config: Config) -> ModelSpec:
        """Read a thinker's config.

        Raises:
            ModelError: A field is missing, or some layers have no experts.
        """
        return read_spec(name, thinker_config)

    @classmethod
    def audio_tokens(cls, n_mel_frames: int) -> int:
        """Three convolutions of stride 2 on every second of sound: 13 tokens, fewer of a begun one."""
        whole, rest = divmod(n_mel_frames, 100)
        for _ in range(3):
            rest = (rest + 1) // 2
        return 13 * whole + rest

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Experts by batched products while answer tokens are written, grouped ones before and after.

        What transformers' own ``generate`` does off the CPU: for one token it is much faster to gather the weights
        of its experts than to sort tokens into groups.
        """
        before = self.thinker.get_experts_implementation()
        if self.device.type == "cpu" or "grouped_mm" not in before.values():
            yield
            return
        batched = {part: "batched_mm" if kind == "grouped_mm" else kind for part, kind in before.items()}
        self.thinker.set_experts_implementation(batched)
        try:
            yield
        finally:
            self.thinker.set_experts_implementation(before)

    def encode_video(self, patches: torch.Tensor, grid: tuple[int, int, int], *, saliency: bool) -> Encoded:
        """The vision tower on whole grids, which never attend each other."""
        import torch
        from transformers.vision_utils import (
            get_vision_cu_seqlens,
            get_vision_interpolation_indices_and_weights,
            get_vision_position_ids,
        )

        from seats_cli.kernels.transfer import to_device
        from seats_cli.models.chunks import Chunks, in_chunks, lengths_of
        from seats_cli.models.products import as_products

        tower, merge, device = self._parts[1], self.spec.geometry.vision.merge_size, patches.device
        grid_thw = torch.tensor([grid])  # on the host, where it is asked for numbers
        chunks = Chunks(lengths_of(get_vision_cu_seqlens(grid_thw)), device)
        indices, weights = get_vision_interpolation_indices_and_weights(
            grid_thw,
            num_grid_per_side=tower.num_grid_per_side,
            mode=tower.interpolation_mode,
            align_corners=tower.interpolation_align_corners,
            spatial_merge_size=merge,
        )
        inputs = {
            "interp_indices": to_device(indices.numpy(), device),
            "interp_weights": to_device(weights.numpy(), device),
            "position_ids": to_device(get_vision_position_ids(grid_thw, merge).numpy(), device),
            "cu_seqlens": chunks.bounds,
            "max_seqlen": max(chunks.lengths),
        }
        last = tower.blocks[-1]
        look = in_chunks(tower, (chunks,), block=last, attention=last.attn, look=saliency)
        with as_products(tower.patch_embed), look as inside:
            out = tower(patches, grid_thw=grid_thw, **inputs)
        deepstack = tuple(out.deepstack_features)
        if not saliency:
            return Encoded(out.pooler_output, None, deepstack)
        return Encoded(
            out.pooler_output,
            lambda sizes: self._video_saliency(inside, sizes),
            deepstack,
            projected=not inside.heads,
        )

    def _video_saliency(self, inside: Inside, sizes: Sequence[int]) -> torch.Tensor:
        """Patch-level attention received, mean over merged patches: float32 [n]."""
        from seats_cli.models.saliency import attention_received

        attn, unit = self._parts[1].blocks[-1].attn, self.spec.geometry.vision.merge_size**2
        query, key = inside.heads or self._video_heads(inside.caught)
        received = attention_received(query, key, [size * unit for size in sizes], attn.scaling)
        return received.reshape(-1, unit).mean(1)

    def _video_heads(self, caught: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and keys of the last block, made again: [n, H, head_dim] each."""
        from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import apply_rotary_pos_emb_vision

        block, vision = self._parts[1].blocks[-1], self.spec.geometry.vision
        hidden = call(block.norm1, caught["hidden"])
        query, key, _ = call(block.attn.qkv, hidden).reshape(len(hidden), 3, vision.n_heads, -1).unbind(1)
        tables = [table.to(query.device) for table in caught["position_embeddings"]]
        heads: tuple[torch.Tensor, torch.Tensor] = apply_rotary_pos_emb_vision(query, key, *tables)
        return heads

    def encode_audio(self, mel: torch.Tensor, *, saliency: bool) -> Encoded:
        """The audio tower on whole blocks of 8 s (the last may be shorter)."""
        import torch
        from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as theirs

        from seats_cli.kernels.transfer import to_device
        from seats_cli.models.chunks import Chunks, in_chunks, lengths_of

        tower = self._parts[2]
        frames = torch.tensor([mel.shape[1]])  # on the host, where it is asked for numbers
        padded, lengths = theirs.chunk_and_pad_features(mel, frames, tower.n_window)
        bounds = theirs.get_audio_cu_seqlens(lengths, frames, tower.n_window_infer, tower.n_window)
        valid = theirs.get_valid_indices(lengths, tower.n_window)
        chunks = Chunks(lengths_of(bounds), mel.device)
        inputs = {
            "padded_feature": padded,
            "chunk_lengths": to_device(lengths.numpy(), mel.device),
            "valid_indices": to_device(valid.numpy(), mel.device),
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
        """Attention received; every position of the layers is a token: float32 [n]."""
        from seats_cli.models.saliency import attention_received

        query, key = inside.heads or self._audio_heads(inside.caught)
        return attention_received(query, key, sizes, self._parts[2].layers[-1].self_attn.scaling)

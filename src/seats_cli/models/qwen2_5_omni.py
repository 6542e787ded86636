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

        from seats_cli.models.saliency import last_input

        tower = self._parts[1]
        grid_thw = torch.tensor([grid], device=patches.device)
        if not saliency:
            return Encoded(tower(patches, grid_thw=grid_thw).pooler_output, None)
        with last_input(tower.blocks[-1]) as caught:
            embeddings = tower(patches, grid_thw=grid_thw).pooler_output
        return Encoded(embeddings, lambda sizes: self._video_saliency(caught, grid, sizes))

    def _video_saliency(
        self, caught: dict[str, Any], grid: tuple[int, int, int], sizes: Sequence[int]
    ) -> torch.Tensor:
        """Patch-level attention received, mean over merged patches, back in raster order: float32 [n]."""
        import torch
        from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import apply_rotary_pos_emb_vision
        from transformers.vision_utils import get_vision_window_index

        from seats_cli.kernels.transfer import to_device
        from seats_cli.models.saliency import attention_received

        block, vision = self._parts[1].blocks[-1], self.spec.geometry.vision
        unit = vision.merge_size**2
        hidden = call(block.norm1, caught["hidden"])
        query = call(block.attn.q, hidden).reshape(len(hidden), vision.n_heads, -1)
        key = call(block.attn.k, hidden).reshape(len(hidden), vision.n_heads, -1)
        tables = [table.to(query.device) for table in caught["position_embeddings"]]
        query, key = apply_rotary_pos_emb_vision(query, key, *tables)
        received = attention_received(query, key, [size * unit for size in sizes], block.attn.scaling)
        merged = received.reshape(-1, unit).mean(1)
        order, _ = get_vision_window_index(
            torch.tensor([grid]), vision.merge_size, vision.window_pixels, vision.patch_size
        )
        return merged[to_device(torch.argsort(order).numpy(), merged.device)]

    def encode_audio(self, mel: torch.Tensor, *, saliency: bool) -> Encoded:
        """The audio tower on whole 2 s chunks (the last may be shorter)."""
        import torch

        from seats_cli.models.saliency import last_input

        tower, frames = self._parts[2], mel.shape[1]
        lengths = torch.tensor([frames], device=mel.device)
        after_conv = (lengths - 1) // 2 + 1
        if not saliency:
            out = tower(mel, feature_lens=lengths, aftercnn_lens=after_conv)
            return Encoded(out.last_hidden_state, None)
        with last_input(tower.layers[-1]) as caught:
            out = tower(mel, feature_lens=lengths, aftercnn_lens=after_conv)
        return Encoded(out.last_hidden_state, lambda sizes: self._audio_saliency(caught, sizes))

    def _audio_saliency(self, caught: dict[str, Any], sizes: Sequence[int]) -> torch.Tensor:
        """Attention received before pooling, mean over the two frames pooled into a token: float32 [n]."""
        from seats_cli.models.saliency import attention_received

        layer, heads = self._parts[2].layers[-1], self.spec.geometry.audio.n_heads
        hidden = call(layer.self_attn_layer_norm, caught["hidden"])
        query = call(layer.self_attn.q_proj, hidden).reshape(len(hidden), heads, -1)
        key = call(layer.self_attn.k_proj, hidden).reshape(len(hidden), heads, -1)
        frames = [2 * size for size in sizes]
        spare = len(hidden) - sum(frames)  # an odd last frame attends, but no token pools it
        frames[-1] += spare
        received = attention_received(query, key, frames, layer.self_attn.scaling)
        return received[: 2 * sum(sizes)].reshape(-1, 2).mean(1)

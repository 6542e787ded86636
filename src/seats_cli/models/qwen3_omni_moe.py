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

        from seats_cli.models.saliency import last_input

        tower = self._parts[1]
        grid_thw = torch.tensor([grid], device=patches.device)
        if not saliency:
            out = tower(patches, grid_thw=grid_thw)
            return Encoded(out.pooler_output, None, tuple(out.deepstack_features))
        with last_input(tower.blocks[-1]) as caught:
            out = tower(patches, grid_thw=grid_thw)
        return Encoded(
            out.pooler_output, lambda sizes: self._video_saliency(caught, sizes), tuple(out.deepstack_features)
        )

    def _video_saliency(self, caught: dict[str, Any], sizes: Sequence[int]) -> torch.Tensor:
        """Patch-level attention received, mean over merged patches: float32 [n]."""
        from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import apply_rotary_pos_emb_vision

        from seats_cli.models.saliency import attention_received

        block, vision = self._parts[1].blocks[-1], self.spec.geometry.vision
        unit = vision.merge_size**2
        hidden = call(block.norm1, caught["hidden"])
        query, key, _ = call(block.attn.qkv, hidden).reshape(len(hidden), 3, vision.n_heads, -1).unbind(1)
        tables = [table.to(query.device) for table in caught["position_embeddings"]]
        query, key = apply_rotary_pos_emb_vision(query, key, *tables)
        received = attention_received(query, key, [size * unit for size in sizes], block.attn.scaling)
        return received.reshape(-1, unit).mean(1)

    def encode_audio(self, mel: torch.Tensor, *, saliency: bool) -> Encoded:
        """The audio tower on whole blocks of 8 s (the last may be shorter)."""
        import torch

        from seats_cli.models.saliency import last_input

        tower = self._parts[2]
        lengths = torch.tensor([mel.shape[1]], device=mel.device)
        if not saliency:
            return Encoded(tower(mel, feature_lens=lengths).last_hidden_state, None)
        with last_input(tower.layers[-1]) as caught:
            out = tower(mel, feature_lens=lengths)
        return Encoded(out.last_hidden_state, lambda sizes: self._audio_saliency(caught, sizes))

    def _audio_saliency(self, caught: dict[str, Any], sizes: Sequence[int]) -> torch.Tensor:
        """Attention received; every position of the layers is a token: float32 [n]."""
        from seats_cli.models.saliency import attention_received

        layer, heads = self._parts[2].layers[-1], self.spec.geometry.audio.n_heads
        hidden = call(layer.self_attn_layer_norm, caught["hidden"])
        query = call(layer.self_attn.q_proj, hidden).reshape(len(hidden), heads, -1)
        key = call(layer.self_attn.k_proj, hidden).reshape(len(hidden), heads, -1)
        return attention_received(query, key, sizes, layer.self_attn.scaling)

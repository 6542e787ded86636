"""Qwen2.5-Omni (``model_type: qwen2_5_omni``): 3B and 7B.

Facts of the family: one grid per second of 14-pixel patches merged 2 x 2, 25 audio tokens and 25 steps of the
time axis per second, picture and sound interleaved by windows of 2 s, both encoders local.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from seats_cli.errors import UsageError
from seats_cli.layout import VideoGrids
from seats_cli.models.base import Config, Encoded, ModelSpec, OmniModel, PixelNorm, call, check_plain_text
from seats_cli.models.qwen2_5_omni_config import NAMED, STAND_IN, read_spec

if TYPE_CHECKING:
    import torch

    from seats_cli.models.base import Rope


class Qwen25Omni(OmniModel):
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

    @cached_property
    def _parts(self) -> tuple[Any, Any, Any]:
        """Language model, vision tower, audio tower: transformers 5.18 moved them under ``model``."""
        core = self.thinker.model
        if hasattr(core, "language_model"):
            return core.language_model, core.visual, core.audio_tower
        return core, self.thinker.visual, self.thinker.audio_tower

    @property
    def layers(self) -> Sequence[torch.nn.Module]:
        """The decoder layers, in order."""
        layers: Sequence[torch.nn.Module] = self._parts[0].layers
        return layers

    @property
    def pixel_norm(self) -> PixelNorm:
        """Mean and standard deviation of the checkpoint's video processor."""
        source = getattr(self.processor, "video_processor", None)
        if source is None:
            return PixelNorm()
        return PixelNorm(mean=tuple(source.image_mean), std=tuple(source.image_std))

    @property
    def mel_filters(self) -> Any:
        """Filter bank of the checkpoint's feature extractor, or the Whisper one of as many bins."""
        if self.processor is not None:
            return self.processor.feature_extractor.mel_filters
        from transformers import WhisperFeatureExtractor

        return WhisperFeatureExtractor(feature_size=self.spec.geometry.audio.n_mel_bins).mel_filters

    def prompt(self, question: str, system: str | None, clip: str) -> tuple[list[int], list[int]]:
        """Apply the checkpoint's chat template and cut it at the clip's placeholder."""
        if not question.strip():
            raise UsageError("the question is empty", 'ask something: seats ask clip.mp4 "What happens?"')
        tokenizer = self.tokenizer
        check_plain_text(question, "question", tokenizer)
        check_plain_text(system or "", "system prompt", tokenizer)
        turns: list[dict[str, Any]] = []
        if system is not None:
            turns.append({"role": "system", "content": [{"type": "text", "text": system}]})
        content = [{"type": clip, clip: "clip"}, {"type": "text", "text": question}]
        turns.append({"role": "user", "content": content})
        text = self.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        layout = self.spec.layout
        place = ids.index(layout.video_id if clip == "video" else layout.audio_id)
        return ids[:place], ids[place + 1 :]

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeddings [S, D] of int64 ids [S]."""
        embeddings: torch.Tensor = call(self._parts[0].embed_tokens, ids)
        return embeddings

    def rope(self, hidden: torch.Tensor, positions: torch.Tensor) -> Rope:
        """Interleaved 3-D rotary tables; they depend on the positions alone."""
        cos, sin = call(self._parts[0].rotary_emb, hidden, positions[:, None, :])
        return cos.to(hidden.device), sin.to(hidden.device)

    def run_layer(self, index: int, hidden: torch.Tensor, rope: Rope, mask: Any, cache: Any) -> torch.Tensor:
        """One decoder layer. Without a mask sdpa and flash attention are causal by themselves."""
        out: torch.Tensor = self.layers[index](
            hidden, attention_mask=mask, position_embeddings=rope, past_key_values=cache, use_cache=True
        )
        return out

    def query_attention(self, index: int, hidden: torch.Tensor, rope: Rope) -> torch.Tensor:
        """Attention of the last token over the whole sequence: float32 [S]."""
        import torch
        from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import rotate_half

        layer: Any = self.layers[index]
        attn, text = layer.self_attn, self.spec.geometry.text
        normed = call(layer.input_layernorm, hidden)
        key = call(attn.k_proj, normed).view(1, -1, text.n_kv_heads, text.head_dim).transpose(1, 2)
        query = call(attn.q_proj, normed[:, -1:]).view(1, 1, text.n_heads, text.head_dim).transpose(1, 2)
        cos, sin = rope
        key = key * cos[:, None] + rotate_half(key) * sin[:, None]
        query = query * cos[:, None, -1:] + rotate_half(query) * sin[:, None, -1:]
        groups = query.reshape(text.n_kv_heads, -1, text.head_dim)
        logits = (groups @ key[0].transpose(1, 2)).float() * attn.scaling
        return torch.softmax(logits, dim=-1).mean(dim=(0, 1))

    def last_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [vocab] of the last position only."""
        norm, head = self._parts[0].norm, self.thinker.lm_head
        logits: torch.Tensor = call(head, call(norm, hidden[:, -1:]))
        return logits[0, 0]

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
        return merged[torch.argsort(order).to(merged.device)]

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

    @property
    def towers(self) -> Sequence[torch.nn.Module]:
        """Vision tower, audio tower."""
        return self._parts[1:]

    def stock_inputs(
        self,
        ids: torch.Tensor,
        patches: torch.Tensor | None,
        mel: torch.Tensor | None,
        video: VideoGrids | None,
    ) -> dict[str, Any]:
        """Arguments of ``Qwen2_5OmniThinkerForConditionalGeneration.forward``, cache included."""
        import torch

        inputs: dict[str, Any] = {
            "input_ids": ids[None],
            "attention_mask": torch.ones_like(ids)[None],
            "use_audio_in_video": patches is not None and mel is not None,
            "use_cache": True,
        }
        if patches is not None and video is not None:
            merge = self.spec.geometry.vision.merge_size
            grid = [video.n_grids, video.rows * merge, video.columns * merge]
            inputs["pixel_values_videos"] = patches
            inputs["video_grid_thw"] = torch.tensor([grid], device=ids.device)
            inputs["video_second_per_grid"] = torch.tensor([video.seconds_per_grid], device=ids.device)
        if mel is not None:
            inputs["input_features"] = mel[None]
            inputs["feature_attention_mask"] = torch.ones(1, mel.shape[1], dtype=torch.long, device=ids.device)
        return inputs

"""What the thinkers of the Qwen-Omni families have in common: names of parts, prompts, layers, rotary tables.

A family's own file says what differs: sizes and ids, how the encoders are built, and what reaches the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

from seats_cli.errors import UsageError
from seats_cli.layout import VideoGrids
from seats_cli.models.base import OmniModel, PixelNorm, call, check_plain_text
from seats_cli.models.turns import messages_of, token_ids

if TYPE_CHECKING:
    import torch

    from seats_cli.models.base import Attend, Rope, TokenLayer
    from seats_cli.models.turns import Turn


def _rotate_half(x: torch.Tensor) -> torch.Tensor:
    import torch

    low, high = x.chunk(2, dim=-1)
    return torch.cat((-high, low), dim=-1)


class QwenOmni(OmniModel):
    """A thinker of one of the families."""

    usual_pixel_norm: ClassVar[PixelNorm] = PixelNorm()
    """Where there is no checkpoint to say it."""

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
            return self.usual_pixel_norm
        return PixelNorm(mean=tuple(source.image_mean), std=tuple(source.image_std))

    @property
    def mel_filters(self) -> Any:
        """Filter bank of the checkpoint's feature extractor, or the Whisper one of as many bins."""
        if self.processor is not None:
            return self.processor.feature_extractor.mel_filters
        from transformers import WhisperFeatureExtractor

        return WhisperFeatureExtractor(feature_size=self.spec.geometry.audio.n_mel_bins).mel_filters

    def prompt(
        self, question: str, system: str | None, clip: str, *, thinking: bool = True, history: Sequence[Turn] = ()
    ) -> tuple[list[int], list[int]]:
        """Apply the checkpoint's chat template and cut it at the clip's placeholder."""
        if not question.strip():
            raise UsageError("the question is empty", 'ask something: seats ask clip.mp4 "What happens?"')
        tokenizer = self.tokenizer
        for asked in (*(turn.question for turn in history), question):
            check_plain_text(asked, "question", tokenizer)
        check_plain_text(system or "", "system prompt", tokenizer)
        messages = messages_of(question, system, clip, history)
        ids = token_ids(messages, tokenizer, partial(self.chat, thinking=thinking))
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

    def token_layer(self, index: int) -> TokenLayer:
        """One decoder layer for one token; the pieces are looked up once."""
        import torch

        layer: Any = self.layers[index]
        attn, text, mlp = layer.self_attn, self.spec.geometry.text, layer.mlp
        norm_before, norm_after = layer.input_layernorm, layer.post_attention_layernorm
        q_proj, k_proj, v_proj, o_proj = attn.q_proj, attn.k_proj, attn.v_proj, attn.o_proj
        q_norm, k_norm = (attn.q_norm, attn.k_norm) if text.qk_norm else (None, None)
        heads, kv_heads, width, scaling = text.n_heads, text.n_kv_heads, text.head_dim, attn.scaling

        def run(hidden: torch.Tensor, rope: Rope, attend: Attend) -> torch.Tensor:
            normed = norm_before(hidden)
            query = q_proj(normed).view(heads, width)
            key = k_proj(normed).view(kv_heads, width)
            value = v_proj(normed).view(kv_heads, 1, width)
            if q_norm is not None and k_norm is not None:
                query, key = q_norm(query), k_norm(key)
            both = torch.cat((query, key))  # rotated in one go: half as many kernels
            both = both * rope[0][0] + _rotate_half(both) * rope[1][0]
            groups, key = both[:heads].view(kv_heads, -1, width), both[heads:].unsqueeze(1)
            hidden = hidden + o_proj(attend(groups, key, value, scaling).view(1, 1, -1))
            after: torch.Tensor = hidden + mlp(norm_after(hidden))
            return after

        return run

    def query_attention(self, index: int, hidden: torch.Tensor, rope: Rope) -> torch.Tensor:
        """Attention of the last token over the whole sequence: float32 [S]."""
        import torch

        layer: Any = self.layers[index]
        attn, text = layer.self_attn, self.spec.geometry.text
        normed = call(layer.input_layernorm, hidden)
        key = call(attn.k_proj, normed).view(1, -1, text.n_kv_heads, text.head_dim)
        query = call(attn.q_proj, normed[:, -1:]).view(1, 1, text.n_heads, text.head_dim)
        if text.qk_norm:
            query, key = call(attn.q_norm, query), call(attn.k_norm, key)
        query, key = query.transpose(1, 2), key.transpose(1, 2)
        cos, sin = rope
        key = key * cos[:, None] + _rotate_half(key) * sin[:, None]
        query = query * cos[:, None, -1:] + _rotate_half(query) * sin[:, None, -1:]
        groups = query.reshape(text.n_kv_heads, -1, text.head_dim)
        logits = (groups @ key[0].transpose(1, 2)).float() * attn.scaling
        return torch.softmax(logits, dim=-1).mean(dim=(0, 1))

    def last_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [vocab] of the last position only."""
        norm, head = self._parts[0].norm, self.thinker.lm_head
        logits: torch.Tensor = call(head, call(norm, hidden[:, -1:]))
        return logits[0, 0]

    def _audio_heads(self, caught: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and keys of the audio tower's last layer, made again: [n, H, head_dim] each."""
        layer, heads = self._parts[2].layers[-1], self.spec.geometry.audio.n_heads
        hidden = call(layer.self_attn_layer_norm, caught["hidden"])
        query = call(layer.self_attn.q_proj, hidden).reshape(len(hidden), heads, -1)
        return query, call(layer.self_attn.k_proj, hidden).reshape(len(hidden), heads, -1)

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
        """Arguments of the thinker's own forward, cache included."""
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

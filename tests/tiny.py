"""Tiny random Qwen2.5-Omni models and checkpoints in the published format, and transformers' own path."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    PreTrainedModel,
    Qwen2_5OmniConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
)

from seats_cli.training.model import hub_name
from tests.tiny_processor import (
    CHAT_TEMPLATE,
    NAMED_TOKENS,
    SPECIAL_TOKENS,
    printable_ids,
    tiny_processor_files,
    token_ids,
    vocabulary_size,
)
from tests.tiny_stock import random_clip, stock_forward, stock_generate, stock_inputs

__all__ = [
    "CHAT_TEMPLATE",
    "NAMED_TOKENS",
    "SPECIAL_TOKENS",
    "hub_name",
    "hub_state_dict",
    "printable_ids",
    "random_clip",
    "stock_forward",
    "stock_generate",
    "stock_inputs",
    "tiny_config",
    "tiny_processor_files",
    "tiny_thinker",
    "token_ids",
    "write_tiny_checkpoint",
]

HIDDEN_SIZE = 64
PIXEL_FACTOR = 28
MODEL_TYPE = "qwen2_5_omni"

_TEXT: dict[str, Any] = {
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "hidden_size": HIDDEN_SIZE,
    "init_std": 0.02,
    "initializer_range": 0.02,
    "intermediate_size": 128,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "model_type": "qwen2_5_omni_text",
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {"mrope_section": [2, 3, 3], "rope_type": "default", "type": "default"},
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "use_cache": True,
    "use_sliding_window": False,
}
_VISION: dict[str, Any] = {
    "depth": 4,
    "embed_dim": 32,
    "fullatt_block_indexes": [1, 3],
    "hidden_act": "silu",
    "hidden_size": 32,
    "in_channels": 3,
    "intermediate_size": 48,
    "model_type": "qwen2_5_omni_vision_encoder",
    "num_heads": 2,
    "out_hidden_size": HIDDEN_SIZE,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "tokens_per_second": 25,
    "window_size": 112,
}
_AUDIO: dict[str, Any] = {
    "d_model": 32,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "encoder_layers": 2,
    "max_source_positions": 1500,
    "model_type": "qwen2_5_omni_audio_encoder",
    "n_window": 100,
    "num_mel_bins": 128,
    "output_dim": HIDDEN_SIZE,
}
_TALKER: dict[str, Any] = {
    "embedding_size": HIDDEN_SIZE,
    "head_dim": 16,
    "hidden_size": 32,
    "intermediate_size": 32,
    "model_type": "qwen2_5_omni_talker",
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "num_key_value_heads": 1,
    "rope_scaling": {"mrope_section": [2, 3, 3], "rope_type": "default", "type": "default"},
    "rope_theta": 1000000.0,
    "vocab_size": 320,
    # Every id lies inside the vocabulary, so that reading the file logs nothing.
    "audio_end_token_id": 277,
    "audio_start_token_id": 276,
    "tts_codec_end_token_id": 301,
    "tts_codec_mask_token_id": 303,
    "tts_codec_pad_token_id": 299,
    "tts_codec_start_token_id": 300,
    "tts_text_end_token_id": 311,
    "tts_text_pad_token_id": 309,
    "tts_text_start_token_id": 310,
    "vision_end_token_id": 282,
    "vision_start_token_id": 281,
}
_TOKEN2WAV: dict[str, Any] = {
    "bigvgan_config": {"mel_dim": 8, "model_type": "qwen2_5_omni_bigvgan", "upsample_initial_channel": 64},
    "dit_config": {
        "depth": 1,
        "head_dim": 16,
        "hidden_size": 16,
        "mel_dim": 8,
        "model_type": "qwen2_5_omni_dit",
    },
    "model_type": "qwen2_5_omni_token2wav",
}


def _config_json(
    *,
    n_layers: int,
    text: Mapping[str, Any] | None = None,
    vision: Mapping[str, Any] | None = None,
    audio: Mapping[str, Any] | None = None,
    **thinker: Any,
) -> dict[str, Any]:
    """The content of config.json, with the published keys; the arguments replace single values."""
    ids = token_ids()
    thinker_config = {
        "architectures": ["Qwen2OmniNaViTThinkerForConditionalGeneration"],
        "audio_config": {**_AUDIO, **(audio or {})},
        "audio_end_token_id": ids["<|audio_eos|>"],
        "audio_start_token_id": ids["<|audio_bos|>"],
        "audio_token_index": ids["<|AUDIO|>"],
        "bos_token_id": ids["<|im_start|>"],
        "eos_token_id": ids["<|im_end|>"],
        "ignore_index": -100,
        "image_token_index": ids["<|IMAGE|>"],
        "model_type": "qwen2_5_omni_thinker",
        "pad_token_id": ids["<|endoftext|>"],
        "position_id_per_seconds": 25,
        "seconds_per_chunk": 2,
        "text_config": {
            **_TEXT,
            "num_hidden_layers": n_layers,
            "vocab_size": vocabulary_size(),
            **(text or {}),
        },
        "tie_word_embeddings": False,
        "user_token_id": ids["user"],
        "video_token_index": ids["<|VIDEO|>"],
        "vision_config": {**_VISION, **(vision or {})},
        "vision_end_token_id": ids["<|vision_eos|>"],
        "vision_start_token_id": ids["<|vision_bos|>"],
        "vision_token_id": ids["<|vision_pad|>"],
        **thinker,
    }
    content = {
        "architectures": ["Qwen2_5OmniModel"],
        "enable_audio_output": True,
        "enable_talker": True,
        "model_type": "qwen2_5_omni",
        "talker_config": _TALKER,
        "thinker_config": thinker_config,
        "token2wav_config": _TOKEN2WAV,
    }
    # transformers writes into the dicts it is given.
    return copy.deepcopy(content)


def tiny_config(*, n_layers: int = 8, **overrides: Any) -> Qwen2_5OmniConfig:
    """The whole model's configuration; ``.thinker_config`` is the part that answers.

    Args:
        n_layers: Decoder layers.
        overrides: ``text``, ``vision`` and ``audio`` are dicts that replace single values of those parts;
            anything else replaces a value of the thinker's configuration.
    """
    return Qwen2_5OmniConfig.from_dict(_config_json(n_layers=n_layers, **overrides))


def hub_state_dict(thinker: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The thinker's parameters under their published names, in alphabetical order."""
    return dict(sorted((hub_name(name), value) for name, value in thinker.state_dict().items()))


def _draw(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Random values that keep signals near unit size: attention and logits neither flat nor saturated."""
    noise = torch.randn(shape, generator=generator)
    if len(shape) == 1:
        is_norm = name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "ln_q.weight", "ln_post.weight"))
        return noise * 0.1 + (1.0 if is_norm else 0.0)
    if "embed_tokens" in name:
        return noise * 0.5
    # Sharp attention in the language model: what the clip holds must be able to change the answer.
    sharp = name.startswith("thinker.model.") and name.endswith(("q_proj.weight", "k_proj.weight"))
    gain = 1.8 if "lm_head" in name else 1.7 if sharp else 1.2
    return noise * (gain / math.sqrt(math.prod(shape[1:])))


@torch.no_grad()
def randomise(thinker: PreTrainedModel, state: Mapping[str, torch.Tensor], seed: int) -> None:
    """Fill every parameter. The order is that of the published names: the same in every transformers.

    Args:
        thinker: Its head is changed too.
        state: Its parameters, or parts of them, by published name.
        seed: Of the values.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, value in state.items():
        value.copy_(_draw(name, value.shape, generator))
    # What has no readable text is never the likeliest next token, so that answers can be printed.
    unreadable = torch.ones(thinker.lm_head.weight.shape[0], dtype=torch.bool)
    unreadable[printable_ids()] = False
    thinker.lm_head.weight[unreadable] = 0.0


def tiny_thinker(
    seed: int = 0, dtype: torch.dtype = torch.float32, n_layers: int = 8, **overrides: Any
) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """A random thinker in eval mode, the same for the same seed; ``overrides`` as in ``tiny_config``."""
    thinker = Qwen2_5OmniThinkerForConditionalGeneration(
        tiny_config(n_layers=n_layers, **overrides).thinker_config
    )
    randomise(thinker, hub_state_dict(thinker), seed)
    thinker.generation_config.eos_token_id = token_ids()["<|im_end|>"]
    thinker.generation_config.pad_token_id = token_ids()["<|endoftext|>"]
    return thinker.to(dtype).eval()


def _speech_weights() -> dict[str, torch.Tensor]:
    """A few weights of the parts that speak: enough to be in the way of whoever loads the thinker alone."""
    generator = torch.Generator().manual_seed(1)
    shapes = {
        "talker.codec_head.weight": (320, 32),
        "talker.model.embed_tokens.weight": (320, HIDDEN_SIZE),
        "talker.model.layers.0.self_attn.q_proj.weight": (32, 32),
        "talker.thinker_to_talker_proj.weight": (32, HIDDEN_SIZE),
        "token2wav.code2wav_bigvgan_model.conv_pre.weight": (64, 8, 5),
        "token2wav.code2wav_dit_model.proj_out.weight": (8, 16),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def _save(weights: dict[str, torch.Tensor], path: Path) -> None:
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors makes files that only their owner can read


def write_weights(folder: Path, weights: dict[str, torch.Tensor], shards: int) -> None:
    if shards == 1:
        _save(weights, folder / "model.safetensors")
        return
    names = list(weights)
    weight_map = {}
    for shard in range(shards):
        part = names[shard::shards]
        file_name = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        _save({name: weights[name] for name in part}, folder / file_name)
        weight_map |= dict.fromkeys(part, file_name)
    size = sum(value.numel() * value.element_size() for value in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def write_tiny_checkpoint(
    folder: Path,
    *,
    seed: int = 0,
    n_layers: int = 8,
    shards: int = 2,
    dtype: torch.dtype = torch.bfloat16,
    talker: bool = True,
    thinking: str | None = None,
    **overrides: Any,
) -> Path:
    """Write a whole checkpoint folder as published: config, weights, processor.

    Args:
        folder: Made when missing.
        seed: Of the weights; ``tiny_thinker(seed, dtype, n_layers)`` has the same ones.
        n_layers: Decoder layers.
        shards: Weight files; 1 writes a single file without an index.
        dtype: Of the weights on disk.
        talker: Add keys of the parts that speak.
        thinking: As in ``tiny_processor_files``.
        overrides: As in ``tiny_config``.

    Returns:
        ``folder``.
    """
    tiny_processor_files(folder, thinking)
    content = _config_json(n_layers=n_layers, **overrides)
    content["torch_dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n")
    weights = hub_state_dict(tiny_thinker(seed, n_layers=n_layers, **overrides))
    if talker:
        weights |= _speech_weights()
    write_weights(folder, {name: value.to(dtype).contiguous() for name, value in weights.items()}, shards)
    return folder

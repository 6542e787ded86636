"""Tiny random Qwen3-Omni models and checkpoints in the published format; the names are those of ``tests.tiny``."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3OmniMoeConfig, Qwen3OmniMoeThinkerForConditionalGeneration

from seats_cli.training.model import hub_name
from tests import tiny
from tests.tiny_processor import token_ids, vocabulary_size

PIXEL_FACTOR = 32
MODEL_TYPE = "qwen3_omni_moe"
RENAMED_TOKENS = {
    "<|AUDIO|>": "<|audio_pad|>",
    "<|IMAGE|>": "<|image_pad|>",
    "<|VIDEO|>": "<|video_pad|>",
    "<|audio_bos|>": "<|audio_start|>",
    "<|audio_eos|>": "<|audio_end|>",
    "<|vision_bos|>": "<|vision_start|>",
    "<|vision_eos|>": "<|vision_end|>",
    "<|vision_pad|>": "<|vision_spare|>",
    "Qwen2_5OmniProcessor": "Qwen3OmniMoeProcessor",
}
"""From the names of Qwen2.5-Omni's files to those of Qwen3-Omni's; one name of the former is free there."""
N_EXPERTS = 6

_TEXT: dict[str, Any] = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "decoder_sparse_step": 1,
    "head_dim": 32,  # heads wider in total than the residual stream
    "hidden_act": "silu",
    "hidden_size": tiny.HIDDEN_SIZE,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "max_position_embeddings": 65536,
    "mlp_only_layers": [],
    "model_type": "qwen3_omni_moe_text",
    "moe_intermediate_size": 48,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_experts": N_EXPERTS,
    "num_experts_per_tok": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "interleaved": True,
        "mrope_interleaved": True,
        "mrope_section": [6, 5, 5],
        "rope_type": "default",
        "type": "default",
    },
    "rope_theta": 1000000,
    "use_cache": True,
}
_VISION: dict[str, Any] = {
    "deepstack_visual_indexes": [0, 1, 2],
    "depth": 4,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 32,
    "in_channels": 3,
    "intermediate_size": 48,
    "model_type": "qwen3_omni_moe_vision_encoder",
    "num_heads": 2,
    "num_position_embeddings": 144,
    "out_hidden_size": tiny.HIDDEN_SIZE,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
_AUDIO: dict[str, Any] = {
    "conv_chunksize": 500,
    "d_model": 32,
    "downsample_hidden_size": 8,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "encoder_layers": 2,
    "max_source_positions": 1500,
    "model_type": "qwen3_omni_moe_audio_encoder",
    "n_window": 50,
    "n_window_infer": 800,
    "num_mel_bins": 128,
    "output_dim": tiny.HIDDEN_SIZE,
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
        "architectures": ["Qwen3OmniMoeThinkerForConditionalGeneration"],
        "audio_config": {**_AUDIO, **(audio or {})},
        "audio_end_token_id": ids["<|audio_eos|>"],
        "audio_start_token_id": ids["<|audio_bos|>"],
        "audio_token_id": ids["<|AUDIO|>"],
        "image_token_id": ids["<|IMAGE|>"],
        "model_type": "qwen3_omni_moe_thinker",
        "position_id_per_seconds": 13,
        "seconds_per_chunk": 2,
        "text_config": {
            **_TEXT,
            "num_hidden_layers": n_layers,
            "vocab_size": vocabulary_size(),
            **(text or {}),
        },
        "user_token_id": ids["user"],
        "video_token_id": ids["<|VIDEO|>"],
        "vision_config": {**_VISION, **(vision or {})},
        "vision_end_token_id": ids["<|vision_eos|>"],
        "vision_start_token_id": ids["<|vision_bos|>"],
        **thinker,
    }
    content = {
        "architectures": ["Qwen3OmniMoeForConditionalGeneration"],
        "enable_audio_output": False,
        "im_end_token_id": ids["<|im_end|>"],
        "im_start_token_id": ids["<|im_start|>"],
        "model_type": "qwen3_omni_moe",
        "thinker_config": thinker_config,
    }
    # transformers writes into the dicts it is given.
    return copy.deepcopy(content)


def tiny_config(*, n_layers: int = 8, **overrides: Any) -> Qwen3OmniMoeConfig:
    """As ``tests.tiny.tiny_config``."""
    return Qwen3OmniMoeConfig.from_dict(_config_json(n_layers=n_layers, **overrides))


def tiny_processor_files(folder: Path) -> None:
    """Write tokenizer, feature extractors, chat template and generation defaults into ``folder``."""
    tiny.tiny_processor_files(folder)
    for path in folder.iterdir():
        text = path.read_text(encoding="utf-8")
        for old, new in RENAMED_TOKENS.items():
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
    path = folder / "preprocessor_config.json"
    half = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "patch_size": PIXEL_FACTOR // 2}
    path.write_text(json.dumps({**json.loads(path.read_text()), **half}, indent=2) + "\n")


def hub_state_dict(thinker: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The thinker's parameters under their published names, in alphabetical order: every expert by itself."""
    found = {}
    for name, value in ((hub_name(name), value) for name, value in thinker.state_dict().items()):
        if name.endswith("experts.gate_up_proj"):
            for i, both in enumerate(value):
                gate, up = both.chunk(2)
                found[name.replace("gate_up_proj", f"{i}.gate_proj.weight")] = gate
                found[name.replace("gate_up_proj", f"{i}.up_proj.weight")] = up
        elif name.endswith("experts.down_proj"):
            for i, one in enumerate(value):
                found[name.replace("down_proj", f"{i}.down_proj.weight")] = one
        else:
            found[name] = value
    return dict(sorted(found.items()))


def tiny_thinker(
    seed: int = 0, dtype: torch.dtype = torch.float32, n_layers: int = 8, **overrides: Any
) -> Qwen3OmniMoeThinkerForConditionalGeneration:
    """As ``tests.tiny.tiny_thinker``."""
    config = tiny_config(n_layers=n_layers, **overrides).thinker_config
    thinker = Qwen3OmniMoeThinkerForConditionalGeneration(config)
    tiny.randomise(thinker, hub_state_dict(thinker), seed)
    thinker.generation_config.eos_token_id = token_ids()["<|im_end|>"]
    thinker.generation_config.pad_token_id = token_ids()["<|endoftext|>"]
    return thinker.to(dtype).eval()


def _speech_weights() -> dict[str, torch.Tensor]:
    """A few weights of the parts that speak."""
    generator = torch.Generator().manual_seed(1)
    shapes = {
        "talker.codec_head.weight": (320, 32),
        "talker.model.codec_embedding.weight": (320, 32),
        "code2wav.code_embedding.weight": (64, 16),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write_tiny_checkpoint(
    folder: Path,
    *,
    seed: int = 0,
    n_layers: int = 8,
    shards: int = 2,
    dtype: torch.dtype = torch.bfloat16,
    talker: bool = True,
    **overrides: Any,
) -> Path:
    """As ``tests.tiny.write_tiny_checkpoint``."""
    tiny_processor_files(folder)
    content = _config_json(n_layers=n_layers, **overrides)
    content["dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n")
    weights = hub_state_dict(tiny_thinker(seed, n_layers=n_layers, **overrides))
    if talker:
        weights |= _speech_weights()
    tiny.write_weights(folder, {name: value.to(dtype).contiguous() for name, value in weights.items()}, shards)
    return folder

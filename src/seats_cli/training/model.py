"""The small Qwen2.5-Omni: its configuration, its first weights, and its checkpoint folder."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import torch

from seats_cli.models.settings import SETTINGS_FILE
from seats_cli.training.processor import SYSTEM_PROMPT, Vocabulary, write_processor_files
from seats_cli.world.questions import FAMILIES
from seats_cli.world.scene import (
    COLOURS,
    GRID_SIZES,
    MOTIONS,
    PLACES,
    SHAPES,
    SOUNDS,
    TOKEN_PIXELS,
    sample_scene,
)

HIDDEN_SIZE = 128
N_LAYERS = 12
STORY_LAYER = 5
"""Decoder layer after which the story heads look at the clip's tokens."""
LOOK_LAYERS = (6, 8)
"""Decoder layers in which names find what they mean, and answers what holds them."""

TEXT: dict[str, Any] = {
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "hidden_size": HIDDEN_SIZE,
    "init_std": 0.02,
    "initializer_range": 0.02,
    "intermediate_size": 384,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "model_type": "qwen2_5_omni_text",
    "num_attention_heads": 4,
    "num_hidden_layers": N_LAYERS,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    # Half of the frequencies for time: 32 s are 800 steps, and places are known to the vision tower.
    "rope_scaling": {"mrope_section": [8, 4, 4], "rope_type": "default", "type": "default"},
    "rope_theta": 20000.0,
    "sliding_window": 32768,
    "use_cache": True,
    "use_sliding_window": False,
}
VISION: dict[str, Any] = {
    "depth": 4,
    "embed_dim": 96,
    "fullatt_block_indexes": [0, 1, 2, 3],
    "hidden_act": "silu",
    "hidden_size": 96,
    "in_channels": 3,
    "intermediate_size": 192,
    "model_type": "qwen2_5_omni_vision_encoder",
    "num_heads": 3,
    "out_hidden_size": HIDDEN_SIZE,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "tokens_per_second": 25,
    "window_size": 112,
}
AUDIO: dict[str, Any] = {
    "d_model": 96,
    "encoder_attention_heads": 3,
    "encoder_ffn_dim": 256,
    "encoder_layers": 3,
    "max_source_positions": 1500,
    "model_type": "qwen2_5_omni_audio_encoder",
    "n_window": 100,
    "num_mel_bins": 128,
    "output_dim": HIDDEN_SIZE,
}


def vocabulary() -> Vocabulary:
    """Every word of the synthetic world, and of the chat template, as one token."""
    import numpy as np

    texts = [SYSTEM_PROMPT, "user", "system", "assistant"]
    rng = np.random.default_rng(0)
    for _ in range(300):
        scene = sample_scene(rng)
        for ask in FAMILIES.values():
            texts += [part for pair in ask(scene) for part in pair]
    for word in (*SHAPES, *COLOURS, *PLACES, *MOTIONS, *SOUNDS, "zero", "one", "two", "three", "four", "five"):
        texts += [word, f" {word}"]
    return Vocabulary.of_texts(sorted(set(texts)))


def thinker_config(words: Vocabulary) -> dict[str, Any]:
    """The thinker's part of config.json, with the published keys."""
    ids = words.ids
    config = {
        "architectures": ["Qwen2OmniNaViTThinkerForConditionalGeneration"],
        "audio_config": AUDIO,
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
        "text_config": {**TEXT, "vocab_size": words.size},
        "tie_word_embeddings": False,
        "user_token_id": ids["user"],
        "video_token_index": ids["<|VIDEO|>"],
        "vision_config": VISION,
        "vision_end_token_id": ids["<|vision_eos|>"],
        "vision_start_token_id": ids["<|vision_bos|>"],
        "vision_token_id": ids["<|vision_pad|>"],
    }
    return copy.deepcopy(config)  # transformers writes into the dicts it is given


def new_thinker(words: Vocabulary, seed: int = 0) -> Any:
    """A thinker with random weights, in training mode."""
    from transformers import Qwen2_5OmniConfig, Qwen2_5OmniThinkerForConditionalGeneration

    config = Qwen2_5OmniConfig.from_dict({"model_type": "qwen2_5_omni", "thinker_config": thinker_config(words)})
    thinker = Qwen2_5OmniThinkerForConditionalGeneration(config.thinker_config)
    _initialise(thinker, torch.Generator().manual_seed(seed))
    return thinker.train()


@torch.no_grad()
def _initialise(thinker: Any, generator: torch.Generator) -> None:
    """Weights that keep signals near unit size; what is added to the residual stream begins small."""
    for name, value in thinker.named_parameters():
        if value.ndim == 1:
            value.fill_(1.0 if "norm" in name or "ln_" in name else 0.0)
            if name.endswith("bias"):
                value.zero_()
            continue
        noise = torch.randn(value.shape, generator=generator)
        if "embed_tokens" in name:
            value.copy_(noise * 0.5)
            continue
        into_residual = name.endswith(
            ("o_proj.weight", "down_proj.weight", "attn.proj.weight", "out_proj.weight", "fc2.weight")
        )
        gain = 0.3 if into_residual else 0.2 if "lm_head" in name else 1.0
        value.copy_(noise * gain / math.sqrt(math.prod(value.shape[1:])))


def settings_text() -> str:
    """Content of ``seats.toml`` as far as training knows it; the schedule comes from a probe of what was trained.

    What users should know, the sizes of frames the model was trained on, and how a ratio is shared out.
    """
    low, high = (rows * columns * TOKEN_PIXELS**2 for rows, columns in (GRID_SIZES[0], GRID_SIZES[-1]))
    return f"""note = "the tiny model knows its small synthetic world only (see: seats synth --help)"

[media]
min_pixels = {low}
max_pixels = {high}

[ratios]
# Of R, R_v, R_a: the same share of picture and sound. Its grids have a third of the 7B's tokens, \
its sound as many, so
# the published preference for sound would leave three visual tokens a window.
rows = [[0.35, 0.35, 0.35], [0.10, 0.10, 0.10]]
"""


def hub_name(name: str) -> str:
    """A thinker parameter's name in published checkpoints, from its name in any supported transformers."""
    for new, old in (
        ("model.language_model.", "model."),
        ("model.visual.", "visual."),
        ("model.audio_tower.", "audio_tower."),
    ):
        if name.startswith(new):
            return f"thinker.{old}{name.removeprefix(new)}"
    return f"thinker.{name}"


def write_checkpoint(thinker: Any, words: Vocabulary, folder: Path, dtype: torch.dtype) -> None:
    """Write a checkpoint folder in the published format: config, weights, processor.

    Args:
        thinker: The trained thinker.
        words: Its tokenizer's vocabulary.
        folder: Made when missing.
        dtype: Of the weights on disk.
    """
    from safetensors.torch import save_file

    write_processor_files(folder, words)
    settings = folder / SETTINGS_FILE
    if not settings.exists():  # one with a schedule from a probe stays
        settings.write_text(settings_text(), encoding="utf-8")
    content = {
        "architectures": ["Qwen2_5OmniModel"],
        "enable_audio_output": False,
        "enable_talker": False,
        "model_type": "qwen2_5_omni",
        "thinker_config": thinker_config(words),
        "torch_dtype": str(dtype).removeprefix("torch."),
    }
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    weights = {
        hub_name(name): value.detach().to(dtype).contiguous() for name, value in thinker.state_dict().items()
    }
    path = folder / "model.safetensors"
    save_file(dict(sorted(weights.items())), path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors makes files that only their owner can read

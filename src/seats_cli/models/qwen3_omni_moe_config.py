"""What a Qwen3-Omni config says, without weights and without torch; and the configs of the published models."""

from __future__ import annotations

from typing import Any

from seats_cli.errors import ModelError
from seats_cli.geometry import AudioGeometry, ModelGeometry, TextGeometry, VisionGeometry
from seats_cli.layout import LayoutSpec
from seats_cli.models.base import Config, ModelSpec, reading_config
from seats_cli.selection.levels import usual_boundaries
from seats_cli.selection.schedule import SelectionPreset

PUBLISHED_BOUNDARIES = {48: (27, 31, 35, 39)}
"""b1..b4 by number of decoder layers (SEATS Sec. 5.1, 0-based)."""
PUBLISHED_TEMPERATURE = 0.3
PUBLISHED_RATIOS = ((0.35, 0.32, 0.70), (0.25, 0.22, 0.60), (0.15, 0.12, 0.50), (0.10, 0.07, 0.45))
"""(R, R_v, R_a) as published, for about 288 visual and 26 audio tokens per window."""
SECONDS_PER_WINDOW = 2.0
TOKENS_PER_SECOND = 13
"""Of sound, and steps of the time axis: what a chunk of convolutions gives."""
CHUNK_MEL_FRAMES = 100
"""A second."""


def _encoders(hidden: int) -> dict[str, Any]:
    return {
        "vision_config": {
            "depth": 27,
            "hidden_size": 1152,
            "num_heads": 16,
            "intermediate_size": 4304,
            "patch_size": 16,
            "out_hidden_size": hidden,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [8, 16, 24],
        },
        "audio_config": {
            "encoder_layers": 32,
            "d_model": 1280,
            "encoder_attention_heads": 20,
            "encoder_ffn_dim": 5120,
            "n_window": 50,
            "n_window_infer": 800,
            "downsample_hidden_size": 480,
            "output_dim": hidden,
        },
    }


def _thinker_config(
    *,
    hidden: int,
    layers: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    experts: int,
    expert_ffn: int,
    vocab: int,
) -> dict[str, Any]:
    return {
        "audio_token_id": 151675,
        "audio_start_token_id": 151669,
        "audio_end_token_id": 151670,
        "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
        "image_token_id": 151655,
        "video_token_id": 151656,
        "position_id_per_seconds": 13,
        "seconds_per_chunk": 2,
        "text_config": {
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": head_dim,
            "intermediate_size": expert_ffn,
            "moe_intermediate_size": expert_ffn,
            "num_experts": experts,
            "num_experts_per_tok": 8,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "attention_bias": False,
            "vocab_size": vocab,
            "max_position_embeddings": 65536,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1000000.0,
                "mrope_section": [24, 20, 20],
                "mrope_interleaved": True,
            },
        },
        **_encoders(hidden),
    }


def _layout(config: Config) -> LayoutSpec:
    return LayoutSpec(
        video_id=config["video_token_id"],
        audio_id=config["audio_token_id"],
        video_bos_id=config.get("vision_start_token_id", 151652),
        video_eos_id=config.get("vision_end_token_id", 151653),
        audio_bos_id=config["audio_start_token_id"],
        audio_eos_id=config.get("audio_end_token_id", config["audio_start_token_id"] + 1),
        positions_per_second=config["position_id_per_seconds"],
        seconds_per_window=SECONDS_PER_WINDOW,
        by_window=False,
        whole_steps=False,
        shared_markers=False,
    )


def _text(config: Config) -> TextGeometry:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    return TextGeometry(
        n_layers=config["num_hidden_layers"],
        hidden=hidden,
        n_heads=heads,
        n_kv_heads=config["num_key_value_heads"],
        head_dim=config.get("head_dim") or hidden // heads,
        intermediate=config["intermediate_size"],
        vocab=config["vocab_size"],
        n_experts=config.get("num_experts", 128),
        n_active_experts=config.get("num_experts_per_tok", 8),
        moe_intermediate=config.get("moe_intermediate_size", 768),
        qkv_bias=config.get("attention_bias", False),
        qk_norm=True,
        tied_embeddings=config.get("tie_word_embeddings", False),
    )


def _vision(config: Config, hidden: int) -> VisionGeometry:
    depth = config.get("depth", 27)
    return VisionGeometry(
        depth=depth,
        hidden=config.get("hidden_size", 1152),
        n_heads=config.get("num_heads", 16),
        intermediate=config.get("intermediate_size", 4304),
        patch_size=config.get("patch_size", 16),
        temporal_patch_size=config.get("temporal_patch_size", 2),
        merge_size=config.get("spatial_merge_size", 2),
        in_channels=config.get("in_channels", 3),
        out_hidden=config.get("out_hidden_size", hidden),
        full_attention_layers=tuple(range(depth)),
        window_pixels=0,
        gated=False,
        fused_qkv=True,
        n_position_embeddings=config.get("num_position_embeddings", 2304),
        deepstack_layers=tuple(config.get("deepstack_visual_indexes", (8, 16, 24))),
    )


def _audio(config: Config, hidden: int) -> AudioGeometry:
    return AudioGeometry(
        n_layers=config.get("encoder_layers", 32),
        d_model=config.get("d_model", 1280),
        n_heads=config.get("encoder_attention_heads", 20),
        ffn=config.get("encoder_ffn_dim", 5120),
        n_mel_bins=config.get("num_mel_bins", 128),
        output_dim=config.get("output_dim", hidden),
        chunk_mel_frames=2 * config.get("n_window", 50),
        block_mel_frames=config.get("n_window_infer", 800),
        conv_channels=config.get("downsample_hidden_size", 480),
    )


def _stand_in_config() -> Config:
    """As deep as the 30B, with narrow layers, few experts and small encoders."""
    hidden = 256
    config = _thinker_config(
        hidden=hidden, layers=48, heads=4, kv_heads=1, head_dim=128, experts=16, expert_ffn=128, vocab=32768
    )
    ids = {key: value - 120000 for key, value in config.items() if isinstance(value, int) and value > 150000}
    vision = {
        **config["vision_config"],
        "depth": 4,
        "hidden_size": 128,
        "num_heads": 2,
        "intermediate_size": 344,
        "deepstack_visual_indexes": [0, 1, 2],
    }
    audio = {
        **config["audio_config"],
        "encoder_layers": 2,
        "d_model": 128,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 512,
        "downsample_hidden_size": 32,
    }
    return {**config, **ids, "vision_config": vision, "audio_config": audio}


_THIRTY_B = _thinker_config(
    hidden=2048, layers=48, heads=32, kv_heads=4, head_dim=128, experts=128, expert_ffn=768, vocab=152064
)
NAMED: dict[str, Config] = {
    "Qwen/Qwen3-Omni-30B-A3B-Instruct": _THIRTY_B,
    "Qwen/Qwen3-Omni-30B-A3B-Thinking": _THIRTY_B,
}
STAND_IN = ("stand-in of 48 layers, hidden size 256, 16 experts", _stand_in_config())


def _check(name: str, config: Config) -> None:
    """Refuse what the adapter does not know, although transformers could run it."""
    text, audio = config["text_config"], config["audio_config"]
    chunk = audio.get("n_window", CHUNK_MEL_FRAMES // 2) * 2
    problem = ""
    if text.get("mlp_only_layers") or text.get("decoder_sparse_step", 1) != 1:
        problem = "layers without experts are not supported"
    elif text.get("num_experts_per_tok", 8) > text.get("num_experts", 128):
        problem = f"{text['num_experts_per_tok']} experts per token of {text.get('num_experts', 128)}"
    elif config["position_id_per_seconds"] != TOKENS_PER_SECOND or chunk != CHUNK_MEL_FRAMES:
        problem = f"sound is cut otherwise than into {TOKENS_PER_SECOND} tokens a second"
    elif audio.get("n_window_infer", 800) < chunk or audio.get("n_window_infer", 800) % chunk:
        problem = "the audio blocks are no whole chunks"
    if problem:
        raise ModelError(f"{name}: {problem}", "take a published checkpoint")


def read_spec(name: str, thinker_config: Config) -> ModelSpec:
    """Read a thinker's config.

    Raises:
        ModelError: A field is missing or damaged, or says what the adapter does not know.
    """
    with reading_config(name, "Qwen3-Omni"):
        _check(name, thinker_config)
        text_config = thinker_config["text_config"]
        layout, text = _layout(thinker_config), _text({**thinker_config, **text_config})
        audio = _audio(thinker_config["audio_config"], text.hidden)
        vision = _vision(thinker_config["vision_config"], text.hidden)
        return ModelSpec(
            layout=layout,
            geometry=ModelGeometry(name=name, text=text, vision=vision, audio=audio),
            preset=SelectionPreset(
                drop_before_layer=usual_boundaries(text.n_layers, PUBLISHED_BOUNDARIES),
                temperature=PUBLISHED_TEMPERATURE,
                ratios=PUBLISHED_RATIOS,
            ),
            max_positions=int(text_config.get("max_position_embeddings", 32768)),
            mel_frames_per_window=int(CHUNK_MEL_FRAMES * layout.seconds_per_window),
            mel_frames_per_batch_unit=audio.block_mel_frames,
            mirrored_sound_end=True,
        )

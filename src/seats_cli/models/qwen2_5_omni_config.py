"""What a Qwen2.5-Omni config says, without weights and without torch; and the configs of the published models."""

from __future__ import annotations

from seats_cli.errors import ModelError
from seats_cli.geometry import AudioGeometry, ModelGeometry, TextGeometry, VisionGeometry
from seats_cli.layout import LayoutSpec
from seats_cli.models.base import Config, ModelSpec, reading_config
from seats_cli.selection.levels import usual_boundaries
from seats_cli.selection.schedule import SelectionPreset

PUBLISHED_BOUNDARIES = {28: (16, 18, 20, 23)}
"""b1..b4 by number of decoder layers (SEATS Sec. 5.1, 0-based)."""
PUBLISHED_TEMPERATURE = 0.1
PUBLISHED_RATIOS = ((0.35, 0.30, 0.65), (0.25, 0.20, 0.55), (0.15, 0.10, 0.45), (0.10, 0.06, 0.35))
"""(R, R_v, R_a) as published, for about 288 visual and 50 audio tokens per window."""


def _thinker_config(*, hidden: int, layers: int, heads: int, kv_heads: int, ffn: int, vocab: int) -> Config:
    return {
        "audio_token_index": 151646,
        "audio_start_token_id": 151647,
        "audio_end_token_id": 151648,
        "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
        "image_token_index": 151655,
        "video_token_index": 151656,
        "position_id_per_seconds": 25,
        "seconds_per_chunk": 2,
        "text_config": {
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "intermediate_size": ffn,
            "vocab_size": vocab,
            "max_position_embeddings": 32768,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1000000.0,
                "mrope_section": [16, 24, 24],
            },
        },
        "vision_config": {
            "depth": 32,
            "hidden_size": 1280,
            "num_heads": 16,
            "intermediate_size": 3420,
            "out_hidden_size": hidden,
        },
        "audio_config": {"output_dim": hidden},
    }


def _layout(config: Config) -> LayoutSpec:
    return LayoutSpec(
        video_id=config["video_token_index"],
        audio_id=config["audio_token_index"],
        video_bos_id=config["vision_start_token_id"],
        video_eos_id=config["vision_end_token_id"],
        audio_bos_id=config["audio_start_token_id"],
        audio_eos_id=config["audio_end_token_id"],
        positions_per_second=config.get("position_id_per_seconds", 25),
        seconds_per_window=float(config.get("seconds_per_chunk", 2)),
    )


def _geometry(name: str, text: Config, vision: Config, audio: Config) -> ModelGeometry:
    hidden, heads = text["hidden_size"], text["num_attention_heads"]
    return ModelGeometry(
        name=name,
        text=TextGeometry(
            n_layers=text["num_hidden_layers"],
            hidden=hidden,
            n_heads=heads,
            n_kv_heads=text["num_key_value_heads"],
            head_dim=text.get("head_dim") or hidden // heads,
            intermediate=text["intermediate_size"],
            vocab=text["vocab_size"],
        ),
        vision=VisionGeometry(
            depth=vision.get("depth", 32),
            hidden=vision["hidden_size"],
            n_heads=vision.get("num_heads", 16),
            intermediate=vision.get("intermediate_size", 3420),
            patch_size=vision.get("patch_size", 14),
            temporal_patch_size=vision.get("temporal_patch_size", 2),
            merge_size=vision.get("spatial_merge_size", 2),
            in_channels=vision.get("in_channels", 3),
            out_hidden=vision.get("out_hidden_size", hidden),
            full_attention_layers=tuple(vision.get("fullatt_block_indexes", (7, 15, 23, 31))),
            window_pixels=vision.get("window_size", 112),
        ),
        audio=AudioGeometry(
            n_layers=audio.get("encoder_layers", 32),
            d_model=audio.get("d_model", 1280),
            n_heads=audio.get("encoder_attention_heads", 20),
            ffn=audio.get("encoder_ffn_dim", 5120),
            n_mel_bins=audio.get("num_mel_bins", 128),
            output_dim=audio.get("output_dim", hidden),
            chunk_mel_frames=2 * audio.get("n_window", 100),
        ),
    )


def _stand_in_config() -> Config:
    """As deep as the 7B and a ninth as wide, behind small encoders: for machines that cannot hold the 7B."""
    hidden = 384
    config = _thinker_config(hidden=hidden, layers=28, heads=3, kv_heads=1, ffn=1024, vocab=32768)
    ids = {key: value - 120000 for key, value in config.items() if isinstance(value, int) and value > 150000}
    vision = {
        "depth": 2,
        "hidden_size": 160,
        "num_heads": 2,
        "intermediate_size": 428,
        "out_hidden_size": hidden,
        "fullatt_block_indexes": [1],
    }
    audio = {
        "encoder_layers": 2,
        "d_model": 160,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 640,
        "output_dim": hidden,
    }
    return {**config, **ids, "vision_config": vision, "audio_config": audio}


NAMED: dict[str, Config] = {
    "Qwen/Qwen2.5-Omni-7B": _thinker_config(hidden=3584, layers=28, heads=28, kv_heads=4, ffn=18944, vocab=152064),
    "Qwen/Qwen2.5-Omni-3B": _thinker_config(hidden=2048, layers=36, heads=16, kv_heads=2, ffn=11008, vocab=151936),
}
STAND_IN = ("stand-in of 28 layers, hidden size 384", _stand_in_config())


def read_spec(name: str, thinker_config: Config) -> ModelSpec:
    """Read a thinker's config.

    Raises:
        ModelError: A field is missing or damaged, or the text layers slide their attention window.
    """
    with reading_config(name, "Qwen2.5-Omni"):
        text = thinker_config["text_config"]
        layout = _layout(thinker_config)
        geometry = _geometry(name, text, thinker_config["vision_config"], thinker_config["audio_config"])
        max_positions = int(text.get("max_position_embeddings", 32768))
        boundaries = usual_boundaries(geometry.text.n_layers, PUBLISHED_BOUNDARIES)
    if text.get("use_sliding_window"):
        problem = f"{name}: sliding-window attention is not supported"
        raise ModelError(problem, "take a checkpoint with use_sliding_window false, as the published ones are")
    preset = SelectionPreset(
        drop_before_layer=boundaries,
        temperature=PUBLISHED_TEMPERATURE,
        ratios=PUBLISHED_RATIOS,
    )
    chunk = geometry.audio.chunk_mel_frames
    window = int(100 * layout.seconds_per_window)
    return ModelSpec(
        layout=layout,
        geometry=geometry,
        preset=preset,
        max_positions=max_positions,
        mel_frames_per_window=window,
        mel_frames_per_batch_unit=max(chunk, window),
    )

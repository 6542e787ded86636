"""What the family reads from a config, how it writes a prompt, and that its parts are where it says."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import dispatch_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

from seats_cli.config import GenerationOptions, ModelOptions, SelectionOptions
from seats_cli.cost import ModelGeometry
from seats_cli.engine.pipeline import Settings, answer
from seats_cli.errors import ModelError, UsageError
from seats_cli.models import FAMILIES
from seats_cli.models.base import place_of
from seats_cli.models.loading import LoadedModel, build_random, load
from tests import tiny
from tests.array_clip import random_clip

FAMILY = FAMILIES["qwen2_5_omni"]
NAMES = {"7B": "Qwen/Qwen2.5-Omni-7B", "3B": "Qwen/Qwen2.5-Omni-3B"}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tiny.write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), dtype=torch.float32)
    return load(ModelOptions(model=str(folder), device="cpu", dtype="float32"))


def thinker_config(n_layers: int = 8, **overrides: Any) -> dict[str, Any]:
    return tiny._config_json(n_layers=n_layers, **overrides)["thinker_config"]


# Configs


def geometry_of(config: Qwen2_5OmniThinkerConfig) -> dict[str, Any]:
    """Every size, from the attributes of transformers' own config object."""
    text, vision, audio = config.text_config, config.vision_config, config.audio_config
    return {
        "text": {
            "n_layers": text.num_hidden_layers,
            "hidden": text.hidden_size,
            "n_heads": text.num_attention_heads,
            "n_kv_heads": text.num_key_value_heads,
            "head_dim": text.hidden_size // text.num_attention_heads,
            "intermediate": text.intermediate_size,
            "vocab": text.vocab_size,
        },
        "vision": {
            "depth": vision.depth,
            "hidden": vision.hidden_size,
            "n_heads": vision.num_heads,
            "intermediate": vision.intermediate_size,
            "patch_size": vision.patch_size,
            "temporal_patch_size": vision.temporal_patch_size,
            "merge_size": vision.spatial_merge_size,
            "in_channels": vision.in_channels,
            "out_hidden": vision.out_hidden_size,
            "full_attention_layers": tuple(vision.fullatt_block_indexes),
            "window_pixels": vision.window_size,
        },
        "audio": {
            "n_layers": audio.encoder_layers,
            "d_model": audio.d_model,
            "n_heads": audio.encoder_attention_heads,
            "ffn": audio.encoder_ffn_dim,
            "n_mel_bins": audio.num_mel_bins,
            "output_dim": audio.output_dim,
            "chunk_mel_frames": 2 * audio.n_window,
        },
    }


def sizes(geometry: ModelGeometry, like: dict[str, Any]) -> dict[str, Any]:
    return {part: {name: getattr(getattr(geometry, part), name) for name in names} for part, names in like.items()}


@pytest.mark.parametrize("short", NAMES)
def test_named_sizes_are_those_transformers_reads(short: str) -> None:
    config = FAMILY.named[NAMES[short]]
    spec = FAMILY.spec_of(NAMES[short], config)
    theirs = Qwen2_5OmniThinkerConfig(**copy.deepcopy(config))
    expected = geometry_of(theirs)
    assert sizes(spec.geometry, expected) == expected
    assert spec.layout.video_id == theirs.video_token_id
    assert spec.layout.audio_id == theirs.audio_token_id
    assert spec.layout.positions_per_second == theirs.position_id_per_seconds
    assert spec.layout.seconds_per_window == theirs.seconds_per_chunk
    assert spec.pixel_factor == 28
    assert spec.max_positions == theirs.text_config.max_position_embeddings == 32768
    assert (spec.mel_frames_per_window, spec.mel_frames_per_batch_unit) == (200, 200)


def test_published_sizes() -> None:
    """config.json of the two published checkpoints, text part."""
    seven, three = (FAMILY.spec_of(name, FAMILY.named[name]) for name in NAMES.values())
    assert sizes(seven.geometry, {"text": ("hidden", "n_layers", "n_heads", "n_kv_heads", "intermediate")}) == {
        "text": {"hidden": 3584, "n_layers": 28, "n_heads": 28, "n_kv_heads": 4, "intermediate": 18944}
    }
    assert sizes(three.geometry, {"text": ("hidden", "n_layers", "n_heads", "n_kv_heads", "intermediate")}) == {
        "text": {"hidden": 2048, "n_layers": 36, "n_heads": 16, "n_kv_heads": 2, "intermediate": 11008}
    }
    assert (seven.geometry.text.vocab, three.geometry.text.vocab) == (152064, 151936)
    assert (seven.geometry.text.head_dim, three.geometry.text.head_dim) == (128, 128)
    assert (seven.geometry.vision.out_hidden, three.geometry.vision.out_hidden) == (3584, 2048)
    assert (seven.geometry.audio.output_dim, three.geometry.audio.output_dim) == (3584, 2048)


def test_the_7b_is_the_default_of_transformers() -> None:
    """Its config class was written for the 7B, so an empty config has the same sizes and ids."""
    theirs = Qwen2_5OmniThinkerConfig()
    expected = geometry_of(theirs)
    assert expected["vision"].pop("hidden") == theirs.vision_config.out_hidden_size, "but for this one"
    spec = FAMILY.spec_of("7B", FAMILY.named[NAMES["7B"]])
    assert sizes(spec.geometry, expected) == expected
    assert spec.layout.video_id == theirs.video_token_id
    assert spec.layout.audio_id == theirs.audio_token_id


@pytest.mark.parametrize("short", NAMES)
def test_modules_of_the_named_have_the_sizes_of_the_spec(short: str) -> None:
    config = FAMILY.named[NAMES[short]]
    geometry = FAMILY.spec_of(short, config).geometry
    with torch.device("meta"):
        thinker = Qwen2_5OmniThinkerForConditionalGeneration(Qwen2_5OmniThinkerConfig(**copy.deepcopy(config)))
    model = FAMILY(thinker, None, FAMILY.spec_of(short, config))
    text, attn, mlp = geometry.text, model.layers[0].self_attn, model.layers[0].mlp
    assert len(model.layers) == text.n_layers
    assert attn.q_proj.weight.shape == (text.n_heads * text.head_dim, text.hidden)
    assert attn.k_proj.weight.shape == (text.n_kv_heads * text.head_dim, text.hidden)
    assert mlp.down_proj.weight.shape == (text.hidden, text.intermediate)
    assert thinker.lm_head.weight.shape == (text.vocab, text.hidden)
    vision, audio = model.towers
    assert vision.blocks[0].attn.q.weight.shape == (geometry.vision.hidden, geometry.vision.hidden)
    assert len(vision.blocks) == geometry.vision.depth
    assert vision.merger.mlp[-1].weight.shape[0] == text.hidden
    assert audio.layers[0].fc1.weight.shape == (geometry.audio.ffn, geometry.audio.d_model)
    assert audio.proj.weight.shape == (text.hidden, geometry.audio.d_model)
    rope = model.layers[0].self_attn.config.rope_parameters
    assert sum(rope["mrope_section"]) * 2 == text.head_dim
    assert rope["rope_theta"] == 1_000_000


def test_published_schedule() -> None:
    seven, three = (FAMILY.spec_of(name, FAMILY.named[name]).preset for name in NAMES.values())
    assert seven.drop_before_layer == (16, 18, 20, 23)
    assert seven.temperature == 0.1
    # By depth: about 57, 64, 71, 82 % of 36.
    assert three.drop_before_layer == (21, 23, 26, 30)


def test_stand_in_is_sound() -> None:
    name, config = FAMILY.stand_in
    spec = FAMILY.spec_of(name, config)
    layout = spec.layout
    ids = (layout.video_id, layout.audio_id, layout.video_bos_id, layout.video_eos_id)
    ids += (layout.audio_bos_id, layout.audio_eos_id)
    assert len(set(ids)) == 6
    assert max(ids) < spec.geometry.text.vocab
    assert spec.geometry.text.n_layers == 28
    expected = geometry_of(Qwen2_5OmniThinkerConfig(**copy.deepcopy(config)))
    assert sizes(spec.geometry, expected) == expected


@pytest.mark.parametrize("n_layers", [1, 2, 4])
def test_shallow_models_run_whole(n_layers: int) -> None:
    spec = FAMILY.spec_of("shallow", thinker_config(n_layers))
    assert spec.preset.drop_before_layer is None
    options = ModelOptions(model="shallow", device="cpu", weights="random")
    loaded = build_random(options, FAMILY, thinker_config(n_layers))
    loaded.model.processor = tiny_processor()
    for selection in (SelectionOptions(trr=1.0), SelectionOptions(method="full")):
        clip, media = random_clip(4, 3, 3, 2.0)
        settings_ = Settings(media, selection, GenerationOptions(max_new_tokens=2))
        report = answer(loaded, lambda clip=clip: clip, "What?", settings_)
        assert report.selection.drop_before_layer == ()
        assert report.selection.achieved_trr == 1.0
    clip, media = random_clip(4, 3, 3, 2.0)
    with pytest.raises(UsageError, match=f"{n_layers} layers is too shallow"):
        answer(loaded, lambda: clip, "What?", Settings(media, SelectionOptions(trr=0.3)))


def tiny_processor() -> Any:
    import tempfile
    from pathlib import Path

    from transformers import Qwen2_5OmniProcessor

    with tempfile.TemporaryDirectory() as folder:
        tiny.tiny_processor_files(Path(folder))
        return Qwen2_5OmniProcessor.from_pretrained(folder)


@pytest.mark.parametrize("name", ["audio_token_index", "vision_start_token_id", "text_config", "vision_config"])
def test_config_lacks_a_field(name: str) -> None:
    config = thinker_config()
    del config[name]
    with pytest.raises(ModelError, match=f"mine: the config has no '{name}'"):
        FAMILY.spec_of("mine", config)


@pytest.mark.parametrize("n_mel_frames", [*range(1, 12), 199, 200, 201, 202, 203, 399, 400, 401, 30000])
def test_audio_tokens_are_those_of_transformers(loaded: LoadedModel, n_mel_frames: int) -> None:
    tower = loaded.model.towers[1]
    _, tokens = tower._get_feat_extract_output_lengths(torch.tensor([n_mel_frames]))
    assert FAMILY.audio_tokens(n_mel_frames) == max(0, int(tokens))


def test_mel_filters_are_the_extractors(loaded: LoadedModel) -> None:
    np.testing.assert_array_equal(loaded.model.mel_filters, WhisperFeatureExtractor(feature_size=128).mel_filters)


# Prompts


def by_hand(question: str, system: str | None, clip: str) -> str:
    """The chat template written out."""
    opening, closing = {"video": ("vision_bos", "vision_eos"), "audio": ("audio_bos", "audio_eos")}[clip]
    placeholder = f"<|{opening}|><|{clip.upper()}|><|{closing}|>"
    system = "You are a helpful assistant." if system is None else system
    return (
        f"<|im_start|>system\n{system}<|im_end|>\n"
        f"<|im_start|>user\n{placeholder}{question}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def check_prompt(loaded: LoadedModel, question: str, system: str | None, clip: str) -> None:
    before, after = loaded.model.prompt(question, system, clip)
    layout = loaded.model.spec.layout
    placeholder = layout.video_id if clip == "video" else layout.audio_id
    whole = loaded.model.tokenizer(by_hand(question, system, clip), add_special_tokens=False)["input_ids"]
    assert [*before, placeholder, *after] == whole
    assert before[-1] == (layout.video_bos_id if clip == "video" else layout.audio_bos_id)
    assert after[0] == (layout.video_eos_id if clip == "video" else layout.audio_eos_id)
    user = [{"type": clip, clip: "x"}, {"type": "text", "text": question}]
    turns = [] if system is None else [{"role": "system", "content": [{"type": "text", "text": system}]}]
    turns.append({"role": "user", "content": user})
    template = loaded.model.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert loaded.model.tokenizer(template, add_special_tokens=False)["input_ids"] == whole


QUESTIONS = [
    "What is seen?",
    " leading and trailing ",
    "Was wird gesagt? 世界 — שלום\n\tzweite Zeile",
    "🙂👩‍👩‍👧‍👦🏳️‍🌈 why?",
    "e\u0301 and é",
    "<video> <|not a token|> {{ braces }} {% raw %}",
    "user system assistant",
    "word " * 5000,
]


@pytest.mark.parametrize("clip", ["video", "audio"])
@pytest.mark.parametrize("system", [None, "", "Be brief.", "Antworte auf Deutsch 🙂"])
@pytest.mark.parametrize("question", QUESTIONS, ids=range(len(QUESTIONS)))
def test_prompt_is_the_whole_template(loaded: LoadedModel, question: str, system: str | None, clip: str) -> None:
    check_prompt(loaded, question, system, clip)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(question=st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip))
def test_prompt_of_any_text(loaded: LoadedModel, question: str) -> None:
    if not any(token in question for token in tiny.SPECIAL_TOKENS):
        check_prompt(loaded, question, None, "video")


@pytest.mark.parametrize("question", ["", " ", "\n\t "])
def test_empty_question(loaded: LoadedModel, question: str) -> None:
    with pytest.raises(UsageError, match="the question is empty"):
        loaded.model.prompt(question, None, "video")


@pytest.mark.parametrize("token", tiny.SPECIAL_TOKENS)
def test_reserved_tokens(loaded: LoadedModel, token: str) -> None:
    with pytest.raises(UsageError, match="the question contains the reserved token") as caught:
        loaded.model.prompt(f"What is {token}?", None, "video")
    assert token in str(caught.value)
    with pytest.raises(UsageError, match="the system prompt contains the reserved token"):
        loaded.model.prompt("What?", f"Say {token}", "audio")


# Weights in several places


def test_place_of() -> None:
    class Hook:
        def __init__(self, execution_device: object) -> None:
            self.execution_device = execution_device

    class Several:
        def __init__(self, *hooks: object) -> None:
            self.hooks = hooks

    layer = torch.nn.Linear(2, 2)
    assert place_of(layer) == torch.device("cpu")
    parked = torch.nn.Sequential(torch.nn.Linear(2, 2, device="meta"))
    parked[0]._hf_hook = Hook(1)
    assert place_of(parked) == torch.device("cuda:1")
    for hook, place in (
        (Hook(1), "cuda:1"),
        (Hook(0), "cuda:0"),
        (Hook("cpu"), "cpu"),
        (Hook(torch.device("cuda:3")), "cuda:3"),
        (Hook(None), "cpu"),
        (Several(object(), Hook(2)), "cuda:2"),
    ):
        layer._hf_hook = hook
        assert place_of(layer) == torch.device(place)


def device_map_of(module: torch.nn.Module, parked: list[torch.nn.Module], name: str = "") -> dict[str, str]:
    """As accelerate writes it: the largest modules that lie in one place."""
    if any(module is one for one in parked):
        return {name: "disk"}
    if not any(one is inner for one in parked for inner in module.modules()):
        return {name: "cpu"}
    found: dict[str, str] = {}
    for child_name, child in module.named_children():
        found |= device_map_of(child, parked, f"{name}.{child_name}" if name else child_name)
    return found


@pytest.mark.parametrize("what", ["layers", "ends", "encoders", "everything"])
@pytest.mark.parametrize("trr", [1.0, 0.3])
def test_parked_weights_give_the_same_answer(loaded: LoadedModel, tmp_path, what: str, trr: float) -> None:
    thinker = tiny.tiny_thinker()
    twin = FAMILY(thinker, loaded.model.processor, loaded.model.spec)
    language, vision, audio = twin._parts
    parked = {
        "layers": [twin.layers[2], twin.layers[5], twin.layers[-1]],
        "ends": [language.embed_tokens, language.norm, thinker.lm_head],
        "encoders": [vision.blocks[-1], vision.merger, audio.layers[-1]],
        "everything": [language, vision, audio, thinker.lm_head],
    }[what]
    dispatch_model(
        thinker,
        device_map_of(thinker, parked),
        main_device="cpu",
        offload_dir=str(tmp_path),
        skip_keys="past_key_values",
        offload_buffers=True,
    )
    assert any(value.is_meta for value in thinker.parameters())
    assert twin.device == torch.device("cpu")
    assert twin.devices == [torch.device("cpu")]
    other = LoadedModel(twin, "twin", None, "checkpoint", "float32", "auto", "sdpa")
    reports = []
    for one in (loaded, other):
        clip, media = random_clip(8, 4, 5, 4.0, seed=2)
        chosen = Settings(media, SelectionOptions(trr=trr), GenerationOptions(max_new_tokens=6))
        reports.append(answer(one, lambda clip=clip: clip, "What is seen?", chosen))
    assert reports[0].answer == reports[1].answer
    assert reports[0].tokens == reports[1].tokens

"""The tiny checkpoints are what they claim: the published format, read by transformers' own classes."""

from __future__ import annotations

import json
import logging
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
)

from seats_cli.training.model import settings_text, thinker_config, vocabulary
from seats_cli.training.processor import write_processor_files
from tests import tiny

SHIPPED = Path(__file__).parents[2] / "src" / "seats_cli" / "assets" / "tiny"
QUESTION = "What is heard?"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="module")
def processor(checkpoint: Path) -> Qwen2_5OmniProcessor:
    return Qwen2_5OmniProcessor.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def thinker() -> Qwen2_5OmniThinkerForConditionalGeneration:
    return tiny.tiny_thinker()


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What transformers logs as a warning or worse during the test."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def load(
    folder: Path, dtype: torch.dtype
) -> tuple[Qwen2_5OmniThinkerForConditionalGeneration, dict[str, set[str]]]:
    config = Qwen2_5OmniThinkerConfig.from_pretrained(folder)
    return Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        folder, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True
    )


def published_names(n_layers: int, depth: int, encoder_layers: int) -> set[str]:
    """The thinker's keys in the published checkpoints, written out."""
    weight_and_bias = ("weight", "bias")
    names = {"thinker.lm_head.weight", "thinker.model.embed_tokens.weight", "thinker.model.norm.weight"}
    for layer in (f"thinker.model.layers.{i}" for i in range(n_layers)):
        names |= {f"{layer}.input_layernorm.weight", f"{layer}.post_attention_layernorm.weight"}
        names |= {f"{layer}.mlp.{part}_proj.weight" for part in ("gate", "up", "down")}
        names |= {f"{layer}.self_attn.{part}_proj.{kind}" for part in "qkv" for kind in weight_and_bias}
        names |= {f"{layer}.self_attn.o_proj.weight"}
    names |= {"thinker.visual.patch_embed.proj.weight", "thinker.visual.merger.ln_q.weight"}
    names |= {f"thinker.visual.merger.mlp.{part}.{kind}" for part in (0, 2) for kind in weight_and_bias}
    for block in (f"thinker.visual.blocks.{i}" for i in range(depth)):
        names |= {f"{block}.norm1.weight", f"{block}.norm2.weight"}
        names |= {f"{block}.attn.{part}.{kind}" for part in ("q", "k", "v", "proj") for kind in weight_and_bias}
        names |= {f"{block}.mlp.{part}_proj.{kind}" for part in ("gate", "up", "down") for kind in weight_and_bias}
    tower = "thinker.audio_tower"
    names |= {
        f"{tower}.{part}.{kind}" for part in ("conv1", "conv2", "ln_post", "proj") for kind in weight_and_bias
    }
    names |= {f"{tower}.audio_bos_eos_token.weight"}
    for layer in (f"{tower}.layers.{i}" for i in range(encoder_layers)):
        parts = ("self_attn_layer_norm", "final_layer_norm", "fc1", "fc2")
        parts += ("self_attn.q_proj", "self_attn.v_proj", "self_attn.out_proj")
        names |= {f"{layer}.{part}.{kind}" for part in parts for kind in weight_and_bias}
        names |= {f"{layer}.self_attn.k_proj.weight"}
    return names


def test_keys_are_those_of_the_published_checkpoints(checkpoint: Path) -> None:
    index = json.loads((checkpoint / "model.safetensors.index.json").read_text())
    weights = {}
    for file_name in sorted(set(index["weight_map"].values())):
        weights |= load_file(checkpoint / file_name)
    assert sorted(path.name for path in checkpoint.glob("*.safetensors")) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert set(index["weight_map"]) == set(weights)
    speech = {name for name in weights if name.startswith(("talker.", "token2wav."))}
    assert speech
    assert set(weights) - speech == published_names(n_layers=8, depth=4, encoder_layers=2)
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in weights.values())
    config = json.loads((checkpoint / "config.json").read_text())
    assert config["architectures"] == ["Qwen2_5OmniModel"]
    assert config["model_type"] == "qwen2_5_omni"
    assert config["thinker_config"]["text_config"]["rope_scaling"]["mrope_section"] == [2, 3, 3]


@pytest.mark.parametrize(
    ("shards", "dtype", "talker"),
    [(1, torch.float32, False), (2, torch.bfloat16, True), (3, torch.float32, True)],
)
def test_weights_survive_the_disk(tmp_path: Path, shards: int, dtype: torch.dtype, talker: bool) -> None:
    folder = tiny.write_tiny_checkpoint(tmp_path, seed=3, n_layers=3, shards=shards, dtype=dtype, talker=talker)
    loaded, info = load(folder, dtype)
    expected = tiny.hub_state_dict(tiny.tiny_thinker(3, dtype, n_layers=3))
    found = tiny.hub_state_dict(loaded)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    assert all(name.startswith(("talker.", "token2wav.")) for name in info["unexpected_keys"])
    head = loaded.get_output_embeddings().weight
    assert head.data_ptr() != loaded.get_input_embeddings().weight.data_ptr(), "embeddings must not be tied"


def test_seed_fixes_the_weights() -> None:
    first, same, other = (tiny.hub_state_dict(tiny.tiny_thinker(seed, n_layers=2)) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["thinker.model.norm.weight"], other["thinker.model.norm.weight"])


def test_config_overrides_reach_their_part() -> None:
    config = tiny.tiny_config(n_layers=3, vision={"depth": 2, "fullatt_block_indexes": [0]}, seconds_per_chunk=4)
    thinker_config = config.thinker_config
    assert thinker_config.text_config.num_hidden_layers == 3
    assert thinker_config.vision_config.depth == 2
    assert list(thinker_config.vision_config.fullatt_block_indexes) == [0]
    assert thinker_config.seconds_per_chunk == 4
    assert tiny.tiny_config().thinker_config.vision_config.depth == 4


def test_special_tokens_are_single_and_match_the_config(processor: Qwen2_5OmniProcessor) -> None:
    ids = tiny.token_ids()
    for token in tiny.SPECIAL_TOKENS:
        assert processor.tokenizer.encode(token) == [ids[token]]
    config = tiny.tiny_config().thinker_config
    named = {
        "<|AUDIO|>": config.audio_token_id,
        "<|audio_bos|>": config.audio_start_token_id,
        "<|audio_eos|>": config.audio_end_token_id,
        "<|IMAGE|>": config.image_token_id,
        "<|VIDEO|>": config.video_token_id,
        "<|vision_bos|>": config.vision_start_token_id,
        "<|vision_eos|>": config.vision_end_token_id,
        "user": config.user_token_id,
    }
    assert named == {token: ids[token] for token in named}
    assert len({*ids.values()}) == len(ids)
    assert max(ids.values()) < config.text_config.vocab_size
    assert processor.audio_token == "<|AUDIO|>"
    assert processor.vision_bos_token == "<|vision_bos|>"


def test_any_text_survives_the_tokenizer(processor: Qwen2_5OmniProcessor) -> None:
    text = "What's said at 0:12?\n\tgrüße, 世界 🙂"
    ids = processor.tokenizer.encode(text)
    assert processor.tokenizer.decode(ids) == text
    assert processor.tokenizer.encode("system") == [tiny.token_ids()["system"]]


def test_chat_template(processor: Qwen2_5OmniProcessor) -> None:
    content = [{"type": "video"}, {"type": "audio"}, {"type": "text", "text": QUESTION}]
    turns = [{"role": "user", "content": content}, {"role": "assistant", "content": "Rain."}]
    assert processor.apply_chat_template(turns, tokenize=False) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_bos|><|VIDEO|><|vision_eos|><|audio_bos|><|AUDIO|><|audio_eos|>"
        "What is heard?<|im_end|>\n<|im_start|>assistant\nRain.<|im_end|>\n"
    )
    own = [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, turns[0]]
    assert processor.apply_chat_template(own, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n<|vision_bos|><|VIDEO|><|vision_eos|><|audio_bos|><|AUDIO|><|audio_eos|>"
        "What is heard?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_stock_inputs_have_the_size_that_was_asked(processor: Qwen2_5OmniProcessor) -> None:
    inputs = tiny.stock_inputs(processor, 6, 56, 84, 2.5, QUESTION)
    ids, counted = tiny.token_ids(), inputs["input_ids"][0].tolist()
    assert inputs["video_grid_thw"].tolist() == [[3, 4, 6]]
    assert inputs["video_second_per_grid"].tolist() == [1.0]
    assert inputs["pixel_values_videos"].shape == (3 * 4 * 6, 3 * 2 * 14 * 14)
    assert inputs["pixel_values_videos"].dtype == torch.float32
    assert inputs["feature_attention_mask"].sum().item() == 250
    assert counted.count(ids["<|VIDEO|>"]) == 3 * 2 * 3
    assert counted.count(ids["<|AUDIO|>"]) == 62
    assert counted.count(ids["<|vision_bos|>"]) == counted.count(ids["<|audio_bos|>"]) == 1
    start = counted.index(ids["<|vision_bos|>"])
    assert counted[start + 1] == ids["<|audio_bos|>"]


def test_stock_audio_is_that_of_the_full_padding(processor: Qwen2_5OmniProcessor) -> None:
    inputs = tiny.stock_inputs(processor, 0, 0, 0, 1.234, QUESTION, seed=5)
    generator = torch.Generator().manual_seed(5)
    sound = torch.randn(round(1.234 * 16000), generator=generator).mul(0.1).numpy()
    padded = processor.feature_extractor(
        sound, sampling_rate=16000, return_attention_mask=True, return_tensors="np"
    )
    n = int(padded["attention_mask"].sum())
    assert padded["input_features"].shape[-1] == 30000
    assert inputs["feature_attention_mask"].sum().item() == n
    expected = torch.from_numpy(padded["input_features"][:, :, :n])
    torch.testing.assert_close(inputs["input_features"][:, :, :n], expected)


@pytest.mark.parametrize(("n_frames", "audio_seconds"), [(4, 3.3), (6, 0.0), (0, 1.0)])
def test_stock_path_runs(
    processor: Qwen2_5OmniProcessor,
    thinker: Qwen2_5OmniThinkerForConditionalGeneration,
    logged: list[str],
    n_frames: int,
    audio_seconds: float,
) -> None:
    inputs = tiny.stock_inputs(processor, n_frames, 56, 84, audio_seconds, QUESTION)
    both = bool(n_frames and audio_seconds)
    logits = tiny.stock_forward(thinker, inputs, use_audio_in_video=both)
    assert logits.shape == (1, inputs["input_ids"].shape[1], thinker.config.text_config.vocab_size)
    assert torch.isfinite(logits).all()
    answer = tiny.stock_generate(thinker, inputs, use_audio_in_video=both, max_new_tokens=5)
    assert answer[0] == logits[0, -1].argmax().item()
    assert set(answer) <= set(tiny.printable_ids())
    assert logged == []


def test_random_weights_are_not_degenerate(
    processor: Qwen2_5OmniProcessor, thinker: Qwen2_5OmniThinkerForConditionalGeneration
) -> None:
    answers, gaps = set(), []
    for seed in range(3):
        inputs = tiny.stock_inputs(processor, 4, 56, 84, 2.0, QUESTION, seed=seed)
        best = tiny.stock_forward(thinker, inputs).topk(2).values
        gaps.append(best[..., 0] - best[..., 1])
        answers.add(tuple(tiny.stock_generate(thinker, inputs, max_new_tokens=8)))
    assert len(answers) == 3, "the clip must change the answer"
    assert max(len(set(answer)) for answer in answers) >= 4
    assert torch.cat(gaps, dim=1).quantile(0.05) > 1e-3


def test_reading_the_files_logs_nothing_of_ours(checkpoint: Path, logged: list[str]) -> None:
    Qwen2_5OmniProcessor.from_pretrained(checkpoint)
    # transformers compares a configuration with the defaults of its class, and the talker's default ids lie
    # outside the talker's default vocabulary of 8448: it says so for any checkpoint of this family.
    assert [message for message in logged if "(between 0 and 8447)" not in message] == []


def test_shipped_checkpoint_is_a_small_deep_thinker_in_the_published_format() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 16 * 2**20
    loaded, info = load(SHIPPED, torch.float32)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert len([name for name in tiny.hub_state_dict(loaded) if name.endswith("self_attn.o_proj.weight")]) >= 12
    assert all(value.isfinite().all() for value in load_file(SHIPPED / "model.safetensors").values())


def test_shipped_settings_are_what_the_training_writes_and_a_schedule() -> None:
    shipped, written = (SHIPPED / "seats.toml").read_text(encoding="utf-8"), settings_text()
    known = tomllib.loads(shipped)
    assert set(known.pop("schedule")) == {"drop_before_layer", "temperature", "scale", "layers"}
    assert tomllib.loads(written) == known
    assert set(written.splitlines()) <= set(shipped.splitlines())


def test_the_docs_tell_where_weights_and_schedule_come_from() -> None:
    told = (SHIPPED / "README.md").read_text(encoding="utf-8")
    assert "docs/quality.md" in told
    assert "python -m" not in told  # no one command made them
    page = (SHIPPED.parents[3] / "docs" / "quality.md").read_text(encoding="utf-8")
    training = page[page.index("## Training it") :]
    assert "seats probe V/questions.jsonl -m RUN/checkpoint --limit 80 -o schedule.toml" in training
    assert "below `[schedule]`" in training


def test_shipped_processor_is_what_the_training_writes(tmp_path: Path) -> None:
    words = vocabulary()
    write_processor_files(tmp_path, words)
    for path in tmp_path.iterdir():
        assert (SHIPPED / path.name).read_text(encoding="utf-8") == path.read_text(encoding="utf-8")
    config = json.loads((SHIPPED / "config.json").read_text(encoding="utf-8"))
    assert config["thinker_config"] == thinker_config(words)

"""What the family reads from a config, that its parts are where it says, its encoders, and its experts."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import (
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

from seats_cli.config import GenerationOptions, ModelOptions, SelectionOptions
from seats_cli.cost import n_parameters
from seats_cli.engine.decode import decode
from seats_cli.engine.encode import _window_ranges, log_mel_of
from seats_cli.engine.pipeline import Settings, prepare, read_prompt
from seats_cli.errors import ModelError
from seats_cli.models import FAMILIES
from seats_cli.models.loading import LoadedModel, build_random, load
from seats_cli.timing import Stopwatch
from tests import tiny_qwen3
from tests.array_clip import clip_for

FAMILY = FAMILIES["qwen3_omni_moe"]
NAMES = ["Qwen/Qwen3-Omni-30B-A3B-Instruct", "Qwen/Qwen3-Omni-30B-A3B-Thinking"]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tiny_qwen3.write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), dtype=torch.float32)
    return load(ModelOptions(model=str(folder), device="cpu", dtype="float32"))


def thinker_config(**overrides: Any) -> dict[str, Any]:
    return tiny_qwen3._config_json(n_layers=8, **overrides)["thinker_config"]


# Configs


@pytest.mark.parametrize("name", NAMES)
def test_named_sizes_are_those_transformers_reads(name: str) -> None:
    config = FAMILY.named[name]
    spec = FAMILY.spec_of(name, config)
    theirs = Qwen3OmniMoeThinkerConfig(**copy.deepcopy(config))
    text, vision, audio = spec.geometry.text, spec.geometry.vision, spec.geometry.audio
    their_text, their_vision, their_audio = theirs.text_config, theirs.vision_config, theirs.audio_config
    assert (text.n_layers, text.hidden, text.n_heads, text.n_kv_heads, text.head_dim, text.vocab) == (
        their_text.num_hidden_layers,
        their_text.hidden_size,
        their_text.num_attention_heads,
        their_text.num_key_value_heads,
        their_text.head_dim,
        their_text.vocab_size,
    )
    assert (text.n_experts, text.n_active_experts, text.moe_intermediate) == (
        their_text.num_experts,
        their_text.num_experts_per_tok,
        their_text.moe_intermediate_size,
    )
    assert (vision.depth, vision.hidden, vision.patch_size, vision.deepstack_layers) == (
        their_vision.depth,
        their_vision.hidden_size,
        their_vision.patch_size,
        tuple(their_vision.deepstack_visual_indexes),
    )
    assert (audio.chunk_mel_frames, audio.block_mel_frames, audio.conv_channels, audio.d_model) == (
        2 * their_audio.n_window,
        their_audio.n_window_infer,
        their_audio.downsample_hidden_size,
        their_audio.d_model,
    )
    assert (spec.layout.video_id, spec.layout.audio_id) == (theirs.video_token_id, theirs.audio_token_id)
    assert spec.layout.positions_per_second == theirs.position_id_per_seconds == 13
    assert (spec.pixel_factor, spec.max_positions) == (32, 65536)
    assert (spec.mel_frames_per_window, spec.mel_frames_per_batch_unit) == (200, 800)
    assert spec.preset.drop_before_layer == (27, 31, 35, 39)
    assert spec.preset.temperature == 0.3


def test_parameters_are_those_of_the_modules() -> None:
    """30.5 billion in the decoder and 1.2 in the encoders, counted without making them."""
    config = FAMILY.named[NAMES[0]]
    with torch.device("meta"):
        thinker = Qwen3OmniMoeThinkerForConditionalGeneration(Qwen3OmniMoeThinkerConfig(**copy.deepcopy(config)))
    real = sum(parameter.numel() for parameter in thinker.parameters())
    assert n_parameters(FAMILY.spec_of("30B", config).geometry) == real
    assert 31e9 < real < 33e9


def test_the_stand_in_is_as_deep_and_runs() -> None:
    name, config = FAMILY.stand_in
    spec = FAMILY.spec_of(name, config)
    assert spec.geometry.text.n_layers == 48
    loaded = build_random(ModelOptions(model=name, weights="random", device="cpu"), FAMILY, config)
    assert len(loaded.model.layers) == 48
    assert sum(p.numel() for p in loaded.model.thinker.parameters()) == n_parameters(spec.geometry) < 0.2e9
    assert loaded.model.pixel_norm.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: c["text_config"].pop("num_attention_heads"), "num_attention_heads"),
        (lambda c: c.pop("audio_token_id"), "audio_token_id"),
        (lambda c: c.pop("vision_config"), "vision_config"),
        (lambda c: c["text_config"].update(mlp_only_layers=[0]), "without experts"),
        (lambda c: c["text_config"].update(decoder_sparse_step=2), "without experts"),
        (lambda c: c["audio_config"].update(n_window_infer=850), "no whole chunks"),
        (lambda c: c.update(text_config=3), "damaged"),
        (lambda c: c["text_config"].update(num_hidden_layers="8"), "damaged"),
        (lambda c: c["audio_config"].update(n_window=0), "13 tokens a second"),
        (lambda c: c["audio_config"].update(n_window=25), "13 tokens a second"),
        (lambda c: c["audio_config"].update(n_window_infer=0), "no whole chunks"),
        (lambda c: c["text_config"].update(num_experts_per_tok=9), "9 experts per token of 6"),
        (lambda c: c.update(position_id_per_seconds=25), "13 tokens a second"),
    ],
)
def test_a_config_that_cannot_be_is_one_line(damage: Any, words: str) -> None:
    config = thinker_config()
    damage(config)
    with pytest.raises(ModelError, match=words) as caught:
        FAMILY.spec_of("mine", config)
    assert "mine" in str(caught.value)
    assert caught.value.hint


# Sound and picture


@pytest.mark.parametrize("n_mel_frames", [*range(1, 12), 99, 100, 101, 199, 200, 799, 800, 801, 30000])
def test_audio_tokens_are_those_of_transformers(n_mel_frames: int) -> None:
    from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import _get_feat_extract_output_lengths

    expected = int(_get_feat_extract_output_lengths(torch.tensor([n_mel_frames]))[0])
    assert FAMILY.audio_tokens(n_mel_frames) == expected
    assert FAMILY.spec_of("30B", FAMILY.named[NAMES[0]]).geometry.audio.n_positions(n_mel_frames) == expected


@pytest.mark.parametrize("n_samples", [400, 1600, 16000, 16001, 16159, 16160, 53210])
def test_the_log_mel_is_that_of_its_processor(loaded: LoadedModel, n_samples: int) -> None:
    """Neither padded nor cut: the end is mirrored, and a begun frame left out."""
    waveform = np.random.default_rng(n_samples).normal(0, 0.1, n_samples).astype(np.float32)
    extractor = loaded.model.processor.feature_extractor
    assert isinstance(extractor, WhisperFeatureExtractor)
    theirs = extractor([waveform], sampling_rate=16000, padding=True, truncation=False, return_attention_mask=True)
    n = int(np.asarray(theirs["attention_mask"]).sum())
    ours = log_mel_of(loaded.model, waveform)
    assert ours.shape[1] == n == n_samples // 160
    torch.testing.assert_close(
        ours, torch.tensor(np.asarray(theirs["input_features"]))[0, :, :n], atol=1e-4, rtol=0
    )


def test_pieces_of_sound_begin_at_blocks_and_none_is_short() -> None:
    """Convolutions see a begun second padded if there is a whole one beside it, so none may stand alone."""
    ends = [0, 200, 400, 600, 800, 1000, 1200, 1400, 1600, 1630]
    assert list(_window_ranges((26,) * 9, 1, ends, 800)) == [(0, 4), (4, 9)]
    assert list(_window_ranges((26,) * 9, 4, ends, 800)) == [(0, 4), (4, 9)]
    assert list(_window_ranges((26,) * 9, 5, ends, 800)) == [(0, 9)]
    # Windows of several lengths, where few frames are seen: pieces still begin at multiples of 8 s.
    assert list(_window_ranges((78, 52, 78, 26, 26), 1, [0, 600, 1000, 1600, 1800, 2400], 800)) == [(0, 3), (3, 5)]


def plain_attention(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Attention received in one window, by the definition: [n, H, d] twice -> [n]."""
    logits = torch.einsum("ihd,jhd->hij", query, key) / math.sqrt(query.shape[2])
    return logits.softmax(-1).mean(0).sum(0)


@torch.no_grad()
def test_audio_saliency(loaded: LoadedModel) -> None:
    """The tower rebuilt step by step; its layers attend 8 s, the saliency windows of 2 s."""
    model, tower = loaded.model, loaded.model._parts[2]
    mel = torch.randn(128, 1130, generator=torch.Generator().manual_seed(3))
    encoded = model.encode_audio(mel, saliency=True)
    chunks = functional.pad(mel, (0, 70)).view(128, 12, 100).permute(1, 0, 2)[:, None]
    for convolution in (tower.conv2d1, tower.conv2d2, tower.conv2d3):
        chunks = functional.gelu(convolution(chunks))
    hidden = tower.conv_out(chunks.permute(0, 3, 1, 2).flatten(2))
    hidden = hidden + tower.positional_embedding.positional_embedding[:13]
    hidden = hidden.flatten(0, 1)[: 11 * 13 + 4]
    for layer in tower.layers:
        normed, attn = layer.self_attn_layer_norm(hidden), layer.self_attn
        query, key, value = (
            getattr(attn, f"{name}_proj")(normed).view(len(hidden), attn.num_heads, -1) for name in "qkv"
        )
        block = torch.arange(len(hidden)) // 104
        logits = torch.einsum("ihd,jhd->hij", query, key) * attn.scaling
        weights = logits.masked_fill(block[:, None] != block, -torch.inf).softmax(-1)
        hidden = hidden + attn.out_proj(torch.einsum("hij,jhd->ihd", weights, value).flatten(1))
        hidden = hidden + layer.fc2(functional.gelu(layer.fc1(layer.final_layer_norm(hidden))))
    expected = tower.proj2(functional.gelu(tower.proj1(tower.ln_post(hidden))))
    torch.testing.assert_close(encoded.embeddings, expected, atol=1e-4, rtol=1e-4)
    sizes = [26, 26, 26, 26, 26, 17]
    received = encoded.attention_received(sizes)
    by_window = [plain_attention(q, k) for q, k in zip(query.split(sizes), key.split(sizes), strict=True)]
    torch.testing.assert_close(received, torch.cat(by_window), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_vision_saliency_and_deepstack(loaded: LoadedModel) -> None:
    """Against the last block's own queries and keys, caught by hooks; features of the first layers beside it."""
    model, tower = loaded.model, loaded.model._parts[1]
    grid = (3, 6, 10)
    patches = torch.randn(180, 3 * 2 * 16 * 16, generator=torch.Generator().manual_seed(5))
    caught: dict[str, torch.Tensor] = {}
    hooks = [
        tower.blocks[-1].attn.qkv.register_forward_hook(lambda _m, _i, out: caught.update(qkv=out)),
        tower.blocks[-1].register_forward_pre_hook(
            lambda _m, _a, kw: caught.update(rope=kw["position_embeddings"]), with_kwargs=True
        ),
    ]
    encoded = model.encode_video(patches, grid, saliency=True)
    for hook in hooks:
        hook.remove()
    query, key, _ = caught["qkv"].view(180, 3, 2, -1).unbind(1)
    cos, sin = (table[:, None] for table in caught["rope"])

    def turned(x: torch.Tensor) -> torch.Tensor:
        low, high = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-high, low], dim=-1) * sin

    per_patch = [
        plain_attention(q, k)
        for q, k in zip(turned(query).split([120, 60]), turned(key).split([120, 60]), strict=True)
    ]
    expected = torch.cat(per_patch).view(-1, 4).mean(1)
    torch.testing.assert_close(encoded.attention_received([30, 15]), expected, atol=1e-4, rtol=1e-4)
    theirs = tower(patches, grid_thw=torch.tensor([grid]))
    assert torch.equal(encoded.embeddings, theirs.pooler_output)
    assert len(encoded.deepstack) == 3
    for ours, their in zip(encoded.deepstack, theirs.deepstack_features, strict=True):
        assert torch.equal(ours, their)
    assert torch.equal(model.encode_video(patches, grid, saliency=False).embeddings, encoded.embeddings)


@torch.inference_mode()
def test_deepstack_counts_for_the_answer(loaded: LoadedModel) -> None:
    """Without it the logits differ: a test that passes although it is forgotten would be worth nothing."""
    import dataclasses

    from seats_cli.engine.pipeline import method_for
    from seats_cli.engine.prefill import prefill

    clip, media = clip_for(loaded, 8, 4, 5, 4.0)
    options = SelectionOptions(trr=0.3)
    prepared = prepare(loaded, clip, "What?", Settings(media=media, selection=options), Stopwatch())
    prompted = read_prompt(loaded, prepared, options, Stopwatch())
    assert prompted.encoded.deepstack.shape[0] == 3
    method = method_for(loaded, prepared.plan, options)
    without = prefill(loaded.model, prepared.layout, dataclasses.replace(prompted.encoded, deepstack=None), method)
    assert not torch.allclose(without.logits, prompted.prefill.logits, atol=1e-2)


@pytest.mark.parametrize("first", [1, 2, 3])
@torch.inference_mode()
def test_deepstack_leaves_with_its_tokens(loaded: LoadedModel, first: int) -> None:
    """Drops before layers that still add it: the same as a schedule by masks, which law 2 checks in general."""
    from tests.engine.test_laws import check_pruned_is_masked

    drops = (first, first + 1, first + 2, 7)
    check_pruned_is_masked(loaded, (12, 4, 5, 6.0), SelectionOptions(trr=0.3, drop_before_layer=drops, scale=1.5))


# Experts


@torch.inference_mode()
def test_expert_kernels_agree_and_the_switch_is_undone(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grouped for the prompt and batched for answer tokens, as transformers' generate does off the CPU."""
    thinker, used = loaded.model.thinker, []
    clip, media = clip_for(loaded, 8, 4, 5, 4.0)
    options = SelectionOptions(trr=0.3)

    def answered() -> tuple[torch.Tensor, list[int]]:
        prepared = prepare(loaded, clip, "What?", Settings(media=media, selection=options), Stopwatch())
        filled = read_prompt(loaded, prepared, options, Stopwatch(), 8).prefill
        position = prepared.layout.next_position
        generation = GenerationOptions(max_new_tokens=8)
        written = decode(
            loaded.model,
            filled.logits,
            filled.cache,
            position,
            generation,
            lambda _: used.append(thinker.get_experts_implementation()["text_config"]),
        )
        return filled.logits, written.token_ids

    before = thinker.get_experts_implementation()
    assert before["text_config"] == "grouped_mm"
    found = {}
    for kind in ("eager", "grouped_mm", "batched_mm"):
        thinker.set_experts_implementation({**before, "text_config": kind})
        found[kind] = answered()
        thinker.set_experts_implementation(before)
    for logits, tokens in found.values():
        torch.testing.assert_close(logits, found["eager"][0], atol=1e-4, rtol=1e-4)
        assert tokens == found["eager"][1]
    assert used[8:16] == ["grouped_mm"] * 8, "on the CPU nothing is switched"

    used.clear()
    monkeypatch.setattr(type(loaded.model), "device", torch.device("meta"))
    with loaded.model.decoding():
        assert thinker.get_experts_implementation()["text_config"] == "batched_mm"
        monkeypatch.undo()
        assert answered()[1] == found["eager"][1]
    assert thinker.get_experts_implementation() == before
    assert set(used) == {"batched_mm"}


LONG = (6, 3, 3, 17.1)
"""More sound than picture, and more than two of the audio tower's blocks."""


@pytest.mark.parametrize("per_batch", [1, 2])
def test_the_laws_hold_past_the_first_block_of_sound(loaded: LoadedModel, per_batch: int) -> None:
    from tests.engine import test_flops, test_laws

    test_laws.test_law_1_everything_kept_is_transformers(loaded, LONG)
    test_laws.test_law_4_batches_equal_one_go(loaded, LONG, per_batch, "seats")
    for options in (SelectionOptions(method="full"), SelectionOptions(trr=0.3)):
        test_flops.test_law_5_formula_equals_counter(loaded, LONG, options)
    test_laws.check_pruned_is_masked(loaded, LONG, SelectionOptions(trr=0.3))

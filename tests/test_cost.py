"""Cost formulas against torch's FlopCounterMode over transformers' own modules, and published figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.qwen2_5_omni import configuration_qwen2_5_omni as omni_config
from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni as omni
from transformers.models.qwen3_omni_moe import configuration_qwen3_omni_moe as moe_config
from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as moe

from seats_cli.cost import (
    AudioGeometry,
    Flops,
    ModelGeometry,
    TextGeometry,
    VisionGeometry,
    audio_flops,
    diversity_flops,
    kv_cache_bytes,
    n_parameters,
    paper_layer_flops,
    paper_prefill_flops,
    prefill_flops,
    relevance_flops,
    saliency_flops,
    vision_flops,
    weight_bytes,
)

ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
DENSE = TextGeometry(n_layers=4, hidden=32, n_heads=4, n_kv_heads=2, head_dim=8, intermediate=44, vocab=57)
# Heads wider in total than the residual stream, as in Qwen3-Omni.
EXPERTS = TextGeometry(
    n_layers=3,
    hidden=32,
    n_heads=4,
    n_kv_heads=2,
    head_dim=16,
    intermediate=44,
    vocab=57,
    n_experts=6,
    n_active_experts=2,
    moe_intermediate=20,
    qkv_bias=False,
    qk_norm=True,
)
VISION = VisionGeometry(
    depth=3,
    hidden=24,
    n_heads=2,
    intermediate=36,
    patch_size=14,
    temporal_patch_size=2,
    merge_size=2,
    in_channels=3,
    out_hidden=32,
    full_attention_layers=(1,),
)
AUDIO = AudioGeometry(n_layers=2, d_model=24, n_heads=2, ffn=40, n_mel_bins=16, output_dim=32, chunk_mel_frames=20)
SEVEN_B = TextGeometry(
    n_layers=28, hidden=3584, n_heads=28, n_kv_heads=4, head_dim=128, intermediate=18944, vocab=152064
)
THIRTY_B = TextGeometry(
    n_layers=48,
    hidden=2048,
    n_heads=32,
    n_kv_heads=4,
    head_dim=128,
    intermediate=6144,
    vocab=152064,
    n_experts=128,
    n_active_experts=8,
    moe_intermediate=768,
    qkv_bias=False,
    qk_norm=True,
)


def count_flops(run: Callable[[], object]) -> int:
    """What FlopCounterMode counts, less the rotary angles.

    The math kernel is used because it shows its matrix products one by one: the fused CPU kernel, which torch
    runs otherwise, is missing from the counter's table in torch 2.10 and there in 2.15, with the same figure.
    transformers 5.17 makes the decoder's rotary angles with a matrix product that later versions do without.
    """
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    rotary = {
        name: sum(counts.values())
        for name, counts in counter.get_flop_counts().items()
        if "rotary" in name.rsplit(".", 1)[-1].lower()
    }
    return counter.get_total_flops() - sum(rotary.values())


def text_config(text: TextGeometry) -> omni_config.Qwen2_5OmniTextConfig:
    return omni_config.Qwen2_5OmniTextConfig(
        vocab_size=text.vocab,
        hidden_size=text.hidden,
        intermediate_size=text.intermediate,
        num_hidden_layers=text.n_layers,
        num_attention_heads=text.n_heads,
        num_key_value_heads=text.n_kv_heads,
        rope_parameters=ROPE,
    )


def dense_model(text: TextGeometry) -> omni.Qwen2_5OmniThinkerTextModel:
    config = text_config(text)
    config._attn_implementation = "sdpa"
    return omni.Qwen2_5OmniThinkerTextModel(config).eval()


def experts_model(text: TextGeometry) -> moe.Qwen3OmniMoeThinkerTextModel:
    config = moe_config.Qwen3OmniMoeTextConfig(
        vocab_size=text.vocab,
        hidden_size=text.hidden,
        intermediate_size=text.intermediate,
        num_hidden_layers=text.n_layers,
        num_attention_heads=text.n_heads,
        num_key_value_heads=text.n_kv_heads,
        num_experts=text.n_experts,
        num_experts_per_tok=text.n_active_experts,
        moe_intermediate_size=text.moe_intermediate,
        rope_parameters=ROPE | {"mrope_section": [2, 3, 3]},
    )
    config.head_dim = text.head_dim
    config._attn_implementation = "sdpa"
    config._experts_implementation = "eager"
    return moe.Qwen3OmniMoeThinkerTextModel(config).eval()


def prefill(model: torch.nn.Module, text: TextGeometry, tokens_per_layer: Sequence[int]) -> None:
    """Plain loop over the layers; each sees the first rows of what the last one left."""
    head = torch.nn.Linear(text.hidden, text.vocab, bias=False)
    states = torch.randn(1, tokens_per_layer[0], text.hidden)
    cos, sin = model.rotary_emb(states, torch.arange(states.shape[1]).expand(3, 1, -1))
    for layer, n_tokens in zip(model.layers, tokens_per_layer, strict=True):
        angles = cos[..., :n_tokens, :], sin[..., :n_tokens, :]
        states = layer(states[:, :n_tokens], attention_mask=None, position_embeddings=angles)
        states = states if isinstance(states, torch.Tensor) else states[0]
    head(model.norm(states[:, -1]))


@pytest.mark.parametrize("tokens", [(9, 9, 9, 9), (1, 1, 1, 1), (23, 17, 8, 3)])
def test_dense_prefill_equals_counter(tokens: tuple[int, ...]) -> None:
    model = dense_model(DENSE)
    assert count_flops(lambda: prefill(model, DENSE, tokens)) == prefill_flops(DENSE, tokens)


@pytest.mark.parametrize("tokens", [(11, 11, 11), (19, 7, 2)])
def test_experts_prefill_equals_counter(tokens: tuple[int, ...]) -> None:
    model = experts_model(EXPERTS)
    assert count_flops(lambda: prefill(model, EXPERTS, tokens)) == prefill_flops(EXPERTS, tokens)


def vision_config(vision: VisionGeometry) -> omni_config.Qwen2_5OmniVisionEncoderConfig:
    config = omni_config.Qwen2_5OmniVisionEncoderConfig(
        depth=vision.depth,
        hidden_size=vision.hidden,
        intermediate_size=vision.intermediate,
        num_heads=vision.n_heads,
        in_channels=vision.in_channels,
        patch_size=vision.patch_size,
        spatial_merge_size=vision.merge_size,
        temporal_patch_size=vision.temporal_patch_size,
        window_size=vision.window_pixels,
        out_hidden_size=vision.out_hidden,
        fullatt_block_indexes=list(vision.full_attention_layers),
    )
    config._attn_implementation = "sdpa"
    return config


def encode_grids(encoder: torch.nn.Module, vision: VisionGeometry, hw: tuple[int, int], n_grids: int) -> None:
    values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    patches = torch.randn(n_grids * hw[0] * hw[1], values)
    encoder(patches, grid_thw=torch.tensor([[n_grids, *hw]]))


@pytest.mark.parametrize(
    ("hw", "n_grids"),
    [((8, 8), 1), ((16, 24), 2), ((10, 18), 3), ((2, 2), 1), ((6, 26), 2), ((22, 4), 1)],
)
def test_vision_equals_counter(hw: tuple[int, int], n_grids: int) -> None:
    encoder = omni.Qwen2_5OmniVisionEncoder(vision_config(VISION)).eval()
    counted = count_flops(lambda: encode_grids(encoder, VISION, hw, n_grids))
    assert counted == vision_flops(VISION, hw, n_grids)


def test_vision_without_windows_equals_counter_with_full_attention_everywhere() -> None:
    whole = replace(VISION, full_attention_layers=(0, 1, 2))
    unwindowed = replace(VISION, full_attention_layers=(), window_pixels=0)
    encoder = omni.Qwen2_5OmniVisionEncoder(vision_config(whole)).eval()
    counted = count_flops(lambda: encode_grids(encoder, whole, (10, 18), 2))
    assert counted == vision_flops(whole, (10, 18), 2) == vision_flops(unwindowed, (10, 18), 2)


def test_vision_refuses_what_has_no_whole_tokens() -> None:
    with pytest.raises(ValueError, match="9x8"):
        vision_flops(VISION, (9, 8), 1)
    with pytest.raises(ValueError, match="20 pixels"):
        vision_flops(replace(VISION, window_pixels=20), (8, 8), 1)


def audio_config(audio: AudioGeometry) -> omni_config.Qwen2_5OmniAudioEncoderConfig:
    config = omni_config.Qwen2_5OmniAudioEncoderConfig(
        num_mel_bins=audio.n_mel_bins,
        encoder_layers=audio.n_layers,
        encoder_attention_heads=audio.n_heads,
        encoder_ffn_dim=audio.ffn,
        d_model=audio.d_model,
        max_source_positions=audio.chunk_mel_frames,
        n_window=audio.chunk_mel_frames // 2,
        output_dim=audio.output_dim,
    )
    config._attn_implementation = "sdpa"
    return config


@pytest.mark.parametrize("calls", [(20,), (40,), (53,), (7,), (3,), (59, 20, 1, 41)])
def test_audio_equals_counter(calls: tuple[int, ...]) -> None:
    encoder = omni.Qwen2_5OmniAudioEncoder(audio_config(AUDIO)).eval()

    def run() -> None:
        for n_frames in calls:
            encoder(torch.randn(AUDIO.n_mel_bins, n_frames), feature_lens=torch.tensor([n_frames]))

    assert count_flops(run) == audio_flops(AUDIO, calls)


def test_nothing_encoded_costs_nothing() -> None:
    assert audio_flops(AUDIO, []) == audio_flops(AUDIO, [0]) == vision_flops(VISION, (8, 8), 0) == 0


@pytest.mark.parametrize("projections", [0, 2, 3])
def test_saliency_equals_counter(projections: int) -> None:
    width, heads, windows = 24, 2, [7, 7, 5]
    layers = [torch.nn.Linear(width, width) for _ in range(projections)]

    def run() -> None:
        states = torch.randn(sum(windows), width)
        for layer in layers:
            layer(states)
        for part in states.split(windows):
            rows = part.view(len(part), heads, -1).transpose(0, 1)
            rows @ rows.mT

    assert count_flops(run) == saliency_flops(windows, width, projections=projections)


def test_diversity_equals_counter() -> None:
    features = torch.randn(5, 7, 32)
    assert count_flops(lambda: features @ features.mT) == diversity_flops(5, 7, 32)


@pytest.mark.parametrize(("text", "make"), [(DENSE, dense_model), (EXPERTS, experts_model)])
def test_relevance_equals_counter(text: TextGeometry, make: Callable[[TextGeometry], torch.nn.Module]) -> None:
    attention = make(text).layers[0].self_attn

    def run() -> None:
        states = torch.randn(13, text.hidden)
        keys = attention.k_proj(states).view(13, text.n_kv_heads, text.head_dim)
        query = attention.q_proj(states[-1:]).view(text.n_heads, 1, text.head_dim)
        query @ keys.permute(1, 2, 0).repeat_interleave(text.n_heads // text.n_kv_heads, dim=0)

    assert count_flops(run) == relevance_flops(text, 13)


def test_paper_layer_is_the_published_formula() -> None:
    s, d, d_kv, i = 1000, 3584, 512, 18944
    assert paper_layer_flops(SEVEN_B, s) == s * d * (2 * d + 2 * d_kv) + 2 * s**2 * d + 3 * s * d * i


def clip_at_ten_percent(levels: Sequence[tuple[int, int]], n_text: int) -> list[int]:
    """Tokens per layer from (first layer, kept video and audio tokens) pairs."""
    starts = [start for start, _ in levels[1:]]
    return [n_text + kept for (start, kept), end in zip(levels, starts, strict=False) for _ in range(end - start)]


@pytest.mark.parametrize(
    ("text", "n_clip", "levels", "n_text", "expected"),
    [
        (SEVEN_B, 10140, [(0, 1459), (16, 1357), (18, 1079), (20, 322), (23, 0), (28, 0)], 80, 11.5),
        (SEVEN_B, 10140, [(0, 1459), (16, 1357), (18, 1079), (20, 322), (23, 0), (28, 0)], 300, 9.8),
        (THIRTY_B, 9420, [(0, 1337), (27, 1237), (31, 967), (35, 230), (39, 0), (48, 0)], 80, 18.2),
        (THIRTY_B, 9420, [(0, 1337), (27, 1237), (31, 967), (35, 230), (39, 0), (48, 0)], 300, 15.3),
    ],
)
def test_published_reduction(
    text: TextGeometry, n_clip: int, levels: list[tuple[int, int]], n_text: int, expected: float
) -> None:
    """60 s at 144 tokens a grid, a tenth kept: the published schedule's counts give the published factor."""
    pruned = clip_at_ten_percent(levels, n_text)
    full = [n_clip + n_text] * text.n_layers
    layers = sum(paper_layer_flops(text, n) for n in full) / sum(paper_layer_flops(text, n) for n in pruned)
    assert layers == pytest.approx(expected, abs=0.1)
    reduction = Flops(paper_prefill_flops(text, full), paper_prefill_flops(text, pruned)).reduction
    assert reduction == pytest.approx(expected, rel=0.06)


def test_paper_reduction_of_the_seven_b_is_at_least_eleven() -> None:
    levels = [(0, 1459), (16, 1357), (18, 1079), (20, 322), (23, 0), (28, 0)]
    pruned = paper_prefill_flops(SEVEN_B, clip_at_ten_percent(levels, 80))
    assert paper_prefill_flops(SEVEN_B, [10220] * 28) / pruned > 11.0


@given(st.lists(st.integers(1, 500), min_size=4, max_size=4))
def test_conventions_differ_by_two_and_by_the_head(tokens: list[int]) -> None:
    head = DENSE.hidden * DENSE.vocab
    executed, paper = prefill_flops(DENSE, tokens), paper_prefill_flops(DENSE, tokens)
    assert executed == 2 * (paper - (tokens[-1] - 1) * head)


def test_one_count_per_layer() -> None:
    for function in (prefill_flops, paper_prefill_flops):
        with pytest.raises(ValueError, match="3 token counts for 4 layers"):
            function(DENSE, [1, 2, 3])
    with pytest.raises(ValueError, match="5 token counts for 4 layers"):
        kv_cache_bytes(DENSE, [1] * 5, 2)


def test_reduction() -> None:
    assert Flops(10, 4).reduction == 2.5
    assert Flops(10, 0).reduction is None


THREE_B = TextGeometry(
    n_layers=36, hidden=2048, n_heads=16, n_kv_heads=2, head_dim=128, intermediate=11008, vocab=151936
)


@pytest.mark.parametrize("text", [SEVEN_B, THREE_B], ids=["7B", "3B"])
def test_parameters_equal_the_thinker(text: TextGeometry) -> None:
    geometry = ModelGeometry(
        name="thinker",
        text=text,
        vision=VisionGeometry(32, 1280, 16, 3420, 14, 2, 2, 3, text.hidden, (7, 15, 23, 31)),
        audio=AudioGeometry(32, 1280, 20, 5120, 128, text.hidden),
    )
    config = omni_config.Qwen2_5OmniThinkerConfig(
        text_config=text_config(text).to_dict(),
        vision_config=vision_config(geometry.vision).to_dict(),
        audio_config=audio_config(geometry.audio).to_dict(),
    )
    with torch.device("meta"):
        thinker = omni.Qwen2_5OmniThinkerForConditionalGeneration(config)
    n_real = sum(parameter.numel() for parameter in thinker.parameters())
    assert n_parameters(geometry) == n_real
    assert weight_bytes(geometry, 2) == 2 * n_real


def test_parameters_of_experts_and_tied_tables() -> None:
    encoders = n_parameters(ModelGeometry("", DENSE, VISION, AUDIO)) - decoder_parameters(DENSE)
    model = experts_model(EXPERTS)
    decoder = n_parameters(ModelGeometry("", EXPERTS, VISION, AUDIO)) - encoders
    table = EXPERTS.vocab * EXPERTS.hidden
    assert decoder == sum(parameter.numel() for parameter in model.parameters()) + table
    tied = replace(EXPERTS, tied_embeddings=True)
    assert n_parameters(ModelGeometry("", tied, VISION, AUDIO)) - encoders == decoder - table


def decoder_parameters(text: TextGeometry) -> int:
    return sum(parameter.numel() for parameter in dense_model(text).parameters()) + text.vocab * text.hidden


def test_cache_of_the_seven_b_is_56_kib_a_token() -> None:
    assert kv_cache_bytes(SEVEN_B, [1] * 28, 2) == 56 * 1024
    assert kv_cache_bytes(THIRTY_B, [1] * 48, 2) == 96 * 1024


@given(st.lists(st.integers(0, 10_000), min_size=4, max_size=4), st.sampled_from([1, 2, 4]))
def test_cache_counts_every_layer_apart(tokens: list[int], size: int) -> None:
    alone = [kv_cache_bytes(DENSE, [n if i == j else 0 for j in range(4)], size) for i, n in enumerate(tokens)]
    assert kv_cache_bytes(DENSE, tokens, size) == sum(alone)

"""Geometry and tokens per layer -> multiply-adds, FLOPs, bytes. Pure integers.

Two conventions, and every figure names its own:

* *paper*: one multiply-add is 1 FLOP, the language model alone, ``lm_head`` on every token left.
* *executed*: a multiply-add is 2, ``lm_head`` on one position; what torch's ``FlopCounterMode`` counts.

Both take causal attention as the full square.

Only matrix products and convolutions count: norms, softmax and activations do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from seats_cli.geometry import AudioGeometry, ModelGeometry, TextGeometry, VisionGeometry, halved


@dataclass(frozen=True, slots=True)
class Flops:
    """The same work without and with dropped tokens, in one convention."""

    full: int
    pruned: int

    @property
    def reduction(self) -> float | None:
        """How many times less; None when nothing is left to divide by."""
        return self.full / self.pruned if self.pruned else None


def _check_layers(text: TextGeometry, tokens_per_layer: Sequence[int]) -> None:
    if len(tokens_per_layer) != text.n_layers:
        raise ValueError(f"{len(tokens_per_layer)} token counts for {text.n_layers} layers")


def _mlp_macs(text: TextGeometry) -> int:
    """Multiply-adds of one token in the MLP; with experts: the active ones and the router."""
    if text.n_experts:
        return text.n_active_experts * 3 * text.hidden * text.moe_intermediate + text.hidden * text.n_experts
    return 3 * text.hidden * text.intermediate


def paper_layer_flops(text: TextGeometry, n_tokens: int) -> int:
    """One decoder layer, paper convention.

    ``S*D*(2D + 2D_kv) + 2*S^2*D + 3*S*D*I``, with the heads' real width for ``D`` inside the attention.

    Args:
        text: The decoder.
        n_tokens: S, the tokens this layer processes.
    """
    projections = n_tokens * text.hidden * (2 * text.q_width + 2 * text.kv_width)
    attention = 2 * n_tokens**2 * text.q_width
    return projections + attention + n_tokens * _mlp_macs(text)


def paper_prefill_flops(text: TextGeometry, tokens_per_layer: Sequence[int]) -> int:
    """The decoder's prefill, paper convention: all layers, and ``lm_head`` on every token left.

    Args:
        text: The decoder.
        tokens_per_layer: Tokens each layer processes, one count per layer.

    Raises:
        ValueError: There is not one count per layer.
    """
    _check_layers(text, tokens_per_layer)
    layers = sum(paper_layer_flops(text, n) for n in tokens_per_layer)
    return layers + tokens_per_layer[-1] * text.hidden * text.vocab


def prefill_flops(text: TextGeometry, tokens_per_layer: Sequence[int]) -> int:
    """The decoder's prefill as executed: all layers, and ``lm_head`` on the last position alone.

    Not in it: the selection's own work (``relevance_flops``), and rotary angles: transformers
    5.17 makes them with a matrix product that FlopCounterMode counts.

    Args:
        text: The decoder.
        tokens_per_layer: Tokens each layer processes, one count per layer.

    Raises:
        ValueError: There is not one count per layer.
    """
    _check_layers(text, tokens_per_layer)
    layers = sum(paper_layer_flops(text, n) for n in tokens_per_layer)
    return 2 * (layers + text.hidden * text.vocab)


def _sum_of_squares(length: int, side: int) -> int:
    """Cut ``length`` into pieces of ``side``, the last one ragged; the sum of the pieces' squares."""
    whole, rest = divmod(length, side)
    return whole * side**2 + rest**2


def vision_flops(vision: VisionGeometry, grid_hw: tuple[int, int], n_grids: int) -> int:
    """The vision encoder as executed: patches to merged tokens.

    Windows are cut from the grid's upper left corner; those at the right and lower edge hold what remains.

    Args:
        vision: The encoder.
        grid_hw: Patch rows and columns of a grid, multiples of the merge size.
        n_grids: Grids (frame pairs) encoded. Grids never attend each other, so batching does not matter.

    Raises:
        ValueError: The grid does not divide into whole tokens, or a window is smaller than a token.
    """
    rows, columns = grid_hw
    if rows % vision.merge_size or columns % vision.merge_size:
        raise ValueError(f"a grid of {rows}x{columns} patches has no whole {vision.merge_size}-patch tokens")
    if vision.window_pixels and not vision.window_patches:
        raise ValueError(f"a window of {vision.window_pixels} pixels is smaller than a token")
    patches, width = rows * columns, vision.hidden
    side = vision.window_patches or max(rows, columns, 1)
    windowed = _sum_of_squares(rows, side) * _sum_of_squares(columns, side)
    n_full = sum(layer < vision.depth for layer in set(vision.full_attention_layers))
    pairs = n_full * patches**2 + (vision.depth - n_full) * windowed
    patch_values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    block = 4 * width**2 + (3 if vision.gated else 2) * width * vision.intermediate
    merged_width = vision.merge_size**2 * width
    n_mergers = 1 + len(vision.deepstack_layers)
    merger = n_mergers * patches // vision.merge_size**2 * merged_width * (merged_width + vision.out_hidden)
    return 2 * n_grids * (patches * (patch_values * width + vision.depth * block) + 2 * pairs * width + merger)


def _audio_call_macs(audio: AudioGeometry, n_frames: int) -> int:
    """Multiply-adds of one encoder call on ``n_frames`` mel frames of one clip."""
    if not n_frames:
        return 0
    chunk, width = audio.chunk_mel_frames, audio.d_model
    n_chunks, longest = -(-n_frames // chunk), min(n_frames, chunk)
    positions = audio.n_positions(n_frames)
    block = audio.n_positions(longest) * max(audio.block_mel_frames // chunk, 1)
    layer = positions * (4 * width**2 + 2 * width * audio.ffn) + 2 * _sum_of_squares(positions, block) * width
    head = width * audio.output_dim + (width**2 if audio.conv_channels else 0)
    tokens = positions // audio.positions_per_token
    return n_chunks * _convolution_macs(audio, longest) + audio.n_layers * layer + tokens * head


def _convolution_macs(audio: AudioGeometry, length: int) -> int:
    """Multiply-adds of the convolutions on one chunk of ``length`` mel frames."""
    width, channels = audio.d_model, audio.conv_channels
    if not channels:
        return length * 3 * audio.n_mel_bins * width + halved(length) * 3 * width**2
    bins, total = audio.n_mel_bins, 0
    for channels_in in (1, channels, channels):
        bins, length = halved(bins), halved(length)
        total += bins * length * 9 * channels_in * channels
    return total + length * bins * channels * width


def audio_flops(audio: AudioGeometry, mel_frames: Sequence[int]) -> int:
    """The audio encoder as executed: mel frames to pooled tokens.

    A call cuts its frames into chunks and pads them to its longest, so the convolutions run on padded chunks;
    the layers see real frames only.

    Args:
        audio: The encoder.
        mel_frames: Mel frames of each encoder call, one clip (or piece of one) per call.
    """
    return 2 * sum(_audio_call_macs(audio, n) for n in mel_frames)


def saliency_flops(window_positions: Iterable[int], width: int, *, projections: int = 0) -> int:
    """Stage I's attention received at an encoder's last layer, as executed (SEATS Sec. 4.1).

    One product per window. The Triton kernel makes them twice in place of storing them; that is not counted.

    Args:
        window_positions: Of every window its patches, or audio frames before pooling.
        width: Width of the encoder, all heads together.
        projections: Linear layers run again to get queries and keys; none where attention shows them.
    """
    windows = list(window_positions)
    return 2 * width * (projections * sum(windows) * width + sum(n**2 for n in windows))


def diversity_flops(n_windows_padded: int, padded_window: int, dim: int) -> int:
    """Stage I's pairwise cosines, as executed (SEATS Sec. 4.1).

    Args:
        n_windows_padded: Windows computed, padding windows included.
        padded_window: Tokens of a window, padding included.
        dim: Width of a token's feature.
    """
    return 2 * n_windows_padded * padded_window**2 * dim


def relevance_flops(text: TextGeometry, n_tokens: int) -> int:
    """One scoring of Stage II, as executed (SEATS Sec. 4.2.2): all keys, one query, one row of attention.

    Args:
        text: The decoder.
        n_tokens: Tokens scored, text included.
    """
    keys = n_tokens * text.hidden * text.kv_width
    return 2 * (keys + text.hidden * text.q_width + n_tokens * text.q_width)


def _text_parameters(text: TextGeometry) -> int:
    width = text.hidden
    attention = width * (2 * text.q_width + 2 * text.kv_width)
    attention += (text.q_width + 2 * text.kv_width) * text.qkv_bias + 2 * text.head_dim * text.qk_norm
    experts = text.n_experts * (width + 3 * width * text.moe_intermediate)
    mlp = experts or 3 * width * text.intermediate
    tables = 1 if text.tied_embeddings else 2
    return text.n_layers * (attention + mlp + 2 * width) + width + tables * width * text.vocab


def _vision_parameters(vision: VisionGeometry) -> int:
    width, inner, plain = vision.hidden, vision.intermediate, not vision.gated
    patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2 * width + plain * width
    norm = (1 + plain) * width
    mlp = (2 if plain else 3) * width * inner + (1 if plain else 2) * inner + width
    block = 4 * (width**2 + width) + mlp + 2 * norm
    merged = vision.merge_size**2 * width
    head = merged**2 + merged + merged * vision.out_hidden + vision.out_hidden
    mergers = norm + head + len(vision.deepstack_layers) * (2 * merged + head)
    return vision.n_position_embeddings * width + patch + vision.depth * block + mergers


def _audio_parameters(audio: AudioGeometry) -> int:
    width, channels, out = audio.d_model, audio.conv_channels, audio.output_dim
    # Norms have weight and bias, and so has every projection but, behind convolutions over time alone, the keys'.
    layer = 4 * width**2 + (4 if channels else 3) * width + 2 * width * audio.ffn + audio.ffn + width + 4 * width
    if channels:
        bins = halved(halved(halved(audio.n_mel_bins)))
        convolutions = 9 * channels + 2 * 9 * channels**2 + 3 * channels + channels * bins * width
        head = 2 * width + width**2 + width + width * out + out
    else:
        convolutions = 3 * audio.n_mel_bins * width + width + 3 * width**2 + width
        head = 2 * width + width * out + out + 2 * out  # two marker embeddings
    return convolutions + audio.n_layers * layer + head


def n_parameters(geometry: ModelGeometry) -> int:
    """Parameters of the thinker, biases and norms included."""
    encoders = _vision_parameters(geometry.vision) + _audio_parameters(geometry.audio)
    return _text_parameters(geometry.text) + encoders


def decoder_parameters(text: TextGeometry) -> int:
    """Parameters of the decoder, its embedding table and its head."""
    return _text_parameters(text)


def head_parameters(text: TextGeometry) -> int:
    """Parameters of the embedding table and of the head, once where they are the same."""
    return (1 if text.tied_embeddings else 2) * text.hidden * text.vocab


def linear_parameters(text: TextGeometry) -> tuple[int, int]:
    """Weights of the decoder's linear layers, and their rows. Routers and experts are none of them."""
    width = text.hidden
    inner = 0 if text.n_experts else text.intermediate
    weights = width * (2 * text.q_width + 2 * text.kv_width) + 3 * width * inner
    rows = text.q_width + 2 * text.kv_width + width + (2 * inner + width if inner else 0)
    return text.n_layers * weights, text.n_layers * rows


def expert_parameters(text: TextGeometry) -> int:
    """Weights of all experts."""
    return text.n_layers * text.n_experts * 3 * text.hidden * text.moe_intermediate


def weight_bytes(geometry: ModelGeometry, bytes_per_value: int) -> int:
    """Memory of the thinker's weights, bytes."""
    return n_parameters(geometry) * bytes_per_value


def kv_cache_bytes(text: TextGeometry, tokens_per_layer: Sequence[int], bytes_per_value: int) -> int:
    """Memory of keys and values when each layer keeps the tokens it processed, bytes; ValueError as above."""
    _check_layers(text, tokens_per_layer)
    return sum(tokens_per_layer) * 2 * text.kv_width * bytes_per_value

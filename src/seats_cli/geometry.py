"""Sizes of a thinker, as its config gives them: decoder, vision encoder, audio encoder. Pure integers."""

from __future__ import annotations

from dataclasses import dataclass


def halved(length: int) -> int:
    """What a convolution of stride 2 leaves; nothing stays nothing."""
    return (length + 1) // 2


@dataclass(frozen=True, slots=True)
class TextGeometry:
    """The decoder.

    Attributes:
        n_layers: Decoder layers, L.
        hidden: Width of the residual stream, D.
        n_heads: Query heads.
        n_kv_heads: Key and value heads.
        head_dim: Width of one head.
        intermediate: Width of the gated MLP, I; not used when there are experts.
        vocab: Rows of the embedding table, V.
        n_experts: Routed experts per layer; 0: a dense MLP.
        n_active_experts: Experts each token visits.
        moe_intermediate: Width of one expert.
        qkv_bias: Whether the query, key and value projections have a bias.
        qk_norm: Whether queries and keys pass a norm per head.
        tied_embeddings: Whether ``lm_head`` is the embedding table.
    """

    n_layers: int
    hidden: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    n_experts: int = 0
    n_active_experts: int = 0
    moe_intermediate: int = 0
    qkv_bias: bool = True
    qk_norm: bool = False
    tied_embeddings: bool = False

    @property
    def q_width(self) -> int:
        """Width of all query heads together."""
        return self.n_heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of all key heads together; the values have the same."""
        return self.n_kv_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class VisionGeometry:
    """The vision encoder: every layer attends the whole grid, or most only windows of it.

    Attributes:
        depth: Layers.
        hidden: Width of the residual stream, and of all heads together.
        n_heads: Attention heads.
        intermediate: Width of the MLP.
        patch_size: Side of a patch, pixels.
        temporal_patch_size: Frames in a patch.
        merge_size: Patches along one side of a token.
        in_channels: Colour channels.
        out_hidden: Width of a token handed to the decoder.
        full_attention_layers: Layers that attend the whole grid, 0-based.
        window_pixels: Side of an attention window, pixels; 0: every layer attends the whole grid.
        gated: Whether the MLP is gated and the norms have no bias, or the MLP is plain and they have one.
        n_position_embeddings: Rows of a learned table of positions; 0: none.
        deepstack_layers: Layers whose output is also merged, for the first layers of the decoder.
        fused_qkv: Whether queries, keys and values are one projection: then no two come without the third.
    """

    depth: int
    hidden: int
    n_heads: int
    intermediate: int
    patch_size: int
    temporal_patch_size: int
    merge_size: int
    in_channels: int
    out_hidden: int
    full_attention_layers: tuple[int, ...]
    window_pixels: int = 112
    gated: bool = True
    n_position_embeddings: int = 0
    deepstack_layers: tuple[int, ...] = ()
    fused_qkv: bool = False

    @property
    def window_patches(self) -> int:
        """Side of an attention window in patches; a window holds whole tokens. 0: the whole grid."""
        return self.window_pixels // self.merge_size // self.patch_size * self.merge_size


@dataclass(frozen=True, slots=True)
class AudioGeometry:
    """The audio encoder: convolutions over chunks of sound, then layers that attend within blocks of chunks.

    Attributes:
        n_layers: Layers.
        d_model: Width of the residual stream, and of all heads together.
        n_heads: Attention heads.
        ffn: Width of the MLP.
        n_mel_bins: Mel bins of a frame.
        output_dim: Width of a token handed to the decoder.
        chunk_mel_frames: Mel frames (10 ms each) in a chunk.
        block_mel_frames: Mel frames of the block a layer attends within, whole chunks; 0: the chunk.
        conv_channels: Channels of three convolutions over bins and time, each of stride 2. 0: two over time, the
            second of stride 2, and after the layers pairs of positions are pooled into a token.
    """

    n_layers: int
    d_model: int
    n_heads: int
    ffn: int
    n_mel_bins: int
    output_dim: int
    chunk_mel_frames: int = 200
    block_mel_frames: int = 0
    conv_channels: int = 0

    @property
    def positions_per_token(self) -> int:
        """Positions in the layers that become one token."""
        return 1 if self.conv_channels else 2

    def n_positions(self, n_mel_frames: int) -> int:
        """Positions in the layers of so many frames that begin a chunk."""
        whole, rest = divmod(n_mel_frames, self.chunk_mel_frames)
        return whole * self._after_convolutions(self.chunk_mel_frames) + self._after_convolutions(rest)

    def _after_convolutions(self, length: int) -> int:
        for _ in range(3 if self.conv_channels else 1):
            length = halved(length)
        return length


@dataclass(frozen=True, slots=True)
class ModelGeometry:
    """One thinker: decoder and both encoders."""

    name: str
    text: TextGeometry
    vision: VisionGeometry
    audio: AudioGeometry

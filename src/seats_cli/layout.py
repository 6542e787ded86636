"""Times -> the token sequence: ids, modality, window, grid and 3-D positions, as numpy arrays.

The one place that knows in which order text, picture and sound reach the language model, and where each token
stands on the rotary axes (time, height, width). Nothing is guessed back from runs of token ids later.

The order is ``prefix [audio_bos] content [audio_eos] suffix`` (Sec. 3.1 of the SEATS paper; the processors and
``get_rope_index`` of transformers), where the prefix ends with the opening marker of the clip and the suffix
begins with the closing one. Families differ in how picture and sound alternate in the content, and in positions:
``LayoutSpec`` says how. Windows are 2 s of clip time in every family, whatever the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from seats_cli.errors import UsageError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]


class Modality(IntEnum):
    """What a token stands for."""

    TEXT = 0
    VIDEO = 1
    AUDIO = 2


@dataclass(frozen=True, slots=True)
class LayoutSpec:
    """What a model family fixes about the sequence.

    Attributes:
        video_id: Placeholder id of a visual token.
        audio_id: Placeholder id of an audio token.
        video_bos_id: Opens a clip with picture; the last token of such a prefix.
        video_eos_id: Closes it; the first token of the suffix.
        audio_bos_id: Opens sound, alone or inside a clip with picture.
        audio_eos_id: Closes it.
        positions_per_second: Steps of the time axis per second; also audio tokens per second.
        seconds_per_window: Clip time of one window.
        by_window: Whether a window's picture comes before its sound. Otherwise picture and sound are merged by
            time, token by token; at the same time the picture comes first.
        whole_steps: Whether the time of a grid is cut down to a whole step of the time axis.
        shared_markers: Whether, inside a clip with picture and sound, the two opening markers share one position,
            and the two closing ones.
    """

    video_id: int
    audio_id: int
    video_bos_id: int
    video_eos_id: int
    audio_bos_id: int
    audio_eos_id: int
    positions_per_second: int
    seconds_per_window: float = 2.0
    by_window: bool = True
    whole_steps: bool = True
    shared_markers: bool = True

    @property
    def positions_per_window(self) -> int:
        """Steps of the time axis in one window."""
        return int(self.positions_per_second * self.seconds_per_window)


@dataclass(frozen=True, slots=True)
class VideoGrids:
    """The merged visual tokens of a clip: ``n_grids`` grids of ``rows`` x ``columns``, one per time step."""

    n_grids: int
    rows: int
    columns: int
    seconds_per_grid: float

    def __post_init__(self) -> None:
        if min(self.n_grids, self.rows, self.columns) < 1 or self.seconds_per_grid <= 0:
            raise ValueError(f"not a video: {self}")

    @property
    def tokens_per_grid(self) -> int:
        """Merged tokens of one grid."""
        return self.rows * self.columns

    @property
    def n_tokens(self) -> int:
        """Merged tokens of the clip."""
        return self.n_grids * self.tokens_per_grid


@dataclass(frozen=True, slots=True)
class Layout:
    """The unpruned sequence of ``S`` tokens.

    Within one modality the sequence order is the encoder's output order, so the ``i``-th visual row is the
    ``i``-th visual embedding, and likewise for audio.

    Attributes:
        ids: int64 [S], token ids with placeholders for picture and sound.
        modality: int64 [S], a ``Modality`` per token.
        window: int64 [S], 2 s window of a visual or audio token, from 0; -1 for text.
        grid: int64 [S], temporal grid of a visual token; -1 otherwise.
        positions: float32 [3, S], rotary positions (time, height, width); whole numbers but for grids, and
            what follows them, in families that do not cut times down to whole steps.
        window_sizes: Per modality (index by ``Modality.VIDEO`` or ``.AUDIO``), tokens in each window.
    """

    ids: IntArray
    modality: IntArray
    window: IntArray
    grid: IntArray
    positions: FloatArray
    window_sizes: dict[Modality, tuple[int, ...]]

    def __post_init__(self) -> None:
        n = len(self.ids)
        shapes = (self.modality.shape, self.window.shape, self.grid.shape)
        if any(shape != (n,) for shape in shapes) or self.positions.shape != (3, n):
            raise ValueError("the arrays of a layout must have one entry per token")

    @property
    def n_tokens(self) -> int:
        """Tokens in the sequence."""
        return len(self.ids)

    @property
    def n_windows(self) -> int:
        """Windows that hold at least one token."""
        return len(self.window_sizes[Modality.VIDEO])

    @property
    def next_position(self) -> float:
        """Position, on all three axes, of the first token of the answer."""
        return float(self.positions.max()) + 1 if self.n_tokens else 0.0

    def count(self, modality: Modality) -> int:
        """Tokens of one modality."""
        return int((self.modality == modality).sum())

    def rows(self, modality: Modality) -> IntArray:
        """Indices of one modality's tokens, ascending."""
        return np.flatnonzero(self.modality == modality)


def grid_times(video: VideoGrids, spec: LayoutSpec) -> FloatArray:
    """Position on the time axis of every grid, from 0: float32 [n_grids].

    The product is taken in float32, as ``get_rope_index`` does.
    """
    seconds = np.arange(video.n_grids, dtype=np.float32) * np.float32(video.seconds_per_grid)
    steps = seconds * np.float32(spec.positions_per_second)
    return np.trunc(steps) if spec.whole_steps else steps


def _windows(grid_t: FloatArray, audio_t: FloatArray, end_t: float, per_window: int) -> tuple[IntArray, IntArray]:
    """Window of every grid and every audio token, numbered without gaps.

    Where frames are sparser than windows (``max_frames`` binds) a window without a grid has no picture of its
    own: its sound belongs to the window before. Sound after the picture's end makes windows of its own.
    """
    grid_w, audio_w = (grid_t // per_window).astype(np.int64), (audio_t // per_window).astype(np.int64)
    if len(grid_w):
        seen = np.unique(grid_w)
        owner = seen[np.maximum(np.searchsorted(seen, audio_w, side="right") - 1, 0)]
        audio_w = np.where(audio_w * per_window < end_t, owner, audio_w)
    used, dense = np.unique(np.concatenate([grid_w, audio_w]), return_inverse=True)
    del used
    return dense[: len(grid_w)].astype(np.int64), dense[len(grid_w) :].astype(np.int64)


def _content(
    spec: LayoutSpec, video: VideoGrids | None, n_audio: int
) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
    """The clip's tokens in sequence order: modality [C], window [C], grid [C], positions from 0 [3, C]."""
    audio_t = np.arange(n_audio, dtype=np.float32)
    grid_t = np.zeros(0, dtype=np.float32)
    rows, columns, end_t = 0, 0, 0.0
    if video is not None:
        grid_t = grid_times(video, spec)
        rows, columns = video.rows, video.columns
        end_t = float(grid_t[-1]) + video.seconds_per_grid * spec.positions_per_second
    grid_w, audio_w = _windows(grid_t, audio_t, end_t, spec.positions_per_window)

    per_grid = rows * columns
    grid = np.repeat(np.arange(len(grid_t), dtype=np.int64), per_grid)
    raster = np.tile(np.arange(per_grid, dtype=np.int64), len(grid_t))
    video_pos = np.stack([grid_t[grid], raster // max(columns, 1), raster % max(columns, 1)]).astype(np.float32)

    modality = np.repeat([int(Modality.VIDEO), int(Modality.AUDIO)], [len(grid), n_audio])
    window = np.concatenate([grid_w[grid], audio_w])
    positions = np.concatenate([video_pos, np.broadcast_to(audio_t, (3, n_audio))], axis=1)
    first = window if spec.by_window else positions[0]
    order = np.lexsort((np.arange(len(window)), modality, first))  # video before audio, each in encoder order
    grid = np.concatenate([grid, np.full(n_audio, -1, dtype=np.int64)])
    return modality[order], window[order], grid[order], positions[:, order]


def _end_of_last_block(spec: LayoutSpec, positions: FloatArray, modality: IntArray, window: IntArray) -> float:
    """The furthest position of the last block of one modality, which is not always the furthest of all.

    Transformers goes on counting there. A block is a window's part of one modality, or, where the two are merged
    by time, what is left of the one when the other has ended.
    """
    last = modality == modality[-1]
    block = last & (window == window[-1]) if spec.by_window else np.logical_and.accumulate(last[::-1])[::-1]
    return float(positions[:, block].max())


def _sizes(modality: IntArray, window: IntArray, kind: Modality, n_windows: int) -> tuple[int, ...]:
    return tuple(np.bincount(window[modality == kind], minlength=n_windows).tolist())


def build_layout(
    prefix: Sequence[int],
    suffix: Sequence[int],
    spec: LayoutSpec,
    video: VideoGrids | None,
    n_audio_tokens: int,
) -> Layout:
    """Lay out one clip between the text before and after it.

    Args:
        prefix: Ids up to and including the marker that opens the clip.
        suffix: Ids from the marker that closes the clip on.
        spec: What the family fixes.
        video: The clip's grids; None: no picture.
        n_audio_tokens: Audio tokens; 0: no sound.

    Returns:
        The sequence, with positions that every token keeps, whatever is dropped later.

    Raises:
        UsageError: Neither picture nor sound.
    """
    if video is None and n_audio_tokens == 0:
        raise UsageError("nothing to see and nothing to hear in the chosen part of the clip")
    modality, window, grid, content_pos = _content(spec, video, n_audio_tokens)
    n_windows = int(window.max()) + 1
    both = video is not None and n_audio_tokens > 0

    start = len(prefix)
    opening = [spec.audio_bos_id] if both else []
    closing = [spec.audio_eos_id] if both else []
    content_ids = np.where(modality == Modality.VIDEO, spec.video_id, spec.audio_id)
    ids = np.concatenate([prefix, opening, content_ids, closing, suffix]).astype(np.int64)

    # The inner markers of a clip with both stand where the outer ones do, or have a position of their own.
    own = int(both and not spec.shared_markers)
    before = [*range(start), *([start - 1 + own] if both else [])]
    content_pos = content_pos + np.float32(start + own)
    end = _end_of_last_block(spec, content_pos, modality, window) + 1
    after = [*([end] if both else []), *(end + own + i for i in range(len(suffix)))]
    positions = np.concatenate([np.tile(before, (3, 1)), content_pos, np.tile(after, (3, 1))], axis=1)
    positions = positions.astype(np.float32)

    def padded(values: IntArray, fill: int) -> IntArray:
        text = (np.full(len(before), fill), values, np.full(len(after), fill))
        return np.concatenate(text).astype(np.int64)

    return Layout(
        ids=ids,
        modality=padded(modality, Modality.TEXT),
        window=padded(window, -1),
        grid=padded(grid, -1),
        positions=positions,
        window_sizes={
            kind: _sizes(modality, window, kind, n_windows) for kind in (Modality.VIDEO, Modality.AUDIO)
        },
    )


def text_layout(ids: Sequence[int]) -> Layout:
    """Lay out a prompt without a clip: every token is text, and positions count from 0.

    Args:
        ids: int [S], at least one.
    """
    n = len(ids)
    return Layout(
        ids=np.array(ids, dtype=np.int64),
        modality=np.full(n, int(Modality.TEXT), dtype=np.int64),
        window=np.full(n, -1, dtype=np.int64),
        grid=np.full(n, -1, dtype=np.int64),
        positions=np.tile(np.arange(n, dtype=np.float32), (3, 1)),
        window_sizes={Modality.VIDEO: (), Modality.AUDIO: ()},
    )

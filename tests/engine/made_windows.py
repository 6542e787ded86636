"""Windows that no encoder made: any bits, the same for the same number. And a worker that keeps and reads them."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from seats_cli.engine import shelf
from seats_cli.engine.encode import WindowBatch
from seats_cli.engine.prepare import ClipShape
from seats_cli.engine.store import ClipFacts, ClipStore, StoredClip
from seats_cli.layout import Modality, VideoGrids
from seats_cli.selection.base import EncodedWindows

WIDTH = 16
FACTS = ClipFacts(
    name="a clip.mp4",
    model="some/model",
    seconds_video=4.1,
    seconds_audio=4.0,
    frames=9,
    fps=2.0,
    has_audio_track=True,
)
SHAPE = ClipShape(VideoGrids(5, 2, 3, 1.0), (56, 84), 400, 100)
WARNINGS = ("a line", "a line with a \udcff byte")
Batches = dict[Modality, list[WindowBatch]]


def key(number: int) -> str:
    return f"{number:064x}"


def _bits(n: int, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Numbers of every kind: not only those that are equal to themselves."""
    raw = torch.randint(0, 256, (n * WIDTH * dtype.itemsize,), dtype=torch.uint8, generator=generator)
    return raw.view(dtype).view(n, WIDTH)


def batch_of(
    modality: Modality,
    sizes: tuple[int, ...],
    number: int = 0,
    dtype: torch.dtype = torch.float32,
    *,
    first: int = 0,
    levels: int = 0,
    saliency: bool = True,
) -> WindowBatch:
    generator = torch.Generator().manual_seed(number)
    n = sum(sizes)
    received = torch.rand(n, generator=generator) if saliency else None
    windows = EncodedWindows(modality, _bits(n, dtype, generator), received, sizes, first)
    deepstack = tuple(_bits(n, dtype, generator) for _ in range(levels))
    return WindowBatch(windows, 10**15 + number, 7 * number, deepstack)


def batches_of(
    number: int, dtype: torch.dtype = torch.float32, scale: int = 1, *, saliency: bool = True
) -> Batches:
    """Of a clip: two batches of sound, three of picture, one of them with a window that has none."""
    sound = [(25 * scale, 25 * scale), (20 * scale,)]
    picture = [(6 * scale, 12 * scale), (0, 6 * scale), (6 * scale,)]
    return {
        Modality.AUDIO: [
            batch_of(Modality.AUDIO, sizes, number + i, dtype, first=2 * i, saliency=saliency)
            for i, sizes in enumerate(sound)
        ],
        Modality.VIDEO: [
            batch_of(Modality.VIDEO, sizes, number + i, dtype, first=2 * i, levels=3, saliency=saliency)
            for i, sizes in enumerate(picture)
        ],
    }


def raw(tensor: torch.Tensor | None) -> tuple[object, ...] | None:
    """All there is to know of it: bits, kind, shape."""
    if tensor is None:
        return None
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return tensor.dtype, tuple(tensor.shape), flat.view(torch.uint8).numpy().tobytes()


def seen(batches: Mapping[Modality, Sequence[WindowBatch] | Iterator[WindowBatch]]) -> list[object]:
    """All there is to know of batches."""
    return [
        (
            modality,
            [
                (
                    batch.windows.modality,
                    raw(batch.windows.embeddings),
                    raw(batch.windows.saliency),
                    batch.windows.window_sizes,
                    batch.windows.first_window,
                    batch.encoder_flops,
                    batch.saliency_flops,
                    [raw(level) for level in batch.deepstack],
                )
                for batch in stream
            ],
        )
        for modality, stream in batches.items()
    ]


def record(store: ClipStore, name: str, batches: Batches) -> None:
    """Keep a clip, as an answer does."""
    with store.recording(name, batches) as recording:
        for stream in recording.batches.values():
            for _ in stream:
                pass
        recording.commit(SHAPE, FACTS, WARNINGS)


def found(store: ClipStore, name: str, *, saliency: bool = False) -> list[object] | None:
    """What comes back of it."""
    clip = store.load(name, saliency=saliency)
    return None if clip is None else seen(clip.batches("cpu"))


def _slowly(clip: StoredClip) -> list[object]:
    """Read it with both streams in turn, as nobody does."""
    streams = clip.batches("cpu")
    read: Batches = {modality: [] for modality in streams}
    left = list(streams)
    while left:
        for modality in list(left):
            batch = next(streams[modality], None)
            if batch is None:
                left.remove(modality)
            else:
                read[modality].append(batch)
    return seen(read)


def hammer(folder: Path, seed: int, rounds: int, limit_bytes: int, n_clips: int = 5) -> tuple[int, int]:
    """Ask a cache that is too small for its clips again and again; returns hits and misses.

    Raises:
        AssertionError: Something else came back than was written, or there was a warning.
    """
    chance = random.Random(seed)
    expected = {number: batches_of(100 * number) for number in range(n_clips)}
    hits = misses = 0
    for _ in range(rounds):
        store = ClipStore(folder, limit_bytes)
        number = chance.randrange(n_clips)
        clip = store.load(key(number))
        if clip is None:
            misses += 1
            record(store, key(number), expected[number])
        else:
            hits += 1
            assert _slowly(clip) == seen(expected[number])
            assert (clip.shape, clip.facts, clip.warnings) == (SHAPE, FACTS, WARNINGS)
        if chance.random() < 0.05:
            shelf.clear(folder)
        assert store.take_warnings() == ()
    return hits, misses


if __name__ == "__main__":
    print(*hammer(Path(sys.argv[1]), *map(int, sys.argv[2:])))

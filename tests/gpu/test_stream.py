"""Pictures on their way to a GPU while it encodes: the same tokens as without haste, and flat memory."""

from __future__ import annotations

from collections.abc import Generator

import pytest
import torch

from seats_cli.config import MediaOptions, SelectionOptions
from seats_cli.engine.ahead import Ahead, OnTheWay, Uploader
from seats_cli.engine.reading import read_clip
from seats_cli.engine.suites import held
from seats_cli.layout import Modality
from seats_cli.media import NoiseClip
from seats_cli.media.held import looped
from seats_cli.timing import PeakMemory, Stopwatch

SELECTION = SelectionOptions(trr=0.2)


def test_what_is_uploaded_beside_work_arrives_whole(gpu) -> None:
    generator = torch.Generator().manual_seed(3)
    batches = [torch.randint(0, 256, (64, 256, 256, 3), generator=generator, dtype=torch.uint8) for _ in range(12)]

    @torch.inference_mode()
    def uploads() -> Generator[OnTheWay]:
        upload = Uploader(gpu)
        for batch in batches:
            yield upload(batch)

    busy = torch.randn(2048, 2048, device=gpu)
    sums = []
    for there in Ahead(uploads()):
        for _ in range(20):
            busy = torch.nn.functional.normalize(busy @ busy)
        sums.append(there.here().long().sum((1, 2, 3)))
        del there
        # What was given back may be written to at once: it must not be the batch still being summed.
        torch.full((64, 256, 256, 3), 7, dtype=torch.uint8, device=gpu)
    for found, batch in zip(sums, batches, strict=True):
        assert torch.equal(found.cpu(), batch.long().sum((1, 2, 3)))


def test_stages_are_timed_by_the_gpu_itself(gpu) -> None:
    watch = Stopwatch(gpu)
    matrix = torch.randn(4096, 4096, device=gpu)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with watch("encode"):
            for _ in range(50):
                matrix = torch.nn.functional.normalize(matrix @ matrix)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    # 50 products of 137 GFLOP take a GPU at least a millisecond, and the host much less to ask for.
    assert watch.seconds["encode"] > 1e-3


@pytest.fixture
def minute(loaded):
    side = loaded.model.spec.pixel_factor
    media = MediaOptions(min_pixels=16 * side**2, max_pixels=16 * side**2)
    clip = held(loaded.model, lambda: NoiseClip(120, 60.0, 4 * side, 4 * side, audio_seconds=60.0), media)
    return clip, media


def test_twice_read_is_the_same(loaded, minute) -> None:
    clip, media = minute
    first, second = (read_clip(loaded, clip.again, media, SELECTION) for _ in range(2))
    for modality in (Modality.VIDEO, Modality.AUDIO):
        assert torch.equal(first.kept[modality].places, second.kept[modality].places)
        assert torch.equal(first.kept[modality].embeddings, second.kept[modality].embeddings)


def test_memory_follows_what_is_kept(loaded, minute) -> None:
    clip, media = minute
    peaks, kept = [], []
    for times in (1, 1, 6):  # the first run warms up
        with PeakMemory(loaded.model.devices) as peak:
            read = read_clip(loaded, looped(clip, times).again, media, SELECTION)
        assert peak.growth_bytes is not None
        peaks.append(peak.growth_bytes)
        kept.append(sum(part.embeddings.numel() * part.embeddings.element_size() for part in read.kept.values()))
        del read
    # Sound is held whole: 64 kB a second as samples and as much again as log-mel.
    sound = 2 * 64_000 * 60 * 5
    assert peaks[2] - peaks[1] < 4 * (kept[2] - kept[1]) + 2 * sound

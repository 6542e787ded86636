"""The host never waits for the GPU between the first embedding and the logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from seats_cli.config import SelectionOptions
from seats_cli.engine.encode import window_batches
from seats_cli.engine.pipeline import Settings, prepare
from seats_cli.engine.prefill import Prefill, prefill
from seats_cli.engine.prepare import WINDOWS_PER_BATCH
from seats_cli.engine.reading import method_for
from seats_cli.engine.stage_one import keep_windows, with_text
from seats_cli.layout import Modality
from seats_cli.selection import METHODS
from seats_cli.timing import Stopwatch
from tests.array_clip import clip_for

QUESTION = "What is seen and heard?"
VARIANTS = {
    **{name: {"method": name} for name in METHODS},
    "next": {"score_with": "next"},
    "text cache": {"kv_cache": "text"},
    "standard": {"score_norm": "standard", "kv_cache": "text"},
    "even windows": {"window_budgets": "uniform"},
    "stage one": {"stages": "1"},
    "two stages": {"stages": "12"},
}
by_variant = pytest.mark.parametrize(
    "variant", VARIANTS.values(), ids=[name.replace(" ", "-") for name in VARIANTS]
)


@contextmanager
def no_waiting() -> Iterator[None]:
    """Whatever waits for the GPU raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_watch_works(gpu) -> None:
    number = torch.ones((), device=gpu)
    with pytest.raises(RuntimeError), no_waiting():
        number.item()


@by_variant
@torch.inference_mode()
def test_a_prefill_waits_for_nothing(loaded, variant) -> None:
    options = SelectionOptions(trr=0.3, **variant)
    clip, media = clip_for(loaded, 12, 4, 5, 6.0)
    prepared = prepare(loaded, clip, QUESTION, Settings(media=media, selection=options), Stopwatch())
    method = method_for(loaded, prepared.plan, options)
    batches = window_batches(
        loaded.model,
        clip,
        prepared.waveform,
        prepared.shape,
        prepared.layout.window_sizes,
        Stopwatch(),
        saliency=method.needs_saliency,
        windows_per_batch=WINDOWS_PER_BATCH,
    )
    kept = keep_windows(batches, method, Stopwatch())

    def run() -> Prefill:
        encoded = with_text(loaded.model, prepared.layout, kept)
        method = method_for(loaded, prepared.plan, options)
        return prefill(
            loaded.model,
            prepared.layout,
            encoded,
            method,
            kv_cache=options.kv_cache,
            score_with=options.score_with,
            spare=4,
        )

    first = run()  # compiles, and makes what is made once
    torch.cuda.synchronize()
    with no_waiting():
        second = run()
    torch.testing.assert_close(first.logits, second.logits)
    assert first.counts == second.counts
    totals = prepared.plan.tokens_per_layer(prepared.layout.count(Modality.TEXT))
    assert [sum(counts) for counts in second.counts] == [sum(counts) for counts in totals]


@torch.inference_mode()
def test_stage_one_waits_for_nothing(loaded) -> None:
    """Saliency and choice of windows that are encoded."""
    options = SelectionOptions(trr=0.3)
    clip, media = clip_for(loaded, 12, 4, 5, 6.0)
    prepared = prepare(loaded, clip, QUESTION, Settings(media=media, selection=options), Stopwatch())
    batches = window_batches(
        loaded.model,
        clip,
        prepared.waveform,
        prepared.shape,
        prepared.layout.window_sizes,
        Stopwatch(),
        saliency=True,
        windows_per_batch=WINDOWS_PER_BATCH,
    )
    held = {modality: list(stream) for modality, stream in batches.items()}
    watch = Stopwatch()  # without devices: it does not wait either
    first = keep_windows(held, method_for(loaded, prepared.plan, options), watch)
    torch.cuda.synchronize()
    with no_waiting():
        second = keep_windows(held, method_for(loaded, prepared.plan, options), watch)
    for modality, tokens in first.items():
        assert torch.equal(tokens.places, second[modality].places)


@torch.inference_mode()
def test_encoders_and_saliency_wait_for_nothing(loaded, gpu) -> None:
    """Numbers that follow from sizes are found on the host, also those that transformers asks for."""
    model, geometry = loaded.model, loaded.model.spec.geometry
    vision = geometry.vision
    grid = (4, 4 * vision.merge_size, 5 * vision.merge_size)
    width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    patches = torch.randn(grid[0] * grid[1] * grid[2], width, device=gpu, dtype=model.dtype)
    mel = torch.randn(
        geometry.audio.n_mel_bins, 4 * model.spec.mel_frames_per_window, device=gpu, dtype=model.dtype
    )
    n_sound = model.audio_tokens(mel.shape[1])
    for encode, sizes in (
        (lambda: model.encode_video(patches, grid, saliency=True), [40, 40]),
        (lambda: model.encode_audio(mel, saliency=True), [n_sound // 2, n_sound - n_sound // 2]),
    ):
        first = encode()
        received = first.attention_received(sizes)
        torch.cuda.synchronize()
        with no_waiting():
            second = encode()
            again = second.attention_received(sizes)
        assert torch.equal(received, again)
        assert torch.equal(first.embeddings, second.embeddings)
        assert received.shape == (sum(sizes),)

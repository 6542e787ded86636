"""The stock path: inputs made and answers written by transformers alone, for others to be compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, ProcessorMixin, Qwen2_5OmniProcessor

AUDIO_RATE_HZ = 16000
HOP_SAMPLES = 160


def random_clip(
    n_frames: int, h: int, w: int, audio_seconds: float, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise: frames uint8 [n_frames, h, w, 3] and a waveform float32 [samples]; either may be empty."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (n_frames, h, w, 3), generator=generator, dtype=torch.uint8)
    waveform = torch.randn(round(audio_seconds * AUDIO_RATE_HZ), generator=generator) * 0.1
    return frames, waveform


def _prompt(processor: ProcessorMixin, question: str, kinds: list[str], history: Sequence[tuple[str, str]]) -> str:
    messages, items = [], [{"type": kind} for kind in kinds]
    for asked, answer in history:
        messages.append({"role": "user", "content": [*items, {"type": "text", "text": asked}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        items = []
    messages.append({"role": "user", "content": [*items, {"type": "text", "text": question}]})
    return processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def stock_inputs(
    processor: ProcessorMixin,
    n_frames: int,
    h: int,
    w: int,
    audio_seconds: float,
    question: str,
    *,
    fps: float = 2.0,
    seed: int = 0,
    history: Sequence[tuple[str, str]] = (),
) -> dict[str, torch.Tensor]:
    """Model inputs for the clip of ``random_clip``, made by the processor of transformers.

    Args:
        processor: From a tiny checkpoint, or a real one.
        n_frames: 0: no video.
        h: Frame height, a multiple of a merged token's side so that nothing is resized.
        w: Frame width, likewise.
        audio_seconds: 0: no audio. With video it is the video's own track.
        question: Text after the clip.
        fps: Frames per second, which set the seconds per grid.
        seed: Of the pictures and the sound.
        history: Questions and answers before; the clip stands before the first.

    Returns:
        What the thinker's ``forward`` takes: ids, mask, and for each modality present its features and sizes.
    """
    frames, waveform = random_clip(n_frames, h, w, audio_seconds, seed)
    media: dict[str, Any] = {}
    if n_frames:
        media["videos"] = [frames.permute(0, 3, 1, 2)]
        sizes = {"shortest_edge": h * w, "longest_edge": h * w}
        media["videos_kwargs"] = {"size": sizes, "do_sample_frames": False, "fps": fps}
        if hasattr(processor.video_processor, "cap_pixels_per_frame"):
            media["videos_kwargs"]["cap_pixels_per_frame"] = False
    if audio_seconds:
        media["audio"] = [waveform.numpy()]
        # Where silence follows the sound, not 300 s of it: the frames that count stay the same.
        if isinstance(processor, Qwen2_5OmniProcessor):
            media["audio_kwargs"] = {"max_length": (-(-len(waveform) // HOP_SAMPLES) + 4) * HOP_SAMPLES}
    if n_frames and audio_seconds:
        # Newer transformers know the audio track of a video by its index.
        if hasattr(processor, "load_audio_from_video"):
            media |= {"load_audio_from_video": True, "audio_from_video_indices": [0]}
        else:
            media["videos_kwargs"]["use_audio_in_video"] = True
    kinds = ["video"] if n_frames else ["audio"] if audio_seconds else []
    text = _prompt(processor, question, kinds, history)
    # Not "pt": transformers then counts placeholders with one-element tensors, which NumPy 2 warns about.
    arrays = processor(text=[text], return_tensors="np", **media)
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}


@torch.no_grad()
def stock_forward(
    thinker: PreTrainedModel,
    inputs: Mapping[str, torch.Tensor],
    use_audio_in_video: bool = True,
) -> torch.Tensor:
    """Logits [1, tokens, vocabulary] of transformers' own forward."""
    return thinker(**inputs, use_audio_in_video=use_audio_in_video, use_cache=False).logits


@torch.no_grad()
def stock_generate(
    thinker: PreTrainedModel,
    inputs: Mapping[str, torch.Tensor],
    use_audio_in_video: bool = True,
    max_new_tokens: int = 16,
) -> list[int]:
    """Ids of transformers' own greedy answer, the stop token included when it came."""
    ids = thinker.generate(
        **inputs, use_audio_in_video=use_audio_in_video, do_sample=False, max_new_tokens=max_new_tokens
    )
    return ids[0, inputs["input_ids"].shape[1] :].tolist()

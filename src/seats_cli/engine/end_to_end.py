"""File to first token, against the stock way: qwen-omni-utils, the processors and the forward of transformers."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any, Self

import torch

from seats_cli.config import MediaOptions, SelectionOptions
from seats_cli.engine.analytic import synthetic_prompt
from seats_cli.engine.benchmark import timed_towers
from seats_cli.engine.prefill import prefill
from seats_cli.engine.prepare import ClipShape, lay_out
from seats_cli.engine.reading import method_for, read_clip
from seats_cli.engine.stage_one import with_text
from seats_cli.errors import ModelError, UsageError
from seats_cli.layout import VideoGrids
from seats_cli.media import open_clip
from seats_cli.media.types import FRAMES_PER_GRID
from seats_cli.models.loading import LoadedModel
from seats_cli.models.resize import MAX_TOKENS, MIN_TOKENS
from seats_cli.models.stock import StockProcessor
from seats_cli.timing import Stopwatch, synchronize


@dataclass(frozen=True, slots=True)
class FileRun:
    """One way from a file to a first token.

    Attributes:
        seconds: By stage, ``first_token`` the whole.
        n_tokens: In the prompt, before anything is dropped.
        first_token: Its id.
    """

    seconds: dict[str, float]
    n_tokens: int
    first_token: int


def video_backend() -> str:
    """What qwen-omni-utils reads the picture with here.

    Raises:
        ModelError: It, or something that reads pictures for it, is not installed.
    """
    try:
        with _theirs():
            import torchvision.io
            from qwen_omni_utils.v2_5.vision_process import get_video_reader_backend

            backend = str(get_video_reader_backend())
    except ImportError as error:
        why = f"the stock way needs qwen-omni-utils ({error})"
        raise ModelError(why, "pip install qwen-omni-utils") from None
    # Newer versions of torchvision read no video.
    if backend == "torchvision" and not hasattr(torchvision.io, "read_video"):
        raise ModelError("qwen-omni-utils finds nothing here to read pictures with", "pip install torchcodec")
    return backend


@contextmanager
def _theirs() -> Iterator[None]:
    """Keep what other libraries print and warn of to themselves."""
    with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True, slots=True)
class Subject:
    """A file that both ways are asked about, with so many text tokens.

    Attributes:
        path: The file.
        media: What of it is used.
        n_text: Text tokens of the prompt.
        seen: Whether it has a picture.
        heard: Whether it has sound.
        seconds: Its length.
    """

    path: str
    media: MediaOptions
    n_text: int
    seen: bool
    heard: bool
    seconds: float

    @classmethod
    def of(cls, path: str, media: MediaOptions, n_text: int) -> Self:
        """Look into a file.

        Raises:
            MediaError: It cannot be read.
            UsageError: Picture or sound is switched off, which the stock way cannot be asked for.
        """
        if media.audio == "off" or media.picture == "off":
            raise UsageError("the stock way sees and hears: with --audio off there is nothing to compare with")
        clip = open_clip(path, media)
        seconds = max(clip.seconds_video, clip.seconds_audio)
        return cls(path, media, n_text, clip.video is not None, clip.audio is not None, seconds)


@torch.inference_mode()
def seats_run(loaded: LoadedModel, subject: Subject, selection: SelectionOptions) -> FileRun:
    """Read, thin and prefill as ``seats ask`` does."""
    model, media = loaded.model, subject.media
    began = _now(model.devices)
    read = read_clip(loaded, lambda: open_clip(subject.path, media), media, selection)
    watch = Stopwatch(model.devices)
    layout = lay_out(read.shape, synthetic_prompt(model.spec, subject.n_text, read.shape), model.spec)
    encoded, method = with_text(model, layout, read.kept), method_for(loaded, read.plan, selection)
    with watch("prefill"):
        filled = prefill(model, layout, encoded, method, score_with=selection.score_with)
    token = int(filled.logits.argmax())
    whole = time.perf_counter() - began
    return FileRun({**read.seconds, **watch.seconds, "first_token": whole}, layout.n_tokens, token)


@torch.inference_mode()
def stock_run(loaded: LoadedModel, subject: Subject, processor: StockProcessor) -> FileRun:
    """``process_mm_info``, the processors, the thinker's own forward: every token, the head on every position."""
    with _theirs():
        from qwen_omni_utils import process_mm_info

    model, device = loaded.model, loaded.model.device
    began, watch = _now(model.devices), Stopwatch(model.devices)
    with watch.host("decode"), _theirs():
        both = subject.seen and subject.heard
        asked = [{"role": "user", "content": [_asked_for(subject, model.spec.pixel_factor)]}]
        sounds, _, pictures = process_mm_info(asked, use_audio_in_video=both)
    with watch.host("process"):
        features = processor(pictures[0] if pictures else None, sounds[0] if sounds else None)
    patches, mel = (
        None if one is None else one.to(device, model.dtype) for one in (features.patches, features.mel)
    )
    video = _grids(features.grid, model.spec.geometry.vision.merge_size, subject.media)
    n_mel = 0 if mel is None else mel.shape[1]
    shape = ClipShape(video, None, n_mel, type(model).audio_tokens(n_mel) if n_mel else 0)
    layout = lay_out(shape, synthetic_prompt(model.spec, subject.n_text, shape), model.spec)
    inputs = model.stock_inputs(torch.from_numpy(layout.ids).to(device), patches, mel, video)
    with model.encoding, timed_towers(model, watch), watch("whole"):
        logits = model.thinker(**inputs).logits
    token = int(logits[0, -1].argmax())
    whole, seconds = time.perf_counter() - began, watch.seconds
    seconds["prefill"] = seconds.pop("whole") - seconds.get("encode", 0.0)
    return FileRun({**seconds, "first_token": whole}, layout.n_tokens, token)


def _now(devices: list[torch.device]) -> float:
    synchronize(devices)
    return time.perf_counter()


def _asked_for(subject: Subject, factor: int) -> dict[str, Any]:
    """The clip as an item of a conversation, with the limits of the published results."""
    media = subject.media
    part = {"start": media.start_seconds, "end": media.end_seconds}
    kind = "video" if subject.seen else "audio"
    item: dict[str, Any] = {"type": kind, kind: subject.path}
    item |= {f"{kind}_{name}": value for name, value in part.items() if value is not None}
    if not subject.seen:
        return item
    low, high = media.min_pixels or MIN_TOKENS * factor**2, media.max_pixels or MAX_TOKENS * factor**2
    return item | {"fps": media.fps, "max_frames": media.max_frames, "min_pixels": low, "max_pixels": high}


def _grids(grid: tuple[int, int, int] | None, merge_size: int, media: MediaOptions) -> VideoGrids | None:
    if grid is None:
        return None
    n_grids, rows, columns = grid
    return VideoGrids(n_grids, rows // merge_size, columns // merge_size, FRAMES_PER_GRID / media.fps)

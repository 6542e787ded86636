"""File to first token, against the stock way: qwen-omni-utils, the processors and the forward of transformers."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from seats_cli.config import MediaOptions, SelectionOptions
from seats_cli.engine.analytic import synthetic_prompt
from seats_cli.engine.benchmark import timed_towers
from seats_cli.engine.prefill import prefill
from seats_cli.engine.prepare import ClipShape, lay_out
from seats_cli.engine.reading import method_for, read_clip
from seats_cli.engine.stage_one import with_text
from seats_cli.errors import UsageError
from seats_cli.layout import VideoGrids
from seats_cli.media import open_clip
from seats_cli.media.plain import plain_pictures, plain_sound
from seats_cli.media.types import FRAMES_PER_GRID, Clip
from seats_cli.models.loading import LoadedModel
from seats_cli.models.preprocess import resize
from seats_cli.models.resize import MAX_TOKENS, MIN_TOKENS, smart_resize
from seats_cli.models.stock import StockProcessor
from seats_cli.timing import Stopwatch, synchronize


@dataclass(frozen=True, slots=True)
class FileRun:
    """One way from a file to a first token.

    Attributes:
        seconds: By stage, ``first_token`` the whole.
        n_tokens: In the prompt, before anything is dropped.
        n_kept: Of them, that enter the decoder.
    """

    seconds: dict[str, float]
    n_tokens: int
    n_kept: int


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
    """

    path: str
    media: MediaOptions
    n_text: int
    seen: bool
    heard: bool

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
        return cls(path, media, n_text, clip.video is not None, clip.audio is not None)


Features = tuple[torch.Tensor | None, npt.NDArray[np.float32] | None]


@dataclass(frozen=True, slots=True)
class StockReader:
    """What reads a file for the stock way.

    Attributes:
        name: In words, for the report.
        read: Asked about a file and the side of a merged token in pixels, gives frames [n, 3, height, width] and
            sound, float32 [n] at 16 kHz; None of what is not there.
        missing: Why it is not qwen-omni-utils; empty: it is.
    """

    name: str
    read: Callable[[Subject, int], Features]
    missing: str = ""


def stock_reader(subject: Subject, factor: int) -> StockReader:
    """``process_mm_info``, or a plain loop where it cannot read: it needs more than Python packages.

    Which of its readers it has, and whether they work, is known when it has read: it is asked once, uncounted.

    Args:
        subject: The file.
        factor: Side of a merged token in pixels.
    """
    try:
        with _theirs():
            from qwen_omni_utils import process_mm_info

            asked, both = _conversation(subject, factor), subject.seen and subject.heard
            _, _, pictures = process_mm_info(asked, use_audio_in_video=both, return_video_metadata=True)
    except Exception as error:  # whatever its libraries raise where something behind them is missing
        why = (str(error).splitlines() or [""])[0]
        return StockReader("a plain PyAV loop", _read_plainly, f"{type(error).__name__} {why}".strip())
    backend = pictures[0][1].get("video_backend", "") if pictures else "librosa"
    return StockReader(f"qwen-omni-utils ({backend})", _read_by_utils)


def _read_by_utils(subject: Subject, factor: int) -> Features:
    with _theirs():
        from qwen_omni_utils import process_mm_info

        both = subject.seen and subject.heard
        sounds, _, pictures = process_mm_info(_conversation(subject, factor), use_audio_in_video=both)
    return pictures[0] if pictures else None, sounds[0] if sounds else None


def _read_plainly(subject: Subject, factor: int) -> Features:
    """The same frames in number and place, and the same resize, of torchvision on the CPU."""
    media, frames, sound = subject.media, None, None
    part = (media.start_seconds, media.end_seconds)
    if subject.seen:
        images = torch.from_numpy(plain_pictures(subject.path, media.fps, media.max_frames, *part))
        size = smart_resize(images.shape[1], images.shape[2], factor, *_limits(media, factor))
        frames = resize(images, size).permute(0, 3, 1, 2).float()
    if subject.heard:
        sound = plain_sound(subject.path, *part)
    return frames, sound


def seats_run(loaded: LoadedModel, subject: Subject, selection: SelectionOptions) -> FileRun:
    """From the file, as ``seats ask`` does."""
    media = subject.media
    return to_first_token(loaded, lambda: open_clip(subject.path, media), media, selection, subject.n_text)


@torch.inference_mode()
def to_first_token(
    loaded: LoadedModel,
    open_clip: Callable[[], Clip],
    media: MediaOptions,
    selection: SelectionOptions,
    n_text: int,
) -> FileRun:
    """Read, thin and prefill.

    Args:
        loaded: The model.
        open_clip: Opens the clip.
        media: What of it is used.
        selection: Which tokens stay.
        n_text: Text tokens of the prompt.
    """
    model = loaded.model
    began = _now(model.devices)
    read = read_clip(loaded, open_clip, media, selection)
    watch = Stopwatch(model.devices)
    layout = lay_out(read.shape, synthetic_prompt(model.spec, n_text, read.shape), model.spec)
    encoded, method = with_text(model, layout, read.kept), method_for(loaded, read.plan, selection)
    with watch("prefill"):
        filled = prefill(model, layout, encoded, method, score_with=selection.score_with)
    int(filled.logits.argmax())
    whole = time.perf_counter() - began
    seconds = {**read.seconds, **watch.seconds, "first_token": whole}
    return FileRun(seconds, layout.n_tokens, len(encoded.index))


@torch.inference_mode()
def stock_run(loaded: LoadedModel, subject: Subject, processor: StockProcessor, reader: StockReader) -> FileRun:
    """The reader, the processors, the thinker's own forward: every token, the head on every position."""
    model, device = loaded.model, loaded.model.device
    began, watch = _now(model.devices), Stopwatch(model.devices)
    with watch.host("decode"):
        frames, sound = reader.read(subject, model.spec.pixel_factor)
    with watch.host("process"):
        features = processor(frames, sound)
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
    int(logits[0, -1].argmax())
    whole, seconds = time.perf_counter() - began, watch.seconds
    seconds["prefill"] = seconds.pop("whole") - seconds.get("encode", 0.0)
    return FileRun({**seconds, "first_token": whole}, layout.n_tokens, layout.n_tokens)


def _now(devices: list[torch.device]) -> float:
    synchronize(devices)
    return time.perf_counter()


def _conversation(subject: Subject, factor: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [_asked_for(subject, factor)]}]


def _limits(media: MediaOptions, factor: int) -> tuple[int, int]:
    """Pixels of a frame, of the published results where nothing is said."""
    return media.min_pixels or MIN_TOKENS * factor**2, media.max_pixels or MAX_TOKENS * factor**2


def _asked_for(subject: Subject, factor: int) -> dict[str, Any]:
    """The clip as an item of a conversation."""
    media = subject.media
    part = {"start": media.start_seconds, "end": media.end_seconds}
    kind = "video" if subject.seen else "audio"
    item: dict[str, Any] = {"type": kind, kind: subject.path}
    item |= {f"{kind}_{name}": value for name, value in part.items() if value is not None}
    if not subject.seen:
        return item
    low, high = _limits(media, factor)
    return item | {"fps": media.fps, "max_frames": media.max_frames, "min_pixels": low, "max_pixels": high}


def _grids(grid: tuple[int, int, int] | None, merge_size: int, media: MediaOptions) -> VideoGrids | None:
    if grid is None:
        return None
    n_grids, rows, columns = grid
    return VideoGrids(n_grids, rows // merge_size, columns // merge_size, FRAMES_PER_GRID / media.fps)

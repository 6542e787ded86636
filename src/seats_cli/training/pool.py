"""Clips to learn from, as the media path yields them: encoded to mp4, decoded again, at 2 frames per second.

Each clip is one .npz file with its frames and log-mel spectrogram; its scene is drawn again from the seed.
"""

from __future__ import annotations

import os
import signal
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from seats_cli.config import MediaOptions
from seats_cli.media import open_clip
from seats_cli.models.preprocess import log_mel
from seats_cli.world.clips import write_scene
from seats_cli.world.scene import Scene, sample_scene


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """Which clips. Seeds below 1,000 are left to evaluation.

    Attributes:
        seed: Of the pool.
        n_clips: How many.
        least_seconds: Shortest clip.
        most_seconds: Longest clip; lengths are uniform on a logarithmic scale.
    """

    seed: int
    n_clips: int
    least_seconds: int = 4
    most_seconds: int = 8

    def scene(self, index: int) -> tuple[Scene, int]:
        """Scene of a clip, and the quality it is encoded with."""
        rng = np.random.default_rng([self.seed, index])
        low, high = np.log(self.least_seconds), np.log(self.most_seconds + 1)
        scene = sample_scene(rng, seconds=int(np.exp(rng.uniform(low, high))))
        return scene, int(rng.integers(18, 32))


def _mel(waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    from transformers import WhisperFeatureExtractor

    filters = torch.from_numpy(WhisperFeatureExtractor(feature_size=128).mel_filters).float()
    return log_mel(torch.from_numpy(waveform), mel_filters=filters).half().numpy()


def _make(spec: PoolSpec, folder: Path, index: int) -> None:
    path = folder / f"{index:06d}.npz"
    if path.exists():
        return
    torch.set_num_threads(1)
    scene, quality = spec.scene(index)
    with tempfile.TemporaryDirectory() as scratch:
        clip_path = Path(scratch) / "clip.mp4"
        write_scene(clip_path, scene, quality)
        clip = open_clip(clip_path, MediaOptions())
        frames = np.stack([frame.image for frame in clip.frames()])
        mel = _mel(clip.waveform())
    part = folder / f".{index:06d}-{os.getpid()}.npz"
    np.savez(part, frames=frames, mel=mel)
    os.replace(part, path)


def make_pool(spec: PoolSpec, folder: Path, workers: int = 2) -> None:
    """Make every clip of a pool that is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    # Ctrl-C is for the process that waits: the clips that are being made are finished, and no others begun.
    ignore = (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(workers, initializer=signal.signal, initargs=ignore) as executor:
        list(executor.map(_make, repeat(spec), repeat(folder), range(spec.n_clips)))


def read_clip(folder: Path, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float16]]:
    """Frames uint8 [n, height, width, 3] and log-mel float16 [128, frames] of a clip."""
    with np.load(folder / f"{index:06d}.npz") as file:
        return file["frames"], file["mel"]

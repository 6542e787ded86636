"""How long the encoders take, beside transformers' own attention: ``python -m tests.performance.encoding``.

The clip is one grid and one second of sound per second, in batches as the tool makes them. Both ways get the same
patches and log-mel and take turns in one process. Seconds are the processor's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from seats_cli.config import ModelOptions
from seats_cli.engine.encode import WINDOWS_PER_BATCH
from seats_cli.models import FAMILIES
from seats_cli.models.loading import build_random, load
from tests.models.test_chunks import Operations, stock_audio, stock_video

SECONDS_PER_WINDOW = 2


def pieces(model: Any, seconds: int, rows: int, columns: int) -> Iterator[tuple[tuple[int, int, int], Any, Any]]:
    """Batches of windows: grid, patches, and log-mel of four batches with every fourth."""
    vision, audio = model.spec.geometry.vision, model.spec.geometry.audio
    width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    step = SECONDS_PER_WINDOW * WINDOWS_PER_BATCH
    for begin in range(0, seconds, step):
        n = min(step, seconds - begin)
        grid = (n, rows * vision.merge_size, columns * vision.merge_size)
        patches = torch.randn(grid[0] * grid[1] * grid[2], width).to(model.device, model.dtype)
        mel = None
        if begin % (4 * step) == 0:
            frames = 100 * min(4 * step, seconds - begin)
            mel = torch.randn(audio.n_mel_bins, frames).to(model.device, model.dtype)
        yield grid, patches, mel


@torch.inference_mode()
def seats_way(model: Any, batches: list[Any], saliency: bool) -> None:
    """As the tool encodes."""
    for grid, patches, mel in batches:
        model.encode_video(patches, grid, saliency=saliency)
        if mel is not None:
            model.encode_audio(mel, saliency=saliency)


@torch.inference_mode()
def stock_way(model: Any, batches: list[Any]) -> None:
    """Transformers' own forward of the encoders."""
    for grid, patches, mel in batches:
        stock_video(model, patches, grid)
        if mel is not None:
            stock_audio(model, mel)


@torch.inference_mode()
def saliency_of(model: Any, batches: list[Any]) -> list[Callable[[], Any]]:
    """What is left to do for Stage I's saliency once the encoders ran."""
    unit, work = model.spec.geometry.vision.merge_size**2, []
    for grid, patches, mel in batches:
        per_grid = len(patches) // grid[0] // unit
        sizes = [per_grid * min(2, grid[0] - i) for i in range(0, grid[0], 2)]
        work.append(partial(model.encode_video(patches, grid, saliency=True).attention_received, sizes))
        if mel is not None:
            n, step = model.audio_tokens(mel.shape[1]), model.audio_tokens(100 * SECONDS_PER_WINDOW)
            sounds = [min(step, n - i) for i in range(0, n, step)]
            work.append(partial(model.encode_audio(mel, saliency=True).attention_received, sounds))
    return work


@torch.inference_mode()
def timed(work: Callable[[], Any]) -> float:
    """Processor seconds."""
    began = time.process_time()
    work()
    return time.process_time() - began


def shown(name: str, taken: list[float]) -> str:
    low, middle, high = statistics.quantiles(taken, n=4)
    return f"{name:24} {middle:8.3f} ({high - low:.3f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", default="tiny", help=f"a model, or the stand-in of {', '.join(FAMILIES)}")
    parser.add_argument("--seconds", type=int, default=64)
    parser.add_argument("--rows", type=int, default=9, help="merged tokens from top to bottom of a grid")
    parser.add_argument("--columns", type=int, default=16)
    parser.add_argument("-n", type=int, default=7)
    args = parser.parse_args()
    options, family = ModelOptions(model=args.model), FAMILIES.get(args.model)
    model = (build_random(options, family, family.stand_in[1]) if family else load(options)).model
    torch.manual_seed(0)
    batches = list(pieces(model, args.seconds, args.rows, args.columns))
    ways = {
        "transformers": partial(stock_way, model, batches),
        "seats": partial(seats_way, model, batches, True),
    }
    for name, way in ways.items():
        with Operations() as seen, torch.inference_mode():
            way()
        print(f"{name:24} {seen.attention:8} calls of sdpa")
    taken: dict[str, list[float]] = {name: [] for name in [*ways, "saliency"]}
    for _ in range(args.n):
        for name, way in ways.items():
            taken[name].append(timed(way))
        left = saliency_of(model, batches)
        taken["saliency"].append(timed(lambda left=left: [one() for one in left]))
    print("\n".join(shown(name, seconds) for name, seconds in taken.items()))


if __name__ == "__main__":
    main()

"""Reading a clip, against ``qwen_omni_utils``: files to pictures of the size the model looks at, and sound.

``python -m tests.performance.decoding FILE...`` reads each file in turns: by ``process_mm_info``, by one pass of a
decoder that is given every packet, and as the tool reads it. It prints medians and spreads of seconds and of
processor seconds, and how far pictures differ where both took the same source frame. ``--json`` prints a line per
file instead.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from unittest import mock

import av
import numpy as np

from seats_cli.config import MediaOptions
from seats_cli.engine.encode import shrink_to
from seats_cli.media import open_clip
from seats_cli.media.cores import decoding_threads
from seats_cli.media.outline import sketch_clip

# Of the published setting: pixels of 128 and 144 merged tokens, two frames per second.
LEAST, MOST, FPS = 128 * 28 * 28, 144 * 28 * 28, 2.0
PLAN = "seats_cli.media.pictures._plan"


@dataclass(frozen=True)
class Figures:
    """Of one way to read a file: medians, and the middle half's width."""

    way: str
    seconds: float
    seconds_iqr: float
    cpu_seconds: float
    cpu_seconds_iqr: float


def stock(path: str) -> np.ndarray:
    """[n, 3, H, W] as ``process_mm_info`` gives them; the sound is read too."""
    from qwen_omni_utils import process_mm_info

    video = {"type": "video", "video": path, "fps": FPS, "min_pixels": LEAST, "max_pixels": MOST}
    with contextlib.redirect_stdout(sys.stderr):
        _, _, videos = process_mm_info([{"role": "user", "content": [video]}], use_audio_in_video=has_sound(path))
    return videos[0].numpy()


def has_sound(path: str) -> bool:
    with av.open(path) as container:
        return bool(container.streams.audio)


def ours(path: str, size: tuple[int, int]) -> np.ndarray:
    """[n, H, W, 3]; the sound is read too."""
    clip = open_clip(path, MediaOptions())
    return np.stack([frame.image for frame in clip.frames(shrink_to(size))])


def one_pass(path: str, size: tuple[int, int]) -> np.ndarray:
    with mock.patch(PLAN, return_value=None):
        return ours(path, size)


def timed(ways: dict[str, Callable[[], object]], n: int) -> list[Figures]:
    """In turns, after one run of each that is not counted."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for k in range(n + 1):
        for name, run in ways.items():
            begun = time.perf_counter(), time.process_time()
            run()
            if k:
                spent[name].append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
    return [Figures(name, *spread([w for w, _ in t]), *spread([c for _, c in t])) for name, t in spent.items()]


def spread(values: list[float]) -> tuple[float, float]:
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return middle, high - low


def differences(path: str, theirs: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """In grey levels, over the pictures of source frames that both took."""
    picture = sketch_clip(path, MediaOptions()).picture
    ticks = picture.track.timeline.ticks
    mine = np.searchsorted(ticks, picture.wanted_ticks)
    # As qwen_omni_utils spreads its frames.
    others = np.linspace(0, ticks.size - 1, len(theirs)).round().astype(int)
    both = [(a, b) for a, number in enumerate(mine) for b in np.flatnonzero(others == number)[:1]]
    gaps = [np.abs(found[a].astype(float) - theirs[b].transpose(1, 2, 0)) for a, b in both]
    return {
        "same_frames": len(both),
        "mean": float(np.mean([gap.mean() for gap in gaps])) if gaps else 0.0,
        "most": float(max((gap.max() for gap in gaps), default=0.0)),
    }


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+")
    parser.add_argument("--n", type=int, default=5, help="runs that count, of each way")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    backend = "torchcodec" if importlib.util.find_spec("torchcodec") else "torchvision or decord"
    for path in given.files:
        theirs = stock(path)
        height, width = theirs.shape[-2:]
        found, whole = ours(path, (height, width)), one_pass(path, (height, width))
        ways = {
            f"process_mm_info ({backend})": lambda path=path: stock(path),
            "one pass": lambda path=path, size=(height, width): one_pass(path, size),
            "seats": lambda path=path, size=(height, width): ours(path, size),
        }
        figures = timed(ways, given.n)
        gaps = differences(path, theirs, found)
        same = bool(np.array_equal(found, whole))
        times = figures[0].seconds / figures[-1].seconds
        if given.json:
            facts = {"file": path, "threads": decoding_threads(), "machine": platform.machine(), "runs": given.n}
            ways_json = [asdict(one) for one in figures]
            print(json.dumps({**facts, "ways": ways_json, "times": times, "as_one_pass": same, "apart": gaps}))
            continue
        print(f"{path}: {len(found)} frames to {width}x{height}, {decoding_threads()} threads, n = {given.n}")
        print(f"{'':32s}{'s':>8s}{'IQR':>8s}{'CPU s':>8s}{'IQR':>8s}")
        for one in figures:
            numbers = (one.seconds, one.seconds_iqr, one.cpu_seconds, one.cpu_seconds_iqr)
            print(f"{one.way:32s}" + "".join(f"{number:8.2f}" for number in numbers))
        print(f"{times:.1f} times as fast; as one pass, bit for bit: {same}")
        print(f"{gaps['same_frames']} frames that both took are {gaps['mean']:.2f} grey levels apart on average")
    return 0


if __name__ == "__main__":
    sys.exit(main())

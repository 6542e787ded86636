"""Scenes as files: clips with picture and sound, and the questions that go with them."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from seats_cli.outputs import whole
from seats_cli.world.picture import FRAMES_PER_SECOND, frames
from seats_cli.world.questions import Question, draw_question
from seats_cli.world.scene import Scene, sample_scene
from seats_cli.world.sound import RATE_HZ, waveform

QUESTIONS_FILE = "questions.jsonl"
_QUALITIES = (20, 30)


def scene_of(seed: int, index: int) -> tuple[Scene, Question, int]:
    """Clip ``index`` of a set: its scene, its question, and the quality it is encoded with."""
    rng = np.random.default_rng([seed, index])
    scene = sample_scene(rng)
    return scene, draw_question(scene, rng), int(rng.integers(*_QUALITIES))


def write_scene(path: str | os.PathLike[str], scene: Scene, quality: int = 23) -> None:
    """Write a scene's clip, in the codecs that go with the file's ending.

    Raises:
        MediaError: The ending is not one that clips are written as.
        OSError: The file cannot be written.
    """
    from seats_cli.media import write_clip

    write_clip(path, frames(scene), FRAMES_PER_SECOND, waveform(scene), RATE_HZ, quality=quality)


def row_of(index: int, media: str, scene: Scene, question: Question) -> dict[str, Any]:
    """One line of the questions file; ``scene`` tells what is in the clip."""
    return {
        "id": index,
        "media": media,
        "question": question.text,
        "answer": question.answer,
        "category": question.category,
        "scene": asdict(scene),
    }


def _write_one(folder: Path, seed: int, index: int, ending: str) -> str:
    """One clip; its line of the questions file."""
    scene, question, quality = scene_of(seed, index)
    name = f"{seed}-{index:05d}{ending}"
    with whole(folder / name) as part:
        write_scene(part, scene, quality)
    return json.dumps(row_of(index, name, scene, question))


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Put Ctrl-C off. Processes that start meanwhile never see it, and end when they are told to."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _lines(folder: Path, n: int, seed: int, ending: str, jobs: int, stack: ExitStack) -> Iterator[str]:
    work = repeat(folder), repeat(seed), range(n), repeat(ending)
    if jobs == 1:
        return map(_write_one, *work)
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(min(jobs, n), mp_context=context, initializer=_ignore_interrupts)
    # After Ctrl-C or an error the clips that are being made are finished, and no others begun.
    stack.callback(executor.shutdown, cancel_futures=True)
    with _no_interrupt():
        lines = executor.map(_write_one, *work)
    return lines


def wrote(path: Path) -> bool:
    """Whether a questions file was written here: every row of it tells what is in its clip.

    Raises:
        OSError: It cannot be read.
    """
    try:
        rows = [json.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
    except (ValueError, RecursionError):  # not UTF-8, or not JSON
        return False
    return all(isinstance(row, dict) and "scene" in row for row in rows)


def write_set(
    folder: Path,
    n: int,
    seed: int,
    *,
    ending: str = ".mp4",
    jobs: int = 1,
    on_clip: Callable[[int], None] = lambda _: None,
) -> Path:
    """Write ``n`` clips and one question about each. The same arguments give the same files.

    Each file is whole or not there, whatever happens.

    Args:
        folder: Made when missing; files of the same names are written over.
        n: Clips.
        seed: Of the set.
        ending: Of the clips' names: .mp4, .mkv, .mov or .webm.
        jobs: Processes. The main module of a program that asks for several must be importable.
        on_clip: Called with the number of clips done.

    Returns:
        The questions file, whose rows are those of ``seats eval``.

    Raises:
        MediaError: The ending is not one that clips are written as.
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    with ExitStack() as stack:
        for done, line in enumerate(_lines(folder, n, seed, ending, jobs, stack), 1):
            rows.append(line)
            on_clip(done)
    path = folder / QUESTIONS_FILE
    with whole(path) as part:
        part.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path

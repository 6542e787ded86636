"""Who runs the work: this process, a process for each GPU, or a Ray cluster. All give the same outcomes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from seats_cli.cli import bundles
from seats_cli.cli.console import notice
from seats_cli.cli.many import Start, Work
from seats_cli.config import SPREADING_MAPS
from seats_cli.tasks import Job

if TYPE_CHECKING:
    from seats_cli.engine.batch import Outcome
    from seats_cli.engine.processes import Recipe


def engine_of(work: Work) -> Start:
    """What begins the run."""

    def start(jobs: list[Job]) -> Iterator[Outcome]:
        if work.options.engine == "ray":
            return _on_ray(work, jobs)
        return _on_gpus(work, jobs) if work.options.gpus else _local(work, jobs)

    return start


def _recipe(work: Work) -> Recipe:
    from seats_cli.engine.processes import Recipe

    return Recipe(
        loading=work.loading,
        selection=work.selection,
        generation=work.generation,
        timeout_seconds=work.options.timeout_seconds,
        readers=work.options.readers,
        cache=None if work.options.cache is None else (work.options.cache, work.options.cache_bytes),
    )


def _on_gpus(work: Work, jobs: list[Job]) -> Iterator[Outcome]:
    from seats_cli.engine.processes import run_on
    from seats_cli.models.placement import choose_device

    for device in work.options.gpus:
        choose_device(device, "--gpus")
    return run_on(work.options.gpus, _recipe(work), jobs)


def _on_ray(work: Work, jobs: list[Job]) -> Iterator[Outcome]:
    from seats_cli.engine.cluster import run_on_ray

    # Actors work in folders of their own.
    here = [dataclasses.replace(job, path=os.path.abspath(job.path)) for job in jobs]
    return run_on_ray(_recipe(work), here, decoders=work.options.workers)


def _local(work: Work, jobs: list[Job]) -> Iterator[Outcome]:
    options, quiet = work.options, work.output.quiet
    seats = bundles.seats_of(
        work.loading,
        selection=work.selection,
        media=work.media,
        generation=work.generation,
        cache=options.cache,
        cache_bytes=options.cache_bytes,
    )
    if seats.loaded.note is not None and not quiet:
        notice(seats.loaded.note)
    readers = options.readers
    if readers and work.loading.device_map in SPREADING_MAPS:
        # What waits in memory or on disk is brought by hooks that know of one thread.
        readers = 0
        if not quiet:
            notice("the model is in several places: clips are read one after the other (--workers 0)")
    tasks = (task for job in jobs for task in job.tasks)
    return seats.ask_many(tasks, readers=readers, timeout_seconds=options.timeout_seconds)

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
    from seats_cli.engine.analytic import check_settings
    from seats_cli.engine.batch import Asker, check_tasks, run
    from seats_cli.media import open_clip

    loading, options = work.loading, work.options
    seats = bundles.seats_of(loading, selection=work.selection, media=work.media, generation=work.generation)
    loaded, quiet = seats.loaded, work.output.quiet
    if loaded.note is not None and not quiet:
        notice(loaded.note)
    # What is wrong with the question or the selection is wrong for every clip: it is said once.
    check_settings(loaded.model.spec, [work.selection])
    asker = Asker(loaded, open_clip, work.selection, work.generation, timeout_seconds=options.timeout_seconds)
    check_tasks(asker, (task for job in jobs for task in job.tasks))
    readers = options.readers
    if readers and loading.device_map in SPREADING_MAPS:
        # What waits in memory or on disk is brought by hooks that know of one thread.
        readers = 0
        if not quiet:
            notice("the model is in several places: clips are read one after the other (--workers 0)")
    return run(asker, jobs, readers=readers)

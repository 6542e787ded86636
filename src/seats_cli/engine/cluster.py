"""Many clips on a Ray cluster: actors on CPUs decode, actors on GPUs ask; Ray Data streams between them.

The asking actors hold the ``Asker`` that a single process uses, so outcomes are the same. Ray bounds what is
decoded and not yet asked about by the memory of its object store.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from seats_cli.config import ModelOptions
from seats_cli.engine.batch import Outcome, all_failed, check_tasks
from seats_cli.engine.encode import shrink_for
from seats_cli.engine.processes import Recipe
from seats_cli.errors import InterruptedRunError, ModelError, SeatsError, explain
from seats_cli.media import open_clip
from seats_cli.media.cores import at_most
from seats_cli.media.held import HeldClip, hold
from seats_cli.models.base import ModelSpec, OmniModel
from seats_cli.models.specs import spec_of_checkpoint
from seats_cli.tasks import Job, Task, distinct_questions
from seats_cli.timelimit import time_limit

Batch = dict[str, Any]
"""Columns of pickled objects."""


def _column(value: object) -> Any:
    column = np.empty(1, dtype=object)
    column[0] = pickle.dumps(value)
    return column


class Decoder:
    """An actor that decodes: a job -> the job and its clip, held in memory at the size the model looks at.

    Args:
        loading: The model, of which the config is all that is needed.
        timeout_seconds: For decoding a clip; None: no limit.
    """

    def __init__(self, loading: ModelOptions, timeout_seconds: float | None) -> None:
        self._loading, self._timeout_seconds = loading, timeout_seconds

    def __call__(self, batch: Batch) -> Batch:
        """Decode a batch of one."""
        job: Job = pickle.loads(batch["job"][0])
        found: HeldClip | SeatsError
        try:
            # As many cores as Ray has counted for it.
            with time_limit(self._timeout_seconds), at_most(1):
                found = hold(lambda: open_clip(job.path, job.media), shrink_for(*self._model, job.media))
        except Exception as caught:
            found = explain(caught)
        return {"job": batch["job"], "clip": _column(found)}

    @cached_property
    def _model(self) -> tuple[type[OmniModel], ModelSpec]:
        return spec_of_checkpoint(self._loading)


class Answerer:
    """An actor that asks: a job and its clip -> outcomes.

    Args:
        recipe: How the model is made.
        asked: A task for each question, to find out first what cannot be asked.
    """

    def __init__(self, recipe: Recipe, asked: Sequence[Task]) -> None:
        # What is raised in here Ray would try again, and then show with all of its own frames.
        self._broken: SeatsError | None = None
        try:
            self._ask = recipe.asker()
            check_tasks(self._ask, asked)
        except Exception as caught:
            self._broken = explain(caught)

    def __call__(self, batch: Batch) -> Batch:
        """Ask about a batch of one; an error in place of outcomes is one of all clips."""
        if self._broken is not None:
            return {"outcomes": _column(self._broken)}
        job: Job = pickle.loads(batch["job"][0])
        clip = pickle.loads(batch["clip"][0])
        outcomes = all_failed(job, clip) if isinstance(clip, SeatsError) else self._ask(job, clip)
        return {"outcomes": _column([replace(outcome, caught=None) for outcome in outcomes])}


def run_on_ray(recipe: Recipe, jobs: Sequence[Job], *, decoders: int | None) -> Iterator[Outcome]:
    """Outcomes of all tasks, as they are found.

    The cluster is that of ``RAY_ADDRESS``; without it one is begun on this machine and ended with the run. A GPU
    each for the asking actors, or without GPUs one of them on a CPU.

    Args:
        recipe: How each asking actor makes its model.
        jobs: What is asked.
        decoders: Decoding actors at most; None: as many as there are CPUs left.

    Raises:
        ModelError: Ray is not installed, or cannot be reached.
        SeatsError: The model cannot be had, or a question cannot be asked of it.
        InterruptedRunError: Ctrl-C.
    """
    ray = begin()
    own = "RAY_ADDRESS" not in os.environ
    left = {job.tasks: job for job in jobs}
    try:
        with warnings.catch_warnings():
            # Ray means to drop ``max_task_retries`` in 2.64, and has nothing in its place so far.
            warnings.filterwarnings("ignore", r".*ray_remote_args.* is deprecated")
            data = _outcomes_of(ray, recipe, jobs, decoders)
        for row in data.iter_batches(batch_size=1, batch_format="numpy", prefetch_batches=0):
            found = pickle.loads(row["outcomes"][0])
            if isinstance(found, SeatsError):
                raise found
            del left[tuple(outcome.task for outcome in found)]
            yield from found
        for job in left.values():
            yield from all_failed(job, SeatsError("the worker that it was given to died, twice"))
    except KeyboardInterrupt:
        raise InterruptedRunError("interrupted") from None
    finally:
        if own:
            ray.shutdown()


def begin(n_cpus: int | None = None) -> Any:
    """Connect to the cluster of ``RAY_ADDRESS``, or begin one here; nothing where that is done already.

    Args:
        n_cpus: Of a cluster that is begun; None: those of the machine.

    Returns:
        The module ``ray``.

    Raises:
        ModelError: Ray is not installed, or cannot be reached.
    """
    # Nothing of what is done here is told to anyone, and its own notes are for its log files.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError:
        raise ModelError("--engine ray needs Ray", "pip install 'seats-cli[ray]'") from None
    # Of a worker that dies there is an outcome, which says so.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    if not ray.is_initialized():
        try:
            with _without_greeting():
                ray.init(
                    num_cpus=n_cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
                )
        except Exception as error:
            address = os.environ.get("RAY_ADDRESS", "this machine")
            raise ModelError(f"no Ray cluster at {address}: {error}", "see: ray status") from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    # What kills a worker, again and again, must not end the rest.
    context.max_errored_blocks = -1
    return ray


@contextmanager
def _without_greeting() -> Iterator[None]:
    """Keep Ray's core from saying on stderr which log level it was given; all else is passed on."""
    sys.stderr.flush()
    try:
        stderr = os.dup(2)
    except OSError:  # there is none
        yield
        return
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            said.seek(0)
            os.write(2, b"".join(line for line in said if b"Set ray log level" not in line))


def _outcomes_of(ray: Any, recipe: Recipe, jobs: Sequence[Job], decoders: int | None) -> Any:
    there = ray.cluster_resources()
    n_gpus, n_cpus = int(there.get("GPU", 0)), int(there.get("CPU", 1))
    askers = max(min(n_gpus or 1, len(jobs)), 1)
    spare = n_cpus - (0 if n_gpus else askers)
    n_decoders = max(min(decoders or spare, spare, len(jobs)), 1)
    # On a single core without a GPU both kinds have to do with half of it.
    cores = 1.0 if spare else 0.5
    rows = ray.data.from_items([{"job": pickle.dumps(job)} for job in jobs], override_num_blocks=len(jobs))
    # By default a clip that kills its worker is tried for ever. One in flight: others would share its fate.
    common: dict[str, Any] = {"batch_size": 1, "batch_format": "numpy", "max_task_retries": 1}
    pool = partial(ray.data.ActorPoolStrategy, max_tasks_in_flight_per_actor=1)
    decoded = rows.map_batches(
        Decoder,
        fn_constructor_args=(recipe.loading, recipe.timeout_seconds),
        compute=pool(min_size=1, max_size=n_decoders),
        num_cpus=cores,
        **common,
    )
    return decoded.map_batches(
        Answerer,
        fn_constructor_args=(recipe, distinct_questions(jobs)),
        compute=pool(size=askers),
        **({"num_gpus": 1} if n_gpus else {"num_cpus": cores}),
        **common,
    )

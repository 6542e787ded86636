"""Options of a run over many clips: what is written where, which clips, how many at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from seats_cli.cli.options import NUMBER, PATH, WHOLE, Cache, CacheSize, option
from seats_cli.config import DEFAULT_CACHE_SIZE, parse_size
from seats_cli.errors import UsageError
from seats_cli.tasks import Shard, parse_shard

BATCH = "Many clips"
MOST_READERS = 64
Engine = Literal["local", "ray"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a run over many clips goes.

    Attributes:
        output: File of answers; None: none is written.
        resume: Do not ask again what is in it.
        retry_failed: Ask again what failed before.
        limit: So many clips, from the first; None: all.
        fail_fast: End at the first clip that fails.
        shard: The share of the clips to take; None: all.
        longest_first: Ask about the longest clips first.
        workers: Clips that are read while another one answers; None: 1, on Ray what its CPUs can.
        timeout_seconds: For a clip and a question about it; None: no limit.
        gpus: Devices, a process for each; none: this process, on the model's own.
        engine: Who runs the work.
        cache: Folder of encoded windows; None: none is kept.
        cache_bytes: What it may take.
    """

    output: Path | None = None
    resume: bool = True
    retry_failed: bool = False
    limit: int | None = None
    fail_fast: bool = False
    shard: Shard | None = None
    longest_first: bool = False
    workers: int | None = None
    timeout_seconds: float | None = None
    gpus: tuple[str, ...] = ()
    engine: Engine = "local"
    cache: Path | None = None
    cache_bytes: int = 0

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit is {self.limit}; it must be at least 1")
        if self.workers is not None and not 0 <= self.workers <= MOST_READERS:
            raise UsageError(f"--workers is {self.workers}; it lies between 0 and {MOST_READERS}")
        if self.timeout_seconds is not None and not (
            math.isfinite(self.timeout_seconds) and self.timeout_seconds > 0
        ):
            raise UsageError(f"--timeout is {self.timeout_seconds:g}; it must be more than 0 seconds")
        if self.output is not None and self.output.suffix.lower() in (".csv", ".tsv"):
            raise UsageError(
                f"-o {self.output} would be lines of JSON, and its name says otherwise",
                "name it answers.jsonl; a table goes to stdout: --format tsv > answers.tsv",
            )
        if self.output is None and (self.retry_failed or not self.resume):
            name = "--retry-failed" if self.retry_failed else "--no-resume"
            raise UsageError(f"{name} is about the answers of earlier runs", "name their file: -o answers.jsonl")
        if self.engine == "ray" and self.gpus:
            raise UsageError(
                "--gpus is of the local engine; Ray places its workers itself", "leave one of them out"
            )

    @property
    def of_many(self) -> bool:
        """Whether even one clip is a run over many: its answer is a line."""
        return bool(self.output or self.gpus) or self.engine != "local" or self.fail_fast or self.shard is not None

    @property
    def readers(self) -> int:
        """Clips that one process reads ahead."""
        return 1 if self.workers is None else self.workers

    @property
    def shard_output(self) -> Path | None:
        """The file of this share: ``answers.2-of-8.jsonl``."""
        if self.output is None or self.shard is None:
            return self.output
        stem, suffix = self.output.stem, self.output.suffix
        return self.output.with_name(f"{stem}.{self.shard.index}-of-{self.shard.count}{suffix}")


def _gpus(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    names = [name.strip() for name in text.split(",")]
    if "" in names or (len(set(names)) != len(names) and "cpu" not in names):
        raise UsageError(f"--gpus is {text!r}; give different GPUs with commas between them", "such as 0,1")
    return tuple(f"cuda:{name}" if name.isdigit() else name for name in names)


def run_options(
    output: Annotated[
        Path | None,
        option(
            "--output",
            "-o",
            panel=BATCH,
            **PATH,
            metavar="<file>",
            help="Also write a line per clip and question to this .jsonl file; what it holds is not asked again.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        option("--resume/--no-resume", panel=BATCH, help="Go on where the file of -o ends, or ask all again."),
    ] = True,
    retry_failed: Annotated[
        bool, option("--retry-failed", panel=BATCH, help="Ask again what failed in earlier runs.")
    ] = False,
    limit: Annotated[int | None, option("--limit", panel=BATCH, **WHOLE, help="The first so many clips.")] = None,
    fail_fast: Annotated[
        bool, option("--fail-fast", panel=BATCH, help="End at the first clip that fails.")
    ] = False,
    shard: Annotated[
        str | None,
        option(
            "--shard",
            panel=BATCH,
            env="SEATS_SHARD",
            metavar="<i/n>",
            help="Take share i of n. The file of -o gets a name of its own; seats merge joins them.",
        ),
    ] = None,
    longest_first: Annotated[
        bool, option("--longest-first", panel=BATCH, help="Begin with the longest clips.")
    ] = False,
    workers: Annotated[
        int | None,
        option(
            "--workers",
            panel=BATCH,
            env="SEATS_WORKERS",
            **WHOLE,
            help="Clips that are decoded and encoded while another one answers. Default: 1. 0: in turn.",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        option(
            "--timeout",
            panel=BATCH,
            env="SEATS_TIMEOUT",
            **NUMBER,
            help="Seconds a clip and a question about it may take. Default: no limit.",
        ),
    ] = None,
    gpus: Annotated[
        str | None,
        option("--gpus", panel=BATCH, env="SEATS_GPUS", metavar="<list>", help="A process on each, such as 0,1."),
    ] = None,
    engine: Annotated[
        Engine,
        option(
            "--engine",
            panel=BATCH,
            env="SEATS_ENGINE",
            help="ray: on a Ray cluster, whose address is RAY_ADDRESS (pip install 'seats-cli[ray]').",
        ),
    ] = "local",
    cache: Cache = None,
    cache_size: CacheSize = DEFAULT_CACHE_SIZE,
) -> RunOptions:
    """How a run over many clips goes."""
    return RunOptions(
        output=output,
        resume=resume,
        retry_failed=retry_failed,
        limit=limit,
        fail_fast=fail_fast,
        shard=None if shard is None else parse_shard(shard),
        longest_first=longest_first,
        workers=workers,
        timeout_seconds=timeout,
        gpus=_gpus(gpus),
        engine=engine,
        cache=cache,
        cache_bytes=parse_size(cache_size, "--cache-size"),
    )

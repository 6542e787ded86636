"""Suites of measurements: every claim of speed or size as one command, variants in turn, ratios round by round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from seats_cli.config import MediaOptions, SelectionOptions
from seats_cli.engine.analytic import FULL, label_of
from seats_cli.engine.answering import STATIC_STOCK, measure_answering
from seats_cli.engine.benchmark import STOCK, Workbench, seats_lap, stock_lap
from seats_cli.engine.encode import shrink_for
from seats_cli.engine.end_to_end import FileRun, Subject, seats_run, stock_reader, stock_run, to_first_token
from seats_cli.engine.marks import model_info, versions
from seats_cli.figures import Figure, Ratio, SuiteReport
from seats_cli.media.cores import n_cores
from seats_cli.media.held import HeldClip, hold, looped
from seats_cli.media.types import Clip
from seats_cli.models.base import OmniModel
from seats_cli.models.loading import LoadedModel
from seats_cli.models.stock import StockProcessor
from seats_cli.timing import PeakMemory, alternate

OnRound = Callable[[str], None]


class Rounds(NamedTuple):
    """How often: rounds that count, rounds before them, and whom to tell."""

    runs: int
    warmup: int
    on_round: OnRound | None = None


class Found(NamedTuple):
    """What a suite measured."""

    figures: list[Figure]
    ratios: list[Ratio | None]
    warnings: tuple[str, ...] = ()


def report_of(
    suite: str, loaded: LoadedModel, found: Found, rounds: Rounds, workload: str, note: str
) -> SuiteReport:
    """With all that names the machine and the model.

    Args:
        suite: Its name.
        loaded: What was measured.
        found: Figures and ratios.
        rounds: How often.
        workload: On what.
        note: What ran instead of what was asked for, and why; may be empty.
    """
    return SuiteReport(
        suite=suite,
        model=model_info(loaded),
        machine=machine(loaded.model.devices),
        workload=workload,
        runs=rounds.runs,
        warmup=rounds.warmup,
        note=note,
        figures=tuple(found.figures),
        ratios=tuple(one for one in found.ratios if one is not None),
        versions=versions(),
        warnings=found.warnings,
    )


def machine(devices: Sequence[torch.device]) -> str:
    """What computes, in words."""
    names = [torch.cuda.get_device_name(one) for one in devices if one.type == "cuda"]
    return ", ".join([*names, f"{n_cores()} CPU cores"])


def _stages(label: str, laps: Sequence[Mapping[str, float]], stages: Sequence[str]) -> list[Figure]:
    """A figure per stage that was there."""
    return [
        Figure.of(label, stage, "s", [lap.get(stage, 0.0) for lap in laps])
        for stage in stages
        if any(stage in lap for lap in laps)
    ]


def _sums(laps: Sequence[Mapping[str, float]], *stages: str) -> list[float]:
    return [sum(lap.get(stage, 0.0) for stage in stages) for lap in laps]


PAPER_STAGES = ("encode", "select", "relevance", "prefill")


def paper(bench: Workbench, options: SelectionOptions, rounds: Rounds) -> Found:
    """Prefill and encoding: all tokens, SEATS, and transformers' own forward on the same inputs (SEATS Sec. 5.3).

    Args:
        bench: The clip, in memory, so that no time is spent on making it.
        options: Of the selection.
        rounds: How often.
    """
    name = label_of(options)
    variants = {
        "full": lambda: seats_lap(bench, FULL),
        name: lambda: seats_lap(bench, options),
        STOCK: lambda: stock_lap(bench),
    }
    taken = {label: [lap.seconds for lap in laps] for label, laps in alternate(variants, *rounds).items()}
    full, ours, stock = taken["full"], taken[name], taken[STOCK]
    figures = [figure for label, one in taken.items() for figure in _stages(label, one, PAPER_STAGES)]
    whole = ("encode", "select", "prefill")
    return Found(
        figures,
        [
            Ratio.of("LLM prefill incl. selection, full / SEATS", *(_sums(t, *whole[1:]) for t in (full, ours))),
            Ratio.of("selection / pruned prefill", _sums(ours, "select", "relevance"), _sums(ours, *whole[1:])),
            Ratio.of("encode + prefill, stock / SEATS", *(_sums(t, *whole) for t in (stock, ours))),
            Ratio.of("encode + prefill, full / SEATS", *(_sums(t, *whole) for t in (full, ours))),
        ],
    )


FILE_STAGES = ("decode", "process", "encode", "select", "prefill", "first_token")


def end_to_end(
    loaded: LoadedModel, subject: Subject, options: SelectionOptions, rounds: Rounds
) -> tuple[Found, str]:
    """File to first token: the stock way, SEATS, and all tokens through the same engine.

    Args:
        loaded: The model.
        subject: The file.
        options: Of the selection.
        rounds: How often.

    Returns:
        What was found, and what read the file for the stock way.
    """
    processor, name = StockProcessor(loaded.model), label_of(options)
    reader = stock_reader(subject, loaded.model.spec.pixel_factor)
    variants = {
        STOCK: lambda: stock_run(loaded, subject, processor, reader),
        name: lambda: seats_run(loaded, subject, options),
        "full": lambda: seats_run(loaded, subject, FULL),
    }
    taken = {label: [run.seconds for run in runs] for label, runs in alternate(variants, *rounds).items()}
    stock, ours, full = taken[STOCK], taken[name], taken["full"]
    figures = [figure for label, one in taken.items() for figure in _stages(label, one, FILE_STAGES)]
    whole = ("encode", "select", "prefill")
    ratios = [
        Ratio.of("file to first token, stock / SEATS", *(_sums(t, "first_token") for t in (stock, ours))),
        Ratio.of("file to first token, full / SEATS", *(_sums(t, "first_token") for t in (full, ours))),
        Ratio.of(
            "file to pixels and sound, stock / SEATS", _sums(stock, "decode", "process"), _sums(ours, "decode")
        ),
        Ratio.of("encode + prefill, stock / SEATS", *(_sums(t, *whole) for t in (stock, ours))),
    ]
    said = (
        f"qwen-omni-utils cannot read the file here ({reader.missing}): {reader.name} reads it for the stock way"
    )
    return Found(figures, ratios, (said,) if reader.missing else ()), reader.name


def held(model: OmniModel, open_clip: Callable[[], Clip], media: MediaOptions) -> HeldClip:
    """A clip in memory, its frames in the size in which they are encoded.

    Args:
        model: Whose sizes.
        open_clip: Opens it.
        media: What of it is used.
    """
    return hold(open_clip, shrink_for(type(model), model.spec, media))


COMPILING = f"{STATIC_STOCK}: left out, since it compiles the model on a GPU, for minutes: --stock has it measured"


def answer(
    bench: Workbench, options: SelectionOptions, n_tokens: int, rounds: Rounds, *, compiled: bool = False
) -> Found:
    """Answer tokens per second: transformers' generate, all tokens kept, and SEATS.

    Args:
        bench: The clip.
        options: Of the selection.
        n_tokens: Of each answer.
        rounds: How often.
        compiled: On a GPU too measure transformers' static cache; it compiles first.
    """
    static_stock = compiled or bench.loaded.model.device.type == "cpu"
    ways = measure_answering(
        bench,
        [FULL, options],
        n_tokens=n_tokens,
        runs=rounds.runs,
        warmup=rounds.warmup,
        static_stock=static_stock,
    )
    measured = {way.label: way.tokens_per_second for way in ways if way.tokens_per_second is not None}
    figures = [Figure.of(label, "rate", "tokens/s", speeds.values) for label, speeds in measured.items()]
    ours = measured[label_of(options)].values
    ratios = [
        Ratio.of(f"answer tokens per second, SEATS / {label}", ours, speeds.values)
        for label, speeds in measured.items()
        if label != label_of(options)
    ]
    said = tuple(f"{way.label}: {way.problem}" for way in ways if way.problem)
    return Found(figures, ratios, said if static_stock else (*said, COMPILING))


def _length_run(
    loaded: LoadedModel, clip: HeldClip, media: MediaOptions, selection: SelectionOptions, n_text: int
) -> tuple[FileRun, int | None]:
    """And the peak memory in bytes."""
    with PeakMemory(loaded.model.devices) as peak:
        run = to_first_token(loaded, clip.again, media, selection, n_text)
    return run, peak.n_bytes


def lengths(
    loaded: LoadedModel,
    minute: HeldClip,
    minutes: Sequence[int],
    media: MediaOptions,
    selection: SelectionOptions,
    rounds: Rounds,
    n_text: int,
) -> Found:
    """Clips of several lengths, from memory to the first token: time and peak memory against length.

    Args:
        loaded: The model.
        minute: A clip of one minute.
        minutes: Lengths.
        media: Pixels of a frame.
        selection: Which tokens stay.
        rounds: How often.
        n_text: Text tokens of the prompt.
    """
    clips = {f"{n} min": looped(minute, n) for n in minutes}
    variants = {
        label: lambda clip=clip: _length_run(loaded, clip, media, selection, n_text)
        for label, clip in clips.items()
    }
    runs = alternate(variants, *rounds)
    figures: list[Figure] = []
    for label, one in runs.items():
        figures += _stages(label, [run.seconds for run, _ in one], ("encode", "select", "prefill", "first_token"))
        figures.append(Figure.of(label, "tokens", "tokens", [run.n_tokens for run, _ in one]))
        figures.append(Figure.of(label, "kept", "tokens", [run.n_kept for run, _ in one]))
        peaks = [n_bytes for _, n_bytes in one if n_bytes is not None]
        if peaks:
            figures.append(Figure.of(label, "memory", "bytes", peaks))
    shortest, longest = min(minutes), max(minutes)
    per_minute = {n: [run.seconds["first_token"] / n for run, _ in runs[f"{n} min"]] for n in (shortest, longest)}
    name = f"time per minute of clip, {longest} min / {shortest} min"
    return Found(figures, [Ratio.of(name, per_minute[longest], per_minute[shortest])])

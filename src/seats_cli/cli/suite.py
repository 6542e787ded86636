"""``seats profile --suite``: one claim of speed or size, measured, with its ratios."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seats_cli.cli.console import notice
from seats_cli.cli.workload import DEFAULT_MINUTES, SuiteOptions, Workload
from seats_cli.config import SelectionOptions
from seats_cli.errors import counted
from seats_cli.render import (
    NOTHING,
    Page,
    flow,
    human_bytes,
    human_number,
    model_parts,
    plain,
    table,
    text_line,
    warning_lines,
)

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from seats_cli.engine.benchmark import Workbench
    from seats_cli.engine.suites import Found, Rounds
    from seats_cli.figures import Figure, SuiteReport
    from seats_cli.models.loading import LoadedModel

FILE_SECONDS, FILE_SIZE = 60, (1280, 720)
# A CPU takes as many minutes for the longest as a GPU seconds.
CPU_MINUTES = {"memory": (1, 4), "growth": (1, 2, 4)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A suite about to run."""

    suite: SuiteOptions
    workload: Workload
    loaded: LoadedModel
    selection: SelectionOptions
    rounds: Rounds
    note: str
    quiet: bool

    def say(self, line: str) -> None:
        if not self.quiet:
            notice(line)

    def report(self, found: Found, workload: str) -> SuiteReport:
        from seats_cli.engine.suites import report_of

        return report_of(self.suite.name, self.loaded, found, self.rounds, workload, self.note)


def run_suite(
    suite: SuiteOptions,
    workload: Workload,
    loaded: LoadedModel,
    note: str,
    selection: SelectionOptions,
    *,
    runs: int | None,
    warmup: int,
    quiet: bool,
) -> SuiteReport:
    """Measure.

    Args:
        suite: What.
        workload: On what, where the suite does not say.
        loaded: The model.
        note: What it is instead of what was asked for, and why; may be empty.
        selection: Which tokens stay.
        runs: Rounds that count; None: 3 on a CPU, 10 elsewhere.
        warmup: Rounds before them.
        quiet: No notices.

    Raises:
        SeatsError: The file cannot be read, or memory ran out.
    """
    from seats_cli.engine.suites import Rounds

    n_runs = runs or (3 if loaded.model.device.type == "cpu" else 10)
    rounds = Rounds(n_runs, warmup, None if quiet else _progress(n_runs + warmup))
    job = _Job(
        suite=suite,
        workload=workload,
        loaded=loaded,
        selection=selection,
        rounds=rounds,
        note=note,
        quiet=quiet,
    )
    run = {"paper": _paper, "decode": _decode, "end-to-end": _end_to_end}.get(suite.name, _lengths)
    return run(job)


def _progress(n_rounds: int) -> Callable[[str], None]:
    """Says which round begins."""
    begun: dict[str, int] = {}

    def on_round(label: str) -> None:
        begun[label] = begun.get(label, 0) + 1
        notice(f"round {begun[label]} of {n_rounds}: {label}")

    return on_round


def _bench(workload: Workload, loaded: LoadedModel) -> Workbench:
    """The workload's clip, in memory and in its final size: what is measured is not how it is made or read."""
    from seats_cli.engine.benchmark import make_workbench
    from seats_cli.engine.suites import held

    factor = loaded.model.spec.pixel_factor
    media = workload.options(factor)
    clip = held(loaded.model, workload.maker(factor), media)
    return make_workbench(loaded, clip.again, media, workload.text_tokens)


def _paper(job: _Job) -> SuiteReport:
    from seats_cli.engine.suites import paper

    bench = _bench(job.workload, job.loaded)
    counts = f"{bench.layout.n_tokens} tokens, {job.workload.text_tokens} of them text"
    return job.report(paper(bench, job.selection, job.rounds), f"{_named(job.workload)}, {counts}")


def _decode(job: _Job) -> SuiteReport:
    from seats_cli.engine.suites import answer

    n_tokens = job.suite.answer_tokens
    bench = _bench(job.workload, job.loaded)
    found = answer(bench, job.selection, n_tokens, job.rounds, compiled=job.suite.stock)
    return job.report(found, f"{_named(job.workload)}, answers of {n_tokens} tokens")


def _end_to_end(job: _Job) -> SuiteReport:
    from seats_cli.engine.end_to_end import Subject
    from seats_cli.engine.suites import end_to_end
    from seats_cli.media import write_camera_clip

    workload = job.workload
    with tempfile.TemporaryDirectory() as folder:
        path = workload.path
        if path is None:
            path = str(Path(folder) / "camera.mp4")
            job.say(f"writing {FILE_SECONDS} s of h264 and aac to read, {FILE_SIZE[0]}x{FILE_SIZE[1]}")
            write_camera_clip(path, FILE_SECONDS, *FILE_SIZE)
        subject = Subject.of(path, workload.media, workload.text_tokens)
        found, reader = end_to_end(job.loaded, subject, job.selection, job.rounds)
    made = f"{FILE_SECONDS} s, {FILE_SIZE[0]}x{FILE_SIZE[1]}, 30 FPS, h264 and aac, made up"
    what = made if workload.path is None else _named(workload)
    return job.report(found, f"{what}; the stock way reads it with {reader}")


def _lengths(job: _Job) -> SuiteReport:
    from seats_cli.engine.suites import held, lengths

    minute = dataclasses.replace(job.workload, frames=round(60 * job.workload.media.fps), seconds=60.0)
    factor = job.loaded.model.spec.pixel_factor
    media = minute.options(factor)
    on_cpu = job.loaded.model.device.type == "cpu"
    minutes = job.suite.minutes or (CPU_MINUTES if on_cpu else DEFAULT_MINUTES)[job.suite.name]
    clip = held(job.loaded.model, minute.maker(factor), media)
    found = lengths(job.loaded, clip, minutes, media, job.selection, job.rounds, minute.text_tokens)
    return job.report(found, f"{' '.join(map(str, minutes))} min, {media.fps:g} FPS, 144 tokens per grid")


def _named(workload: Workload) -> str:
    """What was looked at, in words."""
    if workload.path is not None:
        return workload.path
    return f"{counted(workload.frames, 'frame')} and {workload.seconds:g} s of sound, made up"


def _value(figure: Figure | None) -> str:
    if figure is None:
        return NOTHING
    iqr = figure.spread.iqr
    if figure.unit == "bytes":
        return human_bytes(figure.median)
    scale = 1000 if figure.unit == "s" else 1
    return human_number(scale * figure.median) + (f" ± {human_number(scale * iqr)}" if iqr else "")


def _lines(report: SuiteReport, width: int) -> list[Text]:
    lines = flow([f"seats profile --suite {report.suite}", *model_parts(report.model)], width, "  ")
    lines += flow([plain(report.machine), plain(report.workload)], width, "  ")
    units = {one.quantity: "ms" if one.unit == "s" else one.unit for one in report.figures}
    variants = dict.fromkeys(one.variant for one in report.figures)
    header = ["", *(f"{name.replace('_', ' ')} {unit}" for name, unit in units.items())]
    rows = [[plain(v), *(_value(report.figure(v, quantity)) for quantity in units)] for v in variants]
    lines += [text_line(), *table(header, rows, width), text_line()]
    ratios = [
        [plain(one.name), f"{one.median:.3g}", f"{one.spread.minimum:.3g} to {one.spread.maximum:.3g}"]
        for one in report.ratios
    ]
    lines += [*table(["ratio", "median", "rounds"], ratios, width), text_line()] if ratios else []
    rounds = f"median ± interquartile range of {report.runs} rounds in turn, {report.warmup} to warm up"
    versions = report.versions
    lines.append(text_line(f"{rounds}; ratios are of each round by itself", style="dim"))
    made = f"seats {versions.seats}, torch {versions.torch}, transformers {versions.transformers}"
    lines.append(text_line(plain(made), style="dim"))
    if report.note:
        lines.append(text_line(f"note: {plain(report.note)}", style="yellow"))
    return lines + warning_lines(report.warnings)


def render_suite(report: SuiteReport) -> RenderableType:
    """Lay out a suite: a row per variant, then the ratios."""
    return Page(lambda width: _lines(report, width))

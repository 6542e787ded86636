"""The Python face: ``Seats("Qwen/Qwen2.5-Omni-7B", trr=0.1).ask("clip.mp4", "What happens?")``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from seats_cli.config import (
    DEFAULT_CACHE_SIZE,
    DEFAULT_MODEL,
    Attention,
    Dtype,
    GenerationOptions,
    MediaOptions,
    ModelOptions,
    Quant,
    SelectionOptions,
    parse_size,
)
from seats_cli.errors import UsageError

if TYPE_CHECKING:
    from seats_cli.dataset import Question
    from seats_cli.engine.batch import Outcome as Answered
    from seats_cli.engine.chat import Chat
    from seats_cli.engine.pipeline import Settings
    from seats_cli.engine.store import ClipStore
    from seats_cli.evaluation import EvalReport, Outcome
    from seats_cli.probing import ProbeReport
    from seats_cli.report import Report
    from seats_cli.tasks import Task

__all__ = ["Seats"]


def _store(folder: Path, n_bytes: int) -> ClipStore:
    from seats_cli.engine.store import ClipStore

    return ClipStore(folder, n_bytes)


class Seats:
    """A model in memory that answers questions about clips, keeping a fraction of their tokens.

    Args:
        model: Hub id or folder.
        trr: Token retention ratio in (0, 1]; ignored when ``selection`` is given.
        selection: All options of the selection.
        media: What of a clip is seen and heard.
        generation: How the answer is written.
        revision: Of a Hub id.
        dtype: ``auto``: bfloat16 on a GPU, float32 on the CPU.
        device: ``auto``, ``cpu``, ``cuda``, ...
        device_map: For several devices, as accelerate takes it.
        max_memory: Of weights, per place, with a ``device_map`` that spreads: ``0=20GiB,cpu=60GiB``.
        offload_folder: For weights that fit nowhere else.
        quant: Of the decoder's linear layers: ``bnb-4bit``, ``bnb-8bit``, ``torchao-int8`` or ``none``.
        attn: Attention kernel.
        offline: Never reach for the network.
        cache: Folder where encoded clips are kept for more questions; None: they are not.
        cache_bytes: What it may take; those that were not used for longest go first.

    Raises:
        ModelError: The model cannot be had.
        MemoryLimitError: Its weights alone are more than there is room for.
        UsageError: An option cannot be.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        trr: float = 0.1,
        selection: SelectionOptions | None = None,
        media: MediaOptions | None = None,
        generation: GenerationOptions | None = None,
        revision: str | None = None,
        dtype: Dtype = "auto",
        device: str = "auto",
        device_map: str | None = None,
        max_memory: str | None = None,
        offload_folder: str | os.PathLike[str] | None = None,
        quant: Quant = "none",
        attn: Attention = "auto",
        offline: bool = False,
        cache: str | os.PathLike[str] | None = None,
        cache_bytes: int = parse_size(DEFAULT_CACHE_SIZE, "cache_bytes"),
    ) -> None:
        self.selection = selection or SelectionOptions(trr=trr)
        self.media = media or MediaOptions()
        self.generation = generation or GenerationOptions()
        options = ModelOptions(
            model=os.fspath(model),
            revision=revision,
            dtype=dtype,
            device=device,
            device_map=device_map,
            max_memory=max_memory,
            offload_folder=None if offload_folder is None else os.fspath(offload_folder),
            quant=quant,
            attn=attn,
            offline=offline,
        )
        self.store = None if cache is None else _store(Path(cache), cache_bytes)
        from seats_cli.engine.admission import load_if_it_fits

        self.loaded = load_if_it_fits(options)

    def ask(
        self,
        path: str | os.PathLike[str],
        question: str,
        *,
        selection: SelectionOptions | None = None,
        media: MediaOptions | None = None,
        generation: GenerationOptions | None = None,
        on_text: Callable[[str], None] | None = None,
        on_thinking: Callable[[str], None] | None = None,
        trace: str | os.PathLike[str] | None = None,
    ) -> Report:
        """Ask one question about one clip.

        Args:
            path: A local video or audio file.
            question: Plain text.
            selection: In place of the object's.
            media: In place of the object's.
            generation: In place of the object's.
            on_text: Called with each piece of the answer as it comes.
            on_thinking: Called with each piece of the reasoning of a model that reasons first.
            trace: Write kept rows, scores and budgets of every stage to this .npz file.

        Returns:
            The report; its ``answer`` is the text, without the reasoning, which is ``thinking``.

        Raises:
            MediaError: The file cannot be read, seen or heard.
            UsageError: The question or an option cannot be.
            SeatsError: Anything else.
        """
        from seats_cli.engine.pipeline import Settings, answer
        from seats_cli.engine.reading import Cached
        from seats_cli.engine.trace import check_trace_path, write_trace
        from seats_cli.media import open_clip

        if trace is not None:
            check_trace_path(Path(trace))
        settings: Settings = Settings(
            media=media or self.media,
            selection=selection or self.selection,
            generation=generation or self.generation,
        )
        return answer(
            self.loaded,
            lambda: open_clip(path, settings.media),
            question,
            settings,
            on_text,
            (lambda noted, *placed: write_trace(Path(trace), noted, *placed)) if trace is not None else None,
            on_thinking,
            None if self.store is None else Cached(self.store, os.fsdecode(path)),
        )

    def chat(
        self,
        path: str | os.PathLike[str],
        *,
        selection: SelectionOptions | None = None,
        media: MediaOptions | None = None,
        generation: GenerationOptions | None = None,
    ) -> Chat:
        """Read a clip once, for questions that follow each other: ``.ask(question)``, ``.undo()``, ``.reset()``.

        Args:
            path: A local video or audio file.
            selection: In place of the object's.
            media: In place of the object's.
            generation: In place of the object's.

        Raises:
            MediaError: The file cannot be read, seen or heard.
            UsageError: An option cannot be.
            SeatsError: Anything else.
        """
        from seats_cli.engine.chat import Chat
        from seats_cli.engine.pipeline import Settings
        from seats_cli.engine.reading import Cached
        from seats_cli.media import open_clip

        settings = Settings(media or self.media, selection or self.selection, generation or self.generation)
        cache = None if self.store is None else Cached(self.store, os.fsdecode(path))
        return Chat(self.loaded, lambda: open_clip(path, settings.media), settings, cache)

    def ask_many(
        self,
        tasks: Iterable[Task],
        *,
        readers: int = 1,
        timeout_seconds: float | None = None,
        selection: SelectionOptions | None = None,
        media: MediaOptions | None = None,
        generation: GenerationOptions | None = None,
    ) -> Iterator[Answered]:
        """Ask about many clips: while one answers, the next ones are decoded and encoded.

        What is asked about one clip is asked together, so that it is decoded and encoded once.

        Args:
            tasks: What is asked about what.
            readers: Clips that are read ahead; memory holds as many, and the one in hand.
            timeout_seconds: For a clip and a question about it; None: no limit.
            selection: In place of the object's.
            media: In place of the object's; a task's own part goes before it.
            generation: In place of the object's; a task's own choices go before it.

        Returns:
            An outcome for each task as it is found: with its ``report``, or the ``error`` why there is none.

        Raises:
            UsageError: A question cannot be asked of this model, or an option cannot be.
            InterruptedRunError: Ctrl-C.
        """
        if readers < 0:
            raise UsageError(f"readers is {readers}; it must be 0 or more")
        if timeout_seconds is not None and not timeout_seconds > 0:
            raise UsageError(f"timeout_seconds is {timeout_seconds:g}; it must be more than 0")
        from seats_cli.engine.analytic import check_settings
        from seats_cli.engine.batch import Asker, check_tasks, run
        from seats_cli.media import open_clip
        from seats_cli.tasks import distinct_questions, jobs_of

        selection = selection or self.selection
        check_settings(self.loaded.model.spec, [selection])
        asker = Asker(
            self.loaded,
            open_clip,
            selection,
            generation or self.generation,
            timeout_seconds=timeout_seconds,
            store=self.store,
        )
        jobs = jobs_of(tasks, media or self.media)
        check_tasks(asker, distinct_questions(jobs))
        return run(asker, jobs, readers=readers)

    def evaluate(
        self,
        path: str | os.PathLike[str],
        settings: Mapping[str, SelectionOptions] | None = None,
        *,
        media: MediaOptions | None = None,
        generation: GenerationOptions | None = None,
        limit: int | None = None,
        done: Mapping[str, Outcome] | None = None,
        on_start: Callable[[int, int], None] | None = None,
        on_outcome: Callable[[Outcome], None] | None = None,
        on_error: Callable[[Exception, Sequence[Question]], None] | None = None,
    ) -> EvalReport:
        """Ask a file of questions whose answers are known; docs/evaluation.md gives its form.

        Args:
            path: One JSON object on a line.
            settings: Options of the selection by label; None: the object's alone.
            media: In place of the object's.
            generation: In place of the object's; its choices are for rows that have none.
            limit: Only so many rows, from the first.
            done: Outcomes of an earlier run, by key.
            on_start: Called with the number of answers to find, and of all.
            on_outcome: Called with each new outcome as soon as it is known.
            on_error: Called with each exception that made rows fail, and those rows.

        Returns:
            Accuracy with intervals, by category, and the settings compared.

        Raises:
            UsageError: The file, a row or an option cannot be.
            InterruptedRunError: Ctrl-C.
        """
        from seats_cli.dataset import read_questions
        from seats_cli.engine.analytic import label_of
        from seats_cli.engine.evaluate import Evaluation, evaluate
        from seats_cli.engine.marks import model_info, versions
        from seats_cli.evaluation import summarise
        from seats_cli.media import open_clip

        media, generation = media or self.media, generation or self.generation
        settings = settings or {label_of(self.selection): self.selection}
        work = Evaluation(
            file=os.fspath(path),
            loaded=self.loaded,
            questions=read_questions(Path(path), generation.choices)[:limit],
            settings=settings,
            media=media,
            generation=generation,
            open_clip=open_clip,
        )
        return summarise(
            evaluate(work, done=done, on_start=on_start, on_outcome=on_outcome, on_error=on_error),
            {label: asdict(options) for label, options in settings.items()},
            file=work.file,
            media=asdict(media),
            generation=asdict(generation),
            model=model_info(self.loaded),
            versions=versions(),
        )

    def probe(
        self,
        path: str | os.PathLike[str],
        *,
        tolerance: float = 0.01,
        media: MediaOptions | None = None,
        generation: GenerationOptions | None = None,
        limit: int | None = None,
        categories: Sequence[str] = (),
        on_start: Callable[[int], None] | None = None,
        on_row: Callable[[], None] | None = None,
        on_error: Callable[[Exception, Sequence[Question]], None] | None = None,
    ) -> ProbeReport:
        """Remove picture, sound, or both before every layer, and propose boundaries; docs/probe.md explains.

        Args:
            path: Questions with known answers, as ``evaluate`` takes them.
            tolerance: How far below full accuracy still counts as full.
            media: In place of the object's.
            generation: In place of the object's: the system prompt, and choices for rows that have none.
            limit: Only so many rows, from the first.
            categories: Only rows of these; none: all.
            on_start: Called with the number of questions.
            on_row: Called when a question is through.
            on_error: Called with each exception that made rows fail, and those rows.

        Returns:
            Accuracy by layer and by what was removed, and the schedule it proposes.

        Raises:
            UsageError: The file, a row or an option cannot be.
            SomeFailedError: Every row failed.
            InterruptedRunError: Ctrl-C.
        """
        from seats_cli.dataset import read_questions
        from seats_cli.engine.analytic import FULL
        from seats_cli.engine.evaluate import Evaluation
        from seats_cli.engine.probe import probe, report_of
        from seats_cli.media import open_clip
        from seats_cli.probing import of_categories

        generation = generation or self.generation
        rows = of_categories(read_questions(Path(path), generation.choices), categories)[:limit]
        work = Evaluation(
            file=os.fspath(path),
            loaded=self.loaded,
            questions=rows,
            settings={"full": FULL},
            media=media or self.media,
            generation=generation,
            open_clip=open_clip,
        )
        if on_start is not None:
            on_start(len(rows))
        found = probe(work, on_row=None if on_row is None else lambda _: on_row(), on_error=on_error)
        return report_of(work, found, tolerance=tolerance, categories=categories)

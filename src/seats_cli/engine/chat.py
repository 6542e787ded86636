"""A conversation about one clip: it is read once, and every turn is a prefill over what is kept of it.

Which tokens enter the decoder does not depend on what is asked, so the clip's part is the same in every turn. What
stays in the later layers follows the newest question, which is the last text of the prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from seats_cli.config import SelectionOptions
from seats_cli.engine.analytic import check_settings
from seats_cli.engine.pipeline import Settings, check_question, reply
from seats_cli.engine.reading import Cached, read_clip
from seats_cli.media.types import Clip
from seats_cli.models.loading import LoadedModel
from seats_cli.models.turns import Turn
from seats_cli.report import Report
from seats_cli.timing import PeakMemory


class Chat:
    """Questions about one clip, each asked with those before it and their answers.

    Args:
        loaded: The model.
        open_clip: Opens the clip; called once, and again for another selection or if memory runs out.
        settings: What is seen and heard, which tokens stay, how answers are written.
        cache: Where encoded windows are looked for, and kept; None: nowhere.

    Raises:
        MediaError: The clip cannot be read, seen or heard.
        SeatsError: Any other of its subclasses.
    """

    def __init__(
        self, loaded: LoadedModel, open_clip: Callable[[], Clip], settings: Settings, cache: Cached | None = None
    ) -> None:
        check_question(loaded.model, "?", settings.generation)
        self._loaded, self._open_clip, self._cache = loaded, open_clip, cache
        self._settings = settings
        self._reports: tuple[Report, ...] = ()
        self.select(settings.selection)

    def select(self, selection: SelectionOptions) -> None:
        """Read the clip, and keep these tokens of it; the turns stay. If that fails all is as it was.

        Args:
            selection: Which tokens stay.

        Raises:
            SeatsError: Any of its subclasses.
        """
        check_settings(self._loaded.model.spec, [selection])
        settings = replace(self._settings, selection=selection)
        with PeakMemory(self._loaded.model.devices) as peak:
            self._read = read_clip(self._loaded, self._open_clip, settings.media, selection, self._cache)
        self._settings, self._peak_bytes = settings, peak.n_bytes

    @property
    def settings(self) -> Settings:
        """As they are now."""
        return self._settings

    @property
    def reports(self) -> tuple[Report, ...]:
        """Of the turns that are remembered, the first one first."""
        return self._reports

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What a question is asked with."""
        return tuple(Turn(report.question, report.answer) for report in self._reports)

    @property
    def n_kept(self) -> tuple[int, int]:
        """Tokens of the clip that enter the decoder, and all there are."""
        video, audio = self._read.shape.video, self._read.shape.n_audio_tokens
        whole = audio + (0 if video is None else video.n_tokens)
        return sum(len(tokens.places) for tokens in self._read.kept.values()), whole

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of reading the clip."""
        return self._read.warnings

    def ask(
        self,
        question: str,
        *,
        on_text: Callable[[str], None] | None = None,
        on_thinking: Callable[[str], None] | None = None,
    ) -> Report:
        """Ask the next question.

        An answer that was interrupted is remembered as far as it came; one of which nothing came is not.

        Args:
            question: Plain text.
            on_text: Called with each piece of the answer as it comes.
            on_thinking: Called with each piece of the reasoning of a model that reasons first.

        Returns:
            The report. The first one after reading the clip has the time and memory of that too; in the others
            reading took no time, and ``media.cached`` says so.

        Raises:
            UsageError: The question cannot be; the turns are as they were.
            SeatsError: Anything else.
        """
        with PeakMemory(self._loaded.model.devices) as peak:
            report = reply(
                self._loaded,
                self._read,
                question,
                self._settings,
                on_text,
                on_thinking=on_thinking,
                history=self.turns,
            )
        known = [n for n in (peak.n_bytes, self._peak_bytes) if n is not None]
        report = replace(report, command="chat", memory_bytes=max(known, default=None))
        if report.answer or report.finish_reason != "interrupted":
            self._reports += (report,)
        self._peak_bytes = None
        media = replace(self._read.media, cached=True)
        self._read = replace(self._read, seconds={}, wall_seconds=0.0, media=media)
        return report

    def undo(self) -> Report | None:
        """Forget the last turn, and return what it was; None: there is none."""
        if not self._reports:
            return None
        *kept, last = self._reports
        self._reports = tuple(kept)
        return last

    def reset(self) -> None:
        """Forget all turns; the clip is not read again."""
        self._reports = ()

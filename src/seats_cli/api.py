"""The Python face: ``Seats("Qwen/Qwen2.5-Omni-7B", trr=0.1).ask("clip.mp4", "What happens?")``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from seats_cli.config import (
    DEFAULT_MODEL,
    Attention,
    Dtype,
    GenerationOptions,
    MediaOptions,
    ModelOptions,
    SelectionOptions,
)

if TYPE_CHECKING:
    from seats_cli.engine.pipeline import Settings
    from seats_cli.report import Report

__all__ = ["Seats"]


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
        attn: Attention kernel.
        offline: Never reach for the network.

    Raises:
        ModelError: The model cannot be had.
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
        attn: Attention = "auto",
        offline: bool = False,
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
            attn=attn,
            offline=offline,
        )
        from seats_cli.models.loading import load

        self.loaded = load(options)

    def ask(
        self,
        path: str | os.PathLike[str],
        question: str,
        *,
        selection: SelectionOptions | None = None,
        media: MediaOptions | None = None,
        generation: GenerationOptions | None = None,
        on_text: Callable[[str], None] | None = None,
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
            trace: Write kept rows, scores and budgets of every stage to this .npz file.

        Returns:
            The report; its ``answer`` is the text.

        Raises:
            MediaError: The file cannot be read, seen or heard.
            UsageError: The question or an option cannot be.
            SeatsError: Anything else.
        """
        from seats_cli.engine.pipeline import Settings, answer
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
            (lambda noted, prepared: write_trace(Path(trace), noted, prepared)) if trace is not None else None,
        )

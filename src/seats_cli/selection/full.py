"""No selection: what every other method is held against."""

from __future__ import annotations

from typing import ClassVar

import torch

from seats_cli.selection.base import EncodedWindows, Kept, LayerKept, LayerState, SelectionMethod


class Full(SelectionMethod):
    """Keeps everything, in every layer."""

    name: ClassVar[str] = "full"
    summary: ClassVar[str] = "keep every token in every layer"
    needs_saliency: ClassVar[bool] = False

    @property
    def drop_before_layer(self) -> tuple[int, ...]:
        """None."""
        return ()

    def before_llm(self, windows: EncodedWindows) -> Kept:
        """All of them."""
        indices = torch.arange(windows.embeddings.shape[0], device=windows.embeddings.device)
        return Kept(indices, None, windows.window_sizes)

    def before_layer(self, state: LayerState) -> LayerKept:
        """All of them."""
        return LayerKept(torch.arange(state.modality.shape[0], device=state.modality.device))

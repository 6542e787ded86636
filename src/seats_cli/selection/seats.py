"""SEATS (arXiv 2605.20035): diverse tokens enter the LLM, relevant ones pass its middle, text its end."""

from __future__ import annotations

from typing import ClassVar

import torch

from seats_cli.layout import Modality
from seats_cli.selection.base import EncodedWindows, Kept, LayerKept, LayerState, SelectionMethod
from seats_cli.selection.diversity import diversity_matmul_macs, select_diverse
from seats_cli.selection.relevance import select_relevant


class Seats(SelectionMethod):
    """Three stages: I before the LLM (Sec. 4.1), II before b1, b2, b3 (Sec. 4.2), III before b4.

    With the option ``stages`` the plan leaves the later ones out; nothing here looks at it.
    With a plan that keeps everything it does what ``Full`` does. Every stage leaves exactly the planned
    total, so that the host knows every shape without asking the device; how Stage II shares it between video
    and audio depends on the scores.
    """

    name: ClassVar[str] = "seats"
    summary: ClassVar[str] = (
        "diverse tokens first, then those relevant to the question, then text alone (arXiv 2605.20035)"
    )
    needs_saliency: ClassVar[bool] = True

    @property
    def drop_before_layer(self) -> tuple[int, ...]:
        """b1, b2, b3 and b4, as far as their stages run; none when everything stays."""
        return self.plan.drop_before_layer

    def before_llm(self, windows: EncodedWindows) -> Kept:
        """Stage I.

        Raises:
            ValueError: The windows are not those of the plan, or come without saliency.
        """
        of_video = windows.modality is Modality.VIDEO
        planned = self.plan.stage_one_video if of_video else self.plan.stage_one_audio
        end = windows.first_window + len(windows.window_sizes)
        counts = planned[windows.first_window : end]
        if len(counts) != len(windows.window_sizes):
            raise ValueError(f"windows up to {end} were given; the plan has {len(planned)}")
        if windows.saliency is None:
            raise ValueError("SEATS needs the saliency of the windows")
        sizes, dim = windows.window_sizes, windows.embeddings.shape[1]
        indices = select_diverse(windows.embeddings, windows.saliency, sizes, counts)
        return Kept(indices, None, counts, diversity_matmul_macs(sizes, counts, dim))

    def before_layer(self, state: LayerState) -> LayerKept:
        """Stages II and III.

        Raises:
            ValueError: The plan drops nothing before that layer, or the sequence is too short for it.
        """
        if state.layer not in self.drop_before_layer:
            raise ValueError(f"nothing is dropped before layer {state.layer}")
        stage = self.drop_before_layer.index(state.layer)
        n_tokens = state.modality.shape[0]
        n_text = n_tokens - sum(self.plan.stage_totals[stage])
        if n_text < 0:
            raise ValueError(f"{n_tokens} tokens before layer {state.layer} are fewer than planned")
        if stage == len(self.plan.stage_budgets):
            not_text = (state.modality != Modality.TEXT).to(torch.int8)
            return LayerKept(torch.sort(not_text, stable=True).indices[:n_text])
        budget_video, budget_audio = self.plan.stage_budgets[stage]
        indices, trace = select_relevant(
            state.scores(),
            state.modality,
            state.window,
            n_windows=state.n_windows,
            max_window_tokens=state.max_window_tokens,
            budget_video=budget_video,
            budget_audio=budget_audio,
            temperature=self.temperature,
            score_norm=self.options.score_norm,
            n_text=n_text,
            weigh_by=self.options.window_budgets,
        )
        return LayerKept(indices, trace)

"""How many tokens stay, of each modality, in each window and layer (Sec. 4.2). Plain Python, no tensors.

From the ratio the user asks for to the ratio of each modality, to levels (``levels.py``), to counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from seats_cli.config import SelectionOptions, Stages
from seats_cli.errors import UsageError
from seats_cli.selection.levels import (
    DEFAULT_SCALE,
    Boundaries,
    Levels,
    boundaries_by_depth,
    largest_keep_ratio,
    round_down,
    solve_levels,
    validate_boundaries,
)

__all__ = [
    "Boundaries",
    "Levels",
    "SelectionPreset",
    "TokenPlan",
    "boundaries_by_depth",
    "largest_keep_ratio",
    "make_plan",
    "solve_levels",
    "split_ratio",
    "validate_boundaries",
]

_ROUNDING = 1e-12
DRAWN_FROM_CLIP = frozenset({"random"})
"""Methods that choose once, before the LLM, from the whole clip: their plan has no counts per window."""


@dataclass(frozen=True, slots=True)
class SelectionPreset:
    """What is published for a model.

    Attributes:
        drop_before_layer: b1 < b2 < b3 < b4, for the depth of this very model; None: too shallow for any drop.
        temperature: Of the window softmax.
        ratios: Rows of overall, visual and audio keep ratio ``(R, R_v, R_a)``.
        scale: lambda that goes with these boundaries.
    """

    drop_before_layer: Boundaries | None
    temperature: float
    ratios: tuple[tuple[float, float, float], ...]
    scale: float = DEFAULT_SCALE


@dataclass(frozen=True, slots=True)
class TokenPlan:
    """Counts of one clip, all known on the host before anything runs.

    The counts per modality after Stage II are nominal: a window that lacks one modality gives its share to
    the other. Their sum is not: it is the number of tokens there are, so every shape is known without asking
    the device.

    Attributes:
        n_video: Visual tokens the encoder makes.
        n_audio: Audio tokens the encoder makes.
        video_trr: R_v; of an absent modality, the ratio of the other.
        audio_trr: R_a, likewise.
        video: Levels of R_v.
        audio: Levels of R_a.
        drop_before_layer: b1..b4, or b1..b3 without Stage III; empty when nothing is dropped inside the LLM.
        entering: ``(video, audio)`` kept before the LLM.
        stage_one_video: The same of each window; empty when the method chooses from the whole clip.
        stage_one_audio: Likewise.
        stage_budgets: ``(B_v, B_a)`` left before b1, b2 and b3; empty like ``drop_before_layer``.
    """

    n_video: int
    n_audio: int
    video_trr: float
    audio_trr: float
    video: Levels
    audio: Levels
    drop_before_layer: tuple[int, ...]
    entering: tuple[int, int]
    stage_one_video: tuple[int, ...]
    stage_one_audio: tuple[int, ...]
    stage_budgets: tuple[tuple[int, int], ...]

    @property
    def keeps_everything(self) -> bool:
        """Whether every layer sees every token."""
        return not self.drop_before_layer and self.entering == (self.n_video, self.n_audio)

    @property
    def stage_totals(self) -> tuple[tuple[int, int], ...]:
        """Nominal ``(video, audio)`` counts: into the LLM, then from b1, b2 and b3 on."""
        return self.entering, *self.stage_budgets

    def tokens_per_layer(self, n_text: int) -> list[tuple[int, int, int]]:
        """Nominal ``(text, video, audio)`` in each layer."""
        totals = (*self.stage_totals, (0, 0))
        stages = [sum(i >= b for b in self.drop_before_layer) for i in range(self.video.n_layers)]
        return [(n_text, *totals[stage]) for stage in stages]

    @property
    def achieved_trr(self) -> float:
        """The ratio that the counts make, averaged over the layers; 1 for a clip without tokens."""
        whole = self.video.n_layers * (self.n_video + self.n_audio)
        kept = sum(video + audio for _, video, audio in self.tokens_per_layer(0))
        return kept / whole if whole else 1.0


def make_plan(
    options: SelectionOptions,
    preset: SelectionPreset | None,
    n_layers: int,
    video_window_sizes: Sequence[int],
    audio_window_sizes: Sequence[int],
) -> TokenPlan:
    """Turn the options into counts for a clip.

    Per window and modality Stage I keeps ``clamp(round(r0 n), 1, n)``; the drop before ``b_k`` leaves
    ``max(1, round(f_k n_k))`` of the nominal count it finds. ``round`` is Python's: half to even. A method in
    ``DRAWN_FROM_CLIP`` keeps that many of the clip's tokens, with ``r0`` the ratio itself, in every layer.

    Args:
        options: Ratios, scale, boundaries, stages. Of the method only the kind of plan is looked at; whoever keeps
            everything must ask for it.
        preset: Published for the model; None: boundaries by depth, and the same ratio for both modalities.
        n_layers: Depth of the LLM.
        video_window_sizes: Visual tokens of each window; 0 where it has none.
        audio_window_sizes: Audio tokens of each window.

    Raises:
        UsageError: The ratios or the boundaries are infeasible for this model.
        ValueError: The two lists differ in length.
    """
    if len(video_window_sizes) != len(audio_window_sizes):
        raise ValueError(f"{len(video_window_sizes)} windows of video, {len(audio_window_sizes)} of audio")
    n_video, n_audio = sum(video_window_sizes), sum(audio_window_sizes)
    stages = stages_of(options)
    boundaries = _boundaries(options, preset, n_layers)
    # Only where the late layers see text alone can no ratio between theirs and 1 be had.
    largest = largest_keep_ratio(n_layers, boundaries) if boundaries and stages == "123" else 1.0
    video_trr, audio_trr = _ratios(options, preset, largest, n_video, n_audio)
    scale = scale_of(options, preset)
    video = solve_levels(video_trr, n_layers, boundaries, scale, stages)
    audio = solve_levels(audio_trr, n_layers, boundaries, scale, stages)
    per_clip = options.method in DRAWN_FROM_CLIP
    kept_video = _stage_one(video, [n_video] if per_clip else video_window_sizes)
    kept_audio = _stage_one(audio, [n_audio] if per_clip else audio_window_sizes)
    entering = sum(kept_video), sum(kept_audio)
    # Of a modality that is kept whole the levels know no drops.
    drops = video.drop_before_layer or audio.drop_before_layer
    budgets = zip(_budgets(video, entering[0]), _budgets(audio, entering[1]), strict=True)
    return TokenPlan(
        n_video=n_video,
        n_audio=n_audio,
        video_trr=video_trr,
        audio_trr=audio_trr,
        video=video,
        audio=audio,
        drop_before_layer=drops,
        entering=entering,
        stage_one_video=() if per_clip else kept_video,
        stage_one_audio=() if per_clip else kept_audio,
        stage_budgets=tuple(budgets) if drops else (),
    )


def stages_of(options: SelectionOptions) -> Stages:
    """The stages that run: of a method that chooses once from the whole clip, the first alone."""
    return "1" if options.method in DRAWN_FROM_CLIP else options.stages


def scale_of(options: SelectionOptions, preset: SelectionPreset | None) -> float:
    """lambda: the user's, else the one that goes with the boundaries that are used."""
    if options.scale is not None:
        return options.scale
    own = preset is not None and preset.drop_before_layer is not None and options.drop_before_layer is None
    return preset.scale if preset is not None and own else DEFAULT_SCALE


def _boundaries(options: SelectionOptions, preset: SelectionPreset | None, n_layers: int) -> tuple[int, ...]:
    """The user's, else the published ones if the model is that deep, else by depth; none where none are needed."""
    if options.drop_before_layer is not None:
        if options.schedule_layers not in (None, n_layers):
            raise UsageError(
                f"the schedule {', '.join(map(str, options.drop_before_layer))} is for a model of "
                f"{options.schedule_layers} layers; this one has {n_layers}",
                "take its own (no --schedule), or make one with: seats probe",
            )
        return validate_boundaries(options.drop_before_layer, n_layers)
    published = preset.drop_before_layer if preset is not None else None
    if published is not None and published[-1] < n_layers:
        return published
    # A model too shallow for any drop can still be run whole, or with fewer tokens from the start.
    return () if options.asks_for_all or stages_of(options) == "1" else boundaries_by_depth(n_layers)


def _ratios(
    options: SelectionOptions,
    preset: SelectionPreset | None,
    largest: float,
    n_video: int,
    n_audio: int,
) -> tuple[float, float]:
    """``(R_v, R_a)``, as given or from R. A clip without visual and audio tokens has nothing to drop."""
    if not n_video and not n_audio:
        return 1.0, 1.0
    if options.video_trr is None or options.audio_trr is None:
        return split_ratio(options.trr, n_video, n_audio, preset, largest)
    video = options.video_trr if n_video else options.audio_trr
    audio = options.audio_trr if n_audio else options.video_trr
    if (video == 1.0) != (audio == 1.0) and largest < 1.0:
        raise UsageError(
            f"--video-trr {video:g} with --audio-trr {audio:g}: every layer keeps all of the one, "
            "but the late layers see text only",
            f"give both 1, or both at most {round_down(largest)}",
        )
    return video, audio


def _stage_one(levels: Levels, window_sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple(min(max(round(levels.levels[0] * n), 1), n) for n in window_sizes)


def _budgets(levels: Levels, entering: int) -> list[int]:
    found = []
    for fraction in levels.fractions:
        entering = max(1, round(fraction * entering)) if entering else 0
        found.append(entering)
    return found


def split_ratio(
    trr: float, n_video: int, n_audio: int, preset: SelectionPreset | None, largest: float
) -> tuple[float, float]:
    """The visual and audio keep ratios that together make ``trr`` on this clip.

    ``rho = R_a / R_v`` comes from the published rows (log rho linear in R between them, ``rho = 1`` at
    ``R = 1``, constant below the lowest row, 1 without rows); then
    ``trr * (n_video + n_audio) = R_v n_video + R_a n_audio``. A ratio that would pass ``largest`` stops there
    and the rest goes to the other modality.

    Args:
        trr: R in (0, 1].
        n_video: Visual tokens of the clip.
        n_audio: Audio tokens of the clip.
        preset: Published rows; None: none.
        largest: The largest ratio below 1 for which there is a schedule; 1: there is one for all.

    Returns:
        ``(R_v, R_a)``; of a modality that is absent, the ratio of the other.

    Raises:
        UsageError: ``trr`` lies between ``largest`` and 1.
    """
    if trr == 1.0:
        return 1.0, 1.0
    if trr > largest + _ROUNDING:
        raise UsageError(
            f"a keep ratio of {trr:g} is infeasible: all tokens leave before the last layers",
            f"give a ratio of at most {round_down(largest)}, or 1 to keep everything",
        )
    if not n_video or not n_audio:
        return trr, trr
    rho = _audio_over_video(trr, preset)
    kept = trr * (n_video + n_audio)
    video = kept / (n_video + rho * n_audio)
    audio = rho * video
    if audio > largest:
        return (kept - largest * n_audio) / n_video, largest
    if video > largest:
        return largest, (kept - largest * n_video) / n_audio
    return video, audio


def _audio_over_video(trr: float, preset: SelectionPreset | None) -> float:
    rows = sorted((row[0], math.log(row[2] / row[1])) for row in preset.ratios) if preset else []
    if not rows:
        return 1.0
    if trr <= rows[0][0]:
        return math.exp(rows[0][1])
    for (low, at_low), (high, at_high) in pairwise([*rows, (1.0, 0.0)]):
        if trr <= high:
            return math.exp(at_low + (at_high - at_low) * (trr - low) / (high - low))
    return 1.0

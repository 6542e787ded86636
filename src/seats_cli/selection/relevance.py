"""Stage II (Sec. 4.2.2, 4.2.3): share a budget among windows and modalities, keep what the query attends to.

Everything runs on the device of the scores, for all windows at once, and the host is never made to wait:
counts that depend on the scores stay tensors, and the number of tokens kept is known beforehand.

Per-window tensors are ``[T]``. A slot is a (modality, window) pair: T of video, then T of audio, then one of
all text.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from seats_cli import kernels
from seats_cli.config import ScoreNorm, WindowBudgets
from seats_cli.layout import Modality

_NO_SPREAD = 1e-12
"""Added to the deviation of the windows' means, so that equal windows stay equal."""


class PerModality(NamedTuple):
    """A ``[T]`` tensor for each modality."""

    video: Tensor
    audio: Tensor


def select_relevant(
    scores: Tensor,
    modality: Tensor,
    window: Tensor,
    *,
    n_windows: int,
    max_window_tokens: int,
    budget_video: int,
    budget_audio: int,
    temperature: float,
    score_norm: ScoreNorm,
    n_text: int,
    weigh_by: WindowBudgets = "query",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Keep all text and, within the budgets of their windows, the other tokens of the highest scores.

    With one window that has tokens, or one modality absent, plainly the highest scores of each modality.
    Of equal scores the lowest index is kept.

    Args:
        scores: ``[S]`` float32.
        modality: ``[S]`` integers.
        window: ``[S]`` int64; anything for text.
        n_windows: T.
        max_window_tokens: No window holds more tokens of one modality than this.
        budget_video: B_v.
        budget_audio: B_a.
        temperature: Of the window softmax.
        score_norm: ``standard`` brings the windows' means to mean 0, deviation 1 before the temperature.
        n_text: Text tokens in the sequence.
        weigh_by: ``uniform`` weighs all windows alike; inside a window the scores choose all the same.

    Returns:
        ``[n_text + min(B_v + B_a, S - n_text)]`` int64, ascending; and a trace: ``weights``,
        ``weights_video`` and ``weights_audio`` ``[T]`` float64; ``budgets_video`` and ``budgets_audio``
        ``[T]`` int64, what is kept of each window; ``plain`` ``[]`` bool, whether the weights had no part
        in it.
    """
    budget = min(budget_video + budget_audio, scores.shape[0] - n_text)
    if _by_kernel(scores, n_windows, budget):
        from seats_cli.kernels.relevance import Drop, select

        totals = (budget, budget_video, budget_audio, min(2 * max_window_tokens, budget))
        how = (temperature, weigh_by == "uniform", score_norm == "standard")
        return select(scores, modality, window, Drop(n_windows, *totals, n_text, *how))
    slot = _slots(modality, window, n_windows)
    sizes = PerModality(*_per_window(_count(slot, n_windows)))
    if budget == 0:
        return _text_alone(slot, sizes, n_text)
    weights = window_weights(scores, slot, sizes, temperature, score_norm, weigh_by)
    windows = window_budgets((weights.video + weights.audio) / 2, sizes, budget, 2 * max_window_tokens)
    shares = modality_budgets(windows, weights, sizes, budget_video, budget_audio)
    plain = ((sizes.video + sizes.audio > 0).sum() <= 1) | (sizes.video.sum() == 0) | (sizes.audio.sum() == 0)
    # In the plain case all windows are treated as the first one.
    limits = torch.where(plain, torch.cat(_plain_budgets(sizes, budget, budget_video)), torch.cat(shares))
    group = torch.where(plain & (slot < 2 * n_windows), slot // n_windows * n_windows, slot)
    stays = (slot == 2 * n_windows) | (_rank(scores, group, n_windows) < _pad(limits)[group])
    indices = torch.sort((~stays).to(torch.int8), stable=True).indices[: n_text + budget]
    kept = PerModality(*_per_window(_count(slot[indices], n_windows)))
    return indices, _trace(weights, kept, plain)


def _text_alone(slot: Tensor, sizes: PerModality, n_text: int) -> tuple[Tensor, dict[str, Tensor]]:
    n_windows = sizes.video.shape[0]
    indices = torch.sort((slot < 2 * n_windows).to(torch.int8), stable=True).indices[:n_text]
    nothing = PerModality(torch.zeros_like(sizes.video), torch.zeros_like(sizes.audio))
    unweighted = PerModality(nothing.video.double(), nothing.audio.double())
    return indices, _trace(unweighted, nothing, torch.ones((), dtype=torch.bool, device=slot.device))


def _by_kernel(scores: Tensor, n_windows: int, budget: int) -> bool:
    fits = 0 < n_windows <= kernels.MOST_WINDOWS and scores.shape[0] <= kernels.MOST_TOKENS
    return fits and budget > 0 and kernels.available(scores.device)


def window_weights(
    scores: Tensor,
    slot: Tensor,
    sizes: PerModality,
    temperature: float,
    score_norm: ScoreNorm,
    weigh_by: WindowBudgets = "query",
) -> PerModality:
    """Softmax over windows of their mean score, each modality by itself, in float64.

    Args:
        scores: ``[S]``.
        slot: ``[S]`` int64.
        sizes: Tokens of each window.
        temperature: Of the softmax.
        score_norm: ``standard`` shifts and scales the means first (population deviation).
        weigh_by: ``uniform``: the same for all, in place of the softmax.

    Returns:
        Weights that sum to 1 over the windows where the modality is present, and are 0 elsewhere.
    """
    if weigh_by == "uniform":
        return PerModality(_even(sizes.video > 0), _even(sizes.audio > 0))
    n_slots = 2 * sizes.video.shape[0] + 1
    sums = torch.zeros(n_slots, dtype=torch.float64, device=scores.device).index_add(0, slot, scores.double())
    video, audio = _per_window(sums)
    return PerModality(
        _softmax(video / sizes.video.clamp(min=1), sizes.video > 0, temperature, score_norm),
        _softmax(audio / sizes.audio.clamp(min=1), sizes.audio > 0, temperature, score_norm),
    )


def _softmax(means: Tensor, present: Tensor, temperature: float, score_norm: ScoreNorm) -> Tensor:
    if score_norm == "standard":
        n = present.sum().clamp(min=1)
        centred = means - torch.where(present, means, 0.0).sum() / n
        deviation = (torch.where(present, centred, 0.0).square().sum() / n).sqrt()
        means = centred / (deviation + _NO_SPREAD)
    top = means.masked_fill(~present, -torch.inf).max()
    # The largest is taken off before the division: dividing by a tiny temperature must not overflow.
    weights = torch.where(present, ((means - top) / temperature).exp(), 0.0)
    # The largest weight is 1, so the sum is below 1 only where nothing is present.
    return weights / weights.sum().clamp(min=1.0)


def _even(present: Tensor) -> Tensor:
    """The same weight where ``present``, 0 elsewhere; they sum to 1, or to 0 where nothing is."""
    return present.double() / present.sum().clamp(min=1)


def window_budgets(weights: Tensor, sizes: PerModality, budget: int, max_level: int) -> Tensor:
    """Integer budgets that sum to B: ``round(w B)``, at least 1 per modality present, at most the size.

    Where B is too small for that, at least 1 per window with tokens; smaller still, 0. The sum is put right
    by taking one at a time from the largest that is above its least, or giving one at a time to the smallest
    that has room, the lowest index first. Done in one go: all budgets are brought to a common water level,
    found by trying every level, and the remainder goes by index.

    Args:
        weights: ``[T]`` float64.
        sizes: Tokens of each window.
        budget: B, at most the sum of the sizes.
        max_level: No window is larger than this.

    Returns:
        ``[T]`` int64 with the sum B.
    """
    size = sizes.video + sizes.audio
    floor = (sizes.video > 0).long() + (sizes.audio > 0)
    nonempty = (size > 0).long()
    floor = torch.where(floor.sum() <= budget, floor, torch.where(nonempty.sum() <= budget, nonempty, 0))
    start = torch.minimum(torch.maximum((weights * budget).round().long(), floor), size)
    level = torch.arange(min(max_level, budget) + 1, device=weights.device)[:, None]

    lowered = torch.maximum(torch.minimum(start, level), floor)
    # The lowest level that still makes B; what is too much goes one each from those at the level.
    down = (lowered.sum(dim=1) < budget).sum().clamp(max=level.shape[0] - 1)
    cut = lowered.index_select(0, down[None])[0]
    cut = cut - _first((cut == down) & (cut > floor), cut.sum() - budget)

    raised = torch.minimum(torch.maximum(start, level), size)
    # The highest level that does not pass B; what is missing goes one each to those at the level.
    up = ((raised.sum(dim=1) <= budget).sum() - 1).clamp(min=0)
    filled = raised.index_select(0, up[None])[0]
    filled = filled + _first((filled == up) & (filled < size), budget - filled.sum())
    return torch.where(start.sum() > budget, cut, filled)


def modality_budgets(
    windows: Tensor, weights: PerModality, sizes: PerModality, budget_video: int, budget_audio: int
) -> PerModality:
    """Share each window's budget: ``w_v B_v / (w_v B_v + w_a B_a)`` of it to video, the rest to audio.

    Each modality that is present gets at least one token where the budget has two; neither gets more than
    there is of it, and what one cannot take the other does.

    Args:
        windows: ``[T]`` int64, each at most what the window holds.
        weights: Of each window.
        sizes: Tokens of each window.
        budget_video: B_v.
        budget_audio: B_a; not both 0.

    Returns:
        ``[T]`` int64 each; they sum to ``windows``.
    """
    video_part, audio_part = weights.video * budget_video, weights.audio * budget_audio
    parts = video_part + audio_part
    share = torch.where(parts > 0, video_part / parts, budget_video / (budget_video + budget_audio))
    one_each = ((sizes.video > 0) & (sizes.audio > 0) & (windows >= 2)).long()
    most = torch.minimum(sizes.video, windows - one_each)
    video = torch.minimum(torch.maximum((share * windows).round().long(), one_each), most)
    audio = torch.minimum(windows - video, sizes.audio)
    return PerModality(windows - audio, audio)


def _plain_budgets(sizes: PerModality, budget: int, budget_video: int) -> PerModality:
    """All of B_v and B_a, as far as there are tokens, to the first window."""
    n_video, n_audio = sizes.video.sum(), sizes.audio.sum()
    audio = torch.minimum(budget - n_video.clamp(max=budget_video), n_audio)
    first = (torch.arange(sizes.video.shape[0], device=sizes.video.device) == 0).long()
    return PerModality(first * (budget - audio), first * audio)


def _slots(modality: Tensor, window: Tensor, n_windows: int) -> Tensor:
    modality = modality.long()
    return torch.where(modality == Modality.TEXT, 2 * n_windows, (modality - 1) * n_windows + window)


def _count(slot: Tensor, n_windows: int) -> Tensor:
    # Not bincount: it asks the device for the largest value.
    counts = torch.zeros(2 * n_windows + 1, dtype=torch.int64, device=slot.device)
    return counts.index_add(0, slot, torch.ones_like(slot))


def _per_window(per_slot: Tensor) -> tuple[Tensor, Tensor]:
    """Video and audio, without the text."""
    n_windows = per_slot.shape[0] // 2
    return per_slot[:n_windows], per_slot[n_windows : 2 * n_windows]


def _pad(per_slot: Tensor) -> Tensor:
    return torch.cat([per_slot, per_slot.new_zeros(1)])


def _first(eligible: Tensor, count: Tensor) -> Tensor:
    """1 at the first ``count`` eligible places, 0 elsewhere."""
    return (eligible & (eligible.cumsum(0) <= count)).long()


def _rank(scores: Tensor, group: Tensor, n_windows: int) -> Tensor:
    """Place of each token in its group, the highest score first, equals by index: ``[S]`` int64."""
    by_score = torch.sort(scores, descending=True, stable=True).indices
    by_group = torch.sort(group[by_score], stable=True)
    order = by_score[by_group.indices]
    counts = _count(group, n_windows)
    place = torch.arange(group.shape[0], device=group.device) - (counts.cumsum(0) - counts)[by_group.values]
    return torch.empty_like(place).scatter(0, order, place)


def _trace(weights: PerModality, kept: PerModality, plain: Tensor) -> dict[str, Tensor]:
    mean = (weights.video + weights.audio) / 2
    return {
        "weights": mean,
        "weights_spread": mean.amax() - mean.amin() if mean.shape[0] else mean.sum(),
        "weights_video": weights.video,
        "weights_audio": weights.audio,
        "budgets_video": kept.video,
        "budgets_audio": kept.audio,
        "plain": plain,
    }

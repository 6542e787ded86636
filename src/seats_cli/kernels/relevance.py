"""Stage II's budgets and choice, in Triton: four launches for what torch takes nearly two hundred for.

``selection.relevance`` says what is computed, and computes the same in torch. Sums are taken in another order, in
float64; all else is the same arithmetic. A slot is a (modality, window) pair: T of video, then T of audio.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

_BLOCK = 1024
_RANKED = 32
_AGAINST = 256


@triton.jit
def _slots(modality, window, tokens, n_tokens, n_windows):
    """Slot of each token; -1: text, or past the sequence."""
    inside = tokens < n_tokens
    kind = tl.load(modality + tokens, mask=inside, other=0).to(tl.int32)
    at = tl.load(window + tokens, mask=inside, other=0).to(tl.int32)
    return tl.where(kind > 0, (kind - 1) * n_windows + at, -1)


@triton.jit(do_not_specialize=["n_tokens", "n_windows"])
def measure(scores, modality, window, sums, counts, n_tokens, n_windows, BLOCK: tl.constexpr):
    """Tokens of one slot, and the sum of their scores."""
    slot = tl.program_id(0)
    total, count = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.int32)
    for first in range(0, n_tokens, BLOCK):
        tokens = first + tl.arange(0, BLOCK)
        mine = _slots(modality, window, tokens, n_tokens, n_windows) == slot
        total += tl.load(scores + tokens, mask=mine, other=0.0).to(tl.float64)
        count += mine.to(tl.int32)
    tl.store(sums + slot, tl.sum(total, 0))
    tl.store(counts + slot, tl.sum(count, 0))


@triton.jit
def _round(x):
    """To the nearest integer, halves to the even one, as torch rounds; what is no number to 0."""
    x = tl.where(x == x, x, 0.0)
    low = tl.floor(x)
    over = x - low
    floor = low.to(tl.int64)
    return floor + ((over > 0.5) | ((over == 0.5) & (floor % 2 != 0))).to(tl.int64)


@triton.jit
def _weights(sums, sizes, EVEN: tl.constexpr, STANDARD: tl.constexpr, TEMPERATURE: tl.constexpr):
    """Of every window where the modality is present; they sum to 1."""
    present = sizes > 0
    n_present = tl.maximum(tl.sum(present.to(tl.int64), 0), 1).to(tl.float64)
    if EVEN:
        weights = present.to(tl.float64) / n_present
    else:
        means = sums / tl.maximum(sizes, 1).to(tl.float64)
        if STANDARD:
            centred = means - tl.sum(tl.where(present, means, 0.0), 0) / n_present
            apart = tl.where(present, centred, 0.0)
            means = centred / (tl.sqrt(tl.sum(apart * apart, 0) / n_present) + tl.full((), 1e-12, tl.float64))
        top = tl.max(tl.where(present, means, -float("inf")), 0)
        # A Python number would be rounded to float32 on its way.
        heat = tl.full((), TEMPERATURE, tl.float64)
        weights = tl.where(present, tl.exp(tl.where(present, means - top, 0.0) / heat), 0.0)
        weights = weights / tl.maximum(tl.sum(weights, 0), 1.0)
    return weights


@triton.jit
def _levelled(start, least, most, level, DOWN: tl.constexpr):
    """Budgets brought to a common water level: from above, or from below."""
    if DOWN:
        return tl.maximum(tl.minimum(start, level), least)
    else:
        return tl.minimum(tl.maximum(start, level), most)


@triton.jit
def _settled(start, least, most, budget, highest, steps, DOWN: tl.constexpr):
    """The level that makes the budget, or comes next to it; the remainder goes one each, by index."""
    low, high = highest * 0, highest
    for _ in range(0, steps):
        middle = (low + high + 1 - DOWN) // 2
        total = tl.sum(_levelled(start, least, most, middle, DOWN), 0)
        if DOWN:  # the lowest that still makes it
            short = total < budget
            low, high = tl.where(short & (low < high), middle + 1, low), tl.where(short, high, middle)
        else:  # the highest that does not pass it
            fits = total <= budget
            low, high = tl.where(fits, middle, low), tl.where(fits | (low >= high), high, middle - 1)
    given = _levelled(start, least, most, low, DOWN)
    rest = tl.sum(given, 0) - budget
    if DOWN:
        open_to, sign = (given == low) & (given > least), -1
    else:
        open_to, sign, rest = (given == low) & (given < most), 1, -rest
    one_each = open_to & (tl.cumsum(open_to.to(tl.int64), 0) <= rest)
    return given + sign * one_each.to(tl.int64)


@triton.jit
def _window_budgets(weights, video, audio, budget, highest, steps):
    """``relevance.window_budgets``."""
    size = video + audio
    least = (video > 0).to(tl.int64) + (audio > 0).to(tl.int64)
    some = (size > 0).to(tl.int64)
    least = tl.where(tl.sum(least, 0) <= budget, least, tl.where(tl.sum(some, 0) <= budget, some, 0))
    start = tl.minimum(tl.maximum(_round(weights * budget.to(tl.float64)), least), size)
    cut = _settled(start, least, size, budget, highest, steps, True)
    filled = _settled(start, least, size, budget, highest, steps, False)
    return tl.where(tl.sum(start, 0) > budget, cut, filled)


@triton.jit
def _video_budgets(windows, video_part, audio_part, video, audio, share_of_none):
    """``relevance.modality_budgets``; what is not video is audio."""
    parts = video_part + audio_part
    share = tl.where(parts > 0, video_part / tl.where(parts > 0, parts, 1.0), share_of_none)
    one_each = ((video > 0) & (audio > 0) & (windows >= 2)).to(tl.int64)
    most = tl.minimum(video, windows - one_each)
    to_video = tl.minimum(tl.maximum(_round(share * windows.to(tl.float64)), one_each), most)
    return windows - tl.minimum(windows - to_video, audio)


@triton.jit(do_not_specialize=["n_windows", "budget", "budget_video", "budget_audio", "highest", "steps"])
def share(
    sums, counts, weights, spread, limits, plain, n_windows, budget, budget_video, budget_audio, highest, steps,
    EVEN: tl.constexpr, STANDARD: tl.constexpr, TEMPERATURE: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Weights of all windows (video, audio, mean) and what each slot may keep; of slot 0 and T all, if plain."""
    t = tl.arange(0, SIZE)
    here = t < n_windows
    video = tl.load(counts + t, mask=here, other=0).to(tl.int64)
    audio = tl.load(counts + n_windows + t, mask=here, other=0).to(tl.int64)
    video_sums = tl.load(sums + t, mask=here, other=0.0)
    audio_sums = tl.load(sums + n_windows + t, mask=here, other=0.0)
    w_video = _weights(video_sums, video, EVEN, STANDARD, TEMPERATURE)
    w_audio = _weights(audio_sums, audio, EVEN, STANDARD, TEMPERATURE)
    mean = (w_video + w_audio) / 2
    tl.store(weights + t, w_video, mask=here)
    tl.store(weights + n_windows + t, w_audio, mask=here)
    tl.store(weights + 2 * n_windows + t, mean, mask=here)
    widest = tl.max(tl.where(here, mean, -float("inf")), 0)
    tl.store(spread, widest - tl.min(tl.where(here, mean, float("inf")), 0))

    budget, budget_video = budget.to(tl.int64), budget_video.to(tl.int64)
    windows = _window_budgets(mean, video, audio, budget, highest.to(tl.int64), steps)
    part_video, part_audio = budget_video.to(tl.float64), budget_audio.to(tl.float64)
    share_of_none = part_video / (part_video + part_audio)
    to_video = _video_budgets(windows, w_video * part_video, w_audio * part_audio, video, audio, share_of_none)
    to_audio = windows - to_video

    n_video, n_audio = tl.sum(video, 0), tl.sum(audio, 0)
    n_present = tl.sum((video + audio > 0).to(tl.int64), 0)
    is_plain = (n_present <= 1) | (n_video == 0) | (n_audio == 0)
    all_audio = tl.minimum(budget - tl.minimum(n_video, budget_video), n_audio)
    to_video = tl.where(is_plain, tl.where(t == 0, budget - all_audio, 0), to_video)
    to_audio = tl.where(is_plain, tl.where(t == 0, all_audio, 0), to_audio)
    tl.store(limits + t, to_video.to(tl.int32), mask=here)
    tl.store(limits + n_windows + t, to_audio.to(tl.int32), mask=here)
    tl.store(plain, is_plain)


@triton.jit
def _keys(scores, tokens, n_tokens):
    """Scores as they are ordered: what is no number comes first, so that every token has a place of its own."""
    found = tl.load(scores + tokens, mask=tokens < n_tokens, other=0.0)
    return tl.where(found == found, found, float("inf"))


@triton.jit(do_not_specialize=["n_tokens", "n_windows"])
def stay(
    scores, modality, window, limits, plain, stays, n_tokens, n_windows,
    BLOCK: tl.constexpr, OTHER: tl.constexpr,
):  # fmt: skip
    """Whether a token stays: fewer of its slot (if plain: of its modality) come before it than the slot keeps."""
    width = tl.where(tl.load(plain), n_windows, 1)
    tokens = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    slot = _slots(modality, window, tokens, n_tokens, n_windows)
    group, own = slot // width, _keys(scores, tokens, n_tokens)
    before = tl.zeros([BLOCK], tl.int32)
    for first in range(0, n_tokens, OTHER):
        others = first + tl.arange(0, OTHER)
        slots, keys = _slots(modality, window, others, n_tokens, n_windows), _keys(scores, others, n_tokens)
        rivals = (slots >= 0)[None, :] & (group[:, None] == (slots // width)[None, :])
        ahead = keys[None, :] > own[:, None]
        level = (keys[None, :] == own[:, None]) & (others[None, :] < tokens[:, None])
        before += tl.sum((rivals & (ahead | level)).to(tl.int32), 1)
    limit = tl.load(limits + group * width, mask=slot >= 0, other=1)
    tl.store(stays + tokens, ((slot < 0) | (before < limit)).to(tl.int8), mask=tokens < n_tokens)


@triton.jit(do_not_specialize=["n_tokens", "n_windows"])
def collect(modality, window, stays, indices, kept, n_tokens, n_windows, BLOCK: tl.constexpr):
    """Tokens that stay, counted per slot; one more program writes which they are, ascending."""
    slot = tl.program_id(0)
    if slot < 2 * n_windows:
        count = tl.zeros([BLOCK], tl.int64)
        for first in range(0, n_tokens, BLOCK):
            tokens = first + tl.arange(0, BLOCK)
            mine = _slots(modality, window, tokens, n_tokens, n_windows) == slot
            count += tl.load(stays + tokens, mask=mine, other=0).to(tl.int64)
        tl.store(kept + slot, tl.sum(count, 0))
    else:
        done = slot * 0
        for first in range(0, n_tokens, BLOCK):
            tokens = first + tl.arange(0, BLOCK)
            here = tl.load(stays + tokens, mask=tokens < n_tokens, other=0).to(tl.int32)
            tl.store(indices + done + tl.cumsum(here, 0) - 1, tokens.to(tl.int64), mask=here > 0)
            done += tl.sum(here, 0)


def share_warps(size: int) -> int:
    """Warps of the one program that has all windows in its registers."""
    return min(max(size // 128, 1), 16)


@dataclass(frozen=True, slots=True)
class Drop:
    """What a drop is to leave, and how.

    Attributes:
        n_windows: T, from 1 to ``MOST_WINDOWS``.
        budget: B, from 1 to all tokens but text.
        budget_video: B_v.
        budget_audio: B_a.
        highest: No window's budget is above this.
        n_text: Text tokens.
        temperature: Of the window softmax.
        even: Whether all windows weigh alike.
        standard: Whether the windows' means are standardised.
    """

    n_windows: int
    budget: int
    budget_video: int
    budget_audio: int
    highest: int
    n_text: int
    temperature: float
    even: bool
    standard: bool


def select(
    scores: torch.Tensor, modality: torch.Tensor, window: torch.Tensor, drop: Drop
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """What ``selection.relevance.select_relevant`` gives.

    Args:
        scores: Float32 ``[S]``.
        modality: Integers ``[S]``: 0 is text, 1 video, 2 audio.
        window: Int64 ``[S]``.
        drop: What is wanted.

    Returns:
        Tokens that stay, int64 ``[n_text + B]``, ascending; and the trace.
    """
    n_tokens, n_windows, device = scores.shape[0], drop.n_windows, scores.device
    scores, modality, window = (one.contiguous() for one in (scores, modality, window))
    # Each by itself: what starts where another ends has an alignment of its own, and is compiled for anew.
    sums = torch.empty(2 * n_windows, dtype=torch.float64, device=device)
    weights = torch.empty(3, n_windows, dtype=torch.float64, device=device)
    spread = torch.empty((), dtype=torch.float64, device=device)
    counts = torch.empty(2 * n_windows, dtype=torch.int32, device=device)
    limits = torch.empty_like(counts)
    plain = torch.empty((), dtype=torch.bool, device=device)
    stays = torch.empty(n_tokens, dtype=torch.int8, device=device)
    indices = torch.empty(drop.n_text + drop.budget, dtype=torch.int64, device=device)
    kept = torch.empty(2, n_windows, dtype=torch.int64, device=device)
    n, per_slot, exact = (n_tokens, n_windows), (2 * n_windows,), {"enable_fp_fusion": False}
    size = max(16, triton.next_power_of_2(n_windows))
    how = {"EVEN": drop.even, "STANDARD": drop.standard, "TEMPERATURE": drop.temperature, "SIZE": size}
    totals = (drop.budget, drop.budget_video, drop.budget_audio)
    levels = (drop.highest, (drop.highest + 1).bit_length())
    parts = (scores, modality, window)
    # Triton launches on the current device, whatever its arguments are on.
    with torch.cuda.device_of(scores):
        measure[per_slot](*parts, sums, counts, *n, BLOCK=_BLOCK, **exact)
        found = (sums, counts, weights, spread, limits, plain, n_windows, *totals, *levels)
        share[(1,)](*found, **how, num_warps=share_warps(size), **exact)
        blocks = (triton.cdiv(n_tokens, _RANKED),)
        stay[blocks](*parts, limits, plain, stays, *n, BLOCK=_RANKED, OTHER=_AGAINST, **exact)
        collect[(2 * n_windows + 1,)](modality, window, stays, indices, kept, *n, BLOCK=_BLOCK, **exact)
    return indices, {
        "weights": weights[2],
        "weights_spread": spread,
        "weights_video": weights[0],
        "weights_audio": weights[1],
        "budgets_video": kept[0],
        "budgets_audio": kept[1],
        "plain": plain,
    }

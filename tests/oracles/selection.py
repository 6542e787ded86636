"""SEATS selection, one token at a time: slow loops written from the description of the method, for the tests.

Nothing here is shared with the package. Modalities: 0 text, 1 video, 2 audio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

TEXT, VIDEO, AUDIO = 0, 1, 2


def level_in_layers(
    ratio: float, n_layers: int, drops: Sequence[int], scale: float, stages: str = "123"
) -> list[float]:
    """The keep ratio of every layer, delta found by bisection on the average."""
    if stages == "1":
        return [ratio] * n_layers

    def layers(delta: float) -> list[float]:
        found = []
        level, step = min(scale * ratio, 1.0), delta
        for layer in range(n_layers):
            if layer in drops[:3]:
                level -= step
                step *= math.e
            if layer == drops[3] and stages == "123":
                level = 0.0
            found.append(level)
        return found

    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if sum(layers(middle)) / n_layers > ratio:
            low = middle
        else:
            high = middle
    return layers(low)


def stage_one(x: np.ndarray, saliency: np.ndarray, keep: int) -> list[int]:
    """Kept positions of one window, in the order of picking; in order of place if all are kept."""
    n = len(x)
    if keep == n:
        return list(range(n))
    unit = []
    for row in x.astype(np.float32):
        norm = np.sqrt(np.sum(row * row, dtype=np.float32))
        unit.append(row / norm if norm > 0 else row)

    def distance(i: int, j: int) -> float:
        return float((np.float32(1) - np.dot(unit[i], unit[j])) * np.float32(saliency[j]))

    picked: list[int] = []
    while len(picked) < keep:
        best, best_value = -1, -math.inf
        for j in range(n):
            if j in picked:
                continue
            others = picked if picked else [i for i in range(n) if i != j]
            value = min(distance(i, j) for i in others)
            if value > best_value:
                best, best_value = j, value
        picked.append(best)
    return picked


def sizes(modality: Sequence[int], window: Sequence[int], kind: int, n_windows: int) -> list[int]:
    """Tokens of one modality in each window."""
    return [
        sum(1 for m, w in zip(modality, window, strict=True) if m == kind and w == t) for t in range(n_windows)
    ]


def window_weights(
    scores: Sequence[float],
    modality: Sequence[int],
    window: Sequence[int],
    *,
    kind: int,
    n_windows: int,
    temperature: float,
    norm: str,
) -> list[float]:
    """Softmax over the windows that have the modality."""
    means: dict[int, float] = {}
    for t in range(n_windows):
        inside = [float(s) for s, m, w in zip(scores, modality, window, strict=True) if m == kind and w == t]
        if inside:
            means[t] = sum(inside) / len(inside)
    if norm == "standard" and means:
        centre = sum(means.values()) / len(means)
        spread = math.sqrt(sum((v - centre) ** 2 for v in means.values()) / len(means))
        means = {t: (v - centre) / (spread + 1e-12) for t, v in means.items()}
    if not means:
        return [0.0] * n_windows
    top = max(means.values())
    weights = {t: math.exp((v - top) / temperature) for t, v in means.items()}
    total = sum(weights.values())
    return [weights.get(t, 0.0) / total for t in range(n_windows)]


def even_weights(modality: Sequence[int], window: Sequence[int], *, kind: int, n_windows: int) -> list[float]:
    """The same for each window that has the modality."""
    there = {w for m, w in zip(modality, window, strict=True) if m == kind}
    return [1 / len(there) if t in there else 0.0 for t in range(n_windows)]


def window_budgets(weights: Sequence[float], video: Sequence[int], audio: Sequence[int], budget: int) -> list[int]:
    """Rounded, clamped, then put right one token at a time."""
    n = len(weights)
    size = [v + a for v, a in zip(video, audio, strict=True)]
    least = [(v > 0) + (a > 0) for v, a in zip(video, audio, strict=True)]
    if sum(least) > budget:
        least = [int(s > 0) for s in size]
    if sum(least) > budget:
        least = [0] * n
    given = [min(max(round(w * budget), low), s) for w, low, s in zip(weights, least, size, strict=True)]
    while sum(given) > budget:
        candidates = [t for t in range(n) if given[t] > least[t]]
        given[min(candidates, key=lambda t: (-given[t], t))] -= 1
    while sum(given) < budget:
        candidates = [t for t in range(n) if given[t] < size[t]]
        given[min(candidates, key=lambda t: (given[t], t))] += 1
    return given


def share_window(
    given: int,
    *,
    w_video: float,
    w_audio: float,
    video: int,
    audio: int,
    budget_video: int,
    budget_audio: int,
) -> tuple[int, int]:
    """One window's budget between its modalities."""
    denominator = w_video * budget_video + w_audio * budget_audio
    if denominator > 0:
        share = w_video * budget_video / denominator
    else:
        share = budget_video / (budget_video + budget_audio)
    to_video = min(round(share * given), video)
    if video and audio and given >= 2:
        to_video = max(1, min(to_video, given - 1))
    to_audio = min(given - to_video, audio)
    return given - to_audio, to_audio


def top(scores: Sequence[float], candidates: Sequence[int], n: int) -> list[int]:
    """The n candidates of the highest score; of equals the first."""
    return sorted(candidates, key=lambda j: (-scores[j], j))[:n]


def stage_two(
    scores: Sequence[float],
    modality: Sequence[int],
    window: Sequence[int],
    *,
    n_windows: int,
    budget_video: int,
    budget_audio: int,
    weights_video: Sequence[float],
    weights_audio: Sequence[float],
) -> list[int]:
    """Indices that stay, ascending, given the windows' softmax weights."""
    everything = range(len(scores))
    text = [j for j in everything if modality[j] == TEXT]
    budget = budget_video + budget_audio
    if budget >= len(scores) - len(text):
        return list(everything)
    video, audio = (sizes(modality, window, kind, n_windows) for kind in (VIDEO, AUDIO))
    kept = list(text)
    if sum(v + a > 0 for v, a in zip(video, audio, strict=True)) == 1 or not sum(video) or not sum(audio):
        to_video = min(budget_video, sum(video))
        to_audio = min(budget - to_video, sum(audio))
        to_video = budget - to_audio
        for kind, n in ((VIDEO, to_video), (AUDIO, to_audio)):
            kept += top(scores, [j for j in everything if modality[j] == kind], n)
        return sorted(kept)
    weights = [(v + a) / 2 for v, a in zip(weights_video, weights_audio, strict=True)]
    for t, given in enumerate(window_budgets(weights, video, audio, budget)):
        if not given:
            continue
        shares = share_window(
            given,
            w_video=weights_video[t],
            w_audio=weights_audio[t],
            video=video[t],
            audio=audio[t],
            budget_video=budget_video,
            budget_audio=budget_audio,
        )
        for kind, n in zip((VIDEO, AUDIO), shares, strict=True):
            kept += top(scores, [j for j in everything if modality[j] == kind and window[j] == t], n)
    return sorted(kept)

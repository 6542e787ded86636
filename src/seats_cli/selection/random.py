"""Random tokens before the LLM: the baseline that a choice must beat (SEATS Sec. 5.1).

Of each modality ``round(R n)`` of the clip's ``n`` tokens, at least 1, every subset of that size as likely as any
other; no windows, and no drop later, so the ratio holds in every layer. (The public code rounds down, and has no
seed.)

The draw follows from ``selection_seed``, the modality and the clip. The clip enters by a sketch of its embeddings:
with signs ``e_i`` of plus or minus 1, the same for all clips, feature ``j`` gives ``sum_i e_i x_ij / |x_j|``, a
number of the size of 1, which is rounded to 1/64. So clips of one shape, or one clip with its windows in another
order, have draws of their own; the same clip has the same draw whatever is asked about it. Rounding errors of
float32, such as between sizes of batches, hardly ever change it; another precision of the encoders may.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from seats_cli.kernels.transfer import to_device
from seats_cli.layout import Modality
from seats_cli.selection.base import EncodedWindows, Kept, LayerKept, LayerState, SelectionMethod

SKETCH_FEATURES = 16
SKETCH_STEPS = 64


def sketch(embeddings: Tensor) -> list[int]:
    """What tells a clip from others, coarse enough to be the same after a rounding error.

    Args:
        embeddings: ``[n, d]``, any float type.

    Returns:
        One integer, not negative, for each of the first ``min(d, 16)`` features.
    """
    x = embeddings[:, :SKETCH_FEATURES].double().cpu().numpy()
    signs = np.random.default_rng(0).choice((-1.0, 1.0), size=len(x))
    norms = np.sqrt(np.square(x).sum(axis=0))
    with np.errstate(invalid="ignore"):
        values = np.nan_to_num((signs[:, None] * x).sum(axis=0) / np.where(norms > 0, norms, 1.0))
    # A seed is made of numbers that are not negative.
    return [round(SKETCH_STEPS * value) % 2**32 for value in values.tolist()]


class Random(SelectionMethod):
    """Draws from the whole clip, each modality by itself; asks the device once for each, for the sketch."""

    name: ClassVar[str] = "random"
    summary: ClassVar[str] = "tokens drawn at random before the LLM, the same in every layer"
    needs_saliency: ClassVar[bool] = False
    whole_clip: ClassVar[bool] = True

    @property
    def drop_before_layer(self) -> tuple[int, ...]:
        """None."""
        return ()

    def before_llm(self, windows: EncodedWindows) -> Kept:
        """The planned number of them.

        Raises:
            ValueError: These are not all windows of the plan.
        """
        of_video = windows.modality is Modality.VIDEO
        planned = self.plan.n_video if of_video else self.plan.n_audio
        n = sum(windows.window_sizes)
        if n != planned:
            raise ValueError(f"{n} tokens were given; the plan is for {planned}")
        entropy = [self.options.selection_seed, int(windows.modality), *sketch(windows.embeddings)]
        n_kept = self.plan.entering[0 if of_video else 1]
        drawn = np.sort(np.random.default_rng(entropy).choice(n, size=n_kept, replace=False))
        window = np.repeat(np.arange(len(windows.window_sizes)), windows.window_sizes)
        counts = np.bincount(window[drawn], minlength=len(windows.window_sizes))
        return Kept(to_device(drawn, windows.embeddings.device), None, tuple(counts.tolist()))

    def before_layer(self, state: LayerState) -> LayerKept:
        """All of them."""
        return LayerKept(torch.arange(state.modality.shape[0], device=state.modality.device))

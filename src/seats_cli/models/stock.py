"""The families' own processors of transformers, made from a model's dimensions: the stock way, to compare with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seats_cli.models.base import OmniModel
from seats_cli.models.preprocess import AUDIO_RATE_HZ

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

MAX_SECONDS = 300
"""Sound that the feature extractor of Qwen2.5-Omni pads to, and cuts at."""


@dataclass(frozen=True, slots=True)
class StockFeatures:
    """What a stock forward takes of a clip, on the host.

    Attributes:
        patches: float32 [n, patch_dim]; None without picture.
        grid: (grids, patch rows, patch columns); None without picture.
        mel: float32 [bins, frames]; None without sound.
    """

    patches: torch.Tensor | None
    grid: tuple[int, int, int] | None
    mel: torch.Tensor | None


class StockProcessor:
    """The video processor and the feature extractor that the family's processor calls.

    Tokenising, which the stock processor does as well, is left out: some milliseconds in favour of the stock way.

    Args:
        model: Whose dimensions.
    """

    def __init__(self, model: OmniModel) -> None:
        from transformers import WhisperFeatureExtractor
        from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

        geometry, norm, side = model.spec.geometry, model.pixel_norm, model.spec.pixel_factor
        self.video: Any = Qwen2VLVideoProcessor(
            patch_size=geometry.vision.patch_size,
            temporal_patch_size=geometry.vision.temporal_patch_size,
            merge_size=geometry.vision.merge_size,
            image_mean=list(norm.mean),
            image_std=list(norm.std),
            # The frames come in their final size.
            size={"shortest_edge": side**2, "longest_edge": 2**31},
        )
        self.sound: Any = WhisperFeatureExtractor(
            feature_size=geometry.audio.n_mel_bins, chunk_length=MAX_SECONDS, sampling_rate=AUDIO_RATE_HZ
        )
        # Qwen2.5-Omni pads to the longest sound it takes, Qwen3-Omni takes any.
        self._padding: Mapping[str, Any] = (
            {"padding": True, "truncation": False} if model.spec.mirrored_sound_end else {"padding": "max_length"}
        )

    def __call__(self, frames: torch.Tensor | None, waveform: npt.NDArray[np.float32] | None) -> StockFeatures:
        """Make the inputs.

        Args:
            frames: [n, 3, height, width] as ``process_mm_info`` gives them; None: no picture.
            waveform: [n] at 16 kHz; None: no sound.
        """
        patches = grid = mel = None
        if frames is not None:
            # Said, or newer versions tell users about it.
            said = {"cap_pixels_per_frame": False} if hasattr(self.video, "cap_pixels_per_frame") else {}
            seen = self.video(videos=[frames], do_sample_frames=False, return_tensors="pt", **said)
            patches = seen["pixel_values_videos"]
            n_grids, rows, columns = (int(n) for n in seen["video_grid_thw"][0])
            grid = (n_grids, rows, columns)
        if waveform is not None:
            heard = self.sound(
                [waveform],
                sampling_rate=AUDIO_RATE_HZ,
                return_attention_mask=True,
                return_tensors="pt",
                **self._padding,
            )
            mel = heard["input_features"][0][:, : int(heard["attention_mask"][0].sum())]
        return StockFeatures(patches, grid, mel)

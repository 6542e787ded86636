"""What the selection did, as arrays in one .npz file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from seats_cli.outputs import cannot_write, check_output, whole

if TYPE_CHECKING:
    from seats_cli.layout import Layout
    from seats_cli.selection.schedule import TokenPlan


def check_trace_path(path: Path) -> None:
    """Find out before the work, not after it, that the file cannot be written.

    Raises:
        UsageError: It cannot be.
    """
    check_output(path, "--trace")


def write_trace(path: Path, noted: dict[str, torch.Tensor], layout: Layout, plan: TokenPlan) -> None:
    """Write the layout, the levels, and per stage the kept rows, scores, window weights and budgets.

    The file appears whole or not at all.

    Args:
        path: Of the .npz file.
        noted: Tensors by name, such as ``before_layer_16/scores``.
        layout: The unpruned sequence.
        plan: Who stays in it.

    Raises:
        UsageError: The file cannot be written.
    """
    arrays = {
        name: value.detach().float().cpu().numpy() if value.is_floating_point() else value.cpu().numpy()
        for name, value in noted.items()
    }
    arrays |= {
        "layout/ids": layout.ids,
        "layout/modality": layout.modality,
        "layout/window": layout.window,
        "layout/grid": layout.grid,
        "layout/positions": layout.positions,
        "plan/video_levels": np.array(plan.video.levels),
        "plan/audio_levels": np.array(plan.audio.levels),
        "plan/drop_before_layer": np.array(plan.drop_before_layer, dtype=np.int64),
        "plan/stage_one_video": np.array(plan.stage_one_video, dtype=np.int64),
        "plan/stage_one_audio": np.array(plan.stage_one_audio, dtype=np.int64),
        "plan/stage_budgets": np.array(plan.stage_budgets, dtype=np.int64).reshape(-1, 2),
    }
    try:
        with whole(path) as part, part.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise cannot_write(path, "--trace", error) from None

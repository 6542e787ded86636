"""Kernels of the selection's own work, written in Triton, and what every room shares to keep a device busy.

Each kernel has a plain torch implementation of the same result where it is used: on the CPU, on other devices, and
wherever Triton is missing or cannot compile. This file says which of the two it is; the others are imported where
they are used, and only then.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

INTERPRET = "TRITON_INTERPRET"
"""Set to 1 before Triton is imported, its kernels run on the CPU, as tests have it: slow, but the same code."""
LONGEST_WINDOW = 4096
"""Tokens of the longest window that a program of ``greedy`` can hold; torch chooses in longer ones."""
MOST_WINDOWS = 4096
"""As many ``relevance`` weighs in one program."""
MOST_TOKENS = 1 << 16
"""Longer sequences are sorted by torch: ``relevance`` compares each token with all others."""
_LEAST_CAPABILITY = (8, 0)


def available(device: torch.device) -> bool:
    """Whether the Triton kernels run on ``device``; if not, the torch implementation does.

    The first question about a GPU compiles a kernel of one line and launches it: a Triton that is there but has
    no compiler to work with is found out here. Nothing is waited for.
    """
    return why_not(device) is None


def why_not(device: torch.device) -> str | None:
    """Why the Triton kernels do not run on ``device``; None: they do."""
    if device.type == "cpu":
        return None if os.environ.get(INTERPRET) == "1" else "they need a GPU"
    if device.type != "cuda":
        return f"they are not written for {device.type}"
    return _trial(device)


@cache
def _trial(device: torch.device) -> str | None:
    import torch

    if not torch.cuda.is_available():
        return "they need a GPU"
    if torch.version.cuda is None:
        return "they are written for NVIDIA"
    if torch.cuda.get_device_capability(device) < _LEAST_CAPABILITY:
        return "this GPU is too old for them"
    try:
        from seats_cli.kernels.trial import launch

        launch(device)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None

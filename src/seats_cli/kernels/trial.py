"""The least kernel there is: whether Triton compiles and launches at all."""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def _one(out):
    tl.store(out, 1)


def launch(device: torch.device) -> torch.Tensor:
    """An int32 1, written on ``device`` by Triton.

    Raises:
        Exception: Whatever Triton raises where it cannot.
    """
    out = torch.zeros(1, dtype=torch.int32, device=device)
    # Triton launches on the current device, whatever its arguments are on.
    with torch.cuda.device_of(out):
        _one[(1,)](out, enable_fp_fusion=False)
    return out

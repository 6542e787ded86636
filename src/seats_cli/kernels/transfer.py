"""Numbers of the host brought to a device without making anybody wait."""

from __future__ import annotations

import numpy as np
import torch


def to_device(host: np.ndarray, device: torch.device) -> torch.Tensor:
    """A copy on ``device``, queued behind the work that is there already.

    An ordinary copy waits for all of that work; so may a queued one out of memory that the system can page out.

    Args:
        host: Any shape; not changed before the device has read it.
        device: Where it goes; the CPU shares the memory.
    """
    tensor = torch.from_numpy(host)
    if device.type == "cuda" and torch.cuda.is_available():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)

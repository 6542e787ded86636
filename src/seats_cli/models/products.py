"""A convolution whose kernel covers all of its input is a matrix product; as one it is computed much faster.

The vision towers cut their patches out beforehand and still convolve each, in three dimensions. In half precision
alone it is made a product: float32 is where we are compared with transformers, to the rounding of its own order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode


class _Products(TorchFunctionMode):
    """While it is on, such convolutions are products, in half precision; all else is as it was."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv3d and not kwargs and len(args) == 7 and _covers(*args):
            inputs, weight, bias = args[:3]
            return linear(inputs.flatten(1), weight.flatten(1), bias)[:, :, None, None, None]
        return func(*args, **(kwargs or {}))


def _covers(
    inputs: torch.Tensor, weight: torch.Tensor, _: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> bool:
    """Whether there is one place for the kernel."""
    if inputs.dtype not in (torch.bfloat16, torch.float16):
        return False
    whole = inputs.ndim == 5 and inputs.shape[1:] == weight.shape[1:] and groups == 1
    return whole and tuple(padding) == (0, 0, 0) and tuple(dilation) == (1, 1, 1)


@contextmanager
def as_products(module: torch.nn.Module) -> Iterator[None]:
    """Compute a module's convolutions so, where they are, whenever it is called while the context lasts.

    Args:
        module: Such as the patch embedding of a vision tower; nothing stays on it after the context.
    """
    on: list[_Products] = []

    def begin(*_: Any) -> None:
        on.append(_Products())
        on[-1].__enter__()  # type: ignore[no-untyped-call]

    def end(*_: Any) -> None:
        on.pop().__exit__(None, None, None)  # type: ignore[no-untyped-call]

    handles = [module.register_forward_pre_hook(begin), module.register_forward_hook(end, always_call=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

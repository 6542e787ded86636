"""Convolutions that are matrix products: the same numbers, only where asked for, and nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from seats_cli.models.products import as_products


class Patches(torch.nn.Module):
    """As the towers have it."""

    def __init__(self, stride: tuple[int, int, int] = (2, 4, 4), *, bias: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.proj = torch.nn.Conv3d(3, 16, (2, 4, 4), stride=stride, bias=bias)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return self.proj(patches)


def kinds(module: torch.nn.Module, patches: torch.Tensor) -> set[str]:
    """Operations that multiply."""
    with FlopCounterMode(display=False) as counter:
        module(patches)
    return {str(op) for op in counter.get_flop_counts()["Global"]}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_numbers_are_those_of_the_convolution(bias: bool, dtype: torch.dtype) -> None:
    module = Patches(bias=bias).to(dtype)
    patches = torch.randn(50, 3, 2, 4, 4, dtype=dtype)
    with torch.inference_mode():
        expected = module(patches)
        with as_products(module):
            found = module(patches)
    assert found.shape == expected.shape == (50, 16, 1, 1, 1)
    if dtype == torch.float32:
        assert torch.equal(found, expected), "not where transformers is the measure"
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


def test_it_multiplies_as_often_by_another_operation() -> None:
    module, patches = Patches().bfloat16(), torch.randn(50, 3, 2, 4, 4).bfloat16()
    with torch.inference_mode():
        assert all("conv" in kind for kind in kinds(module, patches))
        with as_products(module):
            assert not any("conv" in kind for kind in kinds(module, patches))
        assert all("conv" in kind for kind in kinds(module, patches))
        counts = []
        for context in (as_products(torch.nn.Identity()), as_products(module)):
            with context, FlopCounterMode(display=False) as counter:
                module(patches)
            counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] == 2 * 50 * 16 * 96


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (Patches(stride=(1, 1, 1)), (5, 3, 4, 8, 8)),
        (torch.nn.Conv3d(4, 4, (1, 2, 2), groups=2), (5, 4, 1, 2, 2)),
        (torch.nn.Conv3d(3, 4, (2, 2, 2), padding=1), (5, 3, 2, 2, 2)),
        (torch.nn.Conv2d(3, 4, 2), (5, 3, 2, 2)),
    ],
)
def test_other_convolutions_stay(module: torch.nn.Module, shape: tuple[int, ...]) -> None:
    module, patches = module.bfloat16(), torch.randn(shape).bfloat16()
    with torch.inference_mode():
        expected = module(patches)
        with as_products(module):
            assert torch.equal(module(patches), expected)


def test_nothing_stays_also_after_an_exception() -> None:
    module = Patches().bfloat16()
    with pytest.raises(RuntimeError), as_products(module):
        module(torch.randn(5, 2, 2, 4, 4).bfloat16())
    assert not module._forward_hooks
    assert not module._forward_pre_hooks
    patches = torch.randn(5, 3, 2, 4, 4).bfloat16()
    assert any("conv" in kind for kind in kinds(module, patches))
    with torch.inference_mode(), as_products(module):
        assert not any("conv" in kind for kind in kinds(module, patches))

"""The encoders' attention on a GPU: torch's ragged kernel, and sdpa where it does not serve, against float32."""

from __future__ import annotations

import pytest
import torch

from seats_cli.models.chunks import Chunks, attend, grouped


@pytest.mark.parametrize("head_dim", [64, 72, 80])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("lengths", [[64] * 12, [64, 64, 16, 64, 64, 16, 32, 8], [576] * 3, [100, 100, 31]])
@torch.inference_mode()
def test_attend(gpu, head_dim: int, dtype: torch.dtype, lengths: list[int]) -> None:
    generator = torch.Generator().manual_seed(head_dim)
    fused = torch.randn(sum(lengths), 3, 4, head_dim, generator=generator).to(gpu, dtype)
    query, key, value = fused.unbind(1)
    cut, scale = Chunks(lengths, gpu), head_dim**-0.5
    expected = [
        torch.einsum("hij,jhd->ihd", torch.softmax(torch.einsum("ihd,jhd->hij", q, k) * scale, -1), v)
        for q, k, v in zip(*(part.double().split(lengths) for part in (query, key, value)), strict=True)
    ]
    close = {"rtol": 1e-3, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    for function in (attend, grouped):
        got = function(query, key, value, cut, scale)
        torch.testing.assert_close(got.double(), torch.cat(expected), **close)

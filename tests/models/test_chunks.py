"""The encoders' attention in a few calls: equal to transformers' own, which is called chunk by chunk."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from seats_cli import cost
from seats_cli.models import FAMILIES, chunks
from seats_cli.models.chunks import Chunks, attend, grouped, in_chunks
from tests import tiny, tiny_qwen3

GRIDS = {
    "qwen2_5_omni": [(1, 26, 6), (2, 10, 18), (3, 18, 10), (4, 8, 8), (5, 16, 24), (2, 2, 2)],
    "qwen3_omni_moe": [(1, 6, 4), (2, 10, 18), (5, 4, 4), (2, 2, 2)],
}
FRAMES = [200, 5, 333, 331, 800, 1000, 2021]


def make(family: str, seed: int = 1) -> Any:
    checkpoint = tiny if family == "qwen2_5_omni" else tiny_qwen3
    config = checkpoint._config_json(n_layers=5)["thinker_config"]
    return FAMILIES[family](
        checkpoint.tiny_thinker(seed=seed, n_layers=5), None, FAMILIES[family].spec_of("tiny", config)
    )


@pytest.fixture(scope="module", params=list(GRIDS))
def model(request: pytest.FixtureRequest) -> Any:
    return make(request.param)


def patches_for(model: Any, grid: tuple[int, int, int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    vision = model.spec.geometry.vision
    width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    generator = torch.Generator().manual_seed(sum(grid))
    return torch.randn(grid[0] * grid[1] * grid[2], width, generator=generator).to(dtype)


def mel_for(model: Any, frames: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(frames)
    return torch.randn(model.spec.geometry.audio.n_mel_bins, frames, generator=generator).to(dtype)


def stock_video(model: Any, patches: torch.Tensor, grid: tuple[int, int, int]) -> list[torch.Tensor]:
    out = model.towers[0](patches, grid_thw=torch.tensor([grid]))
    return [out.pooler_output, *getattr(out, "deepstack_features", ())]


def stock_audio(model: Any, mel: torch.Tensor) -> torch.Tensor:
    n = torch.tensor([mel.shape[1]])
    out: torch.Tensor = model.towers[1](mel, feature_lens=n).last_hidden_state
    return out


class Operations(TorchDispatchMode):
    """Counts what reaches the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    @property
    def attention(self) -> int:
        return sum(n for name, n in self.seen.items() if "scaled_dot_product" in name)


@contextmanager
def attending(model: Any, name: str) -> Iterator[None]:
    """As a user chose it at load."""
    configs = [tower.config for tower in model.towers]
    for config in configs:
        config._attn_implementation = name
    try:
        yield
    finally:
        for config in configs:
            config._attn_implementation = "sdpa"


@torch.no_grad()
@pytest.mark.parametrize("saliency", [False, True])
def test_encoders_equal_the_stock_ones(model: Any, saliency: bool) -> None:
    for grid in GRIDS[model.model_type]:
        patches = patches_for(model, grid)
        expected = stock_video(model, patches, grid)
        encoded = model.encode_video(patches, grid, saliency=saliency)
        for got, stock in zip([encoded.embeddings, *encoded.deepstack], expected, strict=True):
            torch.testing.assert_close(got, stock, rtol=1e-5, atol=1e-5)
    for frames in FRAMES:
        mel = mel_for(model, frames)
        got = model.encode_audio(mel, saliency=saliency).embeddings
        torch.testing.assert_close(got, stock_audio(model, mel), rtol=1e-5, atol=1e-5)
        assert len(got) == model.audio_tokens(frames)


@torch.no_grad()
@pytest.mark.parametrize("family", GRIDS)
def test_in_half_precision(family: str) -> None:
    model = make(family)
    model.thinker.bfloat16()
    grid, half = GRIDS[family][1], torch.bfloat16
    patches, mel = patches_for(model, grid, half), mel_for(model, 333, half)
    got = model.encode_video(patches, grid, saliency=False).embeddings
    torch.testing.assert_close(got, stock_video(model, patches, grid)[0], rtol=0.05, atol=0.05)
    got = model.encode_audio(mel, saliency=False).embeddings
    torch.testing.assert_close(got, stock_audio(model, mel), rtol=0.05, atol=0.05)


@torch.no_grad()
def test_calls_do_not_grow_with_the_clip(model: Any) -> None:
    """A grid more is a chunk more for transformers, for us nothing; and nobody asks the device for numbers."""
    counted = []
    rows, columns = GRIDS[model.model_type][1][1:]
    for n_grids, frames in ((2, 800), (9, 8 * 800 + 120)):
        patches, mel = patches_for(model, (n_grids, rows, columns)), mel_for(model, frames)
        with Operations() as ours:
            model.encode_video(patches, (n_grids, rows, columns), saliency=False)
            model.encode_audio(mel, saliency=False)
        with Operations() as stock:
            stock_video(model, patches, (n_grids, rows, columns))
            stock_audio(model, mel)
        counted.append((ours, stock))
    (few, few_stock), (many, many_stock) = counted
    geometry = model.spec.geometry
    layers = geometry.vision.depth + geometry.audio.n_layers
    # Of a ragged grid windows have four sizes at most, sound two.
    assert few.attention <= many.attention <= 4 * geometry.vision.depth + 2 * geometry.audio.n_layers
    assert many_stock.attention - few_stock.attention >= 7 * layers
    asked = [ops.seen["_local_scalar_dense"] for ops in (few, many)]
    assert max(asked) <= 8, "a constant per encoder call, of host tensors"


@torch.no_grad()
def test_saliency_is_that_of_the_projected_way(model: Any) -> None:
    """Queries and keys as attention sees them are those that are projected from the last block's input."""
    grid, frames = GRIDS[model.model_type][2], 333
    patches, mel = patches_for(model, grid), mel_for(model, frames)
    unit = model.spec.geometry.vision.merge_size**2
    sizes = [len(patches) // unit]
    sound = [model.audio_tokens(frames)]
    seen = model.encode_video(patches, grid, saliency=True), model.encode_audio(mel, saliency=True)
    with attending(model, "eager"):
        again = model.encode_video(patches, grid, saliency=True), model.encode_audio(mel, saliency=True)
    assert [one.projected for one in (*seen, *again)] == [False, False, True, True]
    for ours, theirs, windows in zip(seen, again, (sizes, sound), strict=True):
        torch.testing.assert_close(ours.embeddings, theirs.embeddings, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            ours.attention_received(windows), theirs.attention_received(windows), rtol=1e-4, atol=1e-4
        )


@torch.no_grad()
@pytest.mark.parametrize("name", ["sdpa", "eager"])
def test_saliency_costs_what_is_said(model: Any, name: str) -> None:
    vision, audio = model.spec.geometry.vision, model.spec.geometry.audio
    grid, frames = (4, 4, 6), 400
    unit = vision.merge_size**2
    with attending(model, name):
        seen = model.encode_video(patches_for(model, grid), grid, saliency=True)
        heard = model.encode_audio(mel_for(model, frames), saliency=True)
    n_tokens, n_sound = 4 * 24 // unit, model.audio_tokens(frames)
    again = name != "sdpa"
    for encoded, sizes, per_token, width, projections in (
        (seen, [n_tokens // 2, n_tokens // 4, n_tokens // 4], unit, vision.hidden, 2 + vision.fused_qkv),
        (heard, [n_sound - 5, 5], audio.positions_per_token, audio.d_model, 2),
    ):
        with FlopCounterMode(display=False) as counter:
            encoded.attention_received(sizes)
        windows = [size * per_token for size in sizes]
        assert counter.get_total_flops() == cost.saliency_flops(windows, width, projections=projections * again)


@torch.no_grad()
def test_nothing_stays_behind(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    grid = GRIDS[model.model_type][1]
    patches = patches_for(model, grid)
    before = stock_video(model, patches, grid)[0]
    modules = {name: set(vars(module)) for name, module in model.thinker.named_modules()}
    monkeypatch.setattr(chunks, "attend", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        model.encode_video(patches, grid, saliency=True)
    with pytest.raises(ZeroDivisionError):
        model.encode_audio(mel_for(model, 300), saliency=True)
    assert [tower.config._attn_implementation for tower in model.towers] == ["sdpa", "sdpa"]
    assert chunks._running.get() is None
    assert modules == {name: set(vars(module)) for name, module in model.thinker.named_modules()}
    assert torch.equal(stock_video(model, patches, grid)[0], before)


@torch.no_grad()
@pytest.mark.parametrize("name", ["eager", "flash_attention_2"])
def test_who_chose_another_kernel_keeps_it(model: Any, name: str) -> None:
    tower = model.towers[0]
    with (
        attending(model, name),
        in_chunks(tower, (), block=tower.blocks[-1], attention=tower.blocks[-1].attn, look=True) as inside,
    ):
        assert tower.config._attn_implementation == name
        assert inside.heads is None
    assert not tower.blocks[-1]._forward_pre_hooks


def test_outside_of_a_call_it_refuses(model: Any) -> None:
    """Better than an answer from the wrong chunks."""
    grid = GRIDS[model.model_type][1]
    chunks._register()
    with attending(model, chunks.NAME), pytest.raises(RuntimeError, match="in_chunks alone"):
        stock_video(model, patches_for(model, grid), grid)


def test_two_threads_behind_the_lock(model: Any) -> None:
    """One runs the stock encoders, one ours: both get their own, time after time."""
    grid = GRIDS[model.model_type][1]
    patches = patches_for(model, grid)
    with torch.no_grad():
        expected = stock_video(model, patches, grid)[0]
    names: dict[str, set[str]] = {"stock": set(), "ours": set()}
    results: list[torch.Tensor] = []
    begin = threading.Barrier(2)

    def work(who: str) -> None:
        begin.wait()
        for _ in range(8):
            with model.encoding, torch.no_grad():
                seen = names[who]
                handle = (
                    model.towers[0]
                    .blocks[-1]
                    .register_forward_pre_hook(
                        lambda module, _, seen=seen: seen.add(module.attn.config._attn_implementation)
                    )
                )
                try:
                    if who == "stock":
                        results.append(stock_video(model, patches, grid)[0])
                    else:
                        results.append(model.encode_video(patches, grid, saliency=False).embeddings)
                finally:
                    handle.remove()

    threads = [threading.Thread(target=work, args=(who,)) for who in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names == {"stock": {"sdpa"}, "ours": {chunks.NAME}}
    assert len(results) == 16
    for result in results:
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "lengths", [[6], [1, 1, 1], [4, 4, 2], [4, 2, 4, 2], [3, 0, 5, 3, 1], [2, 7, 7, 7, 2, 1], [5, 5, 5]]
)
@pytest.mark.parametrize("most", [1, 4 * 2 * 25 * 2, 1 << 30])
def test_grouped_equals_one_by_one(monkeypatch: pytest.MonkeyPatch, lengths: list[int], most: int) -> None:
    monkeypatch.setattr(chunks, "MAP_BYTES", most)
    generator = torch.Generator().manual_seed(len(lengths))
    fused = torch.randn(sum(lengths), 3, 2, 8, generator=generator)
    query, key, value = fused.unbind(1)  # strided, as a fused projection gives them
    expected = []
    for q, k, v in zip(*(part.split(lengths) for part in (query, key, value)), strict=True):
        weights = torch.softmax(torch.einsum("ihd,jhd->hij", q, k) * 0.3, dim=-1)
        expected.append(torch.einsum("hij,jhd->ihd", weights, v))
    cut = Chunks(lengths, query.device)
    for function in (grouped, attend):
        torch.testing.assert_close(
            function(query, key, value, cut, 0.3), torch.cat(expected), rtol=1e-5, atol=1e-6
        )
    assert cut.bounds.tolist() == [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    assert cut.bounds.dtype == torch.int32


def test_neighbours_of_one_length_are_a_view() -> None:
    cut = Chunks([4] * 9 + [2], torch.device("cpu"))
    assert [(n, length) for n, length, _ in cut.groups] == [(1, 2), (9, 4)]
    assert all(isinstance(group.rows, slice) for group in cut.groups)
    mixed = Chunks([4, 2, 4], torch.device("cpu")).groups
    assert mixed[0].rows == slice(4, 6)
    assert isinstance(mixed[1].rows, torch.Tensor)
    assert mixed[1].rows.tolist() == [0, 1, 2, 3, 6, 7, 8, 9]


@torch.no_grad()
def test_flops_of_the_encoders_are_the_same(model: Any) -> None:
    vision, audio = model.spec.geometry.vision, model.spec.geometry.audio
    grid = GRIDS[model.model_type][1]
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as seen:
        model.encode_video(patches_for(model, grid), grid, saliency=True)
    rotary = [
        sum(ops.values()) for name, ops in seen.get_flop_counts().items() if "rotary" in name.rpartition(".")[2]
    ]
    assert seen.get_total_flops() - sum(rotary) == cost.vision_flops(vision, grid[1:], grid[0])
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as heard:
        model.encode_audio(mel_for(model, 333), saliency=True)
    assert heard.get_total_flops() == cost.audio_flops(audio, [333])

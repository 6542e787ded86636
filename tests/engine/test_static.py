"""Steps of fixed shape: the same answers as layer by layer, and nothing asked of the device."""

from __future__ import annotations

import copy
import gc
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from seats_cli.config import GenerationOptions, SelectionOptions
from seats_cli.engine import decode as decoding
from seats_cli.engine.cache import RaggedCache
from seats_cli.engine.decode import EagerSteps, decode
from seats_cli.engine.prefill import prefill
from seats_cli.engine.prepare import lay_out_text
from seats_cli.engine.reading import method_for
from seats_cli.engine.stage_one import select_windows
from seats_cli.engine.static import (
    BLOCK,
    PLAIN_STEPS,
    PLAIN_STEPS_AGAIN,
    SPLIT,
    WORTH_A_GRAPH,
    StaticSteps,
    attention_at_once,
    attention_side_by_side,
)
from seats_cli.engine.thinking import prompt_of
from seats_cli.errors import TimeLimitError
from seats_cli.models.loading import LoadedModel
from seats_cli.timelimit import time_limit
from seats_cli.timing import Stopwatch
from tests.array_clip import stock_of
from tests.engine.test_laws import QUESTION, SHAPES, run
from tests.tiny_stock import stock_generate

VARIANTS = {
    "full": SelectionOptions(method="full"),
    "staged": SelectionOptions(trr=0.3),
    "text": SelectionOptions(trr=0.3, kv_cache="text"),
    "least": SelectionOptions(trr=0.1),
}
N_TOKENS = 50


class FakeLane:
    """A GPU as the host sees it: work goes there in order, tokens come back when asked for."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses, self.inside, self.left = refuses, False, 0
        self.recorded = self.replayed = 0
        self.waiting: list[torch.Tensor] = []

    @contextmanager
    def used(self) -> Iterator[None]:
        self.inside = True
        try:
            yield
        finally:
            self.inside, self.left = False, self.left + 1

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        assert self.inside
        if self.refuses:
            raise RuntimeError(self.refuses)
        self.recorded += 1

        def replay() -> None:
            assert self.inside
            self.replayed += 1
            work()

        return replay

    def mail(self) -> FakeLane:
        return self

    def post(self, token: torch.Tensor) -> None:
        self.waiting.append(token.clone())
        assert len(self.waiting) <= 2, "two slots are enough"

    def take(self) -> int:
        return int(self.waiting.pop(0))


def filled(loaded: LoadedModel, variant: str = "staged", spare: int = N_TOKENS, **keywords: object):
    """A prompt that was read, and a way to have its cache anew."""
    prepared, prompted = run(loaded, SHAPES["both"], VARIANTS[variant], spare=spare, **keywords)
    found = prompted.prefill
    return SimpleNamespace(
        logits=found.logits,
        position=prepared.layout.next_position,
        cache=lambda: copy.deepcopy(found.cache),
        spare=spare,
    )


def lane_for(monkeypatch: pytest.MonkeyPatch, lane: FakeLane) -> FakeLane:
    """Let answers be written on it."""

    def steps(model, cache, position, n):
        return StaticSteps(model, cache, position, n, lane, graphs=True)

    monkeypatch.setattr(decoding, "steps_for", steps)
    return lane


def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        decoding, "steps_for", lambda model, cache, position, _: EagerSteps(model, cache, position)
    )


def write(loaded: LoadedModel, read, n: int = N_TOKENS, on_token=None, stop=(), **options: object):
    asked = GenerationOptions(max_new_tokens=n, **options)
    return decode(loaded.model, read.logits, read.cache(), read.position, asked, on_token, stop)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("on_a_lane", [False, True])
@torch.inference_mode()
def test_logits_are_those_of_the_layers(loaded: LoadedModel, variant: str, on_a_lane: bool) -> None:
    """The same tokens through both, longer than a block and than the room that was made."""
    read = filled(loaded, variant, spare=20)
    lane = FakeLane() if on_a_lane else None
    theirs = EagerSteps(loaded.model, read.cache(), read.position)
    ours = StaticSteps(loaded.model, read.cache(), read.position, 90, lane, graphs=True)
    token = read.logits.argmax(keepdim=True)
    with ours.used():
        for _ in range(90):
            expected, got = theirs.advance(token), ours.advance(token)
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=5e-5)
            token = expected.argmax(keepdim=True)
            assert got.argmax() == token
    assert ours.path == ("graph" if on_a_lane else "static")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "sampling", [{}, {"temperature": 1.2, "seed": 5}, {"temperature": 0.8, "top_p": 0.7, "seed": 6}]
)
def test_all_paths_write_the_same(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, variant: str, sampling: dict[str, float]
) -> None:
    read = filled(loaded, variant)
    static = write(loaded, read, **sampling)
    with monkeypatch.context() as patch:
        lane = lane_for(patch, FakeLane())
        graph = write(loaded, read, **sampling)
    eager(monkeypatch)
    layers = write(loaded, read, **sampling)
    assert static.token_ids == graph.token_ids == layers.token_ids
    assert len(static.token_ids) == N_TOKENS
    assert (static.path, graph.path, layers.path) == ("static", "graph", "eager")
    assert (lane.recorded, lane.replayed) == (1, N_TOKENS - 1 - PLAIN_STEPS)


@pytest.mark.parametrize("on_a_lane", [False, True])
def test_everything_kept_is_generate(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, on_a_lane: bool
) -> None:
    inputs = stock_of(loaded.model.processor, *SHAPES["both"], QUESTION)
    expected = stock_generate(loaded.model.thinker, inputs, True, max_new_tokens=40)
    if on_a_lane:
        lane_for(monkeypatch, FakeLane())
    found = write(loaded, filled(loaded, "full"), 40, stop=None)
    assert found.token_ids == [token for token in expected if token not in loaded.model.stop_ids]


def test_a_prompt_of_text_alone(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded.model
    prompt = prompt_of(model, "Hm?", GenerationOptions(), "audio")
    layout = lay_out_text(prompt)
    from seats_cli.engine.analytic import FULL, plan_of

    method = method_for(loaded, plan_of(model.spec, layout, FULL), FULL)
    with torch.inference_mode():
        read = prefill(model, layout, select_windows(model, layout, {}, method, Stopwatch()), method)
    asked = SimpleNamespace(
        logits=read.logits, position=layout.next_position, cache=lambda: copy.deepcopy(read.cache)
    )
    static = write(loaded, asked, 30)
    with monkeypatch.context() as patch:
        lane_for(patch, FakeLane())
        graph = write(loaded, asked, 30)
    eager(monkeypatch)
    assert static.token_ids == graph.token_ids == write(loaded, asked, 30).token_ids


# Room


@pytest.mark.parametrize("spare", [0, 1, 7, BLOCK, 400])
@pytest.mark.parametrize("on_a_lane", [False, True])
def test_answers_outgrow_the_room(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, spare: int, on_a_lane: bool
) -> None:
    """More than one block, and on a lane more than one recording."""
    monkeypatch.setattr("seats_cli.engine.static.GROWTH", 30)
    n, read = 200 if on_a_lane else 90, filled(loaded, spare=spare)
    with monkeypatch.context() as patch:
        lane = lane_for(patch, FakeLane()) if on_a_lane else FakeLane()
        found = write(loaded, read, n)
    eager(monkeypatch)
    assert found.token_ids == write(loaded, read, n).token_ids
    if on_a_lane:
        assert lane.recorded >= (1 if spare == 400 else 2)
        assert lane.replayed >= n - 1 - PLAIN_STEPS - (lane.recorded - 1) * PLAIN_STEPS_AGAIN - WORTH_A_GRAPH


def test_what_was_in_the_room_does_not_matter(loaded: LoadedModel) -> None:
    """Memory that was never written may hold anything."""
    read = filled(loaded)
    expected = write(loaded, read).token_ids
    made = read.cache

    def dirty() -> RaggedCache:
        cache = made()
        with torch.inference_mode():
            for i, n in enumerate(cache.lengths):
                for buffer in cache.buffers(i):
                    buffer[:, n:] = torch.nan
        return cache

    read.cache = dirty
    assert write(loaded, read).token_ids == expected


def test_the_cache_counts_what_was_added(loaded: LoadedModel) -> None:
    read = filled(loaded)
    cache = read.cache()
    before = cache.lengths
    decode(loaded.model, read.logits, cache, read.position, GenerationOptions(max_new_tokens=9), stop=())
    assert cache.lengths == tuple(n + 8 for n in before)
    cache.note(-8)
    read.cache = lambda: cache
    assert write(loaded, read).token_ids == write(loaded, filled(loaded)).token_ids


def test_nothing_of_an_answer_stays(loaded: LoadedModel) -> None:
    """Memory goes at once, not when Python next looks for circles."""
    read = filled(loaded)
    cache = read.cache()
    seen = weakref.ref(cache)
    collecting = gc.isenabled()
    gc.disable()
    try:
        decode(loaded.model, read.logits, cache, read.position, GenerationOptions(max_new_tokens=5), stop=())
        del cache
        assert seen() is None
    finally:
        if collecting:
            gc.enable()


# On a lane


def test_no_step_is_recorded_for_few_tokens(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    read, most = filled(loaded), PLAIN_STEPS + WORTH_A_GRAPH
    for n, recorded in ((2, 0), (PLAIN_STEPS, 0), (most, 0), (most + 1, 1)):
        with monkeypatch.context() as patch:
            lane = lane_for(patch, FakeLane())
            assert write(loaded, read, n).path == ("graph" if recorded else "static")
        assert lane.recorded == recorded


def test_a_step_that_cannot_be_recorded(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    read = filled(loaded)
    expected = write(loaded, read)
    lane_for(monkeypatch, FakeLane(refuses="not permitted\nwhile capturing"))
    found = write(loaded, read)
    assert (found.token_ids, found.path) == (expected.token_ids, "static")
    assert found.warnings == ("answer tokens took longer, since no CUDA graph could be made: not permitted",)
    assert expected.warnings == ()


@pytest.mark.parametrize("after", [1, 5, 30])
def test_a_stop_token_ends_it(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    read = filled(loaded)
    whole = write(loaded, read, temperature=1.5, seed=1).token_ids
    stop = whole[after]
    seen: list[int] = []
    lane = lane_for(monkeypatch, FakeLane())
    found = write(loaded, read, on_token=seen.append, stop=[stop], temperature=1.5, seed=1)
    assert found.token_ids == seen == whole[: whole.index(stop)]
    assert (found.finish_reason, lane.left) == ("stop", 1)


def test_tokens_are_read_one_step_behind(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the host hears of a token, the step after it was given to the device, and none after that."""
    read, real = filled(loaded), StaticSteps.advance
    steps, seen = [], []

    def advance(self, token):
        steps.append(1)
        return real(self, token)

    monkeypatch.setattr(StaticSteps, "advance", advance)
    lane_for(monkeypatch, FakeLane())
    write(loaded, read, 6, on_token=lambda _: seen.append(len(steps)))
    assert seen == [1, 2, 3, 4, 5, 5]
    assert len(steps) == 5


@pytest.mark.parametrize("after", [1, 20])
@pytest.mark.parametrize("where", ["token", "step"])
def test_ctrl_c(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, after: int, where: str) -> None:
    read, seen = filled(loaded), []
    whole = write(loaded, read).token_ids
    lane = lane_for(monkeypatch, FakeLane())
    real = StaticSteps.advance

    def advance(self, token):
        if where == "step" and len(seen) == after:
            raise KeyboardInterrupt
        return real(self, token)

    def on_token(token: int) -> None:
        seen.append(token)
        if where == "token" and len(seen) == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(StaticSteps, "advance", advance)
    found = write(loaded, read, on_token=on_token)
    assert found.finish_reason == "interrupted"
    assert found.token_ids == seen == whole[:after]
    assert lane.left == 1


def test_a_time_limit(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    read = filled(loaded)
    lane = lane_for(monkeypatch, FakeLane())
    with time_limit(0.05), pytest.raises(TimeLimitError):
        write(loaded, read, on_token=lambda _: time.sleep(0.02))
    assert lane.left == 1


# What a graph needs


class Asked(TorchDispatchMode):
    """Every operation with the shapes and strides of what it is given; refuses what the host would wait for."""

    WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique", "masked_select", "_to_copy.host")

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert name not in self.WAITS, name
        assert not (name == "index" and any(one is not None and one.dtype == torch.bool for one in args[1])), name
        shapes = [
            (tuple(one.shape), one.stride(), one.dtype)
            for one in (*args, *(kwargs or {}).values())
            if isinstance(one, torch.Tensor)
        ]
        self.calls.append(f"{function} {shapes}")
        return function(*args, **(kwargs or {}))


@contextmanager
def as_on_a_gpu(loaded: LoadedModel) -> Iterator[None]:
    """Experts as ``decoding`` has them off the CPU."""
    thinker = loaded.model.thinker
    if loaded.model.model_type != "qwen3_omni_moe":
        yield
        return
    before = thinker.get_experts_implementation()
    thinker.set_experts_implementation(dict.fromkeys(before, "batched_mm"))
    try:
        yield
    finally:
        thinker.set_experts_implementation(before)


@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_a_step_asks_nothing_and_is_always_the_same(loaded: LoadedModel, variant: str) -> None:
    read = filled(loaded, variant)
    steps = StaticSteps(loaded.model, read.cache(), read.position, N_TOKENS, FakeLane(), graphs=False)
    token = read.logits.argmax(keepdim=True)
    with as_on_a_gpu(loaded):
        token = steps.advance(token).argmax(keepdim=True)  # makes room
        seen = []
        for _ in range(3):
            with Asked() as asked:
                logits = steps.advance(token)
                token = logits.argmax(keepdim=True)
            seen.append(asked.calls)
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]) > 10 * len(loaded.model.layers)


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.7, "seed": 1}, {"temperature": 0.7, "top_p": 0.5, "seed": 1}]
)
def test_choosing_asks_nothing(options: dict[str, float]) -> None:
    sampler = decoding.Sampler(GenerationOptions(**options))
    sampler.choose(torch.randn(320))  # makes its generator
    with Asked():
        sampler.choose(torch.randn(320))


@torch.inference_mode()
def test_addresses_stay(loaded: LoadedModel) -> None:
    """What a recording reads from and writes to lies where it lay."""
    read = filled(loaded)
    cache = read.cache()
    steps = StaticSteps(loaded.model, cache, read.position, N_TOKENS, FakeLane(), graphs=True)
    token = read.logits.argmax(keepdim=True)

    def places() -> list[int]:
        return [one.data_ptr() for i in range(len(loaded.model.layers)) for one in cache.buffers(i)] + [
            steps._token.data_ptr(),
            steps._counter.data_ptr(),
            steps._cos.data_ptr(),
        ]

    with steps.used():
        token = steps.advance(token).argmax(keepdim=True)
        first = places()
        for _ in range(N_TOKENS - 1):
            token = steps.advance(token).argmax(keepdim=True)
    assert places() == first


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "group", "width"), [(2, 2, 16), (4, 7, 128), (1, 8, 64)])
def test_both_kinds_of_attention(dtype: torch.dtype, heads: int, group: int, width: int) -> None:
    """Against a loop over the queries, in float64."""
    generator = torch.Generator().manual_seed(3)
    n, seen = 3 * SPLIT, 500
    query = torch.randn(heads, group, width, generator=generator).to(dtype)
    keys, values = (torch.randn(heads, n, width, generator=generator).to(dtype) for _ in range(2))
    mask = torch.where(torch.arange(n) < seen, 0.0, -torch.inf)
    expected = torch.empty(heads, group, width, dtype=torch.float64)
    for h in range(heads):
        for g in range(group):
            scores = keys[h, :seen].double() @ query[h, g].double() * 0.2
            expected[h, g] = scores.softmax(0) @ values[h, :seen].double()
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    for attention in (attention_at_once, attention_side_by_side):
        got = attention(query, keys, values, mask, 0.2)
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=tolerance)


# Which way


def test_a_model_in_one_place(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert loaded.model.in_one_place
    assert not loaded.model.is_quantised
    layer = loaded.model.layers[3]
    monkeypatch.setattr(layer.mlp, "_hf_hook", object(), raising=False)
    assert not loaded.model.in_one_place
    assert write(loaded, filled(loaded), 3).path == "eager"


def test_a_report_says_how(loaded: LoadedModel) -> None:
    from seats_cli.engine.pipeline import Settings, answer
    from tests.array_clip import clip_for

    clip, media = clip_for(loaded, *SHAPES["both"])
    for choices, path in (((), "static"), (("A", "B"), None)):
        asked = Settings(media, VARIANTS["staged"], GenerationOptions(max_new_tokens=3, choices=choices))
        assert answer(loaded, lambda: clip, QUESTION, asked).decode_path == path

"""Answer tokens on a GPU: by a CUDA graph, piece by piece, and through the layers of transformers."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from seats_cli.config import GenerationOptions, ModelOptions, SelectionOptions
from seats_cli.engine import decode as decoding
from seats_cli.engine.decode import Decoded, EagerSteps, decode
from seats_cli.engine.graphs import Mail, lane_of
from seats_cli.engine.static import PLAIN_STEPS, StaticSteps, attention_side_by_side
from seats_cli.models.loading import LoadedModel, load
from tests import tiny, tiny_qwen3
from tests.engine.test_laws import SHAPES, run

if not torch.cuda.is_available():
    if os.environ.get("SEATS_GPU") == "1":
        raise RuntimeError("SEATS_GPU=1 promises a GPU, and there is none")
    pytest.skip("no GPU", allow_module_level=True)

FAMILIES = {module.MODEL_TYPE: module for module in (tiny, tiny_qwen3)}
SAMPLINGS = [{}, {"temperature": 1.2, "seed": 5}, {"temperature": 0.8, "top_p": 0.7, "seed": 6}]
DTYPES = {"float32": 1e-4, "bfloat16": 0.05}
"""With how much of their own norm the logits may differ, in the median of steps: in bfloat16 a router that stands
between two experts may take the other one."""
N_TOKENS = 64


@pytest.fixture(scope="module", params=[(family, dtype) for family in FAMILIES for dtype in DTYPES], ids="-".join)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    family, dtype = request.param
    folder = FAMILIES[family].write_tiny_checkpoint(tmp_path_factory.mktemp("gpu"), dtype=torch.float32)
    return load(ModelOptions(model=str(folder), device="cuda", dtype=dtype))


def read_of(loaded: LoadedModel, trr: float = 0.3, spare: int = N_TOKENS, **options: object) -> SimpleNamespace:
    """A prompt that was read; its cache anew for each answer."""
    prepared, prompted = run(loaded, SHAPES["both"], SelectionOptions(trr=trr, **options), spare=spare)
    found = prompted.prefill
    return SimpleNamespace(
        logits=found.logits, position=prepared.layout.next_position, cache=lambda: copy.deepcopy(found.cache)
    )


@contextmanager
def by(path: str) -> Iterator[None]:
    """Have answers written so."""

    def steps(model, cache, position, n):
        if path == "eager":
            return EagerSteps(model, cache, position)
        return StaticSteps(model, cache, position, n, lane_of(model.device), graphs=path == "graph")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "steps_for", steps)
        yield


def write(
    loaded: LoadedModel, read: SimpleNamespace, n: int = N_TOKENS, stop=(), on_token=None, **more
) -> Decoded:
    with torch.inference_mode():
        cache = read.cache()
        asked = GenerationOptions(max_new_tokens=n, **more)
        return decode(loaded.model, read.logits, cache, read.position, asked, on_token, stop)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("trr", [1.0, 0.1])
def test_a_graph_writes_what_its_step_writes(loaded: LoadedModel, sampling: dict[str, float], trr: float) -> None:
    """The same kernels on the same numbers: every token, greedy and drawn. What a user gets is the graph."""
    read = read_of(loaded, trr)
    graph = write(loaded, read, **sampling)
    assert (graph.path, graph.warnings) == ("graph", ())
    with by("static"):
        static = write(loaded, read, **sampling)
    assert static.path == "static"
    assert graph.token_ids == static.token_ids
    assert len(graph.token_ids) == N_TOKENS
    assert write(loaded, read, **sampling).token_ids == graph.token_ids


@pytest.mark.parametrize("kv_cache", ["staged", "text"])
@pytest.mark.parametrize("trr", [1.0, 0.1])
@torch.inference_mode()
def test_logits_are_those_of_the_layers(loaded: LoadedModel, trr: float, kv_cache: str) -> None:
    """The same tokens through both, beyond the room that was made, so that two graphs are captured."""
    read, model = read_of(loaded, trr, spare=40, kv_cache=kv_cache), loaded.model
    theirs = EagerSteps(model, read.cache(), read.position)
    ours = StaticSteps(model, read.cache(), read.position, 400, lane_of(model.device), graphs=True)
    token, apart = read.logits.argmax(keepdim=True), []
    with model.decoding():
        for _ in range(400):
            expected = theirs.advance(token)
            with ours.used():
                got = ours.advance(token).clone()
            apart.append((got - expected).float().norm() / expected.float().norm())
            token = expected.argmax(keepdim=True)
    assert torch.stack(apart).median() <= DTYPES[loaded.dtype]
    assert (ours.path, ours.warnings) == ("graph", ())
    assert ours.replayed > 300


def test_float32_tokens_are_those_of_the_layers(loaded: LoadedModel) -> None:
    if loaded.dtype != "float32":
        pytest.skip("near-ties fall either way in bfloat16")
    read = read_of(loaded)
    found = write(loaded, read)
    with by("eager"):
        assert write(loaded, read).token_ids == found.token_ids


@pytest.mark.parametrize("spare", [0, 1, 30])
def test_answers_outgrow_the_room(loaded: LoadedModel, spare: int) -> None:
    read = read_of(loaded, spare=spare)
    with by("static"):
        expected = write(loaded, read, 700)
    found = write(loaded, read, 700)
    assert (found.token_ids, found.path) == (expected.token_ids, "graph")


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_host_never_waits_within_a_step(
    loaded: LoadedModel, sampling: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a plain step nor a captured one, nor the choice after it, synchronises."""
    real_step, real_choose = StaticSteps._step, decoding.Sampler.choose
    chosen = []

    def strictly(function, *arguments):
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            return function(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode(before)

    def choose(self, logits):
        chosen.append(1)
        if len(chosen) == 1:  # makes its generator
            return real_choose(self, logits)
        return strictly(real_choose, self, logits)

    read = read_of(loaded)
    monkeypatch.setattr(StaticSteps, "_step", lambda self: strictly(real_step, self))
    monkeypatch.setattr(decoding.Sampler, "choose", choose)
    found = write(loaded, read, **sampling)
    assert (found.path, len(chosen)) == ("graph", N_TOKENS)


@pytest.mark.parametrize("after", [2, PLAIN_STEPS + 3, N_TOKENS - 1])
def test_a_stop_token_ends_it(loaded: LoadedModel, after: int) -> None:
    read, drawn = read_of(loaded), {"temperature": 1.5, "seed": 1}
    whole = write(loaded, read, **drawn).token_ids
    seen: list[int] = []
    found = write(loaded, read, stop=[whole[after]], on_token=seen.append, **drawn)
    assert found.token_ids == seen == whole[: whole.index(whole[after])]
    assert found.finish_reason == "stop"


@pytest.mark.parametrize("after", [2, PLAIN_STEPS + 3])
def test_ctrl_c(loaded: LoadedModel, after: int) -> None:
    read, seen = read_of(loaded), []
    whole = write(loaded, read).token_ids

    def on_token(token: int) -> None:
        seen.append(token)
        if len(seen) == after:
            raise KeyboardInterrupt

    found = write(loaded, read, on_token=on_token)
    assert (found.token_ids, found.finish_reason) == (whole[:after], "interrupted")
    assert write(loaded, read).token_ids == whole, "what comes after is as before"


def test_other_work_meanwhile_does_no_harm(loaded: LoadedModel) -> None:
    """Readers encode on the usual stream, and allocate, while answers are written on theirs."""
    from threading import Event, Thread

    read, over = read_of(loaded), Event()
    expected = write(loaded, read).token_ids
    failed: list[BaseException] = []

    def work() -> None:
        try:
            # The usual generator belongs to whoever captures: PyTorch refuses it to all others meanwhile.
            generator, n = torch.Generator("cuda").manual_seed(1), 0
            with torch.inference_mode():
                while not over.is_set():
                    n += 1
                    torch.randn(64, 64 + n % 512, generator=generator, device="cuda").sum().item()
        except BaseException as error:
            failed.append(error)

    thread = Thread(target=work)
    thread.start()
    try:
        found = [write(loaded, read) for _ in range(5)]
    finally:
        over.set()
        thread.join()
    assert not failed
    assert [one.token_ids for one in found] == [expected] * 5
    assert {one.path for one in found} == {"graph"}


def test_memory_stays_flat_over_many_answers(loaded: LoadedModel) -> None:
    read = read_of(loaded)
    for _ in range(3):
        write(loaded, read)
    torch.cuda.synchronize()
    allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    for _ in range(10):
        write(loaded, read)
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() <= allocated + 2**16
    assert torch.cuda.memory_reserved() <= reserved + 4 * 2**21


def test_mail_keeps_its_order() -> None:
    mail, found = Mail(), []
    mail.post(torch.tensor([0], device="cuda"))
    for i in range(1, 50):
        mail.post(torch.tensor([i], device="cuda"))
        found.append(mail.take())
    assert [*found, mail.take()] == list(range(50))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("group", "n"), [(7, 256), (7, 12288), (8, 2048), (1, 512)])
def test_attention_of_one_token(dtype: torch.dtype, group: int, n: int) -> None:
    """Against float64, with a part of the places not written yet."""
    generator = torch.Generator("cuda").manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device="cuda").to(dtype)

    query, keys, values, seen = draw(4, group, 128), draw(4, n, 128), draw(4, n, 128), n - 100
    mask = torch.where(torch.arange(n, device="cuda") < seen, 0.0, -torch.inf)
    scores = query.double() @ keys[:, :seen].double().transpose(1, 2) * 128**-0.5
    expected = scores.softmax(-1) @ values[:, :seen].double()
    got = attention_side_by_side(query, keys, values, mask, 128**-0.5)
    assert got.dtype == dtype
    tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    assert (got.double() - expected).norm() <= tolerance * expected.norm()

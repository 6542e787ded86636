"""Answer tokens per second, measured: ours beside transformers' own generate, on one prompt, in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from seats_cli.config import GenerationOptions, SelectionOptions
from seats_cli.engine.analytic import FULL, label_of, plan_of
from seats_cli.engine.benchmark import STOCK, Workbench, whole_inputs
from seats_cli.engine.decode import EagerSteps, decode
from seats_cli.engine.pipeline import Prepared, read_prompt
from seats_cli.errors import explain
from seats_cli.models.base import OmniModel
from seats_cli.timing import Samples, Stopwatch, alternate, synchronize

STATIC_STOCK = f"{STOCK}, static cache"


@dataclass(frozen=True, slots=True)
class WayOfAnswering:
    """One way of writing the same number of tokens.

    Attributes:
        label: ``full``, ``seats R=0.1``, ..., or ``stock transformers`` and ``stock transformers, static cache``.
        path: How steps were run, as in ``Decoded``; None for transformers.
        prompt_tokens: Held by the first layer and by the last, before the answer.
        tokens_per_second: Of the counted rounds, tokens after the first one by the seconds they took; None: it
            failed.
        problem: Why it failed, or what made it slow; mostly empty.
    """

    label: str
    path: str | None
    prompt_tokens: tuple[int, int]
    tokens_per_second: Samples | None
    problem: str = ""


@dataclass(slots=True)
class _Way:
    """What can be called again and again; gives seconds for all tokens but the first."""

    label: str
    lap: Callable[[], float]
    prompt_tokens: tuple[int, int]
    path: str | None = None
    failed: str = ""
    slowed: str = ""


def measure_answering(
    bench: Workbench,
    settings: Sequence[SelectionOptions],
    *,
    n_tokens: int = 128,
    runs: int = 5,
    warmup: int = 1,
    stock: bool = True,
    static_stock: bool = True,
    layers: bool = False,
) -> tuple[WayOfAnswering, ...]:
    """Write greedily, exactly ``n_tokens`` tokens whatever they are, in every way in turn.

    Reading the prompt is not counted, and neither is its first token. Of ours everything after counts, the
    capture of a graph too. The second way of transformers is its static cache, with which it compiles the model on
    a GPU: that takes minutes, of which nothing can be seen or bounded from here.

    Args:
        bench: The clip and the model.
        settings: To measure beside all tokens.
        n_tokens: At least 2.
        runs: Rounds that count.
        warmup: Rounds before them; the first makes transformers compile.
        stock: Measure transformers' own generate too.
        static_stock: And, with it, its static cache.
        layers: Measure every setting through the layers of transformers too (path ``eager``).

    Raises:
        SeatsError: A ratio is infeasible, or the clip cannot be read.
        ValueError: A number is too small.
    """
    if n_tokens < 2:
        raise ValueError(f"{n_tokens} tokens; at least 2 are needed")
    kinds = (False, True) if layers else (False,)
    ways = [_ours(bench, options, n_tokens, by_layers) for options in (FULL, *settings) for by_layers in kinds]
    if stock:
        inputs = whole_inputs(bench)
        ways.append(_stock(bench, STOCK, inputs, n_tokens, {}))
        if static_stock:
            ways.append(_stock(bench, STATIC_STOCK, inputs, n_tokens, {"cache_implementation": "static"}))
    if stock:
        _drop_failing(ways)
    laps = alternate({way.label: way.lap for way in ways if not way.failed}, runs, warmup)
    return tuple(
        WayOfAnswering(
            way.label,
            way.path,
            way.prompt_tokens,
            Samples(tuple((n_tokens - 1) / lap for lap in laps[way.label])) if way.label in laps else None,
            way.failed or way.slowed,
        )
        for way in ways
    )


def _drop_failing(ways: Sequence[_Way]) -> None:
    """Transformers' ways are tried once: not every one of its caches takes every model."""
    for way in ways:
        if way.path is None and way.label.startswith(STOCK):
            try:
                way.lap()
            except Exception as error:
                way.failed = str(explain(error))


@torch.inference_mode()
def _ours(bench: Workbench, options: SelectionOptions, n_tokens: int, by_layers: bool) -> _Way:
    """The prompt is read once; every lap takes back what the one before it added."""
    model, clip = bench.loaded.model, bench.make_clip()
    plan = plan_of(model.spec, bench.layout, options)
    prepared = Prepared(clip, clip.waveform(), bench.shape, bench.layout, plan)
    filled = read_prompt(bench.loaded, prepared, options, Stopwatch(), n_tokens).prefill
    cache, asked = filled.cache, GenerationOptions(max_new_tokens=n_tokens)
    held, position = cache.lengths, bench.layout.next_position

    def lap() -> float:
        synchronize(model.devices)
        began = time.perf_counter()
        steps = EagerSteps(model, cache, position) if by_layers else None
        decoded = decode(model, filled.logits, cache, position, asked, stop=(), steps=steps)
        synchronize(model.devices)
        seconds = time.perf_counter() - began
        cache.note(held[0] - cache.lengths[0])
        way.path, way.slowed = decoded.path, " ".join(decoded.warnings)
        return seconds

    label = f"{label_of(options)}, through the layers" if by_layers else label_of(options)
    way = _Way(label, lap, (held[0], held[-1]))
    return way


def _stock(bench: Workbench, label: str, inputs: dict[str, Any], n_tokens: int, more: dict[str, Any]) -> _Way:
    model = bench.loaded.model

    def lap() -> float:
        clock = _Clock(model, n_tokens)
        # An id that no vocabulary has: nothing ends the answer before its time, and no logits are touched.
        never = model.spec.geometry.text.vocab
        model.thinker.generate(
            **{name: value for name, value in inputs.items() if name != "use_cache"},
            do_sample=False,
            max_new_tokens=n_tokens,
            eos_token_id=never,
            pad_token_id=0,
            stopping_criteria=[clock],
            **more,
        )
        return clock.seconds

    return _Way(label, lap, (bench.layout.n_tokens, bench.layout.n_tokens))


class _Clock:
    """Reads the time behind the first token and behind the last; transformers asks it after each."""

    def __init__(self, model: OmniModel, n_tokens: int) -> None:
        self._devices, self._n_tokens = model.devices, n_tokens
        self._tokens, self._began = 0, 0.0
        self.seconds = 0.0

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self._tokens += 1
        if self._tokens in (1, self._n_tokens):
            synchronize(self._devices)
            self.seconds = time.perf_counter() - self._began
            self._began = time.perf_counter()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

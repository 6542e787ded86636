"""Law 5: the executed-FLOPs formula equals torch's FlopCounterMode over a whole run, encoders included."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from seats_cli.config import SelectionOptions
from seats_cli.engine.analytic import encoder_flops, selection_flops
from seats_cli.engine.encode import log_mel_of
from seats_cli.engine.pipeline import Settings, flops_info, prepare, read_prompt
from seats_cli.layout import Modality
from seats_cli.timing import Stopwatch
from tests.array_clip import clip_for
from tests.engine.test_laws import QUESTION, SHAPES, VARIANTS


@contextmanager
def experts_one_by_one(model):
    """The counter does not know the grouped kernels; what they compute is the same."""
    before = model.thinker.get_experts_implementation() if model.spec.geometry.text.n_experts else None
    if before is not None:
        model.thinker.set_experts_implementation("eager")
    yield
    if before is not None:
        model.thinker.set_experts_implementation(before)


def counted(loaded, prepared, options) -> tuple[object, int]:
    """Run under the counter.

    Left out are rotary tables (only some versions make them with a matrix product) and the log-mel filter bank,
    which makes the encoder's input.
    """
    counter = FlopCounterMode(display=False)
    # The fused CPU kernel is unknown to the counter of older versions; the plain one costs the same.
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), experts_one_by_one(loaded.model), counter:
        prompted = read_prompt(loaded, prepared, options, Stopwatch())
    tables = sum(
        sum(ops.values())
        for name, ops in counter.get_flop_counts().items()
        if "rotary" in name.rpartition(".")[2].lower()
    )
    filter_bank = FlopCounterMode(display=False)
    if prepared.shape.n_audio_tokens:
        with filter_bank:
            log_mel_of(loaded.model, prepared.waveform)
    return prompted, counter.get_total_flops() - tables - filter_bank.get_total_flops()


@pytest.mark.parametrize(
    "options",
    [
        SelectionOptions(method="full"),
        SelectionOptions(trr=0.3),
        *(SelectionOptions(trr=0.3, **variant) for variant in VARIANTS.values()),
    ],
    ids=["full", "pruned", *(name.replace(" ", "-") for name in VARIANTS)],
)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=[name.replace(" ", "-") for name in SHAPES])
def test_law_5_formula_equals_counter(loaded, shape, options):
    clip, media = clip_for(loaded, *shape)
    prepared = prepare(loaded, clip, QUESTION, Settings(media=media, selection=options), Stopwatch())
    prompted, total = counted(loaded, prepared, options)
    info = flops_info(loaded, prepared.layout, prompted)
    assert info.executed.pruned + info.encoders_executed == total
    if options.method == "full":
        assert info.executed.pruned == info.executed.full
    else:
        assert info.executed.pruned < info.executed.full
    assert (info.selection_executed > 0) == (options.method == "seats")


@pytest.mark.parametrize("variant", [{}, *VARIANTS.values()], ids=["", *VARIANTS])
def test_the_analytic_figures_are_those_of_a_run(loaded, variant):
    """One batch of windows: nothing is padded differently, so the arithmetic agrees to the last FLOP."""
    shape = (8, 4, 5, 4.0)
    options = SelectionOptions(trr=0.3, **variant)
    clip, media = clip_for(loaded, *shape)
    prepared = prepare(loaded, clip, QUESTION, Settings(media=media, selection=options), Stopwatch())
    with torch.inference_mode():
        prompted = read_prompt(loaded, prepared, options, Stopwatch())
    info, spec = flops_info(loaded, prepared.layout, prompted), loaded.model.spec
    assert info.encoders_executed == encoder_flops(spec, prepared.shape)
    assert info.selection_executed == selection_flops(spec, prepared.layout, prepared.plan)
    totals = [sum(counts) for counts in prompted.prefill.counts]
    assert totals == [
        sum(counts) for counts in prepared.plan.tokens_per_layer(prepared.layout.count(Modality.TEXT))
    ]

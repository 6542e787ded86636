"""What is estimated, against what really is: parameters loaded, cache allocated, tokens and FLOPs of a run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from seats_cli.config import GenerationOptions, MediaOptions, ModelOptions, SelectionOptions
from seats_cli.engine import rates as rates_room
from seats_cli.engine import room
from seats_cli.engine.analytic import analytic_profile
from seats_cli.engine.estimate import MAP_BYTES, Holding, Job, estimate, holding_of, room_tokens, weight_bytes
from seats_cli.engine.pipeline import Settings, flops_info, prepare, read_prompt, spare_for
from seats_cli.engine.prepare import clip_shape
from seats_cli.engine.room import check_clip, check_weights
from seats_cli.errors import MemoryLimitError
from seats_cli.layout import Modality
from seats_cli.media import NoiseClip
from seats_cli.models import named_architecture, saliency
from seats_cli.models.loading import load
from seats_cli.timing import Stopwatch
from tests.array_clip import clip_for
from tests.engine.test_laws import QUESTION, SHAPES, VARIANTS

SELECTIONS = {
    "full": SelectionOptions(method="full"),
    "a third": SelectionOptions(trr=0.3),
    "text cache": SelectionOptions(trr=0.2, kv_cache="text"),
    "random": SelectionOptions(method="random", trr=0.3),
    **{name: SelectionOptions(trr=0.3, **variant) for name, variant in VARIANTS.items()},
}
SPARE = 20
SEVEN, THIRTY = "Qwen/Qwen2.5-Omni-7B", "Qwen/Qwen3-Omni-30B-A3B-Instruct"


@pytest.fixture(params=SELECTIONS, ids=lambda name: name.replace(" ", "-"))
def selection(request):
    return SELECTIONS[request.param]


def job_for(loaded, shape, selection, n_text, max_new_tokens=SPARE):
    clip, media = clip_for(loaded, *shape)
    return Job(
        family=type(loaded.model),
        spec=loaded.model.spec,
        holding=Holding(4),
        clip=clip,
        media=media,
        selection=selection,
        n_text=n_text,
        max_new_tokens=max_new_tokens,
    )


def ran(loaded, shape, selection):
    clip, media = clip_for(loaded, *shape)
    with torch.inference_mode():
        prepared = prepare(loaded, clip, QUESTION, Settings(media=media, selection=selection), Stopwatch())
        return prepared, read_prompt(loaded, prepared, selection, Stopwatch(), SPARE)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=[name.replace(" ", "-") for name in SHAPES])
def test_tokens_flops_and_bytes_are_those_of_a_run(loaded, shape, selection):
    prepared, prompted = ran(loaded, shape, selection)
    found = estimate(job_for(loaded, shape, selection, prepared.layout.count(Modality.TEXT)))
    assert found.tokens.total == prepared.layout.n_tokens
    counted = [sum(counts) for counts in prompted.prefill.counts]
    assert [layer.total for layer in found.tokens.per_layer] == counted
    info = flops_info(loaded, prepared.layout, prompted)
    assert found.flops.paper == info.paper
    assert found.flops.executed.full == info.executed.full
    embeddings = prompted.encoded.embeddings.nbytes
    if prompted.encoded.deepstack is not None:
        embeddings += prompted.encoded.deepstack.nbytes
    assert found.memory.embeddings == embeddings


def allocated(cache) -> int:
    return sum(one.nbytes for one in (*cache._keys, *cache._values))


def test_keys_and_values_are_what_the_cache_allocates(loaded, selection):
    prepared, prompted = ran(loaded, SHAPES["both"], selection)
    cache = prompted.prefill.cache
    found = estimate(job_for(loaded, SHAPES["both"], selection, prepared.layout.count(Modality.TEXT)))
    n_layers, text = len(cache.lengths), loaded.model.spec.geometry.text
    if selection.kv_cache == "staged":
        assert found.memory.kv_cache == cache.n_bytes
        assert found.memory.kv_cache + found.memory.answer_room == allocated(cache)
    else:
        # Cut when the prompt has been read; until then every layer held what it processed.
        assert found.memory.kv_cache > cache.n_bytes
        assert cache.n_bytes + found.memory.answer_room == allocated(cache)
    assert found.memory.answer_room == n_layers * SPARE * 2 * text.kv_width * 4


@pytest.mark.parametrize("n", [1, 256, 1024, 5000])
def test_the_room_is_that_of_a_run(n):
    assert room_tokens(n) == spare_for(GenerationOptions(max_new_tokens=n))


def test_maps_are_bounded_as_where_they_are_made():
    assert MAP_BYTES == saliency.MAP_BYTES


def test_weights_are_the_parameters_loaded(loaded):
    thinker = loaded.model.thinker
    towers = sum(one.nbytes for tower in loaded.model.towers for one in tower.parameters())
    decoder, encoders = weight_bytes(loaded.model.spec, Holding(4))
    assert decoder + encoders == sum(one.nbytes for one in thinker.parameters())
    assert encoders == towers


@pytest.mark.parametrize("quant", ["bnb-4bit", "bnb-8bit", "torchao-int8"])
def test_quantised_weights_are_those_of_the_linear_layers(loaded, quant):
    """By the modules: what --quant reaches are the linear layers of the decoder, but for routers."""
    linear = {
        name: module
        for name, module in loaded.model.layers.named_modules()
        if isinstance(module, torch.nn.Linear) and not name.endswith(".gate")
    }
    weights = sum(module.weight.numel() for module in linear.values())
    rows = sum(module.out_features for module in linear.values())
    decoder, _ = weight_bytes(loaded.model.spec, Holding(4))
    quantised, _ = weight_bytes(loaded.model.spec, Holding(4, quant))
    per_weight, per_row = (0.5625, 0) if quant == "bnb-4bit" else (1, 4)
    assert decoder - quantised == pytest.approx(weights * (4 - per_weight) - rows * per_row, abs=1)


def test_a_quantised_checkpoint_is_not_taken_for_more_than_it_may_be():
    family, config = named_architecture(SEVEN)
    spec = family.spec_of(SEVEN, config)
    sizes = [sum(weight_bytes(spec, Holding(2, quant))) for quant in ("awq-4bit", "fp8", "gptq-8bit", None)]
    assert sizes[0] == sizes[1] < sizes[2] < sizes[3]


def test_flops_are_those_of_an_analytic_profile(loaded):
    clip, media = clip_for(loaded, *SHAPES["both"])
    family, spec = type(loaded.model), loaded.model.spec
    selection = SelectionOptions(trr=0.3)
    shape = clip_shape(clip, len(clip.waveform()), family, spec, media)
    profile = analytic_profile(family, spec, shape, [selection], n_text=40, workload=("clip", 12, 6.0))
    found = estimate(job_for(loaded, SHAPES["both"], selection, 40))
    _, setting = profile.settings_measured
    assert found.flops == setting.flops
    assert found.tokens == setting.tokens


def test_counting_leaves_the_clip_as_it_is(loaded):
    job = job_for(loaded, (0, 1, 1, 6.4), SelectionOptions(), 40)
    before = list(job.clip.warnings)
    assert estimate(job).memory == estimate(job).memory
    assert job.clip.warnings == before


def test_how_the_options_hold_a_model():
    usual = ModelOptions()
    assert holding_of(usual, on_gpu=False) == Holding(4)
    assert holding_of(usual, on_gpu=True) == Holding(2, on_gpu=True)
    assert holding_of(replace(usual, dtype="float32", attn="eager"), on_gpu=True) == Holding(
        4, None, "eager", on_gpu=True
    )
    assert holding_of(replace(usual, quant="bnb-4bit"), on_gpu=True).quant == "bnb-4bit"
    assert holding_of(usual, on_gpu=True, quantised="awq-4bit").quant == "awq-4bit"


def test_what_is_expected_is_never_less_than_what_is_needed_at_least(loaded, selection):
    for shape in SHAPES.values():
        memory = estimate(job_for(loaded, shape, selection, 40)).memory
        assert memory.least <= memory.expected
        assert memory.weights + memory.kv_cache < memory.least


# Room


def big_job(name=SEVEN, *, on_gpu=True, seconds=600.0, **selection):
    family, config = named_architecture(name)
    spec = family.spec_of(name, config)
    return Job(
        family=family,
        spec=spec,
        holding=holding_of(ModelOptions(), on_gpu=on_gpu),
        clip=NoiseClip(int(seconds), seconds, 640, 360, fps=1.0),
        media=MediaOptions(fps=1.0),
        selection=SelectionOptions(**selection),
        n_text=80,
        max_new_tokens=256,
    )


def hint_of(job, available, **more) -> str:
    with pytest.raises(MemoryLimitError) as error:
        check_clip(job, available, **more)
    assert error.value.exit_code == 5
    assert room.size_of(estimate(job).memory.least) in str(error.value)
    return error.value.hint


def options_in(hint: str) -> list[str]:
    return hint.removeprefix("add one of: ").removeprefix("add ").split("; ")


def test_nothing_is_refused_that_fits_or_where_nothing_is_known():
    job = big_job()
    least = estimate(job).memory.least
    for available in (None, least, 10 * least):
        check_clip(job, available)
        check_weights(job.spec, job.holding, available)
    with pytest.raises(MemoryLimitError):
        check_clip(job, least - 1)


def test_weights_that_do_not_fit_are_refused_before_they_are_loaded():
    job = big_job(on_gpu=False)
    needed = sum(weight_bytes(job.spec, job.holding))
    with pytest.raises(MemoryLimitError) as error:
        check_weights(job.spec, job.holding, needed - 1)
    assert str(error.value).startswith(
        f"the weights of {SEVEN} need {room.size_of(needed)}, and this machine has "
    )
    assert options_in(error.value.hint) == ["--dtype bfloat16", room.SPREAD]
    # bfloat16 needs half of it. What is not quantised stays in float32, unless that is said too.
    for share, option in ((0.4, "--quant bnb-4bit"), (0.33, "--dtype bfloat16 --quant bnb-4bit")):
        with pytest.raises(MemoryLimitError) as error:
            check_weights(job.spec, job.holding, int(share * needed))
        assert options_in(error.value.hint) == [option, room.SPREAD]


def test_the_experts_of_a_mixture_are_not_offered_to_be_quantised():
    job = big_job(THIRTY)
    with pytest.raises(MemoryLimitError) as error:
        check_weights(job.spec, job.holding, 48 << 30)
    assert error.value.hint == f"add {room.SPREAD}"


def test_every_option_that_is_named_does_it_and_none_that_does_not():
    job = big_job(method="full", trr=1.0)
    memory = estimate(job).memory
    most = memory.weights + (memory.least - memory.weights) // 3
    named = options_in(hint_of(job, most))
    kinds = [" ".join(word for word in option.split() if word.startswith("--")) for option in named]
    assert kinds[:2] == ["--method --trr", "--max-frames"]
    assert "--quant" in kinds
    # In half precision already.
    assert not any("--dtype" in kind for kind in kinds)
    ratio = float(named[0].split()[-1])
    check_clip(replace(job, selection=SelectionOptions(trr=ratio)), most)
    frames = int(named[1].split()[-1])
    check_clip(replace(job, media=replace(job.media, max_frames=frames)), most)
    with pytest.raises(MemoryLimitError):
        check_clip(replace(job, media=replace(job.media, max_frames=2 * frames)), most)
    check_clip(replace(job, holding=replace(job.holding, quant="bnb-4bit")), most)


def test_where_the_weights_alone_are_too_much_no_shorter_clip_helps():
    job = big_job()
    named = options_in(hint_of(job, estimate(job).memory.weights - 1))
    assert named == ["--quant bnb-4bit", room.SPREAD]


def test_where_nothing_helps_nothing_is_named():
    job = replace(big_job(), holding=Holding(2, "bnb-4bit", on_gpu=True))
    assert hint_of(job, 1 << 20).startswith("no option fixes it by itself")


def test_weights_that_are_held_do_not_count_twice():
    job = big_job(on_gpu=False)
    memory = estimate(job).memory
    left = memory.least - memory.weights
    check_clip(job, left, weights_held=True)
    hint_of(job, left - 1, weights_held=True)
    hint_of(job, left)


def test_memory_of_the_cpu_is_what_is_available(monkeypatch, tmp_path):
    told, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    told.write_text("MemTotal: 900 kB\nMemAvailable:   400 kB\n")
    limit.write_text("max\n")
    monkeypatch.setattr(room, "_PROC", told)
    monkeypatch.setattr(room, "_CGROUP", limit)
    assert room.device_bytes("cpu") == 400 * 1024
    limit.write_text("1000\n")
    assert room.device_bytes("cpu") == 1000
    told.unlink()
    limit.unlink()
    assert room.device_bytes("cpu") > 1 << 20
    assert room.device_bytes("mps") is None


def test_memory_of_a_gpu_is_all_of_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3, 80) if device == "cuda:1" else (0, 0))
    assert room.device_bytes("cuda:1") == 80


# Times


def test_rates_are_measured_and_seconds_follow_from_them():
    measured = rates_room.measure_rates(torch.device("cpu"), torch.float32, most_seconds=0.0)
    assert min(measured) > 0
    job = big_job(seconds=60.0)
    found = estimate(job)
    slow = rates_room.planned_seconds(job, found, rates_room.make_rates((1e12, 1e11), 1e7), 10**8)
    fast = rates_room.planned_seconds(job, found, rates_room.make_rates((2e12, 1e12), 1e8), 10**8)
    for stage in ("decode", "encode", "select", "prefill", "answer_token", "answer"):
        assert 0 < getattr(fast, stage) < getattr(slow, stage)
    assert slow.first_token == pytest.approx(slow.decode + slow.encode + slow.select + slow.prefill)
    assert slow.answer == pytest.approx(slow.first_token + 256 * slow.answer_token)
    # One answer token reads the decoder's weights, the embedding table aside.
    text = job.spec.geometry.text
    read = found.memory.weights_decoder - 2 * text.hidden * text.vocab + found.memory.kv_cache
    host = text.n_layers * rates_room.HOST_SECONDS_PER_LAYER
    assert slow.answer_token == pytest.approx(read / 1e11 + host)


def test_where_the_decoding_rate_is_not_known_no_sum_is_made():
    job = big_job(seconds=60.0)
    found = estimate(job)
    seconds = rates_room.planned_seconds(job, found, rates_room.make_rates((1e12, 1e11), None), 10**8)
    assert (seconds.decode, seconds.first_token, seconds.answer) == (None, None, None)
    assert rates_room.planned_seconds(job, found, rates_room.make_rates((1e12, 1e11), None), 0).decode > 0


def test_keeping_everything_takes_no_time_to_select():
    job = big_job(seconds=60.0, method="full", trr=1.0)
    found = estimate(job)
    assert rates_room.planned_seconds(job, found, rates_room.make_rates((1e12, 1e11), 1e7), 1).select == 0


def test_of_a_mixture_an_answer_token_reads_the_experts_it_visits():
    job = big_job(THIRTY, seconds=60.0)
    found = estimate(job)
    seconds = rates_room.planned_seconds(job, found, rates_room.make_rates((1e12, 1e11), 1e7), 1)
    # Some 3 of 30 billion parameters, two bytes each.
    assert 5e9 / 1e11 < seconds.answer_token < 9e9 / 1e11 + 1
    assert seconds.answer_token < found.memory.weights / 1e11 / 4


@pytest.mark.parametrize("quant", ["bnb-4bit", "torchao-int8"])
def test_quantised_weights_take_what_was_said(checkpoint, quant):
    """Really quantised; scales may be kept in another precision, and rows padded."""
    pytest.importorskip("bitsandbytes" if quant.startswith("bnb") else "torchao")
    loaded = load(ModelOptions(model=str(checkpoint), device="cpu", dtype="float32"))
    if loaded.model.spec.geometry.text.n_experts:
        pytest.skip("refused for a mixture")
    plain, _ = weight_bytes(loaded.model.spec, Holding(4))
    expected, _ = weight_bytes(loaded.model.spec, Holding(4, quant))
    quantised = load(ModelOptions(model=str(checkpoint), device="cpu", dtype="float32", quant=quant))
    layers = sum(_bytes_of(one) for one in quantised.model.layers.parameters())
    before = sum(one.nbytes for one in loaded.model.layers.parameters())
    assert before - layers == pytest.approx(plain - expected, rel=0.15)


def _bytes_of(parameter) -> int:
    inner = getattr(parameter, "tensor_data_names", None)
    if inner:
        return sum(getattr(parameter, name).nbytes for name in inner)
    return parameter.nbytes

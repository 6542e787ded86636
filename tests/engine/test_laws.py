"""The laws of the engine, on a tiny random model in float32.

1. ``--trr 1`` is transformers' own forward and greedy generate.
2. A pruned run is a full-length one in which dropped tokens are masked as keys; later tokens too.
4. Batches of windows give what one go gives.
6. Nothing stays behind.
7. bfloat16 keeps the same tokens, but for near-ties.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seats_cli.config import GenerationOptions, ModelOptions, SelectionOptions
from seats_cli.engine.decode import decode, next_logits
from seats_cli.engine.pipeline import Settings, answer, prepare, read_prompt
from seats_cli.engine.prefill import prefill
from seats_cli.engine.reading import method_for
from seats_cli.engine.stage_one import encode
from seats_cli.layout import Modality
from seats_cli.models.loading import load
from seats_cli.selection import get_method
from seats_cli.timing import Stopwatch
from tests.array_clip import clip_for, stock_of
from tests.oracles.masked_forward import masked_logits
from tests.tiny_stock import stock_forward, stock_generate

QUESTION = "What is seen and heard?"
SHAPES = {  # frames, rows, columns, seconds of sound
    "both": (12, 4, 5, 6.0),
    "odd": (9, 3, 5, 5.3),
    "sound outlasts picture": (4, 4, 4, 7.1),
    "picture outlasts sound": (14, 3, 3, 2.5),
    "picture alone": (8, 5, 4, 0.0),
    "sound alone": (0, 1, 1, 6.4),
    "one frame": (1, 4, 4, 0.0),
    "one window": (4, 4, 4, 2.0),
}


def run(loaded, shape, selection, seed=0, **keywords):
    """Prepare and prefill a random clip; gives (prepared, prompted)."""
    clip, media = clip_for(loaded, *shape, seed=seed)
    settings = Settings(media=media, selection=selection)
    with torch.inference_mode():
        prepared = prepare(loaded, clip, QUESTION, settings, Stopwatch())
        return prepared, read_prompt(loaded, prepared, selection, Stopwatch(), **keywords)


@pytest.fixture(params=SHAPES, ids=lambda name: name.replace(" ", "-"))
def shape(request):
    return SHAPES[request.param]


def test_law_1_everything_kept_is_transformers(loaded, shape):
    inputs = stock_of(loaded.model.processor, *shape, QUESTION)
    both = bool(shape[0] and shape[3])
    expected = stock_forward(loaded.model.thinker, inputs, both)[0, -1]
    prepared, prompted = run(loaded, shape, SelectionOptions(trr=1.0), spare=12)
    np.testing.assert_array_equal(prepared.layout.ids, inputs["input_ids"][0].numpy())
    torch.testing.assert_close(prompted.prefill.logits, expected)

    tokens = stock_generate(loaded.model.thinker, inputs, both, max_new_tokens=12)
    with torch.inference_mode():
        decoded = decode(
            loaded.model,
            prompted.prefill.logits,
            prompted.prefill.cache,
            prepared.layout.next_position,
            GenerationOptions(max_new_tokens=12),
        )
    stop = [t for t in tokens if t in loaded.model.stop_ids]
    assert decoded.token_ids == (tokens[:-1] if stop else tokens)
    assert decoded.finish_reason == ("stop" if stop else "length")


def test_law_1_method_full_is_trr_1(loaded):
    _, full = run(loaded, SHAPES["both"], SelectionOptions(method="full"))
    for variant in ({}, *VARIANTS.values()):
        _, one = run(loaded, SHAPES["both"], SelectionOptions(trr=1.0, **variant))
        assert torch.equal(one.prefill.logits, full.prefill.logits)
        assert one.encoded.selection_flops == 0


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
def test_law_1_attention_kernels_agree(checkpoint, loaded, attn):
    other = load(ModelOptions(model=str(checkpoint), device="cpu", dtype="float32", attn=attn))
    for trr in (1.0, 0.2):
        _, one = run(loaded, SHAPES["both"], SelectionOptions(trr=trr))
        _, two = run(other, SHAPES["both"], SelectionOptions(trr=trr))
        torch.testing.assert_close(one.prefill.logits, two.prefill.logits, rtol=1e-4, atol=1e-4)
        assert one.prefill.counts == two.prefill.counts


def kept_rows(prompted, n_layers: int) -> list[list[int]]:
    """Prompt rows alive in each layer, from the trace."""
    rows, current = [], None
    for layer in range(n_layers):
        current = prompted.prefill.trace.get(f"before_layer_{layer}/kept_rows", current)
        rows.append(current.tolist())
    return rows


def whole(loaded, shape, seed=0):
    """The whole prompt, encoded: that of a run that keeps everything."""
    _, prompted = run(loaded, shape, SelectionOptions(trr=1.0), seed=seed)
    return prompted.encoded


@pytest.mark.parametrize("kv_cache", ["staged", "text"])
@pytest.mark.parametrize("score_with", ["previous", "next"])
def test_law_2_pruned_is_masked(loaded, shape, kv_cache, score_with):
    check_pruned_is_masked(loaded, shape, SelectionOptions(trr=0.3, kv_cache=kv_cache, score_with=score_with))


VARIANTS = {
    "random": {"method": "random"},
    "stage one": {"stages": "1"},
    "two stages": {"stages": "12"},
    "even windows": {"window_budgets": "uniform"},
    "two stages, even windows": {"stages": "12", "window_budgets": "uniform"},
}
every_variant = pytest.mark.parametrize(
    "variant", VARIANTS.values(), ids=[name.replace(" ", "-") for name in VARIANTS]
)


@every_variant
@pytest.mark.parametrize("kv_cache", ["staged", "text"])
def test_law_2_pruned_is_masked_in_every_variant(loaded, shape, variant, kv_cache):
    prompted = check_pruned_is_masked(loaded, shape, SelectionOptions(trr=0.3, kv_cache=kv_cache, **variant))
    last, first = sum(prompted.prefill.counts[-1][1:]), sum(prompted.prefill.counts[0][1:])
    if variant.get("method") == "random" or variant.get("stages") == "1":
        assert last == first > 0
    elif "stages" in variant:
        assert 0 < last < first
    else:
        assert 0 == last < first


def check_pruned_is_masked(loaded, shape, options):
    """Gives back what was read of the prompt."""
    prepared, prompted = run(loaded, shape, options, seed=3, spare=3)
    n_layers = len(loaded.model.layers)
    kept = kept_rows(prompted, n_layers)
    assert [len(rows) for rows in kept] == [sum(c) for c in prompted.prefill.counts]
    answer_ids = [40, 70, 90, 60, 55]  # more than the spare room, so the cache must grow
    got = [prompted.prefill.logits]
    with torch.inference_mode():
        for i, token in enumerate(answer_ids):
            position = prepared.layout.next_position + i
            got.append(next_logits(loaded.model, torch.tensor([token]), position, prompted.prefill.cache))
    encoded = whole(loaded, shape, seed=3)
    expected = masked_logits(
        loaded.model.thinker,
        encoded.embeddings.clone(),
        torch.from_numpy(prepared.layout.positions),
        kept,
        answer_ids,
        [kept[-1]] * n_layers if options.kv_cache == "text" else None,
        None if encoded.deepstack is None else encoded.deepstack.clone(),
        prepared.layout.rows(Modality.VIDEO),
    )
    torch.testing.assert_close(torch.stack(got), expected, rtol=1e-4, atol=1e-4)
    if options.method == "seats" and options.stages == "123":
        assert kept[-1] == prepared.layout.rows(Modality.TEXT).tolist()
    return prompted


def test_law_2_something_is_dropped_at_every_stage(loaded):
    _, prompted = run(loaded, SHAPES["both"], SelectionOptions(trr=0.3))
    totals = [sum(counts) for counts in prompted.prefill.counts]
    assert len(set(totals)) == 5
    assert totals == sorted(totals, reverse=True)
    assert prompted.prefill.counts[-1][1:] == (0, 0)


def test_law_2_the_answer_depends_on_what_the_cache_keeps(loaded):
    """staged and text agree on the first token and part ways after it."""
    logits = {}
    for kv_cache in ("staged", "text"):
        prepared, prompted = run(loaded, SHAPES["both"], SelectionOptions(trr=0.3, kv_cache=kv_cache))
        with torch.inference_mode():
            second = next_logits(
                loaded.model, torch.tensor([50]), prepared.layout.next_position, prompted.prefill.cache
            )
        logits[kv_cache] = prompted.prefill.logits, second
    assert torch.equal(logits["staged"][0], logits["text"][0])
    assert not torch.allclose(logits["staged"][1], logits["text"][1])


@pytest.mark.parametrize("method", ["seats", "random"])
@pytest.mark.parametrize("per_batch", [1, 2, 3])
def test_law_4_batches_equal_one_go(loaded, shape, per_batch, method):
    clip, media = clip_for(loaded, *shape, seed=5)
    selection = SelectionOptions(method=method, trr=0.4)
    prepared = prepare(loaded, clip, QUESTION, Settings(media=media, selection=selection), Stopwatch())
    parts = []
    for windows in (per_batch, 1000):
        method = method_for(loaded, prepared.plan, selection)
        with torch.inference_mode():
            parts.append(
                encode(
                    loaded.model,
                    clip,
                    prepared.waveform,
                    prepared.shape,
                    prepared.layout,
                    method,
                    Stopwatch(),
                    windows_per_batch=windows,
                )
            )
    small, whole = parts
    for name, saliency in whole.trace.items():
        torch.testing.assert_close(small.trace[name], saliency)
    assert torch.equal(small.index, whole.index)
    torch.testing.assert_close(small.embeddings, whole.embeddings)
    assert (small.deepstack is None) == (whole.deepstack is None)
    if whole.deepstack is not None:
        torch.testing.assert_close(small.deepstack, whole.deepstack)


def test_random_draws_differ_between_seeds_and_clips_but_not_between_questions(loaded):
    """Of clips of the same shape; and of the same clip in other words."""

    def drawn(seed, clip_seed=0, question=QUESTION):
        selection = SelectionOptions(method="random", trr=0.3, selection_seed=seed)
        clip, media = clip_for(loaded, *SHAPES["both"], seed=clip_seed)
        with torch.inference_mode():
            prepared = prepare(loaded, clip, question, Settings(media=media, selection=selection), Stopwatch())
            index = read_prompt(loaded, prepared, selection, Stopwatch()).encoded.index
        return [
            torch.isin(torch.from_numpy(prepared.layout.rows(kind)), index).tolist()
            for kind in (Modality.VIDEO, Modality.AUDIO)
        ]

    first = drawn(0)
    assert drawn(0, question="And now something else, at some length?") == first
    for other in (drawn(1), drawn(0, clip_seed=1)):
        for mine, theirs in zip(first, other, strict=True):
            assert mine != theirs
            assert sum(mine) == sum(theirs)


def test_law_4_saliency_sums_to_the_queries_of_a_window(loaded):
    """Each query gives away exactly 1, so a window's patches receive as much as they are many."""
    prepared, prompted = run(loaded, SHAPES["both"], SelectionOptions(trr=0.4))
    video = prompted.encoded.trace["stage_one/video_saliency"]
    sizes = prepared.layout.window_sizes[Modality.VIDEO]
    for part, size in zip(video.split(sizes), sizes, strict=True):
        torch.testing.assert_close(part.sum(), torch.tensor(float(size)))
    audio = prompted.encoded.trace["stage_one/audio_saliency"]
    for part in audio.split(loaded.model.spec.layout.positions_per_window):
        torch.testing.assert_close(part.sum(), torch.tensor(float(len(part))))


def module_state(thinker) -> dict:
    """Everything a run could leave on a module: attributes, hooks, buffers."""
    state = {}
    for name, module in thinker.named_modules():
        hooks = {k: len(v) for k, v in vars(module).items() if k.endswith("_hooks") and v}
        state[name] = (sorted(vars(module)), hooks, module.forward.__func__, module.training)
    return state


def test_law_6_nothing_stays_behind(loaded, monkeypatch):
    def ask(seed, selection):
        clip, media = clip_for(loaded, *SHAPES["both"], seed=seed)
        settings = Settings(media, selection, GenerationOptions(max_new_tokens=4))
        return answer(loaded, lambda: clip, QUESTION, settings)

    pruned, full = SelectionOptions(trr=0.3), SelectionOptions(method="full")
    first = ask(1, pruned)
    before = module_state(loaded.model.thinker)
    ask(2, full)
    ask(2, pruned)
    assert module_state(loaded.model.thinker) == before

    def broken(*_args, **_kwargs):
        raise RuntimeError("no")

    for part in (loaded.model._parts[1].blocks[-1].attn, loaded.model._parts[2].layers[-1].self_attn):
        with monkeypatch.context() as patch:
            patch.setattr(part, "forward", broken)
            with pytest.raises(RuntimeError, match="no"):
                ask(3, pruned)
        assert module_state(loaded.model.thinker) == before
    again = ask(1, pruned)
    assert (again.answer, again.tokens) == (first.answer, first.tokens)


def test_law_6_stock_is_unchanged_after_a_run(loaded):
    inputs = stock_of(loaded.model.processor, *SHAPES["both"], QUESTION)
    before = stock_forward(loaded.model.thinker, inputs)
    run(loaded, SHAPES["both"], SelectionOptions(trr=0.2))
    assert torch.equal(stock_forward(loaded.model.thinker, inputs), before)


def test_law_7_bfloat16_keeps_the_same_but_for_near_ties(checkpoint, loaded, capsys):
    """Stage I in both precisions on the same picture and sound; swaps must be between near-equals."""
    half = load(ModelOptions(model=str(checkpoint), device="cpu", dtype="bfloat16"))
    options = SelectionOptions(trr=0.3)
    shape = (24, 4, 5, 12.0)
    _, exact = run(loaded, shape, options)
    _, rough = run(half, shape, options)
    n = len(exact.encoded.index)
    a, b = set(exact.encoded.index.tolist()), set(rough.encoded.index.tolist())
    assert len(b) == n
    with capsys.disabled():
        print(f"\nstage I: {n - len(a & b)} of {n} kept tokens differ between float32 and bfloat16")
    assert len(a & b) >= 0.8 * n

    # Stage II from the very same scores, once rounded to bfloat16: only near-ties may swap.
    prepared, prompted = exact_scores(loaded, shape, options)
    method = method_for(loaded, prepared.plan, options)
    layer = prepared.plan.drop_before_layer[0]
    scores = prompted.prefill.trace[f"before_layer_{layer}/scores"]
    rounded = scores.bfloat16().float()
    kept = [select(method, prepared, prompted, layer, s) for s in (scores, rounded)]
    swapped = set(kept[0]) ^ set(kept[1])
    with capsys.disabled():
        print(f"stage II: {len(swapped) // 2} of {len(kept[0])} differ after rounding the scores to bfloat16")
    threshold = 2**-7
    for row in swapped:
        gap = (scores - scores[row]).abs() / scores[row]
        gap[row] = torch.inf
        assert gap.min() <= threshold


def exact_scores(loaded, shape, options):
    return run(loaded, shape, options)


def select(method, prepared, prompted, layer, scores) -> list[int]:
    from seats_cli.selection.base import LayerState

    index = prompted.prefill.trace["before_layer_0/kept_rows"]
    state = LayerState(
        layer=layer,
        modality=torch.from_numpy(prepared.layout.modality)[index],
        window=torch.from_numpy(prepared.layout.window)[index],
        n_windows=prepared.layout.n_windows,
        max_window_tokens=max(max(sizes) for sizes in prepared.layout.window_sizes.values()),
        scores=lambda: scores,
    )
    return method.before_layer(state).indices.tolist()


def test_stage_two_scores_are_the_attention_of_the_last_token(loaded):
    """Against eager attention weights of transformers' own layer."""
    prepared, prompted = run(loaded, SHAPES["both"], SelectionOptions(trr=1.0))
    hidden = prompted.encoded.embeddings.clone()[None]
    positions = torch.from_numpy(prepared.layout.positions)
    rope = loaded.model.rope(hidden, positions)
    layer = loaded.model.layers[2]
    from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import apply_rotary_pos_emb, repeat_kv

    with torch.no_grad():
        got = loaded.model.query_attention(2, hidden, rope)
        normed, attn = layer.input_layernorm(hidden), layer.self_attn
        n = hidden.shape[1]
        query = attn.q_proj(normed).view(1, n, -1, attn.head_dim)
        key = attn.k_proj(normed).view(1, n, -1, attn.head_dim)
        if hasattr(attn, "q_norm"):
            query, key = attn.q_norm(query), attn.k_norm(key)
        query, key = query.transpose(1, 2), key.transpose(1, 2)
        query, key = apply_rotary_pos_emb(query, key, *rope)
        key = repeat_kv(key, attn.num_key_value_groups)
        weights = (query @ key.transpose(2, 3) * attn.scaling).softmax(-1)
    torch.testing.assert_close(got, weights[0, :, -1].mean(0))


def test_batched_prefill_needs_no_method_state(loaded):
    """The same prompt through a fresh method object gives the same rows."""
    clip, media = clip_for(loaded, *SHAPES["both"], seed=9)
    options = SelectionOptions(trr=0.3)
    prepared = prepare(loaded, clip, QUESTION, Settings(media=media, selection=options), Stopwatch())
    results = []
    for _ in range(2):
        method = get_method("seats")(prepared.plan, options, 0.1)
        with torch.inference_mode():
            encoded = encode(
                loaded.model, clip, prepared.waveform, prepared.shape, prepared.layout, method, Stopwatch()
            )
            filled = prefill(loaded.model, prepared.layout, encoded, method)
        results.append(filled)
    assert torch.equal(results[0].logits, results[1].logits)

"""What a prefill costs, by arithmetic alone: no weights, no torch, instant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from seats_cli import __version__, cost
from seats_cli.config import SelectionOptions
from seats_cli.engine.prepare import ClipShape, lay_out, media_info
from seats_cli.layout import Layout, Modality
from seats_cli.media.types import Clip
from seats_cli.models.base import ModelSpec, OmniModel
from seats_cli.report import (
    FlopsInfo,
    LayerTokens,
    LevelsInfo,
    ModelInfo,
    ProfileReport,
    ScheduleInfo,
    Seconds,
    SelectionInfo,
    SettingReport,
    Speedup,
    StageOne,
    TokenCounts,
    Versions,
    Workload,
)
from seats_cli.selection.schedule import Levels, TokenPlan, make_plan, scale_of, stages_of

FULL = SelectionOptions(method="full", trr=1.0)


def label_of(options: SelectionOptions) -> str:
    """``full``, ``seats R=0.1``, ``seats R_v=0.06 R_a=0.35``, ``seats R=0.1 stages=12``."""
    if options.method == "full":
        return "full"
    pair = options.video_trr is not None
    ratio = f"R_v={options.video_trr:g} R_a={options.audio_trr:g}" if pair else f"R={options.trr:g}"
    usual, said = SelectionOptions(), _told_apart(options)
    more = [f"{name.replace('_', '-')}={value}" for name, value in said.items() if value != getattr(usual, name)]
    return " ".join([options.method, ratio, *more])


def _told_apart(options: SelectionOptions) -> dict[str, Any]:
    """Beside the ratios, the options that have a part in who stays and that the report names."""
    if options.method == "random":
        return {"selection_seed": options.selection_seed}
    if options.method != "seats":
        return {}
    uses_query = {} if options.stages == "1" else {"window_budgets": options.window_budgets}
    return {"stages": options.stages, **uses_query}


def synthetic_prompt(spec: ModelSpec, n_text: int, shape: ClipShape) -> tuple[list[int], list[int]]:
    """Harmless ids around a clip, ``n_text`` of them once the layout has added its markers."""
    layout = spec.layout
    opens, closes = (
        (layout.video_bos_id, layout.video_eos_id) if shape.video else (layout.audio_bos_id, layout.audio_eos_id)
    )
    markers = 4 if shape.video and shape.n_audio_tokens else 2
    # Never an id that means something to the layout, and none past a small vocabulary's end.
    reserved = {value for name, value in asdict(layout).items() if name.endswith("_id")}
    plain = [i for i in range(1, 64) if i not in reserved]
    words = [plain[i % len(plain)] for i in range(max(n_text - markers, 1))]
    before = len(words) // 4
    return [*words[:before], opens], [closes, *words[before:]]


def plan_of(spec: ModelSpec, layout: Layout, options: SelectionOptions) -> TokenPlan:
    """Who stays in this layout; everyone with the method ``full``.

    Raises:
        UsageError: The ratios or the boundaries are infeasible.
    """
    return make_plan(
        FULL if options.method == "full" else options,
        spec.preset,
        spec.geometry.text.n_layers,
        layout.window_sizes[Modality.VIDEO],
        layout.window_sizes[Modality.AUDIO],
    )


def check_settings(spec: ModelSpec, settings: Iterable[SelectionOptions]) -> None:
    """Find out before a clip is read that a ratio or a schedule cannot be, for a clip with picture and sound.

    Raises:
        UsageError: The ratios or the boundaries are infeasible.
    """
    for options in settings:
        if options.method != "full":
            make_plan(options, spec.preset, spec.geometry.text.n_layers, [1], [1])


def encoder_flops(spec: ModelSpec, shape: ClipShape) -> int:
    """Executed by both encoders on a whole clip."""
    geometry, total = spec.geometry, 0
    if shape.video is not None:
        merge = geometry.vision.merge_size
        patches = (shape.video.rows * merge, shape.video.columns * merge)
        total += cost.vision_flops(geometry.vision, patches, shape.video.n_grids)
    if shape.n_mel_frames:
        total += cost.audio_flops(geometry.audio, [shape.n_mel_frames])
    return total


def selection_flops(spec: ModelSpec, layout: Layout, plan: TokenPlan) -> int:
    """Executed by SEATS itself: saliency, distances and scores. To drop nothing, or by lot, takes none.

    With ``--attn sdpa``; other kernels do not show the encoders' queries and keys, which are projected again.
    """
    if plan.keeps_everything or not plan.stage_one_video:
        return 0
    geometry = spec.geometry
    vision, audio, total = geometry.vision, geometry.audio, 0
    for modality, keeps, per_token, width in (
        (Modality.VIDEO, plan.stage_one_video, vision.merge_size**2, vision.hidden),
        (Modality.AUDIO, plan.stage_one_audio, audio.positions_per_token, audio.d_model),
    ):
        sizes = [size for size in layout.window_sizes[modality] if size]
        if not sizes:
            continue
        total += cost.saliency_flops([size * per_token for size in sizes], width)
        pruned = [s for s, k in zip(layout.window_sizes[modality], keeps, strict=True) if 0 < k < s]
        if pruned:
            total += cost.diversity_flops(len(pruned), max(pruned), geometry.text.hidden)
    n_text = layout.count(Modality.TEXT)
    scored = [n_text + sum(stage) for stage in plan.stage_totals[:-1]]
    return total + sum(cost.relevance_flops(geometry.text, n) for n in scored)


def flops_of(spec: ModelSpec, n_full: int, kept: Sequence[int], encoders: int, selection: int) -> FlopsInfo:
    """Cost of a prefill beside that of a full one, in both conventions.

    Args:
        spec: Of the model.
        n_full: Tokens of the unpruned sequence.
        kept: Tokens per layer.
        encoders: FLOPs executed by the encoders.
        selection: FLOPs executed by the selection.
    """
    text = spec.geometry.text
    whole = [n_full] * text.n_layers
    return FlopsInfo(
        paper=cost.Flops(cost.paper_prefill_flops(text, whole), cost.paper_prefill_flops(text, kept)),
        executed=cost.Flops(cost.prefill_flops(text, whole), cost.prefill_flops(text, kept) + selection),
        encoders_executed=encoders,
        selection_executed=selection,
        paper_per_layer=tuple(cost.paper_layer_flops(text, n) for n in kept),
    )


def token_counts(layout: Layout, per_layer: Sequence[tuple[int, int, int]]) -> TokenCounts:
    """Tokens in, and what each layer processes."""
    return TokenCounts(
        text=layout.count(Modality.TEXT),
        video=layout.count(Modality.VIDEO),
        audio=layout.count(Modality.AUDIO),
        per_layer=tuple(LayerTokens(layer=i, text=t, video=v, audio=a) for i, (t, v, a) in enumerate(per_layer)),
    )


def selection_info(plan: TokenPlan, tokens: TokenCounts, options: SelectionOptions) -> SelectionInfo:
    """What was asked for, and what came of it."""
    into_llm = tokens.per_layer[0]
    return SelectionInfo(
        method=options.method,
        trr=None if options.video_trr is not None else 1.0 if options.method == "full" else options.trr,
        video_trr=plan.video_trr if plan.n_video else None,
        audio_trr=plan.audio_trr if plan.n_audio else None,
        achieved_trr=tokens.achieved_trr,
        drop_before_layer=tuple(plan.drop_before_layer),
        kv_cache=options.kv_cache,
        **_told_apart(options),
        stage_one=StageOne(video=into_llm.video, audio=into_llm.audio),
        video_levels=_levels_info(plan.video) if plan.n_video else None,
        audio_levels=_levels_info(plan.audio) if plan.n_audio else None,
    )


def _levels_info(levels: Levels) -> LevelsInfo | None:
    """None where nothing is dropped inside the decoder."""
    if not levels.drop_before_layer:
        return None
    after = (0.0,) if len(levels.drop_before_layer) == len(levels.levels) else ()
    return LevelsInfo(levels=(*levels.levels, *after), delta=levels.delta)


def workload_of(shape: ClipShape, layout: Layout, source: str, frames: int, seconds: float) -> Workload:
    """What is prefilled."""
    return Workload(
        source=source,
        frames=frames,
        seconds=seconds,
        grids=shape.video.n_grids if shape.video else 0,
        tokens_per_grid=shape.video.tokens_per_grid if shape.video else 0,
        text_tokens=layout.count(Modality.TEXT),
        video_tokens=layout.count(Modality.VIDEO),
        audio_tokens=layout.count(Modality.AUDIO),
    )


def schedule_of(spec: ModelSpec, options: Sequence[SelectionOptions]) -> ScheduleInfo:
    """The schedule that the settings share."""
    chosen = next((o for o in options if o.method != "full" and not o.asks_for_all), None)
    if chosen is None:
        return ScheduleInfo(layers=spec.geometry.text.n_layers, drop_before_layer=(), scale=1.0, temperature=None)
    stages = stages_of(chosen)
    drops = tuple(chosen.drop_before_layer or spec.preset.drop_before_layer or ())
    softmax = stages != "1" and chosen.window_budgets == "query"
    return ScheduleInfo(
        layers=spec.geometry.text.n_layers,
        drop_before_layer={"1": (), "12": drops[:3], "123": drops}[stages],
        scale=1.0 if stages == "1" else scale_of(chosen, spec.preset),
        temperature=(chosen.temperature or spec.preset.temperature) if softmax else None,
    )


def _setting(spec: ModelSpec, shape: ClipShape, layout: Layout, options: SelectionOptions) -> SettingReport:
    plan = plan_of(spec, layout, options)
    tokens = token_counts(layout, plan.tokens_per_layer(layout.count(Modality.TEXT)))
    kept = [layer.total for layer in tokens.per_layer]
    return SettingReport(
        label=label_of(options),
        selection=selection_info(plan, tokens, options),
        tokens=tokens,
        flops=flops_of(
            spec, layout.n_tokens, kept, encoder_flops(spec, shape), selection_flops(spec, layout, plan)
        ),
        seconds=Seconds(),
        spread={},
        memory_bytes=None,
        speedup=Speedup(),
    )


def analytic_profile(
    family: type[OmniModel],
    spec: ModelSpec,
    shape: ClipShape,
    settings: Sequence[SelectionOptions],
    *,
    n_text: int,
    workload: tuple[str, int, float],
    clip: Clip | None = None,
    warnings: Sequence[str] = (),
) -> ProfileReport:
    """Tokens and FLOPs of every setting, nothing run.

    Args:
        family: Of the model.
        spec: Of the model.
        shape: The clip in tokens.
        settings: To compare; the full run is put first.
        n_text: Text tokens, markers included.
        workload: Source (``clip`` or ``synthetic``), frames, seconds.
        clip: Where there is one.
        warnings: Collected so far.

    Raises:
        UsageError: A ratio or the boundaries are infeasible.
    """
    layout = lay_out(shape, synthetic_prompt(spec, n_text, shape), spec)
    every = [FULL, *(o for o in settings if o.method != "full")]
    return ProfileReport(
        model=ModelInfo(
            id=spec.geometry.name,
            revision=None,
            weights="none",
            dtype="none",
            device="none",
            attention="none",
        ),
        media=media_info(clip, shape, layout.n_windows) if clip is not None else None,
        workload=workload_of(shape, layout, *workload),
        schedule=schedule_of(spec, settings),
        runs=0,
        warmup=0,
        note=f"computed from the dimensions of {spec.geometry.name} ({family.model_type}); nothing was run",
        settings_measured=tuple(_setting(spec, shape, layout, options) for options in every),
        versions=Versions(seats=__version__, torch=None, transformers=None),
        warnings=tuple(warnings),
    )

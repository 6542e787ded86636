"""Bundles of options: each function's parameters are options, its result is the checked config made of them."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from seats_cli.cli.options import (
    GENERATION,
    NUMBER,
    WHOLE,
    Attn,
    Audio,
    AudioTrr,
    DecoderName,
    Device,
    DeviceMap,
    DtypeName,
    End,
    Fps,
    KvCacheName,
    MaxFrames,
    MaxMemory,
    MaxPixels,
    Method,
    MinPixels,
    Model,
    Offline,
    OffloadFolder,
    QuantName,
    RequireAudio,
    Revision,
    Scale,
    Schedule,
    ScoreNormName,
    ScoreWithName,
    SelectionSeed,
    StagesName,
    Start,
    VideoTrr,
    WindowBudgetsName,
    WindowTemperature,
    option,
)
from seats_cli.config import (
    DEFAULT_MODEL,
    GenerationOptions,
    MediaOptions,
    ModelOptions,
    SelectionOptions,
    parse_seconds,
)
from seats_cli.errors import UsageError
from seats_cli.selection.schedule_file import DropSchedule, read_schedule

if TYPE_CHECKING:
    from seats_cli.api import Seats

MaxNewTokens = Annotated[
    int,
    option(
        "--max-new-tokens",
        panel=GENERATION,
        env="SEATS_MAX_NEW_TOKENS",
        **WHOLE,
        help="Most tokens to write, reasoning before the answer included.",
    ),
]
System = Annotated[
    str | None,
    option("--system", panel=GENERATION, metavar="<text>", help="System prompt. Default: the chat template's."),
]
Choices = Annotated[
    str | None,
    option(
        "--choices",
        panel=GENERATION,
        metavar="<labels>",
        help="Labels, such as A,B,C,D: the likeliest by first-token logits is the answer.",
    ),
]

_MEDIA, _SELECTION, _GENERATION = MediaOptions(), SelectionOptions(), GenerationOptions()


def parse_schedule(text: str | None) -> DropSchedule | None:
    """Read ``16,18,20,23``, or the file of that name.

    Raises:
        UsageError: It is not a list of whole numbers, or the file holds no schedule.
    """
    if text is None:
        return None
    if text.lower().endswith(".toml") or os.path.isfile(text):
        return read_schedule(Path(text))
    try:
        return DropSchedule(tuple(int(part) for part in text.split(",")))
    except ValueError:
        raise UsageError(
            f"--schedule is {text!r}; give four layers such as 16,18,20,23, or a .toml file that is there"
        ) from None


def split_labels(choices: str | None) -> tuple[str, ...]:
    """Read ``A,B,C,D``."""
    return () if choices is None else tuple(label.strip() for label in choices.split(","))


def media_options(
    fps: Fps = _MEDIA.fps,
    max_frames: MaxFrames = _MEDIA.max_frames,
    min_pixels: MinPixels = None,
    max_pixels: MaxPixels = None,
    start: Start = None,
    end: End = None,
    audio: Audio = _MEDIA.audio,
    require_audio: RequireAudio = False,
    decoder: DecoderName = _MEDIA.decoder,
) -> MediaOptions:
    """What of a clip is seen and heard."""
    if decoder != _MEDIA.decoder:
        from seats_cli.media.decoders import check_decoder

        check_decoder(decoder)
    return MediaOptions(
        fps=fps,
        max_frames=max_frames,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        start_seconds=None if start is None else parse_seconds(start, "--start"),
        end_seconds=None if end is None else parse_seconds(end, "--end"),
        audio=audio,
        require_audio=require_audio,
        decoder=decoder,
    )


def model_options(
    model: Model = DEFAULT_MODEL,
    revision: Revision = None,
    dtype: DtypeName = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    max_memory: MaxMemory = None,
    offload_folder: OffloadFolder = None,
    quant: QuantName = "none",
    attn: Attn = "auto",
    offline: Offline = False,
) -> ModelOptions:
    """The model. Offline, the network is cut before the hub library is imported: it looks only then."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    return ModelOptions(
        model=model,
        revision=revision,
        dtype=dtype,
        device=device,
        device_map=device_map,
        max_memory=max_memory,
        offload_folder=offload_folder,
        quant=quant,
        attn=attn,
        offline=offline,
    )


def selection_options(
    method: Method = "seats",
    video_trr: VideoTrr = None,
    audio_trr: AudioTrr = None,
    kv_cache: KvCacheName = _SELECTION.kv_cache,
    schedule: Schedule = None,
    scale: Scale = None,
    window_temperature: WindowTemperature = None,
    score_with: ScoreWithName = _SELECTION.score_with,
    score_norm: ScoreNormName = _SELECTION.score_norm,
    stages: StagesName = _SELECTION.stages,
    window_budgets: WindowBudgetsName = _SELECTION.window_budgets,
    selection_seed: SelectionSeed = _SELECTION.selection_seed,
) -> SelectionOptions:
    """Which tokens stay; ``trr`` is the command's."""
    given = parse_schedule(schedule)
    if given is not None:
        window_temperature = given.temperature if window_temperature is None else window_temperature
        scale = given.scale if scale is None else scale
    return SelectionOptions(
        method=method,
        video_trr=video_trr,
        audio_trr=audio_trr,
        kv_cache=kv_cache,
        scale=scale,
        temperature=window_temperature,
        score_with=score_with,
        score_norm=score_norm,
        stages=stages,
        window_budgets=window_budgets,
        selection_seed=selection_seed,
        drop_before_layer=None if given is None else given.drop_before_layer,
        schedule_layers=None if given is None else given.layers,
    )


def generation_options(
    max_new_tokens: MaxNewTokens = _GENERATION.max_new_tokens,
    temperature: Annotated[
        float, option("--temperature", panel=GENERATION, **NUMBER, help="0 is greedy.")
    ] = _GENERATION.temperature,
    top_p: Annotated[
        float, option("--top-p", panel=GENERATION, **NUMBER, help="Nucleus, with a temperature.")
    ] = _GENERATION.top_p,
    seed: Annotated[
        int | None,
        option("--seed", panel=GENERATION, **WHOLE, help="Of the sampler. Default: random."),
    ] = None,
    system: System = None,
    choices: Choices = None,
    no_thinking: Annotated[
        bool,
        option(
            "--no-thinking",
            panel=GENERATION,
            help="Answer without reasoning, by the switch of the chat template.",
        ),
    ] = False,
) -> GenerationOptions:
    """How the answer is written."""
    return GenerationOptions(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        system=system,
        choices=split_labels(choices),
        thinking=not no_thinking,
    )


def seats_of(loading: ModelOptions, **options: Any) -> Seats:
    """The facade, with the model that the options name.

    Args:
        loading: Which model and where; its ``weights`` are for ``profile`` alone.
        options: Of ``Seats``: ``media``, ``generation``, ``selection``.
    """
    from seats_cli.api import Seats

    where = {field.name: getattr(loading, field.name) for field in dataclasses.fields(loading)}
    del where["weights"]
    return Seats(**where, **options)

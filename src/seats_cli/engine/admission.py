"""What cannot fit is refused before the work: a model before its weights are read, a clip before it is encoded."""

from __future__ import annotations

from seats_cli.config import SPREADING_MAPS, MediaOptions, ModelOptions, SelectionOptions
from seats_cli.engine.estimate import Holding, Job, holding_of
from seats_cli.engine.room import check_clip, check_weights, device_bytes
from seats_cli.media.types import Clip
from seats_cli.models import loading, placement
from seats_cli.models.checkpoint import look
from seats_cli.models.loading import LoadedModel
from seats_cli.models.quantisation import describe
from seats_cli.models.specs import spec_of_checkpoint

LEAST_TEXT_TOKENS = 16
"""Of any prompt; more is not known before the question is."""


def load_if_it_fits(options: ModelOptions) -> LoadedModel:
    """Load a model, unless its weights alone are more than there is room for.

    Raises:
        MemoryLimitError: They are.
        ModelError: The model cannot be had.
        UsageError: The device does not exist here.
    """
    if options.weights != "random" and options.device_map not in SPREADING_MAPS:
        _check_weights(options)
    return loading.load(options)


def _check_weights(options: ModelOptions) -> None:
    device = placement.place(options).device
    _, spec = spec_of_checkpoint(options)
    already = look(options).quantization
    quantised = None if already is None else describe(already)
    holding = holding_of(options, on_gpu=device.type != "cpu", quantised=quantised)
    check_weights(spec, holding, device_bytes(str(device)))


def check_clip_fits(loaded: LoadedModel, clip: Clip, media: MediaOptions, selection: SelectionOptions) -> None:
    """Refuse a clip whose keys, values and embeddings cannot fit beside the weights, whatever is asked about it.

    A model in several places is not looked at: its weights may wait elsewhere.

    Raises:
        MemoryLimitError: They cannot; the hint names options with which they would.
    """
    import torch

    places = loaded.model.devices
    if len(places) > 1 or places[0].type != loaded.device.partition(":")[0]:
        return
    on_gpu = places[0].type != "cpu"
    dtype: torch.dtype = loaded.model.dtype
    job = Job(
        family=type(loaded.model),
        spec=loaded.model.spec,
        holding=Holding(dtype.itemsize, loaded.quant, loaded.attention, on_gpu),
        clip=clip,
        media=media,
        selection=selection,
        n_text=LEAST_TEXT_TOKENS,
        max_new_tokens=1,
    )
    check_clip(job, device_bytes(str(places[0])), weights_held=not on_gpu)

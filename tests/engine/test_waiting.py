"""A prefill asks the device for nothing, and holds no square of the sequence."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from seats_cli import kernels
from seats_cli.config import SelectionOptions
from seats_cli.engine.prefill import prefill
from seats_cli.engine.reading import method_for
from seats_cli.engine.stage_one import EncodedClip, with_text
from seats_cli.layout import Modality
from seats_cli.selection import METHODS
from tests.engine.test_laws import SHAPES, run


@pytest.fixture(autouse=True)
def torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no data cannot be launched upon, and Triton's kernels ask for nothing."""
    monkeypatch.setattr(kernels, "available", lambda _: False)


def in_place_of(thing: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A dataclass with its tensors changed."""
    tensors = {one.name: getattr(thing, one.name) for one in fields(thing)}
    return replace(thing, **{name: change(t) for name, t in tensors.items() if isinstance(t, torch.Tensor)})


def imagined(model, mode: FakeTensorMode):
    """The same model on a GPU that need not be there, without its data."""
    with FakeCopyMode(mode):
        thinker = copy.deepcopy(model.thinker)

    def move(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to("cuda", torch.bfloat16 if tensor.is_floating_point() else None)

    with mode:
        for module in thinker.modules():
            for name, value in module._parameters.items():
                if value is not None:
                    module._parameters[name] = torch.nn.Parameter(move(value.detach()), requires_grad=False)
            for name, value in module._buffers.items():
                if value is not None:
                    module._buffers[name] = move(value)
    return type(model)(thinker, model.processor, model.spec)


VARIANTS = {
    **{name: {"method": name} for name in METHODS},
    "next": {"score_with": "next"},
    "text cache": {"kv_cache": "text"},
    "standard": {"score_norm": "standard", "kv_cache": "text"},
    "even windows": {"window_budgets": "uniform"},
    "stage one": {"stages": "1"},
    "two stages": {"stages": "12"},
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=[name.replace(" ", "-") for name in VARIANTS])
def test_the_whole_prefill_asks_the_device_for_nothing(loaded, variant, monkeypatch):
    """Tensors without data refuse operations that need a value on the host, and those that mix devices."""
    options = SelectionOptions(trr=0.3, **variant)
    prepared, prompted = run(loaded, SHAPES["both"], options)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    mode = FakeTensorMode()
    model = imagined(loaded.model, mode)

    def there(tensor: torch.Tensor) -> torch.Tensor:
        kind = torch.bfloat16 if tensor.is_floating_point() else None
        return mode.from_tensor(tensor).to("cuda", kind)

    with mode, torch.inference_mode():
        encoded = in_place_of(prompted.encoded, there)
        with pytest.raises(DataDependentOutputException):
            encoded.index.sum().item()
        filled = prefill(
            model,
            prepared.layout,
            encoded,
            method_for(loaded, prepared.plan, options),
            kv_cache=options.kv_cache,
            score_with=options.score_with,
        )
        assert filled.logits.device.type == "cuda"
        with pytest.raises(DataDependentOutputException):
            _ = filled.counts
    assert filled.logits.shape == prompted.prefill.logits.shape
    assert filled.cache.lengths == prompted.prefill.cache.lengths
    assert filled.scored == prompted.prefill.scored


def test_the_words_are_put_around_a_clip_without_asking(loaded, monkeypatch):
    from seats_cli.engine.stage_one import KeptTokens

    prepared, prompted = run(loaded, SHAPES["both"], SelectionOptions(trr=0.3))
    encoded: EncodedClip = prompted.encoded
    mode = FakeTensorMode()
    model = imagined(loaded.model, mode)
    width = encoded.embeddings.shape[1]
    with mode, torch.inference_mode():
        kept = {
            modality: KeptTokens(
                torch.empty(5, dtype=torch.int64, device="cuda"),
                torch.empty(5, width, dtype=torch.bfloat16, device="cuda"),
                *(None, None, 0, 0),
            )
            for modality in (Modality.VIDEO, Modality.AUDIO)
        }
        together = with_text(model, prepared.layout, kept)
        assert together.embeddings.device.type == "cuda"
    n_text = prepared.layout.count(Modality.TEXT)
    assert together.embeddings.shape == (n_text + 10, width)


# No squares


class Watch(TorchDispatchMode):
    """The largest tensor that any operation gave, and what attention was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = (0, "")
        self.attended: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func._schema.name
        if "attention" in name:
            self.attended.append((name, args, kwargs or {}))
        for one in out if isinstance(out, tuple | list) else (out,):
            if isinstance(one, torch.Tensor):
                self.largest = max(self.largest, (one.numel(), name))
        return out


@pytest.mark.parametrize("name", METHODS)
def test_no_square_of_the_sequence_is_ever_held(loaded, name):
    """So long a clip that a map of one head would be larger than anything else."""
    shape, options = (64, 8, 10, 32.0), SelectionOptions(method=name, trr=0.6)
    prepared, prompted = run(loaded, shape, options)
    n = len(prompted.encoded.index)
    text = loaded.model.spec.geometry.text
    with torch.inference_mode(), Watch() as watch:
        prefill(loaded.model, prepared.layout, prompted.encoded, method_for(loaded, prepared.plan, options))
    assert n**2 > 2 * n * max(text.hidden, 2 * text.intermediate), "too short to tell"
    assert watch.largest[0] < n**2, watch.largest
    assert len(watch.attended) == text.n_layers
    for _, (query, key, value, *more), keywords in watch.attended:
        assert query.shape[1] == text.n_heads
        assert key.shape[1] == value.shape[1] == text.n_kv_heads, "keys are not repeated"
        assert True in more, "causal by itself"
        assert not any(isinstance(one, torch.Tensor) for one in (*more, *keywords.values())), "a mask"

"""From a Hub id or a folder to a thinker in memory.

Weights come from safetensors only and no code of a repository is run. The thinker alone is loaded: of a
checkpoint that also speaks, neither the files nor the tensors of the talker are touched.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seats_cli.config import ModelOptions
from seats_cli.errors import MemoryLimitError, ModelError, UsageError, counted, explain
from seats_cli.models import family_of, named_architecture
from seats_cli.models.base import Config, OmniModel
from seats_cli.models.checkpoint import PREFIX, Checkpoint, find, find_config, lacks
from seats_cli.models.settings import with_settings

if TYPE_CHECKING:
    import torch

__all__ = [
    "Checkpoint",
    "LoadedModel",
    "build_random",
    "choose_attention",
    "choose_device",
    "choose_dtype",
    "find",
    "find_config",
    "load",
    "load_checkpoint",
]

DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
"""What accelerate spreads over several devices by itself."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A thinker ready to run, and where it came from.

    Attributes:
        model: The adapted thinker.
        model_id: As the user named it.
        revision: Commit of a Hub model; None otherwise.
        weights: ``checkpoint`` or ``random``.
        dtype: For example ``bfloat16``.
        device: For example ``cuda:0``.
        attention: Kernel in use, for example ``sdpa``.
        note: One line that its users should know, from its ``seats.toml``.
        folder: That it was read from; None: its weights are random.
    """

    model: OmniModel
    model_id: str
    revision: str | None
    weights: str
    dtype: str
    device: str
    attention: str
    note: str | None = None
    folder: Path | None = None


def choose_device(name: str, option: str = "--device") -> torch.device:
    """``auto`` is the first GPU, or the CPU.

    Args:
        name: As the user gave it.
        option: Where, for the error.

    Raises:
        UsageError: The device does not exist here.
    """
    import torch

    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"{option} {name!r} is not a device", "try auto, cpu, cuda or cuda:1") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"{option} {name}: {counted(torch.cuda.device_count(), 'GPU')} here", "see: seats doctor")
    try:
        holds_data = not torch.empty(1, device=device).is_meta
    except (RuntimeError, AssertionError, NotImplementedError):  # not built for it, or no driver
        holds_data = False
    if not holds_data:
        raise UsageError(f"{option} {name} cannot be used here", "see: seats doctor")
    return device


def _placement(options: ModelOptions) -> tuple[torch.device, Any]:
    """The first device, and where the weights go, as accelerate takes it."""
    if options.device_map is None:
        device = choose_device(options.device)
        return device, {"": device}
    if options.device_map in DEVICE_MAPS:
        return choose_device("auto"), options.device_map
    device = choose_device(options.device_map, "--device-map")
    return device, {"": device}


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 on a GPU and float32 on the CPU."""
    import torch

    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def choose_attention(name: str, device: torch.device, dtype: torch.dtype | None = None) -> str:
    """``auto`` is flash attention where it imports, on a GPU and in half precision; sdpa otherwise.

    Raises:
        ModelError: flash attention was asked for and does not import.
        UsageError: It was asked for in float32, which it cannot do.
    """
    import torch
    from transformers.utils import is_flash_attn_2_available

    half = dtype is not torch.float32
    if name == "auto":
        flash = half and device.type == "cuda" and is_flash_attn_2_available()
        return "flash_attention_2" if flash else "sdpa"
    if name == "flash_attention_2" and not is_flash_attn_2_available():
        raise ModelError("--attn flash_attention_2: the flash-attn package does not import", "use --attn sdpa")
    if name == "flash_attention_2" and not half:
        raise UsageError("--attn flash_attention_2 needs float16 or bfloat16", "add --dtype bfloat16")
    return name


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from writing notes and progress bars while it loads."""
    from transformers.utils import logging as hf_logging

    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.ERROR)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()


def _thinker_config(family: type[OmniModel], config: Config) -> Any:
    import transformers

    # Transformers may write into the dicts it is given; the named configs are shared.
    return getattr(transformers, family.thinker_class).config_class(**copy.deepcopy(dict(config)))


def _read_weights(checkpoint: Checkpoint) -> dict[str, Any]:
    """Thinker tensors by name without the prefix; mapped from the files, not copied.

    Raises:
        ModelError: A file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    weights: dict[str, Any] = {}
    for shard in checkpoint.shards:
        path = checkpoint.folder / shard
        try:
            with safe_open(path, framework="pt") as file:
                keys = list(file.keys())
                whole = any(key.startswith(PREFIX) for key in keys)
                for key in keys:
                    if key.startswith(PREFIX) or not whole:
                        weights[key.removeprefix(PREFIX)] = file.get_tensor(key)
        except FileNotFoundError:
            raise lacks(checkpoint.folder, shard) from None
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path} is damaged: {error}", "fetch the checkpoint again") from None
    return weights


def _read_processor(checkpoint: Checkpoint) -> Any:
    """Tokenizer, chat template and feature extractors.

    Raises:
        ModelError: One of them is missing or damaged.
    """
    from transformers import AutoProcessor

    hint = "the folder needs tokenizer files, chat_template and preprocessor_config.json"
    try:
        # Unless it is forbidden, transformers asks on the terminal whether to run a repository's code.
        processor = AutoProcessor.from_pretrained(
            checkpoint.folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        problem = f"{checkpoint.folder}: tokenizer or processor cannot be read: {error}"
        raise ModelError(problem, hint) from error
    parts = ("tokenizer", "feature_extractor", "video_processor", "chat_template")
    absent = [part for part in parts if getattr(processor, part, None) is None]
    if absent:
        raise ModelError(f"{checkpoint.folder} has no {absent[0].replace('_', ' ')}", hint)
    return processor


def load(options: ModelOptions) -> LoadedModel:
    """Load a thinker in eval mode, or build a named one with random weights.

    Raises:
        ModelError: The model is missing, unreachable, damaged or of an unknown kind.
        UsageError: The device does not exist here.
    """
    if options.weights == "random":
        return build_random(options, *named_architecture(options.model))
    checkpoint = find(options)
    return load_checkpoint(checkpoint, options)


def load_checkpoint(checkpoint: Checkpoint, options: ModelOptions) -> LoadedModel:
    """Load what ``find`` found.

    Raises:
        ModelError: Weights, tokenizer or processor are missing, damaged or do not fit the config.
        UsageError: The device does not exist here.
    """
    family = family_of(checkpoint.model_type)
    spec = with_settings(family.spec_of(options.model, checkpoint.config), checkpoint.settings)
    device, device_map = _placement(options)
    dtype = choose_dtype(options.dtype, device)
    attention = choose_attention(options.attn, device, dtype)
    with _quiet():
        processor = _read_processor(checkpoint)
        thinker = _read_thinker(
            family, checkpoint, options.model, dtype=dtype, attn_implementation=attention, device_map=device_map
        )
        _add_generation_config(thinker, checkpoint.folder)
    return LoadedModel(
        model=family(thinker.eval(), processor, spec),
        model_id=options.model,
        revision=checkpoint.revision,
        weights="checkpoint",
        dtype=str(dtype).removeprefix("torch."),
        device=options.device_map or str(device),
        attention=attention,
        note=checkpoint.settings.note,
        folder=checkpoint.folder,
    )


def _read_thinker(family: type[OmniModel], checkpoint: Checkpoint, name: str, **keywords: Any) -> Any:
    import transformers

    weights = _read_weights(checkpoint)
    try:
        thinker, info = getattr(transformers, family.thinker_class).from_pretrained(
            None,
            config=_thinker_config(family, checkpoint.config),
            state_dict=weights,
            output_loading_info=True,
            **keywords,
        )
    except (RuntimeError, ValueError) as error:
        if isinstance(explain(error), MemoryLimitError):
            raise
        hint = "do config.json and the weights belong together?"
        raise ModelError(f"{name} cannot be loaded: {error}", hint) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"{name} lacks {counted(len(missing), 'weight')} of the thinker, {missing[0]} for one",
            "fetch the checkpoint again",
        )
    return thinker


def _add_generation_config(thinker: Any, folder: Path) -> None:
    """Stop tokens and the like: ``from_pretrained`` without a folder cannot know them."""
    from transformers import GenerationConfig

    path = folder / "generation_config.json"
    if not path.exists():
        return
    try:
        thinker.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", "fetch the checkpoint again") from error


def build_random(options: ModelOptions, family: type[OmniModel], config: Config) -> LoadedModel:
    """A thinker of true dimensions with random weights, made where it will run. Fixed seed.

    Its speed and its FLOPs are those of the real one; its answers mean nothing.

    Raises:
        UsageError: The device does not exist here, or several were asked for.
    """
    import torch
    import transformers

    if options.device_map is not None:
        raise UsageError("--device-map places the weights of a checkpoint; random ones are made on one device")
    spec = family.spec_of(options.model, config)
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device)
    attention = choose_attention(options.attn, device, dtype)
    hf_config = _thinker_config(family, config)
    with torch.random.fork_rng(range(torch.cuda.device_count())), _quiet(), device:
        torch.manual_seed(0)
        thinker = getattr(transformers, family.thinker_class)._from_config(
            hf_config, dtype=dtype, attn_implementation=attention
        )
    return LoadedModel(
        model=family(thinker.eval(), None, spec),
        model_id=options.model,
        revision=None,
        weights="random",
        dtype=str(dtype).removeprefix("torch."),
        device=str(device),
        attention=attention,
    )

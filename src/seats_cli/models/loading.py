"""From a Hub id or a folder to a thinker in memory.

Weights come from safetensors only and no code of a repository is run. The thinker alone is loaded: of a
checkpoint that also speaks, neither the files nor the tensors of the talker are touched.
"""

from __future__ import annotations

import copy
import logging
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seats_cli.config import ModelOptions
from seats_cli.errors import MemoryLimitError, ModelError, SeatsError, UsageError, counted, explain
from seats_cli.models import family_of, named_architecture, placement, quantisation
from seats_cli.models.base import Config, ModelSpec, OmniModel
from seats_cli.models.checkpoint import PREFIX, Checkpoint, find, find_config, lacks, small_files
from seats_cli.models.placement import Placement, choose_device
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

HEAD, EMBEDDING, TIED = "lm_head.weight", "model.embed_tokens.weight", "tie_word_embeddings"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A thinker ready to run, and where it came from.

    Attributes:
        model: The adapted thinker.
        model_id: As the user named it.
        revision: Commit of a Hub model; None otherwise.
        weights: ``checkpoint`` or ``random``.
        dtype: For example ``bfloat16``.
        device: For example ``cuda:0``, or ``auto (cuda:0, cpu)``.
        attention: Kernel in use, for example ``sdpa``.
        note: One line that its users should know, from its ``seats.toml``.
        folder: That it was read from; None: its weights are random.
        quant: For example ``bnb-4bit``, or ``awq-4bit`` for a checkpoint that is so; None: not quantised.
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
    quant: str | None = None


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
    """Keep transformers and what it uses from writing notes and progress bars while they load."""
    from transformers.utils import logging as hf_logging

    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.ERROR)
    hf_logging.disable_progress_bar()
    try:
        with quantisation.hushed():
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


def without_weights(options: ModelOptions, family: type[OmniModel], spec: ModelSpec) -> OmniModel | None:
    """A model that can count the tokens of a prompt and nothing else; None where its tokenizer is not on disk."""
    folder = small_files(options)
    if folder is None:
        return None
    with _quiet():
        return family(None, _read_processor(folder), spec)


def _read_processor(folder: Path) -> Any:
    """Tokenizer, chat template and feature extractors.

    Raises:
        ModelError: One of them is missing or damaged.
    """
    from transformers import AutoProcessor

    hint = "the folder needs tokenizer files, chat_template and preprocessor_config.json"
    try:
        # Unless it is forbidden, transformers asks on the terminal whether to run a repository's code.
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        problem = f"{folder}: tokenizer or processor cannot be read: {error}"
        raise ModelError(problem, hint) from error
    parts = ("tokenizer", "feature_extractor", "video_processor", "chat_template")
    absent = [part for part in parts if getattr(processor, part, None) is None]
    if absent:
        raise ModelError(f"{folder} has no {absent[0].replace('_', ' ')}", hint)
    return processor


def load(options: ModelOptions) -> LoadedModel:
    """Load a thinker in eval mode, or build a named one with random weights.

    Raises:
        ModelError: The model is missing, unreachable, damaged or of an unknown kind.
        UsageError: The device does not exist here.
    """
    if options.weights == "random":
        return build_random(options, *named_architecture(options.model))
    where = placement.place(options)
    if options.quant != "none":  # known before anything is fetched
        quantisation.check_quant(options.quant, where.device)
    return load_checkpoint(find(options), options)


def load_checkpoint(checkpoint: Checkpoint, options: ModelOptions) -> LoadedModel:
    """Load what ``find`` found.

    Raises:
        ModelError: Weights, tokenizer or processor are missing, damaged or do not fit the config.
        UsageError: The device does not exist here.
    """
    family = family_of(checkpoint.model_type)
    spec = with_settings(family.spec_of(options.model, checkpoint.config), checkpoint.settings)
    where = placement.place(options)
    if options.quant != "none" and checkpoint.quantization is not None:
        already = quantisation.describe(checkpoint.quantization)
        raise UsageError(
            f"--quant {options.quant}: {options.model} is quantised already ({already})", "leave it out"
        )
    dtype = choose_dtype(options.dtype, where.device)
    attention = choose_attention(options.attn, where.device, dtype)
    with _quiet():
        processor = _read_processor(checkpoint.folder)
        thinker = _read_thinker(family, checkpoint, options, where, dtype=dtype, attention=attention)
        _add_generation_config(thinker, checkpoint.folder)
    quantisation.settle(thinker)
    model = family(thinker.eval(), processor, spec)
    quantised = None if checkpoint.quantization is None else quantisation.describe(checkpoint.quantization)
    return LoadedModel(
        model=model,
        model_id=options.model,
        revision=checkpoint.revision,
        weights="checkpoint",
        dtype=str(model.dtype).removeprefix("torch."),
        device=placement.where(thinker, where),
        attention=attention,
        note=checkpoint.settings.note,
        folder=checkpoint.folder,
        quant=quantised if options.quant == "none" else options.quant,
    )


def _tie_head(config: dict[str, Any], text: Config, weights: dict[str, Any], *, on_disk: bool) -> None:
    """See that a head that is not in the checkpoint is the embedding, where the config says so.

    Transformers reads that from the thinker's config alone, and does not find a tied head on disk: there the head
    has weights of its own, which are the same.
    """
    if HEAD in weights or True not in (config.get(TIED), text.get(TIED)):
        return
    own = on_disk and EMBEDDING in weights
    if own:
        weights[HEAD] = weights[EMBEDDING]
    config[TIED] = not own


def _config_to_load(
    family: type[OmniModel], checkpoint: Checkpoint, weights: dict[str, Any], name: str, *, on_disk: bool
) -> Any:
    """The thinker's config for transformers, with what it would look for in other places."""
    config = {key: value for key, value in checkpoint.config.items() if key != "quantization_config"}
    text = {key: value for key, value in config.get("text_config", {}).items() if key != "quantization_config"}
    _tie_head(config, text, weights, on_disk=on_disk)
    made = _thinker_config(family, {**config, "text_config": text})
    if checkpoint.quantization is not None:
        quantisation.check_known(checkpoint.quantization, name)
        made.quantization_config = quantisation.for_thinker(checkpoint.quantization, PREFIX)
    return made


def _read_thinker(
    family: type[OmniModel],
    checkpoint: Checkpoint,
    options: ModelOptions,
    where: Placement,
    *,
    dtype: torch.dtype,
    attention: str,
) -> Any:
    import transformers

    weights = _read_weights(checkpoint)
    keywords: dict[str, Any] = {"device_map": where.device_map}
    if where.max_memory is not None:
        keywords["max_memory"] = where.max_memory
    if options.quant != "none":
        quantisation.check_reach(options.quant, options.model, weights)
        keywords["quantization_config"] = quantisation.quantization_config(options.quant, dtype)
    on_disk = where.offload_folder is not None
    config = _config_to_load(family, checkpoint, weights, options.model, on_disk=on_disk)
    with placement.offload_folder(where) as folder:
        if options.quant == "none":  # what is quantised cannot be written there
            keywords["offload_folder"] = folder
        try:
            thinker, info = getattr(transformers, family.thinker_class).from_pretrained(
                None,
                config=config,
                state_dict=weights,
                output_loading_info=True,
                dtype=dtype,
                attn_implementation=attention,
                **keywords,
            )
        except Exception as error:
            told = _told(error, checkpoint, options, where)
            if told is None:
                raise
            raise told from error
        missing = sorted(info["missing_keys"])
        if missing:
            raise ModelError(
                f"{options.model} lacks {counted(len(missing), 'weight')} of the thinker, {missing[0]} for one",
                "fetch the checkpoint again",
            )
    if folder is not None:
        removal = weakref.finalize(thinker, shutil.rmtree, folder, ignore_errors=True)
        if not placement.uses_disk(thinker):
            removal()
    return thinker


def _told(error: Exception, checkpoint: Checkpoint, options: ModelOptions, where: Placement) -> SeatsError | None:
    """What to tell of an error of ``from_pretrained``; None: the error itself."""
    name, said = options.model, str(error)
    if isinstance(explain(error), MemoryLimitError):
        return None
    told: SeatsError | None = None
    if where.spreads and ("offload_folder" in said or "on the CPU or the disk" in said):
        told = _does_not_fit(options)
    elif where.offload_folder is not None and (isinstance(error, OSError) or "No space left" in said):
        told = placement.cannot_write(where.offload_folder, error)
    elif checkpoint.quantization is not None:
        told = quantisation.cannot_load(checkpoint.quantization, name, error)
    elif options.quant != "none":
        told = ModelError(f"{name} cannot be loaded with --quant {options.quant}: {error}", "load it without")
    elif isinstance(error, RuntimeError | ValueError):
        told = ModelError(f"{name} cannot be loaded: {error}", "do config.json and the weights belong together?")
    return told


def _does_not_fit(options: ModelOptions) -> UsageError:
    limits = "" if options.max_memory is None else f" within --max-memory {options.max_memory}"
    if options.quant != "none":
        problem = (
            f"{options.model} does not fit{limits}, and --quant {options.quant} leaves nothing to CPU or disk"
        )
        return UsageError(problem, "leave out --quant, or give it more memory")
    return UsageError(
        f"{options.model} does not fit{limits}: some of it would have to go to disk",
        "name a folder for that: --offload-folder DIR",
    )


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
    if options.quant != "none":
        raise UsageError(f"--quant {options.quant} quantises the weights of a checkpoint, not random ones")
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

"""From a Hub id or a folder to a thinker in memory.

Weights come from safetensors only and no code of a repository is run. The thinker alone is loaded: of a
checkpoint that also speaks, neither the files nor the tensors of the talker are touched.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seats_cli.config import ModelOptions
from seats_cli.errors import ModelError, UsageError
from seats_cli.models import family_of, named_architecture
from seats_cli.models.base import Config, OmniModel

if TYPE_CHECKING:
    import torch

SMALL_FILES = ("*.json", "*.txt", "*.jinja")
INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
PREFIX = "thinker."


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model on disk.

    Attributes:
        folder: Holds config, tokenizer and weights.
        revision: Commit of a Hub model; None for a folder.
        config: Of the thinker.
        model_type: As in config.json.
        shards: Safetensors files that hold thinker weights.
    """

    folder: Path
    revision: str | None
    config: Config
    model_type: str
    shards: tuple[str, ...]


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
    """

    model: OmniModel
    model_id: str
    revision: str | None
    weights: str
    dtype: str
    device: str
    attention: str


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.parent} has no {path.name}", "is it the folder of a checkpoint?") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", "fetch the checkpoint again") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object", "fetch the checkpoint again")
    return content


def _thinker_shards(weight_map: dict[str, str]) -> tuple[str, ...]:
    """Files that hold thinker weights; all of them for a checkpoint that is a thinker and nothing else."""
    needed = {file for key, file in weight_map.items() if key.startswith(PREFIX)}
    return tuple(sorted(needed or set(weight_map.values())))


def _inspect(folder: Path, revision: str | None) -> Checkpoint:
    config = _read_json(folder / "config.json")
    model_type = str(config.get("model_type", ""))
    family_of(model_type)
    thinker = config.get("thinker_config", config)
    index = folder / INDEX_FILE
    shards: tuple[str, ...] = (SINGLE_FILE,)
    if index.exists():
        shards = _thinker_shards(_read_json(index).get("weight_map", {}))
    return Checkpoint(folder, revision, thinker, model_type, shards)


def _unreachable(options: ModelOptions, error: Exception) -> ModelError:
    """Say why a Hub model cannot be had, and the command that fetches it."""
    at = f" --revision {options.revision}" if options.revision else ""
    fetch = f"hf download {options.model}{at}"
    kind = type(error).__name__
    if kind in ("RepositoryNotFoundError", "HFValidationError"):
        return ModelError(
            f"{options.model!r} is neither a folder nor a model on the Hub",
            f"check the name; a private model needs `hf auth login`, then: {fetch}",
        )
    if kind == "RevisionNotFoundError":
        return ModelError(f"{options.model} has no revision {options.revision!r}", "check --revision")
    if kind == "GatedRepoError":
        return ModelError(f"{options.model} is gated", f"accept its terms on the Hub, then: {fetch}")
    why = "is not in the cache and --offline is set" if options.offline else "is neither cached nor reachable"
    return ModelError(f"{options.model} {why}", f"fetch it with: {fetch}")


def find(options: ModelOptions) -> Checkpoint:
    """Find a checkpoint on disk or fetch what is needed of it from the Hub.

    Raises:
        ModelError: It is missing, unreachable, damaged or of an unknown kind.
    """
    folder = Path(options.model).expanduser()
    if folder.is_dir():
        return _inspect(folder, None)
    if folder.is_absolute() or options.model.startswith((".", "~")) or options.model.count("/") > 1:
        raise ModelError(f"there is no folder {options.model}", "give a checkpoint's folder or a Hub id")

    from huggingface_hub import snapshot_download

    def fetch(patterns: tuple[str, ...]) -> Path:
        return Path(
            snapshot_download(
                options.model,
                revision=options.revision,
                allow_patterns=list(patterns),
                local_files_only=options.offline,
            )
        )

    try:
        found = fetch(SMALL_FILES)
        checkpoint = _inspect(found, found.name)
        fetch(checkpoint.shards)
    except ModelError as error:
        # An empty snapshot of a model that was asked for but never fetched.
        if "has no config.json" in str(error):
            raise _unreachable(options, error) from None
        raise
    except Exception as error:
        raise _unreachable(options, error) from error
    return checkpoint


def find_config(options: ModelOptions) -> tuple[str, Config]:
    """Model type and thinker config of a folder or a Hub id; fetches config.json alone.

    Raises:
        ModelError: It is missing, unreachable, damaged or of an unknown kind.
    """
    folder = Path(options.model).expanduser()
    if not folder.is_dir():
        from huggingface_hub import hf_hub_download

        try:
            path = hf_hub_download(
                options.model, "config.json", revision=options.revision, local_files_only=options.offline
            )
        except Exception as error:
            raise _unreachable(options, error) from error
        folder = Path(path).parent
    checkpoint = _inspect(folder, None)
    return checkpoint.model_type, checkpoint.config


def choose_device(name: str) -> torch.device:
    """``auto`` is the first GPU, or the CPU.

    Raises:
        UsageError: The device does not exist here.
    """
    import torch

    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name!r} is not a device", "try cpu, cuda or cuda:1") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: {torch.cuda.device_count()} GPUs here", "see: seats doctor")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 on a GPU and float32 on the CPU."""
    import torch

    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def choose_attention(name: str, device: torch.device) -> str:
    """``auto`` is flash attention where it imports and there is a GPU, sdpa otherwise.

    Raises:
        ModelError: flash attention was asked for and does not import.
    """
    from transformers.utils import is_flash_attn_2_available

    if name == "auto":
        return "flash_attention_2" if device.type == "cuda" and is_flash_attn_2_available() else "sdpa"
    if name == "flash_attention_2" and not is_flash_attn_2_available():
        raise ModelError("--attn flash_attention_2: the flash-attn package does not import", "use --attn sdpa")
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

    return getattr(transformers, family.thinker_class).config_class(**config)


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
            raise ModelError(f"{checkpoint.folder} has no {shard}", "fetch the checkpoint again") from None
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path} is damaged: {error}", "fetch the checkpoint again") from None
    return weights


def _read_processor(checkpoint: Checkpoint) -> Any:
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(checkpoint.folder, local_files_only=True)
    except Exception as error:
        raise ModelError(
            f"{checkpoint.folder}: tokenizer or processor cannot be read: {error}",
            "the folder needs tokenizer files, chat_template and preprocessor_config.json",
        ) from error


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
    """Load what ``find`` found."""
    import transformers

    family = family_of(checkpoint.model_type)
    spec = family.spec_of(options.model, checkpoint.config)
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device)
    attention = choose_attention(options.attn, device)
    with _quiet():
        processor = _read_processor(checkpoint)
        thinker, info = getattr(transformers, family.thinker_class).from_pretrained(
            None,
            config=_thinker_config(family, checkpoint.config),
            state_dict=_read_weights(checkpoint),
            dtype=dtype,
            attn_implementation=attention,
            device_map=options.device_map or {"": device},
            output_loading_info=True,
        )
        _add_generation_config(thinker, checkpoint.folder)
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"{options.model} lacks {len(missing)} weights of the thinker, {missing[0]} for one",
            "fetch the checkpoint again",
        )
    model = family(thinker.eval(), processor, spec)
    return LoadedModel(
        model=model,
        model_id=options.model,
        revision=checkpoint.revision,
        weights="checkpoint",
        dtype=str(dtype).removeprefix("torch."),
        device=options.device_map or str(device),
        attention=attention,
    )


def _add_generation_config(thinker: Any, folder: Path) -> None:
    """Stop tokens and the like: ``from_pretrained`` without a folder cannot know them."""
    from transformers import GenerationConfig

    if (folder / "generation_config.json").exists():
        thinker.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)


def build_random(options: ModelOptions, family: type[OmniModel], config: Config) -> LoadedModel:
    """A thinker of true dimensions with random weights, made where it will run. Fixed seed.

    Its speed and its FLOPs are those of the real one; its answers mean nothing.
    """
    import torch
    import transformers

    spec = family.spec_of(options.model, config)
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device)
    attention = choose_attention(options.attn, device)
    hf_config = _thinker_config(family, config)
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    try:
        with _quiet(), device:
            thinker = getattr(transformers, family.thinker_class)._from_config(
                hf_config, dtype=dtype, attn_implementation=attention
            )
    finally:
        torch.random.set_rng_state(state)
    return LoadedModel(
        model=family(thinker.eval(), None, spec),
        model_id=options.model,
        revision=None,
        weights="random",
        dtype=str(dtype).removeprefix("torch."),
        device=str(device),
        attention=attention,
    )

"""From a Hub id or a folder to the files of a thinker on disk.

Only what is needed is fetched: the small files, then the safetensors files that hold thinker weights. Nothing
here needs torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from seats_cli.config import SHIPPED_MODEL, ModelOptions
from seats_cli.errors import ModelError
from seats_cli.models import family_of
from seats_cli.models.base import Config
from seats_cli.models.quantisation import read_quantization
from seats_cli.models.settings import SETTINGS_FILE, ModelSettings, read_settings

SMALL_FILES = ("*.json", "*.txt", "*.jinja", SETTINGS_FILE)
INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
PREFIX = "thinker."
"""Of a thinker's weights in a checkpoint that also speaks."""

_AGAIN = "fetch the checkpoint again"
# By name, so that the hub library is not imported to recognise them. Their messages are pages long.
_UNREACHABLE = frozenset(
    {
        "LocalEntryNotFoundError",
        "OfflineModeIsEnabled",
        "HfHubHTTPError",
        "TransportError",
        "ConnectionError",
    }
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model on disk.

    Attributes:
        folder: Holds config, tokenizer and weights.
        revision: Commit of a Hub model; None for a folder.
        config: Of the thinker.
        model_type: As in config.json.
        shards: Safetensors files that hold thinker weights.
        settings: What its ``seats.toml`` says.
        quantization: What config.json says of it; None: not quantised.
    """

    folder: Path
    revision: str | None
    config: Config
    model_type: str
    shards: tuple[str, ...]
    settings: ModelSettings
    quantization: Config | None = None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.parent} has no {path.name}", "is it the folder of a checkpoint?") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", _AGAIN) from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object", _AGAIN)
    return content


def _thinker_shards(index: Path) -> tuple[str, ...]:
    """Files that hold thinker weights; all of them for a checkpoint that is a thinker and nothing else."""
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index} has no weight_map", _AGAIN)
    needed = {file for key, file in weight_map.items() if key.startswith(PREFIX)}
    shards = needed or set(weight_map.values())
    if any(not isinstance(file, str) or Path(file).name != file or file in ("", "..") for file in shards):
        raise ModelError(f"{index} names files outside its folder", _AGAIN)
    return tuple(sorted(shards))


def _inspect(folder: Path, revision: str | None) -> Checkpoint:
    config = _read_json(folder / "config.json")
    model_type = str(config.get("model_type", ""))
    family_of(model_type)
    thinker = config.get("thinker_config", config)
    if not isinstance(thinker, dict):
        raise ModelError(f"{folder / 'config.json'}: thinker_config is not a JSON object", _AGAIN)
    index = folder / INDEX_FILE
    shards = _thinker_shards(index) if index.exists() else (SINGLE_FILE,)
    quantization = read_quantization(config, thinker)
    return Checkpoint(folder, revision, thinker, model_type, shards, read_settings(folder), quantization)


def lacks(folder: Path, shard: str, hint: str = _AGAIN) -> ModelError:
    """Say that a weight file is not there."""
    if any(folder.glob("pytorch_model*")):
        return ModelError(
            f"{folder} has pickled weights and no {shard}",
            "only safetensors are read; convert the checkpoint, or take one in that format",
        )
    return ModelError(f"{folder} has no {shard}", hint)


def _fetch_command(options: ModelOptions) -> str:
    return f"hf download {options.model}" + (f" --revision {options.revision}" if options.revision else "")


def _is_unreachable(error: Exception) -> bool:
    return not _UNREACHABLE.isdisjoint(cls.__name__ for cls in type(error).__mro__)


def _unreachable(options: ModelOptions, error: Exception) -> ModelError:
    """Say why a Hub model cannot be had, and the command that fetches it."""
    fetch, kind = _fetch_command(options), type(error).__name__
    if kind in ("RepositoryNotFoundError", "HFValidationError"):
        return ModelError(
            f"{options.model!r} is neither a folder nor a model on the Hub",
            f"check the name; a private model needs `hf auth login`, then: {fetch}",
        )
    if kind == "RevisionNotFoundError":
        return ModelError(f"{options.model} has no revision {options.revision!r}", "check --revision")
    if kind == "GatedRepoError":
        return ModelError(f"{options.model} is gated", f"accept its terms on the Hub, then: {fetch}")
    if not _is_unreachable(error):
        return ModelError(f"{options.model} cannot be fetched: {kind}: {error}", f"try: {fetch}")
    why = "is not in the cache and --offline is set" if options.offline else "is neither cached nor reachable"
    return ModelError(f"{options.model} {why}", f"fetch it with: {fetch}")


def _folder(options: ModelOptions) -> Path | None:
    """The folder that the user named, or that of the model that ships; None when it must be a Hub id.

    Raises:
        ModelError: It can only be a folder, and there is none.
    """
    if options.model == SHIPPED_MODEL:
        return Path(str(files("seats_cli") / "assets" / SHIPPED_MODEL))
    try:
        folder = Path(options.model).expanduser()
    except RuntimeError:
        raise ModelError(
            f"there is no folder {options.model}: no such user", "give a folder or a Hub id"
        ) from None
    if folder.is_dir():
        return folder
    if folder.is_absolute() or options.model.startswith((".", "~")) or options.model.count("/") > 1:
        raise ModelError(f"there is no folder {options.model}", "give a checkpoint's folder or a Hub id")
    return None


def find(options: ModelOptions) -> Checkpoint:
    """Find a checkpoint on disk or fetch what is needed of it from the Hub.

    Raises:
        ModelError: It is missing, unreachable, damaged or of an unknown kind.
    """
    folder = _folder(options)
    if folder is not None:
        return _inspect(folder, None)

    from huggingface_hub import snapshot_download

    def fetch(patterns: tuple[str, ...], revision: str | None) -> Path:
        def get(offline: bool) -> Path:
            found = snapshot_download(
                options.model, revision=revision, allow_patterns=list(patterns), local_files_only=offline
            )
            return Path(found)

        try:
            return get(options.offline)
        except Exception as error:
            if options.offline or not _is_unreachable(error):
                raise
            # Some versions of the hub library do not look into the cache by themselves when given a commit.
            with suppress(Exception):
                return get(True)
            raise

    return _from_hub(options, fetch)


def _from_hub(options: ModelOptions, fetch: Callable[[tuple[str, ...], str | None], Path]) -> Checkpoint:
    """The small files first: they say which weights are needed. Then those, of the very same commit."""
    try:
        folder = fetch(SMALL_FILES, options.revision)
        if not (folder / "config.json").exists():
            raise ModelError(
                f"{options.model} has no config.json",
                f"is it a model of transformers? if so, fetch it with: {_fetch_command(options)}",
            )
        checkpoint = _inspect(folder, folder.name)
        fetch(checkpoint.shards, checkpoint.revision)
    except ModelError:
        raise
    except Exception as error:
        raise _unreachable(options, error) from error
    for shard in checkpoint.shards:
        if not (folder / shard).exists():
            raise lacks(folder, shard, f"fetch it with: {_fetch_command(options)}")
    return checkpoint


def look(options: ModelOptions) -> Checkpoint:
    """What the config of a folder or a Hub id says; of a Hub id no other files are fetched.

    Raises:
        ModelError: It is missing, unreachable, damaged or of an unknown kind.
    """
    folder = _folder(options)
    if folder is None:
        from huggingface_hub import hf_hub_download

        def fetch(name: str) -> Path:
            return Path(
                hf_hub_download(options.model, name, revision=options.revision, local_files_only=options.offline)
            )

        try:
            folder = fetch("config.json").parent
            _fetch_if_there(fetch, SETTINGS_FILE)
        except Exception as error:
            raise _unreachable(options, error) from error
    return _inspect(folder, None)


def find_config(options: ModelOptions) -> tuple[str, Config, ModelSettings]:
    """Model type, thinker config and settings of a folder or a Hub id; fetches no other files.

    Raises:
        ModelError: It is missing, unreachable, damaged or of an unknown kind.
    """
    checkpoint = look(options)
    return checkpoint.model_type, checkpoint.config, checkpoint.settings


def small_files(options: ModelOptions) -> Path | None:
    """The folder with config and tokenizer of a model that is on disk already; None where it is not.

    Raises:
        ModelError: The model can only be a folder, and there is none.
    """
    folder = _folder(options)
    if folder is not None:
        return folder
    from huggingface_hub import snapshot_download

    with suppress(Exception):
        here = snapshot_download(
            options.model, revision=options.revision, allow_patterns=list(SMALL_FILES), local_files_only=True
        )
        return Path(here)
    return None


def _fetch_if_there(fetch: Callable[[str], Path], name: str) -> None:
    """Fetch a file that a repository may lack."""
    try:
        fetch(name)
    except Exception as error:
        if "EntryNotFoundError" not in {cls.__name__ for cls in type(error).__mro__}:
            raise

"""What tells a clip from another and a model from another: for results that are kept, and used again later."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from seats_cli import __version__
from seats_cli.config import ModelOptions
from seats_cli.errors import MediaError
from seats_cli.media.source import check_path
from seats_cli.models import placement
from seats_cli.models.loading import LoadedModel, choose_dtype, find
from seats_cli.models.settings import SETTINGS_FILE
from seats_cli.report import ModelInfo, Versions

SAMPLE_BYTES = 1 << 16
MODEL_FILES = {".json", ".jinja", ".safetensors", ".toml", ".txt"}
MISSING = "missing"
"""The sample of a file that cannot be read."""


def sample_of(path: Path) -> str:
    """What tells a file from another of its name: its size and a sample of its bytes; copies agree.

    Args:
        path: Need not be there.
    """
    try:
        size = path.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        with path.open("rb") as file:
            for start in (0, size // 2, size - SAMPLE_BYTES):
                file.seek(max(start, 0))
                digest.update(file.read(SAMPLE_BYTES))
    except (OSError, ValueError):
        return MISSING
    return digest.hexdigest()


def model_info(loaded: LoadedModel) -> ModelInfo:
    """The model, as the report names it."""
    return ModelInfo(
        id=loaded.model_id,
        revision=loaded.revision,
        weights=loaded.weights,
        dtype=loaded.dtype,
        device=loaded.device,
        attention=loaded.attention,
        quant=loaded.quant,
    )


def versions() -> Versions:
    """Of this package and of what computes."""
    import torch
    import transformers

    return Versions(seats=__version__, torch=torch.__version__, transformers=transformers.__version__)


def model_mark(loaded: LoadedModel) -> dict[str, Any]:
    """The model, and what is in its folder: it may have been trained further under the same name.

    Of a Hub model the commit says what is there, but its settings may not have been fetched with the rest.
    """
    return {**asdict(model_info(loaded)), "files": _files_mark(loaded.folder, loaded.revision)}


def mark_before_loading(options: ModelOptions) -> dict[str, Any]:
    """The model as ``model_mark`` tells it from others, but for the device: it has a part in no answer.

    Raises:
        ModelError: It is not there.
        UsageError: The device does not exist here.
    """
    where, checkpoint = placement.place(options), find(options)
    dtype = str(choose_dtype(options.dtype, where.device)).removeprefix("torch.")
    return {
        "id": options.model,
        "revision": checkpoint.revision,
        "dtype": dtype,
        "attention": options.attn,
        "quant": options.quant,
        "files": _files_mark(checkpoint.folder, checkpoint.revision),
    }


def _files_mark(folder: Path | None, revision: str | None) -> dict[str, str]:
    files: list[Path] = []
    if folder is not None and revision is None:
        files = sorted(path for path in folder.iterdir() if path.suffix in MODEL_FILES)
    elif folder is not None:
        files = [folder / SETTINGS_FILE]
    return {path.name: sample_of(path) for path in files}


def digest_of(path: Path) -> str:
    """Of all bytes of a file: a sample would take two silent films, apart in one sound, for the same.

    Raises:
        MediaError: It cannot be read.
    """
    check_path(str(path))
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MediaError(f"{path}: {error.strerror or error}", "check who may read it: ls -l") from None


def versions_mark(*others: str) -> dict[str, str]:
    """Versions of this package and of what decodes and computes.

    Args:
        others: Packages that have a part in it this time.
    """
    found = {"seats": __version__}
    for package in ("torch", "transformers", "av", *others):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found

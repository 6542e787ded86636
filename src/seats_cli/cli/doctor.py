"""``seats doctor``: what is here, for a bug report. Plain text, no secrets, and no section can stop the rest."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from seats_cli import __version__
from seats_cli.cli import options as opt
from seats_cli.cli.command import command
from seats_cli.cli.configuration import VARIABLE, Place, places, state_of
from seats_cli.cli.console import one_line, write
from seats_cli.errors import UsageError, counted

Rows = list[tuple[str, str]]

PACKAGES = (
    "torch", "torchvision", "transformers", "accelerate", "huggingface-hub", "safetensors", "av", "soundfile",
    "qwen-omni-utils", "numpy", "pillow", "typer", "rich",
)  # fmt: skip
KERNELS = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface", "triton": "triton"}
CODECS = ("h264", "hevc", "vp9", "av1", "mpeg4", "aac", "mp3", "opus", "flac", "vorbis")

SHOWN = ("SEATS_", "HF_", "HUGGING_FACE_", "TRANSFORMERS_", "CUDA_VISIBLE_", "PYTORCH_", "NO_COLOR", "OMP_NUM_")
SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|KEY|CREDENTIAL|AUTH", re.IGNORECASE)
SECRET_VALUE = re.compile(r"\b(hf|sk|ghp|github_pat)_\w{8,}|(?<=://)[^/@\s]*@")


def without_secrets(name: str, value: str) -> str:
    """A variable's value with tokens and the user part of URLs taken out."""
    return "(set)" if SECRET_NAME.search(name) else SECRET_VALUE.sub("(hidden)", value)


def _version(package: str) -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _packages() -> Rows:
    return [("seats-cli", __version__), *((name, _version(name)) for name in PACKAGES)]


def _system() -> Rows:
    import platform

    from seats_cli.media.cores import n_cores

    rows = [("python", platform.python_version()), ("system", platform.platform()), ("cores", str(n_cores()))]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        rows.append(("memory", f"{total / 2**30:.1f} GiB"))
    return rows


def _devices() -> Rows:
    import torch

    if not torch.cuda.is_available():
        return [("gpu", "none that PyTorch can use")]
    rows = [("cuda", str(torch.version.cuda))]
    for i in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(i)
        name = torch.cuda.get_device_name(i)
        rows.append((f"cuda:{i}", f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"))
    return rows


def _kernels() -> Rows:
    import importlib.util

    rows = [("sdpa", "yes"), ("eager", "yes")]
    return rows + [(name, "yes" if importlib.util.find_spec(module) else "no") for name, module in KERNELS.items()]


def _selection_kernels() -> Rows:
    import torch

    from seats_cli import kernels

    n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = [torch.device("cuda", i) for i in range(n_devices)] or [torch.device("cpu")]

    def used(device: torch.device) -> str:
        why = kernels.why_not(device)
        return "triton" if why is None else f"torch; those of triton: {why}"

    return [(str(device), used(device)) for device in devices]


def _quantisation() -> Rows:
    from seats_cli.models.quantisation import LIBRARIES, import_library

    def imports(package: str) -> str:
        try:
            library = import_library(package)
        except ModuleNotFoundError as error:
            return "no" if error.name == package else f"no: {error}"
        except Exception as error:
            return f"no: {type(error).__name__}: {error}"
        return f"yes, {getattr(library, '__version__', 'version unknown')}"

    packages = dict.fromkeys(package for package, _ in LIBRARIES.values())
    return [(package, imports(package)) for package in packages]


def _codecs() -> Rows:
    from seats_cli.media import can_decode

    return [(name, "yes" if can_decode(name) else "no") for name in CODECS]


def _models() -> Rows:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        cached = [r for r in scan_cache_dir().repos if r.repo_type == "model"]
    except CacheNotFound:
        cached = []
    rows = [
        (r.repo_id, f"{r.size_on_disk_str}, {counted(len(r.revisions), 'revision')}")
        for r in cached
        if "omni" in r.repo_id.lower()
    ]
    return sorted(rows) or [("none", "fetch one: hf download Qwen/Qwen2.5-Omni-7B")]


def _settings() -> Rows:
    shown = [name for name in sorted(os.environ) if name.startswith(SHOWN)]
    return [(name, without_secrets(name, os.environ[name])) for name in shown] or [("none", "")]


def _configuration() -> Rows:
    def state(place: Place) -> str:
        try:
            return f"{place.label}: {state_of(place)}"
        except UsageError as error:
            return str(error)

    return [("file", state(place)) for place in places()] or [("none", f"{VARIABLE} is empty")]


SECTIONS: dict[str, Callable[[], Rows]] = {
    "system": _system,
    "packages": _packages,
    "devices": _devices,
    "attention kernels": _kernels,
    "selection kernels": _selection_kernels,
    "quantisation": _quantisation,
    "decoders": _codecs,
    "cached models": _models,
    "environment": _settings,
    "configuration": _configuration,
}


@command()
def doctor(verbose: opt.Verbose = False) -> int:
    """Print what is installed and found, to paste into a bug report."""
    for title, section in SECTIONS.items():
        write(f"{title}\n")
        try:
            rows = section()
        except Exception as error:
            rows = [("failed", without_secrets("", f"{type(error).__name__}: {error}"))]
        for name, value in rows:
            write(f"  {name:<22} {one_line(value)}".rstrip() + "\n")
    return 0

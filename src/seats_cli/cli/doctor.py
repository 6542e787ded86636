"""``seats doctor``: what is here, for a bug report."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Callable

import typer

from seats_cli import __version__
from seats_cli.cli import options as opt
from seats_cli.cli.console import run, write

PACKAGES = (
    "torch", "torchvision", "transformers", "accelerate", "huggingface-hub", "safetensors", "av", "soundfile",
    "qwen-omni-utils", "numpy", "typer", "rich",
)  # fmt: skip
KERNELS = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface", "triton": "triton"}
CODECS = ("h264", "hevc", "vp9", "av1", "mpeg4", "aac", "mp3", "opus", "flac", "vorbis")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _system() -> list[tuple[str, str]]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    rows = [("python", platform.python_version()), ("system", platform.platform()), ("cores", str(cores))]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        rows.append(("memory", f"{total / 2**30:.1f} GiB"))
    return rows


def _devices() -> list[tuple[str, str]]:
    import torch

    if not torch.cuda.is_available():
        return [("gpu", "none that PyTorch can use")]
    rows = [("cuda", str(torch.version.cuda))]
    for i in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(i)
        name = torch.cuda.get_device_name(i)
        rows.append((f"cuda:{i}", f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"))
    return rows


def _kernels() -> list[tuple[str, str]]:
    rows = [("sdpa", "yes"), ("eager", "yes")]
    return rows + [(name, "yes" if importlib.util.find_spec(module) else "no") for name, module in KERNELS.items()]


def _codecs() -> list[tuple[str, str]]:
    from seats_cli.media import can_decode

    return [(name, "yes" if can_decode(name) else "no") for name in CODECS]


def _models() -> list[tuple[str, str]]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        cached = [r for r in scan_cache_dir().repos if r.repo_type == "model"]
    except CacheNotFound:
        cached = []
    rows = [
        (r.repo_id, f"{r.size_on_disk_str}, {len(r.revisions)} revisions")
        for r in cached
        if "omni" in r.repo_id.lower()
    ]
    return sorted(rows) or [("none", "fetch one: hf download Qwen/Qwen2.5-Omni-7B")]


def _settings() -> list[tuple[str, str]]:
    shown = [name for name in sorted(os.environ) if name.startswith(("SEATS_", "HF_", "CUDA_VISIBLE"))]
    # A token must never reach a bug report.
    return [(name, "(set)" if "TOKEN" in name else os.environ[name]) for name in shown]


SECTIONS: dict[str, Callable[[], list[tuple[str, str]]]] = {
    "system": _system,
    "packages": lambda: [("seats-cli", __version__), *((name, _version(name)) for name in PACKAGES)],
    "devices": _devices,
    "attention kernels": _kernels,
    "decoders": _codecs,
    "cached models": _models,
    "environment": _settings,
}


def doctor(verbose: opt.Verbose = False) -> None:
    """Print versions, devices, attention kernels, decoders and cached models: paste it into a bug report."""

    def body() -> int:
        broken = 0
        for title, section in SECTIONS.items():
            write(f"{title}\n")
            try:
                rows = section()
            except Exception as error:
                rows, broken = [("failed", f"{type(error).__name__}: {error}")], 1
            for name, value in rows:
                write(f"  {name:<22} {value}\n")
        return broken

    sys.stdout.flush()
    raise typer.Exit(run(body, verbose=verbose))

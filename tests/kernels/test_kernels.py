"""The Triton kernels where there is no GPU: interpreted, and compiled for one that is elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from seats_cli import kernels
from seats_cli.kernels.transfer import to_device

ROOT = Path(__file__).parents[2]
TIME = 900
needs_triton = pytest.mark.skipif(sys.platform != "linux", reason="Triton comes with torch on Linux")


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=TIME,
        check=False,
    )


@needs_triton
def test_interpreted_kernels_equal_the_torch_implementations() -> None:
    pytest.importorskip("triton")
    options = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist")
    done = run("-m", "pytest", *options, "tests/kernels/interpreted.py", TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_triton
def test_kernels_compile_for_hopper() -> None:
    """Ahead of time, with no GPU: on the tensor cores, and all in registers where it counts."""
    pytest.importorskip("triton")
    done = run("-W", "error", "-m", "tests.kernels.compiled")
    if "no assembler" in done.stderr:
        pytest.skip("Triton came without an assembler")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    of_half = [line for line in lines if "*bf16" in line]
    assert len(of_half) == 6
    for line in of_half:
        assert " 0 bytes spilled" in line
        assert " 0 wgmma" not in line
    assert all(" 0 bytes spilled" in line for line in lines if line.startswith("choose"))


def test_without_a_gpu_torch_does_it() -> None:
    assert not kernels.available(torch.device("cpu"))
    assert kernels.why_not(torch.device("cpu")) == "they need a GPU"
    assert not kernels.available(torch.device("mps"))


@pytest.mark.parametrize("said", [ImportError("no triton"), RuntimeError("Failed to find C compiler")])
def test_a_broken_triton_is_found_out_and_passed_by(monkeypatch: pytest.MonkeyPatch, said: Exception) -> None:
    import types

    def launch(_: torch.device) -> None:
        raise said

    broken = types.ModuleType("seats_cli.kernels.trial")
    broken.launch = launch  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "seats_cli.kernels.trial", broken)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    kernels._trial.cache_clear()
    try:
        assert kernels.why_not(torch.device("cuda")) == f"{type(said).__name__}: {said}"
        assert not kernels.available(torch.device("cuda"))
    finally:
        kernels._trial.cache_clear()


def test_the_kernels_are_not_needed_where_they_do_not_run() -> None:
    """Triton is not there, as on a Mac: a choice on the CPU does not ask for it."""
    code = (
        "import sys; sys.modules['triton'] = None; import torch;"
        "from seats_cli.selection.diversity import select_diverse;"
        "from seats_cli.models.saliency import attention_received;"
        "x = torch.randn(6, 2, 4); attention_received(x, x, [6], 1.0);"
        "print(len(select_diverse(x[:, 0], torch.rand(6), [6], [2])))"
    )
    done = run("-c", code)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


def test_numbers_reach_a_device_unchanged() -> None:
    host = np.arange(12).reshape(3, 4)
    assert to_device(host, torch.device("cpu")).tolist() == host.tolist()

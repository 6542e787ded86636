"""A capture that fails costs a warning, not the answer. In a process of its own: PyTorch remembers it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from seats_cli.config import ModelOptions
from seats_cli.engine.graphs import lane_of
from seats_cli.engine.static import StaticSteps
from seats_cli.models.loading import load
from tests import tiny

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_capture_that_fails_loses_nothing() -> None:
    paths = [str(ROOT / "src"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", __spec__.name]
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr


def main(folder: Path) -> None:
    """The host waits in the midst of a capture, which CUDA forbids; on that lane none is tried again."""
    from tests.gpu.test_decode import by, read_of, write

    checkpoint = tiny.write_tiny_checkpoint(folder, dtype=torch.float32)
    loaded = load(ModelOptions(model=str(checkpoint), device="cuda", dtype="bfloat16"))
    read, real, tried = read_of(loaded), StaticSteps._step, []
    with by("static"):
        expected = write(loaded, read)

    def waits(self: StaticSteps) -> None:
        real(self)
        if torch.cuda.is_current_stream_capturing():
            tried.append(1)
            self._counter.item()

    StaticSteps._step = waits  # type: ignore[method-assign]
    for _ in range(2):
        found = write(loaded, read)
        assert (found.token_ids, found.path) == (expected.token_ids, "static"), found
        assert found.warnings[0].startswith("answer tokens took longer, since no CUDA graph could be made: ")
    assert tried == [1]
    assert lane_of(loaded.model.device)._failed is not None
    # Memory that streams shared comes back, and what is held may be given back.
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(5):
        write(loaded, read)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated() <= before + 2**16


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        main(Path(made))

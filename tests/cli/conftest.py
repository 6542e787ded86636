"""The command line run in this process (most tests) or as a user runs it (few: each imports everything anew)."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import seats_cli
from tests.media.clips import even_times, tone, write_video
from tests.tiny import write_tiny_checkpoint

N_LAYERS = 8
SOURCE = Path(seats_cli.__file__).parents[1]
RUN = (sys.executable, "-m", "seats_cli.cli.app")


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line of an error, without its optional hint; anything more is a failure."""
        first, *rest = self.err.splitlines()
        assert first.startswith("seats: ")
        assert all(line.startswith("  hint: ") for line in rest)
        assert len(rest) <= 1
        assert "Traceback" not in self.err
        return first.removeprefix("seats: ")

    @property
    def hint(self) -> str:
        """Of an error."""
        return self.err.splitlines()[1].removeprefix("  hint: ") if "\n  hint: " in self.err else ""


Run = Callable[..., Ended]


@pytest.fixture
def seats(monkeypatch, capsys, tmp_path_factory) -> Run:
    """``seats(*arguments, stdin=b"")``, through the function that the installed command calls."""
    # Nor do the models of whoever runs the tests matter.
    no_models = tmp_path_factory.getbasetemp() / "no-models"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(no_models))
    # What the command line sets for its process must not outlive the test.
    for name in ("HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, os.environ[name])
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: object, stdin: bytes = b"") -> Ended:
        from seats_cli.cli.app import main

        monkeypatch.setattr(sys, "argv", ["seats", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Ended(int(ended.value.code or 0), out, err)

    return call


def environment(**more: str) -> dict[str, str]:
    """Of a process that finds the package here, and no settings of whoever runs the tests."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SEATS_", "_SEATS", "NO_COLOR"))}
    path = os.pathsep.join([str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])])
    fixed = {"HF_HUB_OFFLINE": "1", "COLUMNS": "100", "PYTHONUTF8": "1", "SEATS_CONFIG": ""}
    return {**kept, "PYTHONPATH": path, **fixed, **more}


def run_process(*arguments: str | bytes, stdin: bytes = b"", **more: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own."""
    return subprocess.run(
        [*RUN, *arguments], input=stdin, capture_output=True, env=environment(**more), timeout=300, check=False
    )


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("model"), n_layers=N_LAYERS)


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    """A folder: ``clip.mp4`` with picture and sound, others with one of them, and broken ones."""
    folder = tmp_path_factory.mktemp("clips")
    write_video(folder / "clip.mp4", even_times(4, 10), sound=tone(4))
    write_video(folder / "silent.mp4", even_times(4, 10))
    write_video(folder / "sound.m4a", sound=tone(3), format="mp4")
    (folder / "text.mp4").write_text("This is no film. " * 50)
    (folder / "empty.mp4").touch()
    whole = (folder / "clip.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    return folder

"""docs/pipelines.md is run as printed, and prints what it says."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "pipelines.md"
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.M | re.S)
NOT_RUN = "no-run"

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or shutil.which("bash") is None, reason="the pipelines are for bash"
)


class Block(NamedTuple):
    """A block of the page that is run, and what the page shows below it; None: nothing is shown."""

    line: int
    kind: str
    script: str
    shown: str | None


def blocks(page: str) -> list[Block]:
    fences = [(match.start(), match["info"].strip(), match["text"]) for match in FENCE.finditer(page)]
    found = []
    for number, (start, info, text) in enumerate(fences):
        language, *marks = info.split()
        if language == "sh" and NOT_RUN not in marks:
            _, after, shown = fences[number + 1] if number + 1 < len(fences) else (0, "", "")
            line = page.count("\n", 0, start) + 1
            found.append(Block(line, " ".join(marks), text, shown if after == "text" else None))
    return found


BLOCKS = blocks(PAGE.read_text(encoding="utf-8"))


class Place(NamedTuple):
    """Where the blocks are run, one after the other."""

    folder: Path
    environment: dict[str, str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A folder, and a PATH on which `seats` is the code under test and `python3` runs it."""
    top = tmp_path_factory.mktemp("pipelines")
    tools, folder = top / "bin", top / "run"
    tools.mkdir()
    folder.mkdir()
    python = shlex.quote(sys.executable)
    for name, command in {"seats": f"{python} -m seats_cli.cli.app", "python3": python}.items():
        (tools / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (tools / name).chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SEATS_", "RAY_"))}
    paths = [str(ROOT / "src"), *filter(None, [environment.get("PYTHONPATH")])]
    environment |= {
        "PATH": os.pathsep.join([str(tools), environment.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join(paths),
        "XDG_CONFIG_HOME": str(top / "no-configuration"),
        "HF_HUB_OFFLINE": "1",
        "LC_ALL": "C",
        "OMP_NUM_THREADS": "1",
    }
    return Place(folder, environment)


def spaced(text: str) -> list[str]:
    """Lines with one space between words: `uniq -c` and `wc` pad as the system likes."""
    return [" ".join(line.split()) for line in text.splitlines()]


def run(script: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


# One test: the blocks build on each other, and tests of one file may be spread over processes.
def test_every_block_prints_what_the_page_shows(place: Place) -> None:
    folder = place.folder
    for block in BLOCKS:
        if block.kind == "ray" and importlib.util.find_spec("ray") is None:
            continue
        done = run(block.script, folder, place.environment)
        about = f"{PAGE.name}:{block.line}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, about
        assert spaced(done.stdout) == spaced(block.shown or ""), about
        folder = place.folder / "pipelines"


def test_there_are_ten_pipelines_and_more() -> None:
    assert len(BLOCKS) > 10
    assert all(block.kind in ("", "ray") for block in BLOCKS)


def test_a_block_is_what_stands_between_the_fences() -> None:
    page = "a\n\n```sh\necho 1\n```\n\n```text\n1\n```\n```sh no-run\nsbatch x\n```\n```sh ray\necho 2\n```\n"
    assert blocks(page) == [Block(3, "", "echo 1\n", "1\n"), Block(13, "ray", "echo 2\n", None)]

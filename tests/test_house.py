"""The house: who may import whom, which rooms are light, and that every public name says what it is."""

from __future__ import annotations

import ast
import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "seats_cli"
FILES = sorted(PACKAGE.rglob("*.py"))

# A room may import the rooms below it, and those it is listed with: arrows point one way.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "config": {"errors"},
    "geometry": {"errors"},
    "cost": {"errors", "geometry"},
    "outputs": {"errors"},
    "layout": {"errors", "config"},
    "report": {"errors", "config", "cost"},
    "statistics": set(),
    "dataset": {"errors", "config"},
    "tasks": {"errors", "config", "dataset"},
    "timelimit": {"errors"},
    "evaluation": {"errors", "report", "statistics"},
    "probing": {"errors", "dataset", "report", "selection", "statistics"},
    "planning": {"report"},
    "media": {"errors", "config", "timelimit"},
    "kernels": set(),
    "selection": {"errors", "config", "kernels", "layout", "outputs"},
    "timing": {"errors"},
    "world": {"errors", "config", "media", "outputs"},
    "models": {"errors", "config", "geometry", "kernels", "layout", "selection"},
    "engine": {
        *("errors", "config", "cost", "layout", "media", "models", "report", "selection", "timing", "__init__"),
        "kernels",
        *("dataset", "evaluation", "figures", "geometry", "outputs", "planning", "probing", "tasks", "timelimit"),
    },
    "render": {"errors", "config", "cost", "report"},
    "figures": {"report", "timing"},
    "api": {
        *("errors", "config", "report", "media", "models", "engine", "dataset", "evaluation", "probing"),
        *("tasks",),
    },
    "__init__": {"errors", "config", "report", "probing", "api"},
    "training": {"config", "errors", "layout", "media", "models", "world"},
    "cli": {
        *("__init__", "api", "config", "cost", "engine", "errors", "layout", "media", "models", "render"),
        *("outputs", "report", "selection", "timing", "dataset", "evaluation", "probing", "statistics"),
        *("figures", "kernels", "planning", "tasks", "timelimit", "world"),
    },
}
# Of these rooms only these files.
NARROWED = {
    ("models", "selection"): {f"seats_cli.selection.{name}" for name in ("schedule", "schedule_file", "levels")},
    ("probing", "selection"): {
        f"seats_cli.selection.{name}" for name in ("proposal", "schedule", "schedule_file")
    },
    ("report", "cost"): {"seats_cli.cost"},
}
# Libraries, and the rooms that may know them.
OWNERS = {
    "typer": {"cli"},
    "rich": {"cli", "render"},
    "PIL": {"cli"},
    "av": {"media"},
    "soundfile": {"media"},
    "torchcodec": {"media"},
    "transformers": {"models", "engine", "training"},
    "tokenizers": {"training"},
    "huggingface_hub": {"models", "cli"},
    "safetensors": {"engine", "models", "training"},
    "accelerate": {"models"},
    "torchao": {"models"},
    "torchvision": {"models", "engine"},
    "triton": {"kernels"},
    "torch": {"kernels", "models", "engine", "selection", "timing", "cli", "training"},
    "numpy": {"kernels", "media", "layout", "engine", "models", "selection", "world", "training"},
    "qwen_omni_utils": {"engine"},
    "ray": {"engine"},
}
NO_TORCH = (
    *("layout.py", "cost.py", "report.py", "config.py", "errors.py", "render.py", "media/*.py", "api.py"),
    *("statistics.py", "outputs.py", "dataset.py", "evaluation.py", "probing.py", "world/*.py"),
    *("tasks.py", "timelimit.py"),
    *("planning.py", "figures.py", "engine/estimate.py", "engine/prepare.py", "engine/analytic.py"),
)


class Import(NamedTuple):
    """One imported module; ``lazy`` when it is inside a function, ``typing_only`` under TYPE_CHECKING."""

    file: Path
    line: int
    name: str
    lazy: bool
    typing_only: bool

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.name}"


def names_of(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.level == 0, "imports are absolute"
    if node.module == "seats_cli":
        inner = [alias.name for alias in node.names]
        return [
            f"seats_cli.{name}" if (PACKAGE / name).exists() or (PACKAGE / f"{name}.py").exists() else "seats_cli"
            for name in inner
        ]
    return [str(node.module)]


def is_typing_guard(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def walk(node: ast.AST, file: Path, lazy: bool = False, typing_only: bool = False) -> list[Import]:
    found = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            found += [Import(file, child.lineno, name, lazy, typing_only) for name in names_of(child)]
        inside = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        found += walk(child, file, inside, typing_only or is_typing_guard(node) or is_typing_guard(child))
    return found


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def imports() -> tuple[Import, ...]:
    return tuple(one for file in FILES for one in walk(tree_of(file), file))


def room(file: Path) -> str:
    first = file.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def target(name: str) -> str | None:
    """The room a module lies in; None for other packages."""
    parts = name.split(".")
    if parts[0] != "seats_cli":
        return None
    return parts[1] if len(parts) > 1 else "__init__"


def show(found: list[Import]) -> str:
    return "\n".join(map(str, found))


def test_every_room_is_known() -> None:
    assert {room(file) for file in FILES} == set(ALLOWED)


def test_no_arrow_points_back() -> None:
    back = []
    for one in imports():
        here, there = room(one.file), target(one.name)
        if there is not None and there != here and there not in ALLOWED[here]:
            back.append(one)
    assert not back, show(back)


def test_the_rules_have_no_circle() -> None:
    done: set[str] = set()
    rooms = {name: rooms - {"__init__"} for name, rooms in ALLOWED.items()}
    while len(done) < len(rooms):
        ready = {name for name, below in rooms.items() if below <= done} - done
        assert ready, f"circle among {set(rooms) - done}"
        done |= ready


def test_narrow_doors() -> None:
    wide = [
        one
        for one in imports()
        if (door := NARROWED.get((room(one.file), target(one.name) or ""))) is not None and one.name not in door
    ]
    assert not wide, show(wide)


def test_nothing_imports_the_command_line() -> None:
    found = [one for one in imports() if target(one.name) == "cli" and room(one.file) != "cli"]
    assert not found, show(found)


def test_only_engine_and_cli_read_the_version() -> None:
    found = [
        one for one in imports() if target(one.name) == "__init__" and room(one.file) not in ("engine", "cli")
    ]
    assert not found, show(found)


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_is_known_to_its_rooms_alone(library: str) -> None:
    found = [
        one
        for one in imports()
        if one.name.split(".")[0] == library and room(one.file) not in OWNERS[library] and not one.typing_only
    ]
    assert not found, show(found)


def test_only_the_declared_dependencies_are_imported() -> None:
    import sys

    known = {*OWNERS, "seats_cli", *sys.stdlib_module_names}
    found = [one for one in imports() if one.name.split(".")[0] not in known]
    assert not found, show(found)


def test_light_rooms_never_touch_torch() -> None:
    light = {file for pattern in NO_TORCH for file in PACKAGE.glob(pattern)}
    assert len(light) > len(NO_TORCH)
    heavy = {"torch", "triton", "torchvision", "transformers", "accelerate", "safetensors", "torchao"}
    found = [
        one for one in imports() if one.file in light and one.name.split(".")[0] in heavy and not one.typing_only
    ]
    assert not found, show(found)


def ruff_rules() -> tuple[set[str], list[str]]:
    """Modules banned at module level, and the patterns of files that are exempt."""
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    banned = set(lint["flake8-tidy-imports"]["banned-module-level-imports"])
    exempt = [
        pattern
        for pattern, codes in lint["per-file-ignores"].items()
        if "TID253" in codes and pattern.startswith("src/")
    ]
    return banned, exempt


def expand(pattern: str) -> list[Path]:
    """Files of a pattern with one pair of braces at most."""
    if "{" not in pattern:
        return list(ROOT.glob(pattern))
    before, rest = pattern.split("{")
    middle, after = rest.split("}")
    return [file for word in middle.split(",") for file in ROOT.glob(before + word + after)]


def test_heavy_modules_are_imported_late() -> None:
    banned, exempt = ruff_rules()
    assert {"torch", "transformers", "av"} <= banned
    free = {file for pattern in exempt for file in expand(pattern)}
    assert {room(file) for file in free} <= {"engine", "kernels", "models", "selection", "training"}
    found = [
        one
        for one in imports()
        if one.name.split(".")[0] in banned and not one.lazy and not one.typing_only and one.file not in free
    ]
    assert not found, show(found)


def test_the_exempt_files_exist() -> None:
    _, exempt = ruff_rules()
    assert all(expand(pattern) for pattern in exempt)


# Words


def public(tree: ast.AST, owner: str = "") -> list[tuple[str, ast.AST]]:
    """Public classes and functions, methods included, by dotted name."""
    found: list[tuple[str, ast.AST]] = []
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and child.name[0] != "_":
            found.append((owner + child.name, child))
            if isinstance(child, ast.ClassDef):
                found += public(child, f"{owner}{child.name}.")
    return found


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(PACKAGE)) for file in FILES])
def test_every_public_name_has_a_docstring(file: Path) -> None:
    tree = tree_of(file)
    assert ast.get_docstring(tree), "the file itself"
    assert [name for name, node in public(tree) if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(PACKAGE)) for file in FILES])
def test_no_assert_and_no_bare_except(file: Path) -> None:
    """Checks that ``python -O`` would drop, and handlers that would swallow Ctrl-C unseen."""
    for node in ast.walk(tree_of(file)):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}"
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"line {node.lineno}"


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(PACKAGE)) for file in FILES])
def test_functions_and_files_are_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno:
            # Typer reads a command's options from its signature, a few lines each.
            length = node.end_lineno - (node.body[0].lineno if room(file) == "cli" else node.lineno) + 1
            assert length <= 60, f"{node.name} has {length} lines"


def test_the_walker_sees_what_it_should(tmp_path: Path) -> None:
    """The walker itself, on a file with one import of each kind."""
    file = tmp_path / "sample.py"
    file.write_text(
        "import torch.nn as nn\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import av\n"
        "def f():\n    from seats_cli.cli import app\n"
        "class C:\n    import numpy\n    def g(self):\n        import rich\n"
        "from seats_cli import cost, Seats\n"
    )
    found = {(one.name, one.lazy, one.typing_only) for one in walk(ast.parse(file.read_text()), file)}
    assert found == {
        ("torch.nn", False, False),
        ("typing", False, False),
        ("av", False, True),
        ("seats_cli.cli", True, False),
        ("numpy", False, False),
        ("rich", True, False),
        ("seats_cli.cost", False, False),
        ("seats_cli", False, False),
    }

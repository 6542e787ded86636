"""A schedule in a TOML file: what ``seats probe`` writes, ``--schedule`` takes, and a model's settings may hold.

::

    drop_before_layer = [16, 18, 20, 23]   # b1, b2, b3, b4
    temperature = 0.1                      # optional: of the window softmax
    scale = 1.4                            # optional: lambda, the ratio before the LLM over the average
    layers = 28                            # optional: depth of the model it is for
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seats_cli.errors import UsageError
from seats_cli.outputs import whole
from seats_cli.selection.levels import validate_boundaries

KEYS = ("drop_before_layer", "temperature", "scale", "layers")
_FORMAT = "a schedule file holds drop_before_layer = [16, 18, 20, 23] and perhaps temperature, scale and layers"


@dataclass(frozen=True, slots=True)
class DropSchedule:
    """Where tokens leave.

    Attributes:
        drop_before_layer: b1 < b2 < b3 < b4, 0-based.
        temperature: Of the window softmax; None: not said.
        scale: lambda; None: not said, so 1.4.
        layers: Depth of the model it is for; None: not said.
    """

    drop_before_layer: tuple[int, ...]
    temperature: float | None = None
    scale: float | None = None
    layers: int | None = None


def positive_number(value: Any) -> bool:
    """Whether a TOML value is a finite number above 0."""
    return type(value) in (int, float) and math.isfinite(value) and value > 0


def positive_whole(value: Any) -> bool:
    """Whether a TOML value is a whole number above 0."""
    return type(value) is int and value > 0


def schedule_of(table: Mapping[str, Any], where: str) -> DropSchedule:
    """Check a table.

    Args:
        table: As ``tomllib`` gives it.
        where: Names the file, and the table in it, in errors.

    Raises:
        UsageError: A key is missing or not known, or a value cannot be.
    """
    unknown = [key for key in table if key not in KEYS]
    if unknown:
        raise UsageError(f"{where} has {unknown[0]}, which is not known", f"known: {', '.join(KEYS)}")
    layers, temperature, scale = table.get("layers"), table.get("temperature"), table.get("scale")
    if layers is not None and not positive_whole(layers):
        raise UsageError(f"{where}: layers is {layers!r}; it must be a whole number above 0", _FORMAT)
    if temperature is not None and not positive_number(temperature):
        raise UsageError(f"{where}: temperature is {temperature!r}; it must be a number above 0", _FORMAT)
    if scale is not None and not (positive_number(scale) and scale >= 1):
        raise UsageError(f"{where}: scale is {scale!r}; it must be a number, 1 or more", _FORMAT)
    if "drop_before_layer" not in table:
        raise UsageError(f"{where} has no drop_before_layer", _FORMAT)
    given = table["drop_before_layer"]
    if not isinstance(given, list) or len(given) != 4 or any(type(layer) is not int for layer in given):
        raise UsageError(f"{where}: drop_before_layer is {given!r}; it must be a list of four layers", _FORMAT)
    if layers is not None:
        try:
            validate_boundaries(given, layers)
        except UsageError as error:
            raise UsageError(f"{where}: {error}", error.hint) from None
    return DropSchedule(
        tuple(given),
        None if temperature is None else float(temperature),
        None if scale is None else float(scale),
        layers,
    )


def read_table(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        UsageError: It cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}", "check the path") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise UsageError(f"{path} is not a TOML file: {error}", _FORMAT) from None


def read_schedule(path: Path) -> DropSchedule:
    """Read a schedule file.

    Raises:
        UsageError: It cannot be read, is not TOML, or holds no schedule.
    """
    return schedule_of(read_table(path), str(path))


def schedule_text(schedule: DropSchedule, comments: Sequence[str] = ()) -> str:
    """What ``read_schedule`` reads, after lines of comment."""
    lines = [f"# {' '.join(comment.split())}" for comment in comments]
    layers = ", ".join(map(str, schedule.drop_before_layer))
    lines.append(f"drop_before_layer = [{layers}]  # b1, b2, b3, b4")
    if schedule.temperature is not None:
        lines.append(f"temperature = {float(schedule.temperature)!r}")
    if schedule.scale is not None:
        lines.append(f"scale = {float(schedule.scale)!r}")
    if schedule.layers is not None:
        lines.append(f"layers = {schedule.layers}")
    return "\n".join(lines) + "\n"


def write_schedule(path: Path, schedule: DropSchedule, comments: Sequence[str] = ()) -> None:
    """Write a schedule file; it appears whole or not at all.

    Raises:
        UsageError: It cannot be written.
    """
    try:
        with whole(path) as part:
            part.write_text(schedule_text(schedule, comments), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from None

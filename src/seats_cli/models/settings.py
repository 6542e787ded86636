"""``seats.toml`` in a checkpoint's folder: what this tool should know of that very model.

::

    note = "knows birds only"     # said once when the model is used

    [schedule]                    # as a schedule file; in place of the published one
    drop_before_layer = [4, 6, 8, 10]
    temperature = 0.1
    scale = 1.3

    [media]                       # defaults of --min-pixels and --max-pixels
    min_pixels = 12544
    max_pixels = 12544

    [ratios]                      # rows of R, R_v, R_a; in place of the published table
    rows = [[0.35, 0.30, 0.65], [0.10, 0.06, 0.35]]

Everything may be left out. An option goes before this file, and this file before what is published.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seats_cli.errors import ModelError, UsageError
from seats_cli.models.base import ModelSpec
from seats_cli.selection.levels import DEFAULT_SCALE, validate_boundaries
from seats_cli.selection.schedule_file import (
    DropSchedule,
    positive_number,
    positive_whole,
    read_table,
    schedule_of,
)

SETTINGS_FILE = "seats.toml"
_TABLES = {"schedule": None, "media": ("min_pixels", "max_pixels"), "ratios": ("rows",)}
Ratios = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What a ``seats.toml`` says; None where it says nothing.

    Attributes:
        note: One line that users of the model should know.
        schedule: Boundaries, and the temperature and scale that go with them.
        min_pixels: Least pixels per frame after resizing.
        max_pixels: Most.
        ratios: Rows of overall, visual and audio keep ratio.
    """

    note: str | None = None
    schedule: DropSchedule | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    ratios: Ratios | None = None


def read_settings(folder: Path) -> ModelSettings:
    """Read the file of a checkpoint's folder; nothing is said where there is none.

    Raises:
        ModelError: It is not TOML, has a key that is not known, or a value of the wrong kind.
    """
    path = folder / SETTINGS_FILE
    if not path.exists():
        return ModelSettings()
    try:
        content = read_table(path)
        note = content.pop("note", None)
        tables = {name: _table(content, name, path) for name in content}
        schedule = schedule_of(tables["schedule"], f"{path}, [schedule]") if "schedule" in tables else None
    except UsageError as error:
        raise ModelError(str(error), error.hint or f"see what {SETTINGS_FILE} may hold in docs/usage.md") from None
    if note is not None and not (isinstance(note, str) and note.strip()):
        raise _problem(path, f"note is {note!r}; it must be a line of text")
    return ModelSettings(
        note, schedule, *_pixels(tables.get("media", {}), path), _ratios(tables.get("ratios"), path)
    )


def _problem(path: Path, what: str, hint: str = "") -> ModelError:
    return ModelError(f"{path}: {what}", hint or f"see what {SETTINGS_FILE} may hold in docs/usage.md")


def _table(content: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    if name not in _TABLES:
        raise _problem(path, f"{name} is not known", f"known: note, and the tables {', '.join(_TABLES)}")
    table, keys = content[name], _TABLES[name]
    if not isinstance(table, dict):
        raise _problem(path, f"{name} is {table!r}; it must be a table, [{name}]")
    unknown = [key for key in table if keys is not None and key not in keys]
    if unknown and keys is not None:
        raise _problem(path, f"[{name}] has {unknown[0]}, which is not known", f"known: {', '.join(keys)}")
    return table


def _pixels(media: Mapping[str, Any], path: Path) -> tuple[int | None, int | None]:
    low, high = media.get("min_pixels"), media.get("max_pixels")
    for name, value in (("min_pixels", low), ("max_pixels", high)):
        if value is not None and not positive_whole(value):
            raise _problem(path, f"{name} is {value!r}; it must be a whole number above 0")
    if low is not None and high is not None and low > high:
        raise _problem(path, f"min_pixels {low} is more than max_pixels {high}")
    return low, high


def _ratios(table: Mapping[str, Any] | None, path: Path) -> Ratios | None:
    if table is None:
        return None
    rows = table.get("rows")
    if not isinstance(rows, list):
        raise _problem(path, f"[ratios] rows is {rows!r}; it must be a list of rows [R, R_v, R_a]")
    for row in rows:
        numbers = isinstance(row, list) and len(row) == 3 and all(positive_number(x) and x <= 1 for x in row)
        if not numbers or row[0] == 1:
            raise _problem(path, f"[ratios] has the row {row!r}; give R below 1, then R_v and R_a, in (0, 1]")
    found = [float(row[0]) for row in rows]
    if len(set(found)) != len(found):
        raise _problem(path, f"[ratios] has two rows for one R among {', '.join(f'{r:g}' for r in sorted(found))}")
    return tuple((float(r), float(video), float(audio)) for r, video, audio in rows)


def with_settings(spec: ModelSpec, settings: ModelSettings) -> ModelSpec:
    """The spec, with what the settings say in place of what is published.

    Raises:
        ModelError: The schedule is for another depth.
    """
    preset, schedule = spec.preset, settings.schedule
    if settings.ratios is not None:
        preset = dataclasses.replace(preset, ratios=settings.ratios)
    if schedule is not None:
        layers = spec.geometry.text.n_layers
        if schedule.layers not in (None, layers):
            raise ModelError(
                f"{spec.geometry.name}: the schedule in {SETTINGS_FILE} is for {schedule.layers} layers; "
                f"the model has {layers}",
                "probe this model: seats probe",
            )
        try:
            boundaries = validate_boundaries(schedule.drop_before_layer, layers)
        except UsageError as error:
            raise ModelError(f"{spec.geometry.name}: {SETTINGS_FILE}: {error}", error.hint) from None
        temperature = preset.temperature if schedule.temperature is None else schedule.temperature
        scale = DEFAULT_SCALE if schedule.scale is None else schedule.scale
        preset = dataclasses.replace(preset, drop_before_layer=boundaries, temperature=temperature, scale=scale)
    return dataclasses.replace(spec, preset=preset, min_pixels=settings.min_pixels, max_pixels=settings.max_pixels)

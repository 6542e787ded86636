"""``seats cache``: what lies in a cache of encoded clips, and how to be rid of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seats_cli.cli import options as opt
from seats_cli.cli.command import command
from seats_cli.cli.console import cell, notice, write
from seats_cli.cli.help import PlainCommand, PlainGroup
from seats_cli.errors import UsageError, counted

if TYPE_CHECKING:
    from seats_cli.engine.shelf import Entry

KEY_LETTERS = 12
DAY_SECONDS = 86_400.0

app = typer.Typer(
    help="List and remove the encoded clips that --cache keeps.",
    cls=PlainGroup,
    rich_markup_mode=None,
    no_args_is_help=True,
)


def _folder(given: Path | None) -> Path:
    """The cache that was named.

    Raises:
        UsageError: None was, or it is not a cache.
    """
    from seats_cli.engine.shelf import check_cache

    if given is None:
        raise UsageError("no cache was named", "give --cache DIR, or set SEATS_CACHE")
    check_cache(given)
    return given


def _row(entry: Entry) -> dict[str, Any] | None:
    """An entry as the JSON says it; None: it went while this was read."""
    from seats_cli.engine.entry import DamagedEntryError, EntryFile

    row: dict[str, Any] = {
        "key": entry.key,
        "bytes": entry.n_bytes,
        "used": datetime.fromtimestamp(entry.used, UTC).isoformat(timespec="seconds"),
        "damaged": False,
        "clip": None,
        "model": None,
        "seconds": None,
    }
    try:
        facts = EntryFile(entry.path).index.facts
    except FileNotFoundError:
        return None
    except (DamagedEntryError, OSError):
        return {**row, "damaged": True}
    return {**row, "clip": facts.name, "model": facts.model, "seconds": facts.seconds}


def _line(row: dict[str, Any]) -> str:
    """An entry as a line of cells with tabs between."""
    from seats_cli.render import human_bytes

    used = datetime.fromisoformat(row["used"]).astimezone()
    cells = [row["key"][:KEY_LETTERS], human_bytes(row["bytes"]), f"{used:%Y-%m-%d %H:%M}"]
    if row["damaged"]:
        return "\t".join([*cells, "-", "-", "(damaged)"])
    return "\t".join([*cells, f"{row['seconds']:.1f} s", cell(row["model"]), cell(row["clip"])])


@command()
def ls(cache: opt.Cache = None, *, as_json: opt.AsJson = False, verbose: opt.Verbose = False) -> int:
    """List the clips in a cache, longest unused first: key, size, last use, length, model, file name."""
    from seats_cli.engine.shelf import entries
    from seats_cli.render import human_bytes
    from seats_cli.report import SCHEMA_VERSION

    folder = _folder(cache)
    try:
        rows = [row for row in map(_row, entries(folder)) if row is not None]
    except OSError as error:
        raise UsageError(f"--cache {folder} cannot be read: {error.strerror or error}") from None
    total = sum(row["bytes"] for row in rows)
    if as_json:
        head = {"schema_version": SCHEMA_VERSION, "command": "cache ls", "folder": str(folder), "bytes": total}
        write(json.dumps({**head, "entries": rows}) + "\n")
        return 0
    for row in rows:
        write(_line(row) + "\n")
    notice(f"{counted(len(rows), 'clip')}, {human_bytes(total)} in {folder}")
    return 0


@command()
def clear(
    cache: opt.Cache = None,
    *,
    older_than: Annotated[
        float | None,
        opt.option(
            "--older-than",
            panel=opt.CACHE,
            **{**opt.NUMBER, "metavar": "<days>"},
            help="Only clips that were not used for so many days.",
        ),
    ] = None,
    verbose: opt.Verbose = False,
) -> int:
    """Remove the clips in a cache, and what killed runs left there. Nothing else is removed."""
    from seats_cli.engine.shelf import clear as remove
    from seats_cli.render import human_bytes

    if older_than is not None and not 0 <= older_than < 1e6:  # NaN too
        raise UsageError(f"--older-than is {older_than:g}; it must be a number of days, 0 or more")
    folder = _folder(cache)
    freed = remove(folder, (older_than or 0.0) * DAY_SECONDS)
    notice(f"{counted(freed.entries, 'clip')} removed, {human_bytes(freed.n_bytes)} freed in {folder}")
    return 0


for _name, _command in {"ls": ls, "clear": clear}.items():
    app.command(_name, cls=PlainCommand)(_command)

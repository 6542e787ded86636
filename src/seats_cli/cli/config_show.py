"""``seats config show [COMMAND]``: the value of every option, and where it came from."""

from __future__ import annotations

import copy
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seats_cli.cli import options as opt
from seats_cli.cli.command import command
from seats_cli.cli.configuration import VARIABLE, Defaults, key_of, keys_of, origin, outranked, places, state_of
from seats_cli.cli.console import cell, notice, show, wording, write
from seats_cli.cli.help import PlainCommand, PlainGroup
from seats_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType


HELP = """Show where the values of options come from.

A flag goes before its SEATS_ variable, that before ./seats.toml, that before config.toml in your configuration
folder (~/.config/seats), and that before the default.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """An option as a command would find it.

    Attributes:
        option: Its key.
        value: For JSON; None: not said, and the command decides.
        shown: For people; may say what the command decides.
        source: A variable, a file, or ``default``.
    """

    option: str
    value: Any
    shown: str
    source: str


def _plain(value: Any) -> Any:
    """For JSON, which knows no paths and no infinity."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value] or None
    if isinstance(value, Path) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    return value


def _words(value: Any, parameter: Any) -> str:
    if value is None:
        return f"({parameter.show_default})" if isinstance(parameter.show_default, str) else ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def rows_of(shown: Any, name: str, defaults: Defaults) -> list[Row]:
    """The options of a command with no command line.

    Args:
        shown: The command.
        name: Its name.
        defaults: What files say.

    Raises:
        UsageError: A file, or a variable, says what cannot be.
    """
    options = [copy.copy(parameter) for parameter in keys_of(shown).values()]
    for parameter in options:
        parameter.required = False
    alone = copy.copy(shown)
    alone.params = options
    try:
        context = alone.make_context(name, [], default_map=defaults)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        raise UsageError(wording(error), f"see: seats {name} --help") from None
    unsaid = outranked(context)
    rows = []
    for parameter in options:
        said = parameter.name not in unsaid
        value = _plain(context.params[parameter.name]) if said else None
        source = origin(context, parameter) if said else "default"
        rows.append(Row(key_of(parameter), value, _words(value, parameter), source))
    return rows


def _table(rows: list[Row]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table("option", "value", "from")
    for row in rows:
        style = "dim" if row.source == "default" else ""
        table.add_row(*(Text(cell(text)) for text in (row.option, row.shown, row.source)), style=style)
    return table


def _configurable(context: Any) -> dict[str, Defaults]:
    return context.find_root().default_map or {}


def _complete(ctx: typer.Context, incomplete: str) -> list[str]:
    from seats_cli.cli.configuration import default_map

    root: Any = ctx.find_root().command
    return [name for name in default_map(root.commands) if name.startswith(incomplete)]


@command()
def config_show(
    of: Annotated[
        str, typer.Argument(metavar="[COMMAND]", autocompletion=_complete, help="Whose options.")
    ] = "ask",
    *,
    as_json: Annotated[bool, opt.option("--json", panel=opt.OUTPUT, help="One JSON object on stdout.")] = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    context: typer.Context,
) -> int:
    """Show the value of each option of a command, and where it came from.

    A line each on stdout: option, tab, value, tab, source. Which files were looked for is on stderr.
    """
    known = _configurable(context)
    if of not in known:
        raise UsageError(f"{of!r} is no command that takes settings", f"known: {', '.join(known)}")
    root: Any = context.find_root().command
    files = [(place.label, state_of(place)) for place in places()]
    rows = rows_of(root.commands[of], of, known[of])
    if not quiet:
        for label, state in files:
            left = "settings of the model in this folder, not configuration: left alone"
            notice(f"{label}: {left if state == 'of a model' else state}")
        if not files:
            notice(f"{VARIABLE} is empty: no files are read")
    if as_json:
        from seats_cli.report import SCHEMA_VERSION

        content = {
            "schema_version": SCHEMA_VERSION,
            "command": "config show",
            "of": of,
            "files": [{"file": label, "state": state} for label, state in files],
            "options": [{"option": row.option, "value": row.value, "source": row.source} for row in rows],
        }
        write(json.dumps(content, ensure_ascii=False) + "\n")
    elif sys.stdout.isatty():
        show(_table(rows), stderr=False)
    else:
        write("".join("\t".join(map(cell, (row.option, row.shown, row.source))) + "\n" for row in rows))
    return 0


app = typer.Typer(help=HELP, cls=PlainGroup, rich_markup_mode=None, no_args_is_help=True)
app.command("show", cls=PlainCommand)(config_show)

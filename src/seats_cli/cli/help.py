"""Help as plain text, in sections: at once, and in whatever width there is.

Typer's own needs rich's Markdown and boxes, which take longer than half a second and do not fit narrow terminals.
"""

from __future__ import annotations

import shutil
from typing import Any

import typer.core

LEAST_COLUMNS, NARROW, NARROW_NAMES, NAMES = 30, 60, 14, 28
"""The fewest columns, those below which a terminal is narrow, and the width of names in it and elsewhere."""


def _sections(parameters: list[Any], ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """Help of the parameters by panel: arguments first, what has no panel last."""
    found: dict[str, list[tuple[str, str]]] = {"Arguments": []}
    for parameter in parameters:
        record = parameter.get_help_record(ctx)
        if record is not None:
            rest = "Arguments" if parameter.param_type_name == "argument" else "Options"
            panel = getattr(parameter, "rich_help_panel", None) or rest
            name, text = record
            if parameter.param_type_name == "argument":
                name = parameter.metavar
            # Older versions of Typer escape brackets for rich.
            found.setdefault(panel, []).append((name, text.replace("\\[", "[")))
    found["Options"] = found.pop("Options", [])
    return {panel: records for panel, records in found.items() if records}


class _Plain:
    """Overrides of what Typer's command and group share."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All parameters.

        A flag that is None would be checked with pydantic, which takes longer to import than the rest of the help.
        """
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if getattr(parameter, "is_flag", False) and parameter.default is None:
                parameter.default = False
        return parameters

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The usage line: arguments as they are called here, without marks of Typer's."""
        return ["[OPTIONS]", *(p.metavar for p in self.get_params(ctx) if p.param_type_name == "argument")]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, in less than the 50 columns that are the usual least if there are less.

        Defaults are those without configuration, whose files may be broken.
        """
        ctx.default_map = None
        columns = shutil.get_terminal_size().columns
        formatter.width = min(formatter.width, max(columns, LEAST_COLUMNS) - 2)
        super().format_help(ctx, formatter)  # type: ignore[misc]

    def write_sections(self, ctx: Any, formatter: Any) -> None:
        """Write the options, panel by panel."""
        width = NARROW_NAMES if formatter.width < NARROW else NAMES
        for panel, records in _sections(self.get_params(ctx), ctx).items():
            with formatter.section(panel):
                formatter.write_dl(records, col_max=width)


class PlainCommand(_Plain, typer.core.TyperCommand):
    """A command whose help is plain, and whose flags may be taken back."""

    def make_parser(self, ctx: Any) -> Any:
        """The parser of the command line.

        What a file or a variable switches on, the command line can switch off: a ``--flag`` has its ``--no-flag``,
        and a ``--no-flag`` its ``--flag``. The help does not list them.
        """
        parser = super().make_parser(ctx)
        for parameter in self.get_params(ctx):
            if getattr(parameter, "is_flag", False) and not parameter.is_eager:
                long = next(flag for flag in parameter.opts if flag.startswith("--"))
                opposite = f"--{long[5:]}" if long.startswith("--no-") else f"--no-{long[2:]}"
                parser.add_option(
                    obj=parameter, opts=[opposite], dest=parameter.name, action="store_const", const=False
                )
        return parser

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, panel by panel."""
        self.write_sections(ctx, formatter)


class PlainGroup(_Plain, typer.core.TyperGroup):
    """A group of commands whose help is plain."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The usage line."""
        return ["[OPTIONS]", "COMMAND", "..."]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, then the options."""
        self.format_commands(ctx, formatter)
        self.write_sections(ctx, formatter)

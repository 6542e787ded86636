"""``seats``: the commands, and the one door through which every error leaves."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from seats_cli import __version__
from seats_cli.cli import ask, demo, doctor, profile
from seats_cli.cli.console import complain, run
from seats_cli.errors import UsageError

EPILOG = (
    "Exit codes: 0 ok, 1 other, 2 usage, 3 media, 4 model, 5 out of memory, 6 some clips failed, 130 interrupted."
)

app = typer.Typer(
    name="seats",
    help="Ask questions of a local video or audio file with a Qwen-Omni model that keeps a tenth of its tokens.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"seats {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Ask questions of a local video or audio file with a Qwen-Omni model that keeps a tenth of its tokens."""


app.command("ask")(ask.ask)
app.command("profile")(profile.profile)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)


def _dispatch() -> int:
    try:
        # Outside standalone mode an Exit comes back as its code, and usage errors are ours to word.
        return int(app(standalone_mode=False) or 0)
    except Exception as error:
        if type(error).__name__ == "Abort":
            raise KeyboardInterrupt from None
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            context = getattr(error, "ctx", None)
            if type(error).__name__ == "NoArgsIsHelpError":
                sys.stderr.write(f"{error.format_message()}\n")
                return 2
            path = context.command_path if context is not None else "seats"
            complain(UsageError(error.format_message().rstrip("."), f"see: {path} --help"))
            return 2
        raise


def main() -> None:
    """Run the command line and exit."""
    # A broken file name must not end a batch: what is not UTF-8 is written with backslashes.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(run(_dispatch, verbose="--verbose" in sys.argv))

"""``seats``: the commands, and the one door through which every error leaves."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from seats_cli import __version__
from seats_cli.cli import ask, cache, chat, config_show, demo, doctor, evaluate, merge, plan, probe, profile, synth
from seats_cli.cli.configuration import default_map
from seats_cli.cli.console import complain, run, to_stdout, wording
from seats_cli.cli.help import PlainCommand, PlainGroup
from seats_cli.errors import UsageError

EPILOG = (
    "Exit codes: 0 ok, 1 other, 2 usage, 3 media, 4 model, 5 out of memory, 6 some clips failed, 124 timeout, "
    "130 interrupted."
)
COMMANDS = {
    "ask": ask.ask,
    "chat": chat.chat,
    "merge": merge.merge,
    "plan": plan.plan,
    "profile": profile.profile,
    "eval": evaluate.evaluate,
    "probe": probe.probe,
    "synth": synth.synth,
    "demo": demo.demo,
    "doctor": doctor.doctor,
}
GROUPS = {"cache": cache.app, "config": config_show.app}
SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")

app = typer.Typer(
    name="seats",
    help="Ask questions of a local video or audio file with a Qwen-Omni model that keeps a tenth of its tokens.",
    epilog=EPILOG,
    cls=PlainGroup,
    rich_markup_mode=None,
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


for _name, _command in COMMANDS.items():
    app.command(_name, cls=PlainCommand, epilog=EPILOG)(_command)
for _name, _group in GROUPS.items():
    for _info in _group.registered_commands:
        _info.epilog = EPILOG
    app.add_typer(_group, name=_name, epilog=EPILOG)


def _said(group: Any) -> str:
    """The command that the command line begins with, as far as there is one."""
    path = ["seats"]
    for word in sys.argv[1:]:
        group = getattr(group, "commands", {}).get(word)
        if group is None:
            break
        path.append(word)
    return " ".join(path)


def _dispatch() -> int:
    if len(sys.argv) == 3 and sys.argv[1] == "--show-completion" and sys.argv[2] in SHELLS:
        # A shell may be named; without one Typer looks for the one that runs this.
        os.environ["_SEATS_COMPLETE"] = f"source_{sys.argv[2]}"
    root: Any = typer.main.get_command(app)
    try:
        # Help and version are not written by us. Commands let no error through.
        with to_stdout():
            # Outside standalone mode an Exit comes back as its code, and usage errors are ours to word.
            # Whoever presses TAB wants no errors of a file.
            defaults = None if "_SEATS_COMPLETE" in os.environ else default_map(root.commands)
            return int(root(prog_name="seats", standalone_mode=False, default_map=defaults) or 0)
    except Exception as error:
        kind = type(error).__name__
        if kind == "Abort":
            raise KeyboardInterrupt from None
        if not hasattr(error, "format_message"):
            raise
        if kind == "NoArgsIsHelpError":
            sys.stderr.write(f"{error.format_message()}\n")
        else:
            complain(UsageError(wording(error), f"see: {_said(root)} --help"))
        return UsageError.exit_code


def main() -> None:
    """Run the command line and exit."""
    # A broken file name must not end a batch: what the encoding lacks is written with backslashes.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(run(_dispatch, verbose=False))


if __name__ == "__main__":
    main()

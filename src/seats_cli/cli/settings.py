"""Settings of the selection to be compared: every ``--method`` with every ``--trr``, and every ``--setting``.

What a setting may say, and how its values are read, follows from the selection's own options (``bundles.py``): an
option that is added there is known here. A label is what ``--setting`` takes to make the same setting.
"""

from __future__ import annotations

import dataclasses
import inspect
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import product
from typing import Any

import typer

from seats_cli.cli import bundles
from seats_cli.cli.console import wording
from seats_cli.cli.options import Trr
from seats_cli.config import SelectionOptions
from seats_cli.errors import UsageError

DEFAULT_METHOD, DEFAULT_TRR = "seats", 0.1
EXAMPLE = '--setting "seats trr=0.1 kv-cache=text"'
KEYWORD = inspect.Parameter.KEYWORD_ONLY


@cache
def _parameters() -> dict[str, inspect.Parameter]:
    """The options of the selection, ``--trr`` among them, by parameter name."""
    trr = inspect.Parameter("trr", KEYWORD, default=DEFAULT_TRR, annotation=Trr)
    members = inspect.signature(bundles.selection_options, eval_str=True).parameters
    return {
        "trr": trr,
        **{name: parameter.replace(kind=KEYWORD) for name, parameter in members.items()},
    }


def _taking(names: Sequence[str]) -> Callable[..., dict[str, Any]]:
    """A function with these options that gives back their values."""

    def collect(**values: Any) -> dict[str, Any]:
        return values

    chosen = [_parameters()[name] for name in names]
    collect.__signature__ = inspect.Signature(chosen)  # type: ignore[attr-defined]
    collect.__annotations__ = {parameter.name: parameter.annotation for parameter in chosen}
    return collect


def shared_options() -> Callable[..., dict[str, Any]]:
    """A bundle of the options that hold for every setting unless it says otherwise: all but method and ratio."""
    return _taking([name for name in _parameters() if name not in ("method", "trr")])


@cache
def _command() -> Any:
    app = typer.Typer(add_completion=False)
    app.command("setting")(_taking(list(_parameters())))
    command = typer.main.get_command(app)
    # What is compared is said on the command line alone.
    for parameter in command.params:
        parameter.envvar = None
    return command


def _flags() -> dict[str, str]:
    """By parameter name, the option's long name without its dashes."""
    return {
        parameter.name: next(flag for flag in parameter.opts if flag.startswith("--")).removeprefix("--")
        for parameter in _command().params
        if parameter.name in _parameters()
    }


def _values(arguments: list[str], where: str = "") -> dict[str, Any]:
    """What is said on a command line of these options alone, read as the command line does.

    Raises:
        UsageError: A value cannot be; ``where`` goes before what is wrong with it.
    """
    try:
        context = _command().make_context("setting", arguments)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        hint = f"such as {EXAMPLE}" if where else "see: seats eval --help"
        raise UsageError(where + wording(error), hint) from None
    source = context.get_parameter_source
    return {name: value for name, value in context.params.items() if source(name).name == "COMMANDLINE"}


def _options(values: Mapping[str, Any]) -> SelectionOptions:
    """Checked options from values by parameter name.

    Raises:
        UsageError: They cannot be.
    """
    rest = {name: value for name, value in values.items() if name != "trr"}
    trr = values.get("trr", DEFAULT_TRR) if values.get("video_trr") is None else DEFAULT_TRR
    options = dataclasses.replace(bundles.selection_options(**rest), trr=trr)
    # Nothing else matters where everything stays; but what was said of it must be possible.
    return SelectionOptions(method="full", trr=1.0) if options.method == "full" else options


def label_of(values: Mapping[str, Any]) -> str:
    """The method and all that is not as by default, in the order of the options."""
    method = values.get("method", DEFAULT_METHOD)
    if method == "full":
        return "full"
    pair = values.get("video_trr") is not None
    said = [method] if pair else [method, f"trr={values.get('trr', DEFAULT_TRR)!r}"]
    for name, parameter in _parameters().items():
        value = values.get(name, parameter.default)
        if name not in ("method", "trr") and value != parameter.default:
            said.append(f"{_flags()[name]}={shlex.quote(str(value))}")
    return " ".join(said)


def parse_setting(text: str, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Read ``seats trr=0.1 kv-cache=text``.

    Args:
        text: A method, unless it is the default one, and pairs of option and value.
        shared: Values by parameter name that hold where the text says nothing.

    Returns:
        Values by parameter name.

    Raises:
        UsageError: The text, an option or a value cannot be.
    """
    where = f"--setting {text!r}"
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{where}: {error}", f"such as {EXAMPLE}") from None
    if not words:
        raise UsageError(f"{where} says nothing", f"such as {EXAMPLE}")
    if "=" not in words[0]:
        words[0] = f"method={words[0]}"
    said: dict[str, str] = {}
    known = list(_flags().values())
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or name not in known:
            raise UsageError(f"{where}: {word!r} is not an option of the selection", f"known: {', '.join(known)}")
        if name in said:
            raise UsageError(f"{where}: {name} is given twice, {said[name]!r} and {value!r}", "give it once")
        said[name] = value
    own = _values([part for name, value in said.items() for part in (f"--{name}", value)], f"{where}: ")
    # One ratio for both in a setting goes before a pair that is said for all.
    ratios = {} if own.get("trr") is None else {"video_trr": None, "audio_trr": None}
    return {"method": DEFAULT_METHOD, **shared, **ratios, **own}


def _listed(text: str, option: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if "" in words:
        raise UsageError(f"{option} is {text!r}; give values with commas between them", "such as seats,full")
    return words


def settings_of(
    methods: str | None,
    trrs: str | None,
    texts: Sequence[str],
    shared: Mapping[str, Any],
    defaults: Mapping[str, str] | None = None,
) -> dict[str, SelectionOptions]:
    """All settings by label, each once.

    Args:
        methods: Names with commas between; None: not said.
        trrs: Ratios with commas between; None: not said.
        texts: Of ``--setting``. Where there is one and neither of the above, these are all.
        shared: Values of the other options by parameter name.
        defaults: ``method`` and ``trr`` of a file, where they are not said: as text, with commas between. A single
            one also stands in texts that do not say it.

    Raises:
        UsageError: One of them cannot be.
    """
    usual = {"method": DEFAULT_METHOD, "trr": str(DEFAULT_TRR), **(defaults or {})}
    found: list[dict[str, Any]] = []
    if methods is not None or trrs is not None or not texts:
        names = _listed(usual["method"] if methods is None else methods, "--method")
        ratios = _listed(usual["trr"] if trrs is None else trrs, "--trr")
        found = [
            {**shared, **_values(["--method", method, "--trr", trr])} for method, trr in product(names, ratios)
        ]
    single = [part for name, text in (defaults or {}).items() if "," not in text for part in (f"--{name}", text)]
    found += [parse_setting(text, {**_values(single), **shared}) for text in texts]
    settings: dict[str, SelectionOptions] = {}
    for values in found:
        options = _options(values)
        if options not in settings.values():
            settings[label_of(values)] = options
    return settings

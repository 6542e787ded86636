"""What files say in place of options: ``./seats.toml``, and the user's ``config.toml``.

::

    model = "tiny"                  # long options without their dashes, for every command that has them
    max-new-tokens = 64

    [eval]                          # for one command; goes before the lines above
    method = ["seats", "full"]

The command line goes before the environment, that before ``./seats.toml``, that before the user's file, and that
before the default. Click looks into its ``default_map`` for what neither command line nor environment says, and
only then files are opened: not for help, nor for completion.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from seats_cli.errors import SeatsError, UsageError

PROJECT_FILE = "seats.toml"
MODEL_CONFIG = "config.json"
"""Beside a ``seats.toml``: that is the model's (``models/settings.py``), and no configuration."""
VARIABLE = "SEATS_CONFIG"
NOT_CONFIGURED = ("config", "doctor")
"""They say what is wrong with a configuration, so they do without it."""
LISTS = ("method", "trr", "choices", "schedule", "max_memory")
"""Parameters whose text may be several values with commas between; in a file it may be an array."""
INSTEAD = {"trr": ("video_trr", "audio_trr")}
"""The pair goes before the ratio where both are said at once. A ratio that is said nearer goes before the pair."""
MODEL_KEYS = ("note", "schedule", "media", "ratios")

State = Literal["read", "not there", "of a model"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a configuration may be.

    Attributes:
        path: Of the file.
        label: As it is named to the user.
        named: By the environment, so that it must be there.
    """

    path: Path
    label: str
    named: bool = False

    @property
    def of_a_model(self) -> bool:
        """Whether it lies in a checkpoint's folder, which is the working folder."""
        if self.label != f"./{PROJECT_FILE}" or not self.path.exists():
            return False
        try:
            # Other programs call their files so too; a checkpoint's has this key.
            return b'"model_type"' in Path(MODEL_CONFIG).read_bytes()
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Setting:
    """A line of a file.

    Attributes:
        place: The file's label.
        table: The command it is for; empty: all.
        key: The long option without its dashes.
        value: As ``tomllib`` gives it.
    """

    place: str
    table: str
    key: str
    value: Any

    def __str__(self) -> str:
        return f"{self.place}: {f'[{self.table}] ' if self.table else ''}{self.key}"

    def refused(self, why: str, hint: str = "") -> UsageError:
        """What to raise if the value cannot be."""
        value = repr(self.value) if isinstance(self.value, str | list) else str(self.value)
        shown = value.lower() if isinstance(self.value, bool) else value
        return UsageError(f"{self} is {shown}: {why}", hint)


def _user_file() -> Path | None:
    """Where the system wants it; None where there is no home."""
    if os.name == "nt":
        roaming = os.environ.get("APPDATA")
        return Path(roaming) / "seats" / "config.toml" if roaming else None
    # By its specification a relative one is none.
    base = os.environ.get("XDG_CONFIG_HOME", "")
    try:
        folder = Path(base) if os.path.isabs(base) else Path.home() / ".config"
    except RuntimeError:
        return None
    return folder / "seats" / "config.toml"


def places() -> list[Place]:
    """Where files are looked for, the nearest first; nowhere if ``SEATS_CONFIG`` is empty."""
    named = os.environ.get(VARIABLE)
    if named == "":
        return []
    found = [Place(Path(PROJECT_FILE), f"./{PROJECT_FILE}")]
    if named is not None:
        return [*found, Place(Path(named).expanduser(), named, named=True)]
    user = _user_file()
    return found if user is None else [*found, Place(user, str(user))]


def content_of(place: Place) -> dict[str, Any] | None:
    """What the file holds; None: it is not there, or a model's.

    Raises:
        UsageError: It cannot be read, is not TOML, or is named and not there.
    """
    try:
        if place.of_a_model:
            return None
        data = place.path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if place.named:
            hint = f"name another file; with an empty {VARIABLE} none is read"
            raise UsageError(f"{VARIABLE} is {place.label}, and there is no such file", hint) from None
        return None
    except OSError as error:
        raise UsageError(f"{place.label} cannot be read: {error.strerror or error}") from None
    import tomllib

    try:
        # Some editors begin a file with a mark of their encoding.
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{place.label} is not UTF-8, from byte {error.start}", "save it as UTF-8") from None
    except ValueError as error:
        raise UsageError(f"{place.label} is not TOML: {error}", 'such as: model = "tiny"') from None


def state_of(place: Place) -> State:
    """What becomes of a file; that of a model is left alone.

    Raises:
        UsageError: It cannot be read, is not TOML, or is named and not there.
    """
    if content_of(place) is not None:
        return "read"
    return "of a model" if place.of_a_model else "not there"


def key_of(parameter: Any) -> str:
    """The first long option of a parameter, without its dashes."""
    return str(next(flag for flag in parameter.opts if flag.startswith("--"))).removeprefix("--")


def keys_of(command: Any) -> dict[str, Any]:
    """The options of a command, by key."""
    return {key_of(one): one for one in command.params if one.param_type_name == "option"}


def _nearest(word: str, known: Mapping[str, Any], otherwise: str) -> str:
    import difflib

    if word in MODEL_KEYS:
        return otherwise
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else otherwise


def _settings(table: Mapping[str, Any], place: str, name: str, known: Mapping[str, Any]) -> dict[str, Setting]:
    """By key; ``name`` is the command whose options are known, or empty.

    Raises:
        UsageError: A key is not known, or there twice.
    """
    found: dict[str, Setting] = {}
    for written, value in table.items():
        key = written.replace("_", "-")
        where = f"{place}: [{name}]" if name else f"{place}:"
        if key not in known:
            whose = f"an option of seats {name}" if name else "an option of any command"
            otherwise = f"see: seats {name} --help".replace("  ", " ")
            if not name and written in MODEL_KEYS:
                otherwise = f"a model's own settings go into the folder of its {MODEL_CONFIG}"
            raise UsageError(f"{where} {written} is not {whose}", _nearest(key, known, otherwise))
        if key in found:
            raise UsageError(f"{where} {key} is there twice, with - and with _", "leave one of them out")
        found[key] = Setting(place, name, key, value)
    return found


def _tables(content: Mapping[str, Any], place: str, commands: Mapping[str, Any]) -> dict[str, dict[str, Setting]]:
    """Settings by key, by command; those that hold for all below an empty name.

    Raises:
        UsageError: A key or a table is not known.
    """
    keys = {name: keys_of(command) for name, command in commands.items()}
    every = {key: one for known in keys.values() for key, one in known.items()}
    flat = {key: value for key, value in content.items() if not isinstance(value, dict)}
    for name in content.keys() - flat.keys():
        if name not in commands:
            otherwise = f"tables are for commands: {', '.join(commands)}"
            if name in MODEL_KEYS:
                otherwise = f"a model's own settings go into the folder of its {MODEL_CONFIG}"
            raise UsageError(
                f"{place}: [{name}] is no command that takes settings", _nearest(name, commands, otherwise)
            )
    named = {name: _settings(content[name], place, name, keys[name]) for name in content if name not in flat}
    return {"": _settings(flat, place, "", every), **named}


def _text(setting: Setting, value: Any) -> str:
    if type(value) not in (str, int, float):
        raise setting.refused("it must be text or a number", "text is in quotes")
    if "\0" in str(value):
        raise setting.refused("it holds a NUL")
    return str(value)


def _as_typed(setting: Setting, parameter: Any) -> bool | str | list[str]:
    """The value as the command line would hand it over.

    Raises:
        UsageError: It is of a kind that the option cannot take.
    """
    value = setting.value
    if getattr(parameter, "is_flag", False):
        if not isinstance(value, bool):
            raise setting.refused("it must be true or false")
        return value
    texts = [_text(setting, one) for one in (value if isinstance(value, list) else [value])]
    if parameter.multiple:
        return texts
    if isinstance(value, list):
        if parameter.name not in LISTS or any("," in text for text in texts):
            raise setting.refused("it takes one value, not an array")
        return ",".join(texts)
    return texts[0]


def _checked(setting: Setting, name: str, commands: Mapping[str, Any]) -> bool | str | list[str]:
    """The value, which the option takes.

    Args:
        setting: What the file says.
        name: The command that runs.
        commands: All that may be configured, by name.

    Raises:
        UsageError: The option of this command does not take it.
    """
    command = commands[name]
    parameter = keys_of(command)[setting.key]
    typed = _as_typed(setting, parameter)
    try:
        parameter.process_value(command.context_class(command, info_name=name), typed)
    except Exception as error:
        if not hasattr(error, "message"):
            raise
        why = str(error.message).replace("Value error, ", "").rstrip(".")
        raise setting.refused(why, _whose(setting, name, commands)) from None
    return typed


def _whose(setting: Setting, name: str, commands: Mapping[str, Any]) -> str:
    """What to do about a value that this command does not take; several may be meant for another."""
    several = isinstance(setting.value, list) or "," in str(setting.value)
    for other, command in commands.items():
        if several and other != name and not setting.table and setting.key in keys_of(command):
            with contextlib.suppress(UsageError):
                _checked(dataclasses.replace(setting, table=other), other, commands)
                return f"if it is for seats {other} alone, write it below [{other}]"
    return f"see: seats {name} --help"


class Defaults(Mapping[str, Any]):
    """What files say for one command, by parameter name; they are read when it is first asked.

    Args:
        name: Of the command.
        commands: All that may be configured, by name.

    Raises:
        UsageError: When asked: a file cannot be read, or says what cannot be.
    """

    def __init__(self, name: str, commands: Mapping[str, Any]) -> None:
        self._name = name
        self._commands = commands

    @cached_property
    def _found(self) -> dict[str, tuple[Any, str]]:
        parameters = keys_of(self._commands[self._name])
        layers: list[dict[str, Setting]] = []
        for place in reversed(places()):
            content = content_of(place)
            if content is not None:
                tables = _tables(content, place.label, self._commands)
                layers += [tables[""], tables.get(self._name, {})]
        said: dict[str, Setting] = {}
        for layer in layers:
            here = {parameters[key].name: one for key, one in layer.items() if key in parameters}
            for name in [low for high in here for low in INSTEAD.get(high, ())]:
                said.pop(name, None)
            said.update(here)
        return {
            name: (_checked(setting, self._name, self._commands), setting.place) for name, setting in said.items()
        }

    def __getitem__(self, name: str) -> Any:
        return self._found[name][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def place_of(self, name: str) -> str:
        """The label of the file that says it."""
        return self._found[name][1]


def default_map(commands: Mapping[str, Any]) -> dict[str, Defaults]:
    """What click takes its defaults from, by command.

    Args:
        commands: Of the root, by name.
    """
    some = {
        name: command
        for name, command in commands.items()
        if name not in NOT_CONFIGURED and not hasattr(command, "commands")
    }
    return {name: Defaults(name, some) for name in some}


def source_of(context: Any, name: str) -> str:
    """``COMMANDLINE``, ``ENVIRONMENT``, ``DEFAULT_MAP`` (a file) or ``DEFAULT``."""
    source = context.get_parameter_source(name)
    return "DEFAULT" if source is None else str(source.name)


def origin(context: Any, parameter: Any) -> str:
    """Where a value came from: the variable, the file, ``command line`` or ``default``."""
    source = source_of(context, parameter.name)
    if source == "ENVIRONMENT":
        return str(parameter.envvar)
    if source == "DEFAULT_MAP":
        return str(context.default_map.place_of(parameter.name))
    return "command line" if source == "COMMANDLINE" else "default"


def outranked(context: Any) -> list[str]:
    """Parameters that a file sets, and for which something nearer stands."""
    nearer = ("COMMANDLINE", "ENVIRONMENT")
    return [
        low
        for high, lows in INSTEAD.items()
        if source_of(context, high) in nearer
        for low in lows
        if source_of(context, low) == "DEFAULT_MAP"
    ]


def add_origins(error: SeatsError, context: Any) -> None:
    """Let an error say where options that it names were set, unless that is the command line."""
    known = keys_of(context.command)
    named = dict.fromkeys(re.findall(r"(?<![\w-])--([a-z][a-z0-9-]*)", str(error)))
    said = [(key, origin(context, known[key])) for key in named if key in known]
    lines = [f"--{key} is from {where}" for key, where in said if where not in ("command line", "default")]
    # What to do comes last: it may end in a command to copy.
    error.hint = "; ".join(filter(None, [*lines, error.hint]))

"""Commands made of bundles of options.

A bundle (``bundles.py``) is a function whose parameters are options and whose result is made of them. A command
takes the result; on the command line it has the bundle's options. What two commands share is so said once.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import typer

from seats_cli.cli.configuration import add_origins, outranked
from seats_cli.cli.console import run
from seats_cli.errors import SeatsError


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function, eval_str=True).parameters.values())


def command(**bundles: Callable[..., Any]) -> Callable[[Callable[..., int]], Callable[..., None]]:
    """Make a function that returns an exit code into one for Typer.

    Its parameter ``verbose`` is looked at; whatever it raises becomes a line on stderr and an exit code. Typer's
    context is its parameter ``context``, if it has one.

    Args:
        bundles: For a parameter of the function, the function that makes its value of options.
    """

    def decorate(body: Callable[..., int]) -> Callable[..., None]:
        members = {name: _parameters(bundle) for name, bundle in bundles.items()}
        options: list[inspect.Parameter] = []
        for parameter in _parameters(body):
            options += members.get(parameter.name, [parameter])
        keyword = inspect.Parameter.KEYWORD_ONLY
        if all(option.name != "context" for option in options):
            options.append(inspect.Parameter("context", keyword, annotation=typer.Context))

        @functools.wraps(body)
        def wrapper(**given: Any) -> None:
            values = {**given, **dict.fromkeys(outranked(given["context"]))}

            def call() -> int:
                made = {
                    name: bundles[name](**{member.name: values[member.name] for member in inside})
                    for name, inside in members.items()
                }
                own = {name: values[name] for name in inspect.signature(body).parameters if name not in members}
                return body(**own, **made)

            def explained() -> int:
                try:
                    return call()
                except SeatsError as error:
                    add_origins(error, values["context"])
                    raise

            raise typer.Exit(run(explained, verbose=bool(values.get("verbose"))))

        wrapper.__signature__ = inspect.Signature([o.replace(kind=keyword) for o in options])  # type: ignore[attr-defined]
        wrapper.__annotations__ = {option.name: option.annotation for option in options}
        return wrapper

    return decorate

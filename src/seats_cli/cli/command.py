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

from seats_cli.cli.console import run


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function, eval_str=True).parameters.values())


def command(**bundles: Callable[..., Any]) -> Callable[[Callable[..., int]], Callable[..., None]]:
    """Make a function that returns an exit code into one for Typer.

    Its parameter ``verbose`` is looked at; whatever it raises becomes a line on stderr and an exit code.

    Args:
        bundles: For a parameter of the function, the function that makes its value of options.
    """

    def decorate(body: Callable[..., int]) -> Callable[..., None]:
        members = {name: _parameters(bundle) for name, bundle in bundles.items()}
        options: list[inspect.Parameter] = []
        for parameter in _parameters(body):
            options += members.get(parameter.name, [parameter])

        @functools.wraps(body)
        def wrapper(**values: Any) -> None:
            def call() -> int:
                made = {
                    name: bundles[name](**{member.name: values[member.name] for member in inside})
                    for name, inside in members.items()
                }
                own = {name: values[name] for name in inspect.signature(body).parameters if name not in members}
                return body(**own, **made)

            raise typer.Exit(run(call, verbose=bool(values.get("verbose"))))

        keyword = inspect.Parameter.KEYWORD_ONLY
        wrapper.__signature__ = inspect.Signature([o.replace(kind=keyword) for o in options])  # type: ignore[attr-defined]
        wrapper.__annotations__ = {option.name: option.annotation for option in options}
        return wrapper

    return decorate

"""The methods by name. A new method is one file and one entry here."""

from __future__ import annotations

from seats_cli.errors import UsageError
from seats_cli.selection.base import SelectionMethod
from seats_cli.selection.full import Full
from seats_cli.selection.random import Random
from seats_cli.selection.seats import Seats

METHODS: dict[str, type[SelectionMethod]] = {cls.name: cls for cls in (Seats, Full, Random)}
"""Name, as in ``--method``, to class."""


def get_method(name: str) -> type[SelectionMethod]:
    """The method of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in METHODS:
        raise UsageError(f"--method is {name!r}; there is no such method", f"choose from {', '.join(METHODS)}")
    return METHODS[name]

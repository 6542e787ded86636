"""Who stays: the schedule, the methods, and the contract between them and the engine.

``schedule`` is plain Python and imports at once; everything else needs torch and is loaded when asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seats_cli.selection.base import EncodedWindows, Kept, LayerKept, LayerState, SelectionMethod
    from seats_cli.selection.registry import METHODS, get_method

__all__ = [
    "METHODS",
    "EncodedWindows",
    "Kept",
    "LayerKept",
    "LayerState",
    "SelectionMethod",
    "get_method",
]

_IN_REGISTRY = ("METHODS", "get_method")


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from seats_cli.selection import base, registry

    return getattr(registry if name in _IN_REGISTRY else base, name)

"""Ask questions of video and sound with a Qwen-Omni model that keeps a tenth of its tokens (SEATS).

``from seats_cli import Seats; Seats("Qwen/Qwen2.5-Omni-7B", trr=0.1).ask("clip.mp4", "What happens?").answer``

Importing this package is instant: what needs torch is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "GenerationOptions": "seats_cli.config",
    "InterruptedRunError": "seats_cli.errors",
    "MediaError": "seats_cli.errors",
    "MediaOptions": "seats_cli.config",
    "MemoryLimitError": "seats_cli.errors",
    "ModelError": "seats_cli.errors",
    "ModelOptions": "seats_cli.config",
    "ProbeReport": "seats_cli.probing",
    "ProfileReport": "seats_cli.report",
    "Report": "seats_cli.report",
    "Seats": "seats_cli.api",
    "SeatsError": "seats_cli.errors",
    "SelectionOptions": "seats_cli.config",
    "SomeFailedError": "seats_cli.errors",
    "TimeLimitError": "seats_cli.errors",
    "UsageError": "seats_cli.errors",
}

__all__ = [*_HOME, "__version__"]  # noqa: PLE0604 - the names are strings

if TYPE_CHECKING:
    from seats_cli.api import Seats as Seats
    from seats_cli.config import GenerationOptions as GenerationOptions
    from seats_cli.config import MediaOptions as MediaOptions
    from seats_cli.config import ModelOptions as ModelOptions
    from seats_cli.config import SelectionOptions as SelectionOptions
    from seats_cli.errors import InterruptedRunError as InterruptedRunError
    from seats_cli.errors import MediaError as MediaError
    from seats_cli.errors import MemoryLimitError as MemoryLimitError
    from seats_cli.errors import ModelError as ModelError
    from seats_cli.errors import SeatsError as SeatsError
    from seats_cli.errors import SomeFailedError as SomeFailedError
    from seats_cli.errors import TimeLimitError as TimeLimitError
    from seats_cli.errors import UsageError as UsageError
    from seats_cli.probing import ProbeReport as ProbeReport
    from seats_cli.report import ProfileReport as ProfileReport
    from seats_cli.report import Report as Report


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""How long a clip is, by what its container says: no packet is read."""

from __future__ import annotations

from seats_cli.config import MediaOptions
from seats_cli.errors import SeatsError
from seats_cli.media.source import open_container


def seconds_of(path: str, options: MediaOptions) -> float:
    """Length of the used part, or about that; 0 where the container does not say, or cannot be opened.

    Args:
        path: Of a clip.
        options: Which part is used.
    """
    try:
        with open_container(path) as container:
            known = container.duration
    except SeatsError:
        return 0.0
    if known is None or known <= 0:
        return 0.0
    end = min(known / 1_000_000, options.end_seconds or float("inf"))
    return max(end - (options.start_seconds or 0.0), 0.0)

"""A process that takes one file after another through the media path and says what came of each.

Reads lines of JSON from stdin and answers with lines of JSON on the descriptor it is given.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import sys
import warnings
from typing import Any

import numpy as np

from seats_cli.config import MediaOptions
from seats_cli.errors import SeatsError, explain
from seats_cli.media import open_clip
from seats_cli.timelimit import time_limit

OPENED: list[str] = []
# Where Python itself, its packages and the kernel's tables lie.
FREE = tuple(
    {*(os.path.realpath(path) for path in sys.path if path), sys.prefix, sys.base_prefix, "/proc", "/sys", "/usr"}
)
WATCHED = (
    "open",
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "subprocess.Popen",
    "os.system",
    "os.exec",
)
MAX_LINE = 1000


def _listen(path: str) -> None:
    """Note every file and every socket that Python opens, but the case itself."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in WATCHED:
            return
        what = arguments[0] if arguments else ""
        if event == "open" and (isinstance(what, int) or os.fsdecode(what) == Current.path):
            return
        if event == "open" and os.path.realpath(os.fsdecode(what)).startswith(FREE):
            return
        OPENED.append(f"{event} {what!r}")

    Current.path = path
    sys.addaudithook(hook)


class Current:
    """The file at hand."""

    path = ""


def _use(path: str, options: dict[str, Any]) -> dict[str, Any]:
    """The whole media path; what comes out must be what its types promise."""
    clip = open_clip(path, MediaOptions(**options))
    sound, n_frames = clip.waveform(), 0
    if sound.dtype != np.float32 or sound.ndim != 1 or not np.isfinite(sound.sum(dtype=np.float64)):
        raise AssertionError("not a waveform")
    with contextlib.closing(clip.frames()) as frames:
        for frame in frames:
            if frame.index != n_frames:
                raise AssertionError("frames out of order")
            n_frames += 1
    if n_frames != (clip.plan.n_frames if clip.plan is not None else 0) or not (n_frames or sound.size):
        raise AssertionError(f"{n_frames} frames of {clip.plan}")
    if not np.isfinite([clip.seconds_video, clip.seconds_audio]).all():
        raise AssertionError("a length that is no number")
    return {"end": "answered", "warnings": clip.warnings, "seconds": [clip.seconds_video, clip.seconds_audio]}


def run(path: str, options: dict[str, Any], limit_seconds: float) -> dict[str, Any]:
    """What comes of one file.

    Returns:
        ``end``: ``answered``, ``error`` (its class, exit code and message with it) or ``foreign``.
    """
    try:
        with time_limit(limit_seconds):
            return _use(path, options)
    except Exception as error:
        shown = explain(error)
        line = f"{shown} / {shown.hint}"
        if isinstance(error, SeatsError) and "\n" not in line and len(line) < MAX_LINE + len(path):
            return {"end": "error", "class": type(shown).__name__, "code": shown.exit_code, "line": line}
        import traceback

        return {
            "end": "foreign",
            "line": f"{type(error).__name__}: {error}"[:500],
            "trace": traceback.format_exc()[-3000:],
        }


def main() -> None:
    """Serve until stdin ends."""
    answers = os.fdopen(int(sys.argv[1]), "w")
    faulthandler.enable()
    warnings.simplefilter("error")
    limit_seconds = float(sys.argv[2])
    # What is imported late is imported now, so that memory and opened files are those of the clips.
    import av
    import soundfile

    del av, soundfile
    _listen("")
    for line in sys.stdin:
        case = json.loads(line)
        Current.path = case["path"]
        os.chdir(case["folder"])
        OPENED.clear()
        result = run(case["path"], case["options"], limit_seconds)
        Current.path = ""
        sys.stdout.flush()
        sys.stderr.flush()
        answers.write(json.dumps({**result, "opened": OPENED[:5]}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()

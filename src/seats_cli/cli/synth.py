"""``seats synth``: clips of a small synthetic world, with questions whose answers are known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from seats_cli.cli import options as opt
from seats_cli.cli.command import command
from seats_cli.cli.console import notice, write
from seats_cli.cli.progress import Progress
from seats_cli.errors import SeatsError, UsageError, counted
from seats_cli.outputs import check_output

Container = Literal["mp4", "mkv", "mov", "webm"]
MOST_CLIPS = 100_000


def _check(n: int, seed: int, out: Path, jobs: int) -> None:
    if not 1 <= n <= MOST_CLIPS:
        raise UsageError(f"--n is {n}; it must be between 1 and {MOST_CLIPS}")
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed is {seed}; it must be 0 or more and below 2**63")
    if not 1 <= jobs <= 64:
        raise UsageError(f"--jobs is {jobs}; it must be between 1 and 64")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is not a folder", "give a folder, or a path where nothing is")
    if out.is_dir():
        _check_questions(out)


def _check_questions(out: Path) -> None:
    """The questions are written last: that they cannot be is found out first, and others' are left alone."""
    from seats_cli.world.clips import QUESTIONS_FILE, wrote

    path = out / QUESTIONS_FILE
    check_output(path, "--out")
    try:
        foreign = path.exists() and not wrote(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}", "give another folder") from None
    if foreign:
        problem = f"--out {out}: {path.name} is there already and was not written by seats synth"
        raise UsageError(problem, "give another folder, or move the file away")


@command()
def synth(
    out: Annotated[
        Path,
        opt.option(
            "--out", "-o", panel=opt.OUTPUT, **opt.PATH, metavar="<folder>", help="Write here; made when missing."
        ),
    ],
    n: Annotated[int, opt.option("--n", panel=opt.OUTPUT, **opt.WHOLE, help="How many clips.")] = 200,
    seed: Annotated[
        int, opt.option("--seed", panel=opt.OUTPUT, **opt.WHOLE, help="The same seed gives the same files.")
    ] = 7,
    container: Annotated[
        Container,
        opt.option("--format", panel=opt.OUTPUT, help="webm: VP9 and Opus. The others: H.264 and AAC."),
    ] = "mp4",
    jobs: Annotated[
        int, opt.option("--jobs", "-j", panel=opt.OUTPUT, **opt.WHOLE, help="Processes that draw and encode.")
    ] = 1,
    verbose: opt.Verbose = False,
) -> int:
    """Make clips of a small synthetic world, and questions whose answers are known."""
    _check(n, seed, out, jobs)
    from concurrent.futures.process import BrokenProcessPool

    from seats_cli.world.clips import write_set

    with Progress("clips", quiet=False) as progress:
        progress.start(n, n)
        try:
            path = write_set(out, n, seed, ending=f".{container}", jobs=jobs, on_clip=lambda _: progress.advance())
        except BrokenProcessPool:
            raise SeatsError("a process that makes clips was ended", "run again with fewer --jobs") from None
        except OSError as error:
            raise UsageError(f"--out {out} cannot be written: {error.strerror or error}") from None
    notice(f"{counted(n, 'clip')} and {counted(n, 'question')}")
    write(f"{path}\n")
    return 0

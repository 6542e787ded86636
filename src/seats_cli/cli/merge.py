"""``seats merge FILES...``: the answers of several runs or shares as one file."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Annotated

import typer

from seats_cli.cli import options as opt
from seats_cli.cli.answers import AnswerFile, mark_of, parse
from seats_cli.cli.command import command
from seats_cli.cli.console import notice, to_stdout
from seats_cli.errors import UsageError, counted
from seats_cli.outputs import cannot_write, check_output, whole

SHARE = re.compile(r"(?P<stem>.*)\.(?P<index>[0-9]+)-of-(?P<count>[0-9]+)(?P<suffix>\.[^.]*)?")


def missing_shares(paths: Sequence[Path]) -> list[Path]:
    """Files of shares that belong to those given, and are not among them."""
    found: dict[tuple[Path, str, int, str], set[int]] = defaultdict(set)
    for path in paths:
        named = SHARE.fullmatch(path.name)
        if named is not None:
            kind = path.parent, named["stem"], int(named["count"]), named["suffix"] or ""
            found[kind].add(int(named["index"]))
    return [
        folder / f"{stem}.{index}-of-{count}{suffix}"
        for (folder, stem, count, suffix), there in found.items()
        for index in range(1, min(count, 10_000) + 1)
        if index not in there
    ]


class _Merged:
    """The last line of every clip and question among several files, by where it is."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._places: dict[int, tuple[int, int]] = {}
        self.n_lines = self.n_cut = self.n_failed = 0
        failed: dict[int, bool] = {}
        for number, path in enumerate(paths):
            for count, (place, line) in enumerate(self._lines(path), start=1):
                row = parse(line)
                if row is None:
                    raise UsageError(
                        f"{path} is not a file that seats ask wrote: its row {count}", "give files of -o"
                    )
                mark = mark_of(row)
                if row.get("error") is not None and failed.get(mark) is False:
                    self.n_lines += 1  # an answer is worth more than a later failure
                    continue
                self._places.pop(mark, None)
                self._places[mark] = number, place
                failed[mark] = row.get("error") is not None
                self.n_lines += 1
        self.n_failed = sum(failed.values())

    def _lines(self, path: Path) -> Iterator[tuple[int, bytes]]:
        try:
            with path.open("rb") as file:
                place = 0
                for line in file:
                    # A run that was ended, or that goes on, has begun it; or an editor took the end off.
                    if not line.endswith(b"\n") and parse(line) is None:
                        self.n_cut += 1
                        return
                    if line.strip():
                        yield place, line
                    place += len(line)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}", "check the path") from None

    def __len__(self) -> int:
        return len(self._places)

    def lines(self) -> Iterator[bytes]:
        """They, in the order of the files."""
        # One after the other: there may be more than a process can hold open.
        for number, places in groupby(sorted(self._places.values()), key=itemgetter(0)):
            with self._paths[number].open("rb") as file:
                for _, place in places:
                    file.seek(place)
                    yield file.readline().rstrip(b"\n") + b"\n"


@command()
def merge(
    paths: Annotated[
        list[Path], typer.Argument(metavar="FILES...", help="Files of seats ask -o, such as answers.*-of-8.jsonl.")
    ],
    output: Annotated[
        Path | None,
        opt.option("--output", "-o", panel=opt.OUTPUT, **opt.PATH, metavar="<file>", help="Default: to stdout."),
    ] = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> int:
    """Join files of answers: of each clip and question the last answer, once.

    Shares that are missing, lines that were cut off and answers that failed are told on stderr.
    """
    for path in paths:
        if output is not None and output.exists() and path.exists() and os.path.samefile(path, output):
            raise UsageError(f"-o {output} is one of the files to join", "give a path of its own")
    if output is not None:
        check_output(output, "-o")
        if output.exists() and output.stat().st_size:
            AnswerFile(output).close()  # what is no file of answers is not replaced
    merged = _Merged(paths)
    if output is None:
        _to_stdout(merged)
    else:
        try:
            with whole(output) as part, part.open("wb") as file:
                file.writelines(merged.lines())
        except OSError as error:
            raise cannot_write(output, "-o", error) from None
    if not quiet:
        _tell(merged, paths)
    return 0


def _to_stdout(merged: _Merged) -> None:
    import sys

    with to_stdout():
        for line in merged.lines():
            sys.stdout.write(line.decode("utf-8"))
        sys.stdout.flush()


def _tell(merged: _Merged, paths: Sequence[Path]) -> None:
    older = merged.n_lines - len(merged)
    parts = [f"{counted(len(merged), 'answer')} from {counted(len(paths), 'file')}"]
    parts += [f"{merged.n_failed} of them failed"] if merged.n_failed else []
    parts += [f"{counted(older, 'line')} of before left out"] if older else []
    notice(", ".join(parts))
    if merged.n_cut:
        notice(f"{counted(merged.n_cut, 'last line')} cut off and left out: was a run ended, or does it go on?")
    missing = missing_shares(paths)
    if missing:
        others = len(missing) - 1
        which = f"{missing[0]} and {others} more are" if others else f"{missing[0]} is"
        notice(
            f"{which} not among them: the answers lack {'their shares' if others else 'its share'} of the clips"
        )

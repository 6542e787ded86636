"""``python -m tests.hardening.fuzz --n 1000 --seed 1``: damaged and hostile files through the media path.

Each must be answered, or refused with an error of ours, within a time and a memory limit, and without a
word printed or anything else opened. Exit code 1 if one is not. A case is made again from its seed and index:
``--seed S --first I --n 1 --keep DIR``.
"""

from __future__ import annotations

import argparse
import re
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.hardening.cases import KINDS, Case, make_case
from tests.hardening.refs import CANARIES, Bait
from tests.hardening.seeds import write_seeds
from tests.hardening.watch import Limits, Outcome, Worker


@dataclass
class Tally:
    """Counts of a run.

    Attributes:
        by_kind: Outcomes per kind of damage.
        errors: Classes and exit codes of refusals.
        reasons: Refusals by their words.
        bad: Violations: seed, index, case and outcome.
        peak_mib: Largest growth of memory, with its index.
        slowest: Longest time, with its index.
    """

    by_kind: dict[str, Counter[str]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    bad: list[tuple[int, int, Case, Outcome]] = field(default_factory=list)
    peak_mib: tuple[float, int] = (0.0, -1)
    slowest: tuple[float, int] = (0.0, -1)

    def add(self, seed: int, index: int, case: Case, outcome: Outcome) -> None:
        """Count one case."""
        end = "warned" if outcome.end == "answered" and outcome.warnings else outcome.end
        self.by_kind.setdefault(case.kind, Counter())[end] += 1
        if outcome.end == "error":
            name, _, line = outcome.detail.partition(": ")
            self.errors[f"{name} ({outcome.code})"] += 1
            self.reasons[re.sub(r"[0-9.]+", "#", line.replace(case.path, "").partition(" / ")[0])] += 1
        if outcome.bad:
            self.bad.append((seed, index, case, outcome))
        self.peak_mib = max(self.peak_mib, (outcome.growth_mib, index))
        self.slowest = max(self.slowest, (outcome.seconds, index))

    def lines(self) -> Iterator[str]:
        """The table."""
        yield f"{'kind':12} {'files':>6} {'answered':>9} {'with warnings':>14} {'refused':>8} {'violations':>11}"
        total: Counter[str] = Counter()
        for kind in (*sorted(self.by_kind, key=KINDS.index), "all"):
            counts = total if kind == "all" else self.by_kind[kind]
            total = total if kind == "all" else total + counts
            n, good = sum(counts.values()), counts["answered"] + counts["warned"]
            bad = n - good - counts["error"]
            yield f"{kind:12} {n:6} {good:9} {counts['warned']:14} {counts['error']:8} {bad:11}"
        yield "refused: " + ", ".join(f"{name} {count}" for name, count in self.errors.most_common())
        (grown, largest), (seconds, longest) = self.peak_mib, self.slowest
        yield f"most memory {grown:.0f} MiB more than before (index {largest})"
        yield f"longest {seconds:.1f} s (index {longest})"


@contextmanager
def _listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def run(
    n: int,
    seed: int,
    *,
    first: int = 0,
    kinds: tuple[str, ...] = KINDS,
    keep: Path | None = None,
    limits: Limits | None = None,
    prefix: tuple[str, ...] = (),
    report: bool = False,
) -> Tally:
    """Make ``n`` cases and have each run.

    Args:
        n: How many.
        seed: Of all that is drawn.
        first: Index of the first.
        kinds: Of ``KINDS``.
        keep: Files of violations are left here.
        limits: Of each case.
        prefix: Before the worker's command, such as ``strace``.
        report: Say each violation on stderr as it comes.
    """
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="seats-fuzz-") as temporary, _listening() as server:
        place = Path(temporary).resolve()
        seeds = write_seeds(place / "seeds")
        with Worker(limits or Limits(), server, prefix) as worker:
            for index in range(first, first + n):
                folder = place / f"case-{index}"
                folder.mkdir()
                for name in CANARIES:
                    (folder / name).write_bytes(seeds["h264.ts"])
                case = make_case(folder, seed, index, kinds, seeds, Bait(folder, server.getsockname()[1]))
                outcome = worker.run(case, folder)
                tally.add(seed, index, case, outcome)
                if outcome.bad and report:
                    print(
                        f"{seed}/{index} {case.kind} {outcome.end} {case.path!r} {case.options}: {outcome.detail}",
                        file=sys.stderr,
                        flush=True,
                    )
                if outcome.bad and keep is not None:
                    shutil.copytree(
                        folder, keep / f"{seed}-{index}", symlinks=True, dirs_exist_ok=True, ignore=_specials
                    )
                shutil.rmtree(folder)
    return tally


def _specials(folder: str, names: list[str]) -> list[str]:
    """Of a folder, what cannot be copied or is too large."""
    return [name for name in names if not (path := Path(folder, name)).is_file() or path.stat().st_size > 2**28]


def main() -> int:
    """Run as the command line says; 1 if there was a violation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1000, help="files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="index of the first file")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--keep", type=Path, help="folder for the files of violations")
    parser.add_argument("--reasons", action="store_true", help="also list refusals by their words")
    options = parser.parse_args()
    begin = time.monotonic()
    tally = run(
        options.n, options.seed, first=options.first, kinds=tuple(options.kinds), keep=options.keep, report=True
    )
    print("\n".join(tally.lines()))
    print(f"{time.monotonic() - begin:.0f} s")
    if options.reasons:
        print("\n".join(f"{count:5} {reason}" for reason, count in tally.reasons.most_common()))
    return 1 if tally.bad else 0


if __name__ == "__main__":
    sys.exit(main())

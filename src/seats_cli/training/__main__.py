"""``python -m seats_cli.training RUN``: train the embedded model from random weights, or go on with it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from seats_cli.errors import InterruptedRunError
from seats_cli.training.run import Recipe, Run


def main(arguments: list[str]) -> int:
    """Train for so many minutes; run again to go on."""
    parser = argparse.ArgumentParser(prog="python -m seats_cli.training", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the run: clips, state and, at the end, checkpoint/")
    minutes = "of training steps; making, reading and encoding the clips comes on top (default: %(default)s)"
    parser.add_argument("--minutes", type=float, default=110.0, help=minutes)
    parser.add_argument("--workers", type=int, default=2, help="processes that make clips (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads that train")
    parser.add_argument(
        "--encoders", metavar="MODEL", help="begin with the finished encoders of a checkpoint, or of 'tiny'"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        run = Run(options.run, Recipe(), lambda line: print(line, flush=True), options.encoders)
        run.make_clips(options.workers)
        done = run.go(options.minutes * 60)
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on", file=sys.stderr)
        return InterruptedRunError.exit_code
    print(f"done: {options.run / 'checkpoint'}" if done else "not done yet: run the same command again")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

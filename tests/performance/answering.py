"""Answer tokens per second, ours beside transformers' own generate: ``python -m tests.performance.answering``.

Greedy, the same number of tokens in every way, in turn. One JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from seats_cli.cli.workload import Workload, load_for_profile
from seats_cli.config import MediaOptions, ModelOptions, SelectionOptions
from seats_cli.engine.answering import WayOfAnswering, measure_answering
from seats_cli.engine.benchmark import make_workbench
from seats_cli.engine.marks import versions


def as_json(way: WayOfAnswering) -> dict[str, object]:
    """Medians and spreads, tokens per second."""
    rates = way.tokens_per_second
    return {
        "label": way.label,
        "path": way.path,
        "prompt_tokens": list(way.prompt_tokens),
        "tokens_per_second": None
        if rates is None
        else {"median": rates.median, "iqr": rates.iqr, "least": rates.minimum, "most": rates.maximum},
        "problem": way.problem,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.performance.answering", description=__doc__)
    parser.add_argument("-m", "--model", default=ModelOptions().model)
    parser.add_argument("--weights", default="auto", choices=["auto", "random"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--trr", type=float, action="append", help="default: 0.1; repeatable")
    parser.add_argument("--frames", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=64.0)
    parser.add_argument("--text-tokens", type=int, default=80)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--no-stock", action="store_true")
    parser.add_argument(
        "--compiled", action="store_true", help="also generate's static cache; on a GPU it compiles"
    )
    parser.add_argument("--layers", action="store_true", help="also through the layers of transformers")
    given = parser.parse_args(arguments)
    loaded, note = load_for_profile(
        ModelOptions(model=given.model, weights=given.weights, device=given.device, dtype=given.dtype)
    )
    workload = Workload(
        path=None,
        frames=given.frames,
        seconds=given.seconds,
        text_tokens=given.text_tokens,
        media=MediaOptions(),
    )
    factor = loaded.model.spec.pixel_factor
    bench = make_workbench(loaded, workload.maker(factor), workload.options(factor), workload.text_tokens)
    ways = measure_answering(
        bench,
        [SelectionOptions(trr=ratio) for ratio in given.trr or [0.1]],
        n_tokens=given.tokens,
        runs=given.runs,
        warmup=given.warmup,
        stock=not given.no_stock,
        static_stock=given.compiled,
        layers=given.layers,
    )
    made = versions()
    found = {
        "model": loaded.model_id,
        "device": loaded.device,
        "dtype": loaded.dtype,
        "note": note,
        "n_tokens": given.tokens,
        "runs": given.runs,
        "warmup": given.warmup,
        "torch": made.torch,
        "transformers": made.transformers,
        "ways": [as_json(way) for way in ways],
    }
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

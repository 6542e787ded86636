"""Case ``index`` of seed ``seed``: always the same file, of a kind that can be chosen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.hardening import damage
from tests.hardening.odd import ODD
from tests.hardening.refs import Bait, write_list, write_reference, write_special

# How often each is drawn; some take seconds.
WEIGHTS = {
    **{"blind": 34, "header": 34, "splice": 4, "suffix": 4},
    **{"rates": 4, "sizes": 4, "times": 6, "bombs": 6, "streams": 2, "sparse": 0.4, "large": 0.3},
    **{"lists": 6, "references": 3, "paths": 5},
}
KINDS = tuple(WEIGHTS)


@dataclass(frozen=True)
class Case:
    """One file and how it is used.

    Attributes:
        kind: Of ``KINDS``.
        path: As given to ``open_clip``.
        options: Keywords of ``MediaOptions``.
    """

    kind: str
    path: str
    options: dict[str, object]


def make_case(
    folder: Path, seed: int, index: int, kinds: tuple[str, ...], seeds: dict[str, bytes], bait: Bait
) -> Case:
    """Write the file of a case.

    Args:
        folder: Empty, and the case's own.
        seed: Of the run.
        index: Of the case.
        kinds: Drawn from.
        seeds: Healthy files by name.
        bait: What lists point to.
    """
    rng = Random(f"{seed}/{index}")
    (kind,) = rng.choices(kinds, [WEIGHTS[kind] for kind in kinds])
    options = rng.choice(
        (
            {},
            {},
            {},
            {},
            {"fps": 500.0, "max_frames": 4000},
            {"start_seconds": 0.7, "end_seconds": 1.5},
            {"audio": "on"},
        )
    )
    name = rng.choice(sorted(seeds))
    suffix, data = damage.suffix_of(name), seeds[name]
    if kind in ODD:
        return Case(kind, str(rng.choice(ODD[kind])(folder, rng)), options)
    if kind == "lists":
        return Case(kind, str(write_list(folder, rng, bait)), options)
    if kind == "references":
        return Case(kind, str(write_reference(folder, rng, bait, seeds["a.mkv"])), options)
    if kind == "paths":
        return Case(kind, write_special(folder, rng, seeds), options)
    if kind == "blind":
        data = rng.choice(damage.BLIND)(rng, data)
    elif kind == "header":
        data = damage.LIARS[suffix](rng, data)
    elif kind == "splice":
        data = damage.spliced(rng, data, seeds[rng.choice(sorted(seeds))])
    else:
        suffix = damage.suffix_of(
            rng.choice((*seeds, "a.png", "a.txt", "a.sub", "a.m3u8", "a.dat", "a.raw", "a.yuv"))
        )
    path = folder / f"a{suffix}"
    path.write_bytes(data)
    return Case(kind, str(path), options)

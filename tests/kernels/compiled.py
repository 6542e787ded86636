"""Kernels compiled for a GPU that need not be there, and what the assembler says of them. Run: ``python -m``."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import compiler
from triton.compiler import ASTSource

from seats_cli.kernels import attention, greedy, relevance, trial

HOPPER = GPUTarget("cuda", 90, 32)
TYPES = {
    **dict.fromkeys(("products", "inverse", "saliency", "log_sums", "received", "scores"), "*fp32"),
    **dict.fromkeys(("sums", "weights", "spread"), "*fp64"),
    **dict.fromkeys(("windows", "blocks", "counts", "limits", "out"), "*i32"),
    **dict.fromkeys(("kept", "indices", "window"), "*i64"),
    **dict.fromkeys(("stays", "modality"), "*i8"),
    "plain": "*i1",
    "scale": "fp32",
}


class Compiled(NamedTuple):
    """Of one kernel: bytes of shared memory a program takes, registers a thread takes, bytes spilled, PTX."""

    name: str
    shared: int
    registers: int
    spilled: int
    ptx: str


def compiled(fn: Any, constants: Mapping[str, Any], types: Mapping[str, str], **options: Any) -> Compiled:
    signature = {
        name: "constexpr" if name in constants else {**TYPES, **types}.get(name, "i32") for name in fn.arg_names
    }
    strides = [name for name in fn.arg_names if name.endswith(("_stride", "_head"))]
    aligned = [i for i, name in enumerate(fn.arg_names) if signature[name][0] == "*" or name in strides]
    source = ASTSource(
        fn=fn,
        signature=signature,
        constexprs=dict(constants),
        attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    fused = fn in (attention.row_sums, attention.column_sums)
    made = triton.compile(source, target=HOPPER, options={"enable_fp_fusion": fused, **options})
    registers, spilled = assembled(made.asm["ptx"])
    label = " ".join([fn.__name__, *types.values(), *(f"{k}={v}" for k, v in constants.items() if k != "BLOCK")])
    return Compiled(label, made.metadata.shared, registers, spilled, made.asm["ptx"])


def assembled(ptx: str) -> tuple[int, int]:
    """Registers and spilled bytes, from the assembler that came with Triton."""
    tool = compiler.get_ptxas(HOPPER.arch).path
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.ptx"
        file.write_text(ptx)
        command = [tool, "-v", "--gpu-name=sm_90a", file, "-o", Path(folder) / "kernel.cubin"]
        said = subprocess.run(command, capture_output=True, text=True, check=True)
    log = said.stderr + said.stdout
    spilled = sum(int(n) for n in re.findall(r"(\d+) bytes spill", log))
    return int(re.findall(r"Used (\d+) registers", log)[0]), spilled


def everything() -> Iterator[Compiled]:
    """All kernels, as the wrappers launch them on real models."""
    yield compiled(trial._one, {}, {})
    for head_dim in (80, 64, 72):  # vision of Qwen2.5, sound of both, vision of Qwen3
        for kind in ("bf16", "fp32"):
            block, other, num_warps, num_stages = attention.TILES[kind == "fp32"]
            main, rest = attention.head_parts(head_dim)
            constants = {
                **{"DIM": head_dim, "MAIN": main, "REST": rest, "BLOCK": block, "OTHER": other},
                "PRECISION": "ieee" if kind == "fp32" else "tf32",
            }
            types = {"query": f"*{kind}", "key": f"*{kind}"}
            for fn in (attention.row_sums, attention.column_sums):
                yield compiled(fn, constants, types, num_warps=num_warps, num_stages=num_stages)
    for size in (16, 64, 512, 4096):
        constants = {"SIZE": size, "ROWS": max(1, greedy.TILE // size)}
        yield compiled(greedy.choose, constants, {}, num_warps=8)
    yield compiled(relevance.measure, {"BLOCK": relevance._BLOCK}, {})
    for even, standard, size in ((False, False, 32), (False, True, 4096), (True, False, 512)):
        constants = {"EVEN": even, "STANDARD": standard, "TEMPERATURE": 0.1, "SIZE": size}
        yield compiled(relevance.share, constants, {}, num_warps=relevance.share_warps(size))
    yield compiled(relevance.stay, {"BLOCK": relevance._RANKED, "OTHER": relevance._AGAINST}, {})
    yield compiled(relevance.collect, {"BLOCK": relevance._BLOCK}, {})


if __name__ == "__main__":
    try:
        compiler.get_ptxas(HOPPER.arch)
    except RuntimeError as error:
        sys.exit(f"no assembler: {error}")
    for one in everything():
        wgmma, mma = one.ptx.count("wgmma.mma_async"), one.ptx.count("mma.sync")
        sys.stdout.write(
            f"{one.name}: {one.registers} registers, {one.spilled} bytes spilled, {one.shared} bytes shared,"
            f" {wgmma} wgmma, {mma} mma\n"
        )

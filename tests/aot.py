"""Compile every Triton kernel for GPUs that need not be there, and read what each takes of one.

`python tests/aot.py OUT.json`, without TRITON_INTERPRET, writes one row per variant and target.
`VARIANTS` is the one table of kernels and of what each may take. A line is not a golden number,
which would change with every Triton: it is where the planned number of programs would no longer
fit on a multiprocessor at once. Keep a tenth of headroom, by both Tritons that pyproject allows.
"""

import ast
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pcamx.kernels import batch

TARGETS = (80, 90, 100)
SHARED = {80: 164 << 10, 90: 228 << 10, 100: 228 << 10}
"""Bytes of shared memory of a multiprocessor (CUDA programming guide, compute capabilities)."""
RESERVED = 1 << 10
"""Of which the system keeps so many for each program."""
REGISTERS = 64 << 10
"""Of a multiprocessor, on every target; handed out eight a thread at a time."""


@dataclass(frozen=True)
class Variant:
    """One kernel as a launch would specialise it."""

    name: str
    kernel: Any
    types: str
    """Of the arguments in order, as for triton.tools.compile: `:16` divisible by 16, `:1` one."""
    num_warps: int
    programs: int
    """Planned to be on one multiprocessor at once; registers and shared memory must allow it."""
    constexprs: dict[str, Any] = field(default_factory=dict)
    maxnreg: int | None = None

    @property
    def registers(self) -> int:
        """Per thread, at most."""
        return min(255, REGISTERS // (self.programs * self.num_warps * 32) // 8 * 8)

    def shared(self, target: int) -> int:
        """Bytes a program, at most."""
        return SHARED[target] // self.programs - RESERVED


BATCH: dict[str, Any] = {
    "kernel": batch.batch_kernel,
    "num_warps": batch.WARPS,
    "programs": 8,  # 1024 threads, half of what the schedulers hold: enough to hide the gathers
}
TILE = {"BLOCK_H": batch.BLOCK_H, "BLOCK_W": batch.BLOCK_W}
ROWS = "*i64:16, *i64:16, *fp32:16, *fp32:16"

VARIANTS = (
    Variant(
        "batch with lesions, 320 px",
        types=f"*u8:16, *u8:16, {ROWS}, *fp32:16, *fp32:16, i32, i32, i32:16, i32:16"
        ", fp32, fp32, fp32",
        constexprs={"LESION": True, **TILE},
        **BATCH,
    ),
    Variant(
        "batch with lesions, bfloat16, 320 px",
        types=f"*u8:16, *u8:16, {ROWS}, *bf16:16, *fp32:16, i32, i32, i32:16, i32:16"
        ", fp32, fp32, fp32",
        constexprs={"LESION": True, **TILE},
        **BATCH,
    ),
    Variant(
        "batch without lesions, 320 px",
        types=f"*u8:16, *u8:16, {ROWS}, *fp32:16, *fp32:16, i32, i32, i32:16, i32:16"
        ", fp32, fp32, fp32",
        constexprs={"LESION": False, **TILE},
        **BATCH,
    ),
    Variant(
        "batch with lesions, odd size, no alignment",
        types=f"*u8, *u8, {ROWS.replace(':16', '')}, *fp32, *fp32, i32, i32, i32, i32"
        ", fp32, fp32, fp32",
        constexprs={"LESION": True, **TILE},
        **BATCH,
    ),
    Variant(
        "batch with lesions, one pixel, one row",
        types=f"*u8, *u8, {ROWS}, *fp32, *fp32, i32:1, i32:1, i32:1, i32:1, fp32, fp32, fp32",
        constexprs={"LESION": True, **TILE},
        **BATCH,
    ),
)

STARVED = Variant(
    "starved of registers",
    types=VARIANTS[0].types,
    constexprs=VARIANTS[0].constexprs,
    maxnreg=24,
    **BATCH,
)
"""Compiled beside the table to show that spilling is seen."""


def source(variant: Variant) -> ASTSource:
    """What the launcher would hand to the compiler."""
    types = [word.strip() for word in variant.types.split(",")]
    plain = [name for name in variant.kernel.arg_names if name not in variant.constexprs]
    signature, attributes, values = {}, {}, {}
    for name, word in zip(plain, types, strict=True):
        kind, _, hint = word.partition(":")
        at = (variant.kernel.arg_names.index(name),)
        signature[name] = "constexpr" if hint == "1" else kind
        if hint == "1":
            values[at] = 1
        elif hint:
            attributes[at] = [["tt.divisibility", int(hint)]]
    for name, value in variant.constexprs.items():
        values[(variant.kernel.arg_names.index(name),)] = value
        signature[name] = "constexpr"
    ordered = {name: signature[name] for name in variant.kernel.arg_names}
    return ASTSource(variant.kernel, ordered, values, attributes)


def taken(variant: Variant, target: int) -> dict[str, Any]:
    """Compile; registers and bytes a thread, shared bytes a program."""
    options = {"num_warps": variant.num_warps, "maxnreg": variant.maxnreg}
    compiled = triton.compile(source(variant), GPUTarget("cuda", target, 32), options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(compiled.asm["cubin"])
        usage = subprocess.run(
            [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    # The compiled kernel's own shared memory is handed over at launch and not in this list.
    found = {
        word: int(re.search(rf"\b{word}:(\d+)", usage)[1])  # type: ignore[index]
        for word in ("REG", "STACK", "LOCAL")
    }
    return {
        "name": variant.name,
        "target": target,
        "registers": found["REG"],
        "stack": found["STACK"],
        "local": found["LOCAL"],
        "shared": compiled.metadata.shared,
    }


def excess(variant: Variant, row: dict[str, Any]) -> list[str]:
    """One line for each budget that the compiled variant breaks."""
    lines = {
        "registers": variant.registers,
        "stack": 0,  # where spilled registers go
        "local": 0,
        "shared": variant.shared(row["target"]),
    }
    return [
        f"{name}: {row[name]}, at most {line} let {variant.programs} programs of "
        f"{variant.num_warps} warps run at once without spilling"
        for name, line in lines.items()
        if row[name] > line
    ]


def kernels(text: str) -> list[str]:
    """Names of the kernels launched in the source of a module: `name[grid](...)`."""
    calls = (node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    heads = (func.value for func in calls if isinstance(func, ast.Subscript))
    return [head.id for head in heads if isinstance(head, ast.Name)]


def main(out: Path) -> None:
    rows = [taken(variant, target) for variant in VARIANTS for target in TARGETS]
    report = {"triton": triton.__version__, "rows": rows, "starved": taken(STARVED, TARGETS[0])}
    out.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Compile every Triton kernel for GPUs that need not be there, and read what each takes of one.

`python tests/aot.py OUT.json`, without TRITON_INTERPRET, writes one row for each kernel of each
case of `CASES` on each target. The launchers of kernels/ run as they are, on tensors of the CPU,
with a driver that has no device, so that what is compiled is what a GPU would be given.
"""

import ast
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from pcamx.kernels import attend, class_activation, gather_affine_normalise

Row = dict[str, Any]

TARGETS = (80, 90, 100)
REGISTERS = 64 << 10
"""Of a multiprocessor, on every target; a thread gets a multiple of eight."""
SHARED = {80: 164 << 10, 90: 228 << 10, 100: 228 << 10}
"""Bytes of shared memory of a multiprocessor (CUDA programming guide, compute capabilities)."""
RESERVED = 1 << 10
"""Of which the system keeps so many for each program."""


@dataclass(frozen=True)
class Case:
    """Launches of one kind, and how many programs of each kernel a multiprocessor shall hold.

    That plan draws the lines for registers and shared memory. A line is not a golden number, which
    would change with every Triton: plan so that by all Tritons of pyproject a tenth stays free.
    """

    name: str
    launch: Callable[[], object]
    plan: dict[str, int]


def registers_line(programs: int, num_warps: int) -> int:
    """Registers a thread may take."""
    return min(255, REGISTERS // (programs * num_warps * 32) // 8 * 8)


def shared_line(programs: int, target: int) -> int:
    """Bytes of shared memory a program may take."""
    return SHARED[target] // programs - RESERVED


def films(side: int, lesions: int) -> Callable[[], object]:
    """Films of ``side`` pixels."""
    canvas = torch.empty(3, 1, side, side, dtype=torch.uint8)
    rows = torch.zeros(2, dtype=torch.int64)
    return lambda: gather_affine_normalise.gather_affine_normalise(
        canvas,
        rows,
        torch.empty(2, 2, 3),
        torch.empty(2),
        50.0,
        50.0,
        canvas[:lesions] if lesions else None,
        rows if lesions else None,
    )


def maps(
    dtype: torch.dtype,
    channels: int = 128,
    cells: int = 20,
    classes: int = 2,
    layout: torch.memory_format = torch.channels_last,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features, weight and classes of two images."""
    features = torch.empty(2, channels, cells, cells, dtype=dtype).to(memory_format=layout)
    return features, torch.empty(classes, channels), torch.zeros(2, dtype=torch.int64)


def activations(*args: Any, positive: bool = True, **changes: Any) -> Callable[[], object]:
    """Class activation maps, forward and backward."""
    given = maps(*args, **changes)

    def launch() -> None:
        cam = class_activation._forward(*given, positive)
        class_activation._backward(cam, *given, positive)

    return launch


def attentions(
    *args: Any,
    side: int = 320,
    to_map: bool = True,
    to_image: bool = True,
    side_grads: bool = True,
    image: torch.dtype | None = None,
    **changes: Any,
) -> Callable[[], object]:
    """Attention, forward and backward; with ``side_grads`` map and area have gradients too."""
    given = (*maps(*args, **changes), torch.empty(2, 1, side, side, dtype=image or args[0]))

    def launch() -> None:
        masked, cam, area, span = attend._forward(*given, 10.0, 0.5)
        grads = (masked, cam, area) if side_grads else (masked, None, None)
        attend._backward(*grads, *given, cam, span, 10.0, 0.5, to_map, to_image)

    return launch


# 8 programs of 4 warps are half of the threads that a multiprocessor holds.
FILMS = {"gather_affine_normalise_kernel": 8}
MAP = {"class_activation_fwd_kernel": 6, "class_activation_bwd_kernel": 4}
MAP_F32 = MAP | {"class_activation_bwd_kernel": 3}
MAP_ODD = {"class_activation_fwd_kernel": 3, "class_activation_bwd_kernel": 2}
# attend_bwd_kernel takes 64 registers by Triton 3.7, by 3.6 80, and 120 at 1024 px.
IMAGE = {"attend_map_kernel": 4, "attend_mask_kernel": 6, "attend_bwd_kernel": 2}
ATTEND = IMAGE | {"class_activation_bwd_kernel": 4}
ATTEND_F32 = ATTEND | {"attend_map_kernel": 3, "class_activation_bwd_kernel": 3}
ATTEND_ODD = ATTEND_F32 | {"class_activation_bwd_kernel": 2}
ATTEND_LARGE = ATTEND | {"attend_mask_kernel": 4}
BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32
CONTIGUOUS = torch.contiguous_format

CASES = (
    Case("films 320 px", films(320, lesions=2), FILMS),
    Case("films 320 px no lesions", films(320, lesions=0), FILMS),
    Case("films 321 px", films(321, lesions=2), FILMS),
    Case("films 1 px", films(1, lesions=1), FILMS),
    Case("map bf16", activations(BF16), MAP),
    Case("map bf16 contiguous", activations(BF16, layout=CONTIGUOUS), MAP),
    Case("map fp16", activations(F16), MAP),
    Case("map fp32 plain", activations(F32, positive=False), MAP_F32),
    Case("map fp32 odd", activations(F32, 37, 7, 5, layout=CONTIGUOUS), MAP_ODD),
    Case("attend bf16", attentions(BF16), ATTEND),
    Case("attend bf16 contiguous", attentions(BF16, layout=CONTIGUOUS), ATTEND),
    Case(
        "attend as trained",
        attentions(BF16, image=F32, to_image=False, side_grads=False),
        ATTEND,
    ),
    Case("attend bf16 image alone", attentions(BF16, to_map=False), IMAGE),
    Case("attend fp16", attentions(F16), ATTEND),
    Case("attend fp32", attentions(F32), ATTEND_F32),
    Case("attend fp32 odd", attentions(F32, 37, 7, 5, side=101, layout=CONTIGUOUS), ATTEND_ODD),
    Case("attend bf16 1024 px", attentions(BF16, cells=64, side=1024), ATTEND_LARGE),
)


class NoDevice:
    """As much of a driver as compiling asks for; a device's number is its compute capability."""

    def __init__(self, target: int) -> None:
        self.target = target

    def get_current_device(self) -> int:
        return self.target

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.target, 32)


def compiled(launch: Callable[[], object], target: int, **options: Any) -> dict[str, Any]:
    """The kernels that ``launch`` would run on ``target``, by name."""
    found = {}
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, **kwargs: Any) -> None:
        kernel = run(self, *args, **(kwargs | options | {"warmup": True}))
        found[kernel.metadata.name] = kernel

    triton.runtime.driver.set_active(NoDevice(target))
    with mock.patch.object(JITFunction, "run", compile_only):
        launch()
    return found


def usage(kernel: Any) -> Row:
    """Registers, stack and local bytes of a thread and shared bytes of a program."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(kernel.asm["cubin"])
        text = subprocess.run(
            [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    numbers = dict(re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text))
    return {
        "num_warps": kernel.metadata.num_warps,
        "registers": int(numbers["REG"]),
        "stack": int(numbers["STACK"]),
        "local": int(numbers["LOCAL"]),
        # Handed over at launch, so that cuobjdump does not know of it.
        "shared": kernel.metadata.shared,
    }


def excess(row: Row, programs: int, target: int) -> list[str]:
    """One line for each budget that a kernel breaks."""
    lines = {
        "registers": registers_line(programs, row["num_warps"]),
        "stack": 0,  # where spilled registers go
        "local": 0,
        "shared": shared_line(programs, target),
    }
    return [
        f"{name}: {row[name]}, but at most {line} let {programs} programs of "
        f"{row['num_warps']} warps run at once on a multiprocessor without spilling"
        for name, line in lines.items()
        if row[name] > line
    ]


def launched(source: str) -> set[str]:
    """Names of the kernels that a module launches: `name[grid](...)`."""
    calls = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    heads = (func.value for func in calls if isinstance(func, ast.Subscript))
    return {head.id for head in heads if isinstance(head, ast.Name)}


def main(out: Path) -> None:
    rows = {
        f"{case.name}, sm_{target}": {
            name: usage(kernel) for name, kernel in compiled(case.launch, target).items()
        }
        for case in CASES
        for target in TARGETS
    }
    # With too few registers a kernel must spill: shows that spilling is seen.
    (starved,) = compiled(CASES[0].launch, TARGETS[0], maxnreg=24).values()
    map_kernel = compiled(attentions(BF16), TARGETS[0])["attend_map_kernel"]
    report = {
        "triton": triton.__version__,
        "rows": rows,
        "starved": usage(starved),
        "maxima": sorted(set(re.findall(r"\bmax[.\w]*\.f32", map_kernel.asm["ptx"]))),
    }
    out.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Compile every Triton kernel for GPUs that need not be there, and read what each takes of one.

`python tests/kernels/aot.py OUT.json`, without TRITON_INTERPRET, writes one row for each kernel of
each case of `CASES` on each of its targets. The launchers of kernels/ run as they are, on tensors
of the CPU, with a driver that has no device, so that what is compiled is what a GPU would be given.
`python tests/kernels/aot.py OUT.json 90` is that target's floors alone, for `bench.kernels`.
"""

import ast
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import sass
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


ISSUED = 897.6e9
"""Warp instructions that an H100 issues a second: 132 multiprocessors, 4 each at 1.7 GHz."""
COPIED = 3.0e12
"""Bytes a second that an H100 moves."""
BATCH = 256
"""Images that times are given for; kernels are compiled on two."""


@dataclass(frozen=True)
class Cost:
    """What a kernel has to do for one image, and the instructions that it may take for it."""

    elements: int  # pixels, or features
    bytes: int
    budget: float  # instructions an element
    trips: tuple[int, ...] = ()  # of its loops, in order


@dataclass(frozen=True)
class Case:
    """Launches of one kind, and how many programs of each kernel a multiprocessor shall hold.

    That plan draws the lines for registers and shared memory. A line is not a golden number, which
    would change with every Triton: plan so that by all Tritons of pyproject a tenth stays free.
    """

    name: str
    launch: Callable[[], object]
    plan: dict[str, int]
    costs: dict[str, Cost] = field(default_factory=dict)

    @property
    def targets(self) -> tuple[int, ...]:
        """What has costs, as it is trained, is compiled for all; its variants for an H100 alone."""
        return TARGETS if self.costs else (90,)


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
FILMS = {"gather_affine_normalise_kernel": 7}
MAP = {"class_activation_fwd_kernel": 6, "class_activation_bwd_kernel": 4}
MAP_F32 = MAP | {"class_activation_bwd_kernel": 3}
MAP_ODD = {"class_activation_fwd_kernel": 3, "class_activation_bwd_kernel": 2}
# One warp a program; of attend_map_kernel a batch of 256 brings two to each multiprocessor.
# With gradients of map and area and to the image as well, attend_bwd_kernel takes more registers.
IMAGE = {"attend_map_kernel": 2, "attend_mask_kernel": 16, "attend_bwd_kernel": 12}
ATTEND = IMAGE | {"class_activation_bwd_kernel": 4}
TRAINED = ATTEND | {"attend_bwd_kernel": 14}
ATTEND_F32 = ATTEND | {"attend_map_kernel": 1, "class_activation_bwd_kernel": 3}
ATTEND_ODD = ATTEND_F32 | {"class_activation_bwd_kernel": 2}
PIXELS, FEATURES = 320 * 320, 128 * 20 * 20


def costs(pixel: int, backward: float) -> dict[str, Cost]:
    """Of attention at 320 px with bfloat16 features and ``pixel`` bytes of a pixel."""
    return {
        "attend_map_kernel": Cost(FEATURES, 2 * FEATURES, 14, (4,)),
        "attend_mask_kernel": Cost(PIXELS, 2 * pixel * PIXELS, 22),
        "attend_bwd_kernel": Cost(PIXELS, 2 * pixel * PIXELS, backward),
        "class_activation_bwd_kernel": Cost(FEATURES, 4 * FEATURES, 22, (4, 1)),
    }


BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32
CONTIGUOUS = torch.contiguous_format

CASES = (
    Case(
        "films 320 px",
        films(320, lesions=2),
        FILMS,
        {"gather_affine_normalise_kernel": Cost(PIXELS, 10 * PIXELS, 79, (8,))},
    ),
    Case(
        "films 320 px no lesions",
        films(320, lesions=0),
        FILMS,
        {"gather_affine_normalise_kernel": Cost(PIXELS, 5 * PIXELS, 57, (8,))},
    ),
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
        TRAINED,
        costs(4, backward=34),
    ),
    Case(
        "attend as trained bf16 image",
        attentions(BF16, to_image=False, side_grads=False),
        TRAINED,
        costs(2, backward=34),
    ),
    Case("attend bf16 image alone", attentions(BF16, to_map=False), IMAGE),
    Case("attend fp16", attentions(F16), ATTEND),
    Case("attend fp32", attentions(F32), ATTEND_F32),
    Case("attend fp32 odd", attentions(F32, 37, 7, 5, side=101, layout=CONTIGUOUS), ATTEND_ODD),
    Case("attend bf16 1024 px", attentions(BF16, cells=64, side=1024), ATTEND),
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

    def compile_only(self: Any, *args: Any, grid: tuple[int], **kwargs: Any) -> None:
        kernel = run(self, *args, grid=grid, **(kwargs | options | {"warmup": True}))
        found[kernel.metadata.name] = kernel, grid[0]

    triton.runtime.driver.set_active(NoDevice(target))
    with mock.patch.object(JITFunction, "run", compile_only):
        launch()
    return found


def usage(kernel: Any) -> Row:
    """Registers, stack and local bytes of a thread and shared bytes of a program."""
    numbers = dict(re.findall(r"\b(REG|STACK|LOCAL):(\d+)", sass.inspect(kernel, "-res-usage")))
    return {
        "num_warps": kernel.metadata.num_warps,
        "registers": int(numbers["REG"]),
        "stack": int(numbers["STACK"]),
        "local": int(numbers["LOCAL"]),
        # Handed over at launch, so that cuobjdump does not know of it.
        "shared": kernel.metadata.shared,
    }


def floors(kernel: Any, programs: int, cost: Cost, target: int) -> Row:
    """What a batch takes at the least, by instructions and by bytes, on an H100."""
    work = sass.work(sass.body(sass.inspect(kernel, "-sass")), cost.trips)
    warps = programs * kernel.metadata.num_warps / 2  # of one image
    per_element = warps * 32 / cost.elements
    row = usage(kernel)
    by_registers = REGISTERS // (-(-row["registers"] // 8) * 8 * 32 * row["num_warps"])
    by_shared = SHARED[target] // (row["shared"] + RESERVED)
    programs_at_once = min(by_registers, by_shared, 32, 64 // row["num_warps"])
    return {
        "instructions": work.instructions * per_element,
        "mufu": work.mufu * per_element,
        "loads": work.loads,
        "occupancy": programs_at_once * row["num_warps"] / 64,
        "issue_us": BATCH * warps * work.instructions / ISSUED * 1e6,
        "bytes_us": BATCH * cost.bytes / COPIED * 1e6,
        "budget": cost.budget,
        "trips": cost.trips,
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


def rows_of(case: Case, target: int) -> Row:
    """One row for each kernel of a case."""
    found = {}
    for name, (kernel, programs) in compiled(case.launch, target).items():
        found[name] = usage(kernel)
        if name in case.costs:
            found[name] |= floors(kernel, programs, case.costs[name], target)
    return found


def show(rows: dict[str, Row]) -> None:
    """Print what was counted, a line for each kernel."""
    print(f"Triton {triton.__version__}; times of {BATCH} images, H100 by count")
    head = f"{'instr.':>7}{'MUFU':>6}{'regs':>6}{'occ.':>6}{'issue us':>10}{'bytes us':>10}  loads"
    print(f"{'an element':>70}{head}")
    for case, kernels in rows.items():
        for name, row in kernels.items():
            if "instructions" in row:
                print(
                    f"{case + ': ' + name:70}{row['instructions']:7.1f}{row['mufu']:6.1f}"
                    f"{row['registers']:6}{row['occupancy']:6.0%}{row['issue_us']:10.1f}"
                    f"{row['bytes_us']:10.1f}  {row['loads']}"
                )


def main(out: Path, costs_of: int | None = None) -> None:
    """Write the table; with a target, of that and of the cases whose costs are counted alone."""
    rows = {
        f"{case.name}, sm_{target}": rows_of(case, target)
        for case in CASES
        for target in ([costs_of] if costs_of else case.targets)
        if case.costs or not costs_of
    }
    # With too few registers a kernel must spill: shows that spilling is seen.
    ((starved, _),) = compiled(CASES[0].launch, TARGETS[0], maxnreg=24).values()
    ((films_kernel, _),) = compiled(CASES[0].launch, TARGETS[0]).values()
    map_kernel, _ = compiled(attentions(BF16), TARGETS[0])["attend_map_kernel"]
    report = {
        "triton": triton.__version__,
        "rows": rows,
        "starved": usage(starved),
        "arithmetic": sorted(
            set(re.findall(r"\b(?:add|sub|mul|fma)[.\w]*\.f32", films_kernel.asm["ptx"]))
        ),
        "maxima": sorted(set(re.findall(r"\bmax[.\w]*\.f32", map_kernel.asm["ptx"]))),
    }
    out.write_text(json.dumps(report, indent=1), encoding="utf-8")
    show(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))

"""What a multiprocessor executes of a compiled kernel, counted in its machine code.

Instructions outside loops count once, those of a loop as often as it is said to run. Code behind
the last EXIT (slow paths of divisions) does not count; both sides of a branch do.
"""

import functools
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import triton

Instruction = tuple[int, str]  # its address and its text


class Work(NamedTuple):
    """Of one warp."""

    instructions: int
    mufu: int  # exponentials, reciprocals: a quarter of the rate of others
    loads: dict[str, int]  # loads of global memory, by bits of a thread


def inspect(kernel: Any, option: str) -> str:
    """What cuobjdump, of the triton package, says of a compiled kernel."""
    return _dumped(kernel.asm["cubin"], option)


@functools.cache  # several cases compile the same kernel
def _dumped(cubin: bytes, option: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
        return subprocess.run(
            [triton.knobs.nvidia.cuobjdump.path, option, file.name],
            check=True,
            capture_output=True,
            text=True,
        ).stdout


def body(sass: str) -> list[Instruction]:
    """All instructions up to the last EXIT."""
    found = re.findall(r"^\s+/\*([0-9a-f]{4,5})\*/\s+(.*?)\s*;", sass, re.MULTILINE)
    code = [(int(address, 16), text) for address, text in found]
    return code[: max(i for i, (_, text) in enumerate(code) if opcode(text) == "EXIT") + 1]


def opcode(text: str) -> str:
    """MUFU.EX2 of `@!P0 MUFU.EX2 R1, R2`."""
    return re.sub(r"^@!?U?P\w+\s+", "", text).split()[0]


def loops(code: Sequence[Instruction]) -> list[range]:
    """Indices of the instructions of each loop, which a jump back ends, in order."""
    index = {address: i for i, (address, _) in enumerate(code)}
    found = []
    for i, (address, text) in enumerate(code):
        target = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", text)
        if target and int(target[1], 16) < address:
            found.append(range(index[int(target[1], 16)], i + 1))
    return found


def work(code: Sequence[Instruction], trips: Sequence[int]) -> Work:
    """Of one warp, whose loops run ``trips`` times; ValueError for another number of loops."""
    found = loops(code)
    if len(found) != len(trips):
        raise ValueError(f"{len(found)} loops of {[len(f) for f in found]}, told of {len(trips)}")
    counts, loads = Counter[str](), Counter[str]()
    for i, (_, text) in enumerate(code):
        times = 1
        for loop, trip in zip(found, trips, strict=True):
            times *= trip if i in loop else 1
        name = opcode(text)
        counts["all"] += times
        counts["mufu"] += times * name.startswith("MUFU")
        if name.startswith("LDG"):
            width = re.search(r"\.(U8|S8|U16|S16|64|128)\b", name)
            loads[width[1].strip("US") if width else "32"] += times
    return Work(counts["all"], counts["mufu"], dict(loads))

"""What the kernels take at the least by count (tests/kernels/aot.py), beside the times measured.

Counted in the machine code that Triton makes for this GPU, at 320 px; times are an H100's.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.lib.operations.case import Case
from bench.lib.record import Row

PROJECT = Path(__file__).resolve().parents[2]
TARGETS = (80, 90, 100)  # that tests/kernels/aot.py knows
COUNTED = 256  # images, and their side, that the times of tests/kernels/aot.py are of
PIXELS = 320
FORWARD = ("attend_map_kernel", "attend_mask_kernel")
ATTEND = "attend as trained bf16 image"
KERNELS = {
    "attend forward": (ATTEND, FORWARD),
    "attend forward + backward": (
        ATTEND,
        (*FORWARD, "attend_bwd_kernel", "class_activation_bwd_kernel"),
    ),
    "gather_affine_normalise": ("films 320 px", ("gather_affine_normalise_kernel",)),
}
"""Of a case of `bench.kernels`, up to its first comma: the table's case and its kernels."""


def counted(device: torch.device) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Return the table's rows, by case and kernel, for what ``device`` is; empty for any other."""
    if device.type != "cuda":
        return {}
    major, minor = torch.cuda.get_device_capability(device)
    target = 10 * major + minor
    return table(target) if target in TARGETS else {}


def table(target: int) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Return the rows for a compute capability such as 90; in a process without a driver."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        environment = os.environ | {"TRITON_INTERPRET": "0", "PYTHONPATH": str(PROJECT)}
        words = [sys.executable, str(PROJECT / "tests/kernels/aot.py"), str(out), str(target)]
        subprocess.run(words, env=environment, check=True, stdout=subprocess.DEVNULL)
        rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    return {name.removesuffix(f", sm_{target}"): found for name, found in rows.items()}


def rows(case: Case, found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Sequence[Row]:
    """Return the floors of ``case``, where its kernels were counted at its size."""
    name, kernels = KERNELS.get(case.name.split(",")[0], ("", ()))
    if name not in found or case.size.pixels != PIXELS:
        return []
    share = case.size.batch / COUNTED / 1000  # of 256 images' microseconds, in ms
    return [
        Row(
            case.name, case.subject, metric, share * sum(found[name][k][key] for k in kernels), "ms"
        )
        for metric, key in (("floor by instructions", "issue_us"), ("floor by bytes", "bytes_us"))
    ]

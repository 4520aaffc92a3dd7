"""What a call leaves behind for backward, and how many launches it takes."""

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from bench.lib.timing import Call

ON_DEVICE = {"kernel", "gpu_memcpy", "gpu_memset"}  # categories of the profiler's trace


def kept_bytes(call: Call, inputs: Iterable[Tensor]) -> int:
    """Count bytes that autograd keeps for backward while ``call`` runs, beyond those of ``inputs``.

    Storages are counted, each once and whole, however many tensors view them.
    """
    kept: list[Tensor] = []  # alive to the end, so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
    for tensor in inputs:
        storages.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(storages.values())


def launches(call: Call, device: torch.device) -> int | None:
    """Count kernels, copies and fills that a call puts on a CUDA device.

    None on a CPU, and where the profiler may not look at the device.
    """
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize(device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        return count_launches(json.loads(path.read_text(encoding="utf-8"))) or None


def count_launches(trace: dict[str, Any]) -> int:
    """Count events of a profiler's trace that ran on the device."""
    return sum(event.get("cat") in ON_DEVICE for event in trace["traceEvents"])

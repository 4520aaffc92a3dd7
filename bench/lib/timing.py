"""How long a call takes, what it allocates, and how fast the device copies.

On CUDA by Triton's `do_bench`: CUDA events around each call, L2 cleared before it. On a CPU by the
clock. Rivals are timed in turn, several times over, so that whatever else the machine does hits
all of them alike.
"""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch

from bench.lib.record import Row

Call = Callable[[], object]
ROUNDS = 5  # turns of the rivals on CUDA
LEAST, MOST = 5, 1000  # turns on a CPU, one call each
SECONDS = {"cuda": 0.1, "cpu": 0.5}  # of each call, on CUDA its device's
COPY_BYTES = {"cuda": 2**30, "cpu": 2**27}  # far beyond any cache


class Timing(NamedTuple):
    """Quantiles of one call's duration in ms."""

    p50: float
    p20: float
    p80: float

    def rows(self, case: str, impl: str, metric: str = "time") -> list[Row]:
        """Return rows of a record, "time p50" and so on."""
        return [Row(case, impl, f"{metric} {q}", ms, "ms") for q, ms in self._asdict().items()]


def quantiles(samples_ms: list[float]) -> Timing:
    """Return median and the borders of the middle 60 %, linear between samples."""
    p20, p50, p80 = np.quantile(samples_ms, (0.2, 0.5, 0.8)).tolist()
    return Timing(p50, p20, p80)


def time_calls(calls: Mapping[str, Call], device: torch.device) -> dict[str, Timing]:
    """Time each call for about `SECONDS`, in alternation; each has run before and is warm.

    On CUDA the host's work is hidden as far as it is done while L2 is being cleared.
    """
    seconds = SECONDS[device.type]
    samples: dict[str, list[float]] = {name: [] for name in calls}
    if device.type == "cuda":
        for _ in range(ROUNDS):
            for name, call in calls.items():
                samples[name] += _device_samples(call, seconds / ROUNDS)
    else:
        once = sum(_host_sample(call) for call in calls.values()) / 1000
        for _ in range(min(max(int(seconds * len(calls) / once), LEAST), MOST)):
            for name, call in calls.items():
                samples[name].append(_host_sample(call))
    return {name: quantiles(found) for name, found in samples.items()}


def time_graph(call: Call) -> Timing:
    """Time a call within a CUDA graph: without the host's work, and with whatever L2 still holds.

    Raises RuntimeError where the call cannot be captured.
    """
    from triton.testing import do_bench_cudagraph

    samples: list[float] = do_bench_cudagraph(call, return_mode="all")
    return quantiles(samples)


def peak_bytes(call: Call, device: torch.device) -> int | None:
    """Measure what a call allocates at its peak beyond what was there, its results included.

    None on a CPU, where PyTorch does not count.
    """
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    kept = call()
    torch.cuda.synchronize(device)
    del kept
    return torch.cuda.max_memory_allocated(device) - before


def copy_bandwidth(device: torch.device) -> float:
    """Measure bytes read and written a second by a plain copy of a tensor, at the median; GB/s."""
    source = torch.zeros(COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    timing = time_calls({"copy": lambda: target.copy_(source)}, device)["copy"]
    return 2 * source.nbytes / (timing.p50 * 1e6)


def _device_samples(call: Call, seconds: float) -> list[float]:
    from triton.testing import do_bench

    ms = 1000 * seconds
    samples: list[float] = do_bench(call, warmup=ms / 4, rep=ms, return_mode="all")
    return samples


def _host_sample(call: Call) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)

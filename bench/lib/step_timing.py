"""How long whole steps take: rivals in turn, by the clock, over several ranks at once.

Not by CUDA events around a call, as the kernels are: a step's cost is also what the host needs to
launch it, which shows only where steps follow each other.
"""

import time
from collections.abc import Mapping

import numpy as np
import torch
import torch.distributed as dist

from bench.lib.loops import Step
from bench.lib.timing import Timing, quantiles
from pcamx.engine import Ranks

BURST = {"cuda": 20, "cpu": 1}  # steps between two looks at the clock
SECONDS = {"cuda": 2.0, "cpu": 5.0}  # for each rival
LEAST, MOST = 5, 50  # rounds


class Paces:
    """The durations of one step in ms, by rival and round."""

    def __init__(self, samples: Mapping[str, list[float]]) -> None:
        self.samples = samples

    def timing(self, name: str) -> Timing:
        return quantiles(self.samples[name])

    def ratio(self, name: str, rival: str) -> float:
        """Return how many times as long as ``rival``: the median over the rounds, in each of which
        the machine was as busy for the one as for the other.
        """
        return float(np.median(np.divide(self.samples[name], self.samples[rival])))


def time_steps(steps: Mapping[str, Step], ranks: Ranks) -> Paces:
    """Time the steps in turn; each has run before and is warm. Every rank must call it."""
    burst = BURST[ranks.device.type]
    samples: dict[str, list[float]] = {name: [] for name in steps}
    once = sum(_burst(step, burst, ranks) for step in steps.values()) * burst / 1000
    wanted = torch.tensor(SECONDS[ranks.device.type] * len(steps) / once, device=ranks.device)
    dist.broadcast(wanted, 0)  # all ranks take as many turns
    for _ in range(min(max(int(wanted), LEAST), MOST)):
        for name, step in steps.items():
            samples[name].append(_burst(step, burst, ranks))
    return Paces(samples)


def _burst(step: Step, count: int, ranks: Ranks) -> float:
    """ms a step over ``count`` steps, from all ranks' start to this one's end."""
    dist.barrier()
    _wait(ranks)
    start = time.perf_counter()
    for _ in range(count):
        step()
    _wait(ranks)
    return 1000 * (time.perf_counter() - start) / count


def _wait(ranks: Ranks) -> None:
    if ranks.device.type == "cuda":
        torch.cuda.synchronize(ranks.device)

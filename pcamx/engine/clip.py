"""Gradient clipping that never waits for the device.

DeepSpeed's takes the norms one by one, and with ZeRO-1 and 2 looks at the result on the host, which
on a GPU waits for it in each step. On a CPU: 1.3 ms for the norm alone, against 0.5 ms for this.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils import get_total_norm


def clip(engine: Any, limit: float) -> None:
    """Scale the averaged gradient to a norm of at most ``limit``, between backward and step.

    0 leaves it as it is. For ZeRO-0, 1 and 2; ZeRO-3 takes a norm in any case, and clips by it.
    Every rank must call it.
    """
    stage = engine.zero_optimization_stage()
    if limit == 0 or stage == 3:
        return
    gradients = _held(engine, stage)
    norm = get_total_norm(gradients, foreach=True)
    if stage > 0 and dist.get_world_size() > 1:
        norm = norm.square()
        dist.all_reduce(norm)
        norm = norm.sqrt()
    torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1))


def _held(engine: Any, stage: int) -> list[Tensor]:
    """This rank's part of the gradient: with ZeRO-0 all of it."""
    if stage == 0:
        # Not the module's parameters(), which walks through all its modules.
        groups = engine.basic_optimizer.param_groups
        return [p.grad for group in groups for p in group["params"] if p.grad is not None]
    # Private, as DeepSpeed's own clipping finds it; its version is pinned.
    return [g for group in engine.optimizer.averaged_gradients.values() for g in group]

"""What of a stage no optimizer holds: its buffers, and the parameters that are frozen."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from pcamx.engine.ranks import import_deepspeed


def average_buffers(module: nn.Module) -> None:
    """Give every rank the mean of the ranks' batch-norm statistics."""
    if dist.get_world_size() == 1:
        return
    for buffer in module.buffers():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer /= dist.get_world_size()


def share_buffers(module: nn.Module) -> None:
    """Give every rank the buffers of rank 0, as DeepSpeed does with parameters alone.

    Where a pretrained backbone looks is measured by each rank, and processors round differently.
    """
    if dist.get_world_size() == 1:
        return
    buffers = dict(module.named_buffers())
    for buffer in buffers.values():
        dist.broadcast(buffer, 0)
    # Each its own: so that modules hear of them, as in `load_unoptimised`.
    module.load_state_dict(buffers, strict=False)


def frozen_state(engine: Any) -> dict[str, Tensor]:
    """Return the frozen parameters, whole, on the CPU; every rank must call it."""
    with _frozen(engine) as frozen:
        return {name: value.detach().cpu().clone() for name, value in frozen.items()}


def load_unoptimised(engine: Any, state: Mapping[str, Tensor], *, frozen: bool) -> None:
    """Put all buffers into the stage, and with ``frozen`` all frozen parameters; all ranks call it.

    By the modules' own loading, since a `TimmEncoder` lays its maps by a buffer.
    Raises RuntimeError where ``state`` lacks one, or holds what the stage has not.
    """
    module, buffers = engine.module, dict(engine.module.named_buffers())
    with _frozen(engine, modifier_rank=0) as parameters:
        found = module.load_state_dict(state, strict=False)
    wanted = buffers.keys() | (parameters.keys() if frozen else set())
    for name in wanted.intersection(found.missing_keys):
        raise RuntimeError(f"the checkpoint lacks {name}")
    # Constants are buffers that no state dict has.
    for name in set(found.unexpected_keys) - buffers.keys():
        raise RuntimeError(f"{name} of the checkpoint is none of its")


@contextmanager
def _frozen(engine: Any, modifier_rank: int | None = None) -> Iterator[dict[str, nn.Parameter]]:
    """The frozen parameters by name, under ZeRO-3 gathered from the ranks meanwhile."""
    named = engine.module.named_parameters()
    frozen = {name: p for name, p in named if not p.requires_grad}
    gathered = import_deepspeed().zero.GatheredParameters(
        list(frozen.values()), modifier_rank, enabled=engine.zero_optimization_stage() == 3
    )
    with gathered:
        yield frozen

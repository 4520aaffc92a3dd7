"""Ranks: how many there are, sums over them, and those of one host."""

import socket
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from pcamx.errors import PcamxError


def rank_count() -> int:
    """Return the number of ranks; 1 outside a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank_number() -> int:
    """Return this rank's number, from 0; 0 outside a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def sum_over_ranks(*values: Tensor) -> list[Tensor]:
    """Sum scalars over all ranks in one all-reduce; float64, so counts stay exact."""
    total = torch.stack([v.detach().double() for v in values])
    if rank_count() > 1:
        dist.all_reduce(total)
    return list(total)


def telemetry_on_host(telemetry: dict[str, Tensor]) -> dict[str, float]:
    """Return a step's telemetry on the host: means over the ranks, and the sum of flat maps.

    Waits for the device, once; every rank must call it.
    """
    totals = torch.stack(sum_over_ranks(*telemetry.values())).tolist()
    return {
        name: total / (1 if name == "flat" else rank_count())
        for name, total in zip(telemetry, totals, strict=True)
    }


def total_over_ranks(value: Tensor) -> Tensor:
    """Return the sum of a tensor over all ranks, differentiable as often as one likes.

    The gradient is that of the ranks' losses together, so every rank must go backward as well.
    """
    total: Tensor = _Total.apply(value)  # type: ignore[no-untyped-call]
    return total


class _Total(torch.autograd.Function):
    """torch.distributed.nn's all_reduce, which torch has deprecated without one to go to."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        if rank_count() > 1:
            dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return total_over_ranks(gradient.contiguous())


class HostRanks:
    """This rank among those of its host; a process alone is its own host's only rank.

    Every rank must make one at the same point, and make each call below.
    """

    def __init__(self) -> None:
        self.rank, self.world = rank_number(), rank_count()
        # The name tells containers apart, the boot hosts of one name.
        boot = Path("/proc/sys/kernel/random/boot_id")
        hosts = self.gather((socket.gethostname(), boot.read_text() if boot.is_file() else ""))
        here = [rank for rank, host in enumerate(hosts) if host == hosts[self.rank]]
        self.leader, self.place, self.count = here[0], here.index(self.rank), len(here)
        self.leaders = sorted({hosts.index(host) for host in hosts})

    @property
    def leads(self) -> bool:
        """Whether this rank is its host's first."""
        return self.rank == self.leader

    def gather(self, value: Any) -> list[Any]:
        """Return everybody's ``value``, by rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def share(self, size: int) -> range:
        """Return this rank's part of ``size`` rows that the ranks of the host divide."""
        return range(size * self.place // self.count, size * (self.place + 1) // self.count)

    def raise_together(self, failure: str) -> None:
        """Raise PcamxError on every rank if one has failed: the others would wait for ever."""
        for message in filter(None, self.gather(failure)):
            raise PcamxError(message)

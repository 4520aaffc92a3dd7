"""`python -m bench.host`: the host's cost of attention, forward and backward, without kernels.

Launches are left out, so that a CPU can show it. It counts where the device is done before the host
is: small batches, many ranks.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from unittest import mock

import torch
from torch import Tensor

from pcamx.kernels import attend, class_activation

ROUNDS, CALLS = 15, 50


class NoKernel:
    """Takes a grid and arguments, and does nothing."""

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *args, **kwargs: None


def without_kernels() -> ExitStack:
    """Keep every kernel of attention from running until the stack is closed."""
    stack = ExitStack()
    for module in (attend, class_activation):
        for name in [name for name in dir(module) if name.endswith("_kernel")]:
            stack.enter_context(mock.patch.object(module, name, NoKernel()))
    return stack


def microseconds(call: Callable[[], object]) -> float:
    """Return the least over rounds of the mean of a call: what else a host does only adds to it."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(CALLS):
            call()
        times.append((time.process_time() - start) / CALLS)
    return 1e6 * min(times)


def costs() -> dict[str, float]:
    """Measure microseconds of the process for a forward and backward pass, by the way taken."""
    features_BKhw = torch.zeros(2, 8, 4, 4, requires_grad=True)
    weight_CK = torch.zeros(2, 8, requires_grad=True)
    given = features_BKhw, weight_CK, torch.zeros(2, dtype=torch.int64), torch.zeros(2, 1, 64, 64)
    grad_B1HW = torch.zeros(2, 1, 64, 64)

    def both(forward: Callable[..., tuple[Tensor, ...]]) -> None:
        masked_B1HW = forward(*given, 10.0, 0.5)[0]
        torch.autograd.grad(masked_B1HW, (features_BKhw, weight_CK), grad_B1HW)

    with without_kernels():
        return {
            "registered operator, as in a compiled graph": microseconds(
                lambda: both(attend.operator)
            ),
            "autograd.Function, as in eager PyTorch": microseconds(lambda: both(attend.attend)),
        }


if __name__ == "__main__":
    torch.set_num_threads(1)
    for way, cost in costs().items():
        print(f"attend, forward + backward, host alone: {way}: {cost:.0f} us")

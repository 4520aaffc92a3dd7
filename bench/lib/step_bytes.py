"""Bytes that a step of the network has to move: what the share of the roofline is counted by.

A convolution cannot run before its input's batch statistics are known, so each map goes to memory
and back. Counted as torch.compile's kind of fusion has it: batch norm, ReLU and the residual sum
are one pass forward and two passes backward. Elements by call, x the input and y the output:

    convolution   forward x + y; backward y + x for the weight, y + x for the input
    batch norm    forward y for the statistics, 2 y to normalise; backward 2 y and 3 y
    residual sum  forward y read; backward 3 y
    max-pooling   forward x + y; backward x + y
"""

from typing import Any

from torch import Tensor, nn

from pcamx.model.encoder import Residual
from pcamx.training.stages import Stage
from pcamx.types import Batch


def step_bytes(stage: Stage, batch: Batch, size: int) -> int:
    """Count bytes of the step of a batch at ``size`` bytes an element, all passes and the decoder
    included.

    Weights, the head, the mask and the films themselves are left out: under 5 %.
    """
    count = 0

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal count
        count += _elements(module, inputs[0], output)

    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, Residual)
    hooks: list[Any] = [
        module.register_forward_hook(note)
        for module in stage.modules()
        if isinstance(module, kinds)
    ]
    stage(batch)
    for hook in hooks:
        hook.remove()
    return count * size


def _elements(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """Of the forward and the backward of one call."""
    if isinstance(module, nn.Conv2d):
        return (3 if x.requires_grad else 2) * (x.numel() + y.numel())
    if isinstance(module, nn.BatchNorm2d):
        return 8 * y.numel()
    if isinstance(module, nn.MaxPool2d):
        return 2 * (x.numel() + y.numel())
    return 4 * y.numel()

"""One operation at one size: its rivals, the truth and the bytes it has to move."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.lib.operations.roofline import Shape

CHANNELS, CLASSES, STRIDE = 128, 2, 16  # of the network's last block
OURS, REFERENCE, EAGER, COMPILED = "ours", "reference", "eager", "torch.compile"
TWO_MATMULS = "torch.compile, two matmuls"
Tensors = tuple[Tensor, ...]
Run = Callable[[], Tensors]


class Size(NamedTuple):
    """Images of a batch, and the side of an image in pixels."""

    batch: int
    pixels: int = 320


def same(truth: Tensors) -> Tensors:
    """Return what an impl returns, of the truth: the truth."""
    return truth


class Impl(NamedTuple):
    """A rival: its call, and what that should return where the truth is given."""

    call: Callable[[], Any]
    of_truth: Callable[[Tensors], Tensors] = same
    captured: bool = True  # in a CUDA graph, which leaves the host no part


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured. Every call returns ``outputs``, and ``truth`` the same in float64."""

    name: str
    size: Size
    subject: str  # of the impls, the one that the others are rivals of
    impls: dict[str, Impl]
    outputs: tuple[str, ...]
    truth: Run
    bytes_moved: int
    inputs: Tensors  # with what impls were given beforehand: kept for backward at no cost
    learns: bool = False
    missing: dict[str, str] = field(default_factory=dict)  # impl: why it does not run


def subject(device: torch.device) -> str:
    """Name whom the bench is about: the kernels, or the reference where those are not for speed."""
    return OURS if device.type == "cuda" else REFERENCE


def working_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 on a GPU, where training uses it, else float32."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def ours(function: Callable[..., Any], device: torch.device) -> dict[str, Callable[..., Any]]:
    """Call one of `pcamx.ops` by the kernels, where the bench is about them, else the reference."""
    found = {OURS: partial(function, impl="triton")} if subject(device) == OURS else {}
    return found | {REFERENCE: partial(function, impl="reference")}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for each size on its own, with no silent way back to eager."""
    return torch.compile(function, fullgraph=True, dynamic=False)


def shape_of(size: Size) -> Shape:
    """Return the sizes of the attention path at an image's size."""
    cells = size.pixels // STRIDE
    return Shape(size.batch, CHANNELS, cells, cells, size.pixels, size.pixels)


def name_of(operation: str, size: Size, dtype: torch.dtype) -> str:
    """Name a case: operation, batch, pixels, dtype; the chart takes it apart again."""
    dtype_name = str(dtype).removeprefix("torch.")
    return f"{operation}, B {size.batch}, {size.pixels} px, {dtype_name}"

"""The attention path's cases: class activation, and attend forward and backward.

Shapes: B batch, K channels, C classes, h w the map, H W the image.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from bench.lib.operations import rivals, roofline
from bench.lib.operations.case import (
    CLASSES,
    COMPILED,
    EAGER,
    TWO_MATMULS,
    Case,
    Impl,
    Size,
    Tensors,
    compiled,
    name_of,
    ours,
    shape_of,
    subject,
    working_dtype,
)
from bench.lib.operations.peers import Peers, peers
from pcamx import ops
from pcamx.kernels import reference


def class_activation_case(size: Size, device: torch.device, *, positive: bool) -> Case:
    """Return the case of the map alone, forward."""
    x = _inputs(size, device)
    tensors, dtype = (x.features_BKhw, x.weight_CK, x.class_index_B), x.features_BKhw.dtype
    operation = partial(ops.class_activation, positive=positive)
    eager = partial(rivals.class_activation, positive=positive)
    functions: dict[str, Callable[..., Tensor]] = {
        **ours(operation, device),
        EAGER: eager,
        COMPILED: compiled(eager),
    }

    def run(function: Callable[..., Tensor]) -> Tensors:
        with torch.no_grad():
            return (function(*tensors),)

    impls = {name: Impl(partial(run, function)) for name, function in functions.items()}
    others = Peers({}, {}) if positive else peers(*tensors)
    impls |= others.impls
    return Case(
        name=name_of(f"class activation {'positive' if positive else 'plain'}", size, dtype),
        size=size,
        subject=subject(device),
        impls=impls,
        outputs=("map",),
        truth=lambda: (reference.class_activation(*_exact(tensors), positive=positive),),
        bytes_moved=roofline.class_activation_bytes(shape_of(size), dtype.itemsize),
        inputs=tensors,
        missing=others.missing,
    )


def attend_case(size: Size, device: torch.device, *, learns: bool) -> Case:
    """Return the case of the masked image; with ``learns`` also backward to features and weight."""
    x = _inputs(size, device, learns)
    shape, dtype = shape_of(size), x.image_B1HW.dtype
    ups = {
        "up_Hh": rivals.upsampling(shape.h, shape.H).to(device, dtype),
        "up_wW": rivals.upsampling(shape.w, shape.W).T.contiguous().to(device, dtype),
    }
    functions = {
        **ours(ops.attend, device),
        EAGER: rivals.attend,
        COMPILED: compiled(rivals.attend),
        TWO_MATMULS: compiled(partial(rivals.attend_two_matmuls, **ups)),
    }
    truth = partial(reference.attend, omega=rivals.OMEGA, sigma=rivals.SIGMA)
    run = _forward_and_backward if learns else _forward
    bytes_moved = roofline.attend_forward_bytes(shape, dtype.itemsize, dtype.itemsize)
    if learns:
        bytes_moved += roofline.attend_backward_bytes(shape, dtype.itemsize, dtype.itemsize)
    return Case(
        name=name_of(f"attend forward{' + backward' if learns else ''}", size, dtype),
        size=size,
        subject=subject(device),
        impls={name: Impl(partial(run, function, x)) for name, function in functions.items()},
        outputs=("image", "features' gradient", "weight's gradient")
        if learns
        else ("image", "map", "area"),
        truth=lambda: run(truth, Inputs(*_exact(x))),
        bytes_moved=bytes_moved,
        inputs=(*x, *ups.values()),
        learns=learns,
    )


class Inputs(NamedTuple):
    """Of the attention path, and the gradient that arrives at the masked image."""

    features_BKhw: Tensor
    weight_CK: Tensor
    class_index_B: Tensor
    image_B1HW: Tensor
    grad_B1HW: Tensor


def _inputs(size: Size, device: torch.device, learns: bool = False) -> Inputs:
    shape, dtype = shape_of(size), working_dtype(device)
    generator = torch.Generator(device).manual_seed(1)

    def normal(*wanted: int) -> Tensor:
        return torch.randn(*wanted, generator=generator, device=device)

    features_BKhw = normal(shape.B, shape.K, shape.h, shape.w).relu().to(dtype)
    if device.type == "cuda":
        features_BKhw = features_BKhw.contiguous(memory_format=torch.channels_last)
    class_index_B = torch.randint(CLASSES, (shape.B,), generator=generator, device=device)
    return Inputs(
        features_BKhw.requires_grad_(learns),
        normal(CLASSES, shape.K).requires_grad_(learns),
        class_index_B,
        normal(shape.B, 1, shape.H, shape.W).to(dtype),
        normal(shape.B, 1, shape.H, shape.W).to(dtype),
    )


def _forward(function: Callable[..., Tensors], x: Inputs) -> Tensors:
    with torch.no_grad():
        return tuple(function(*x[:4]))


def _forward_and_backward(function: Callable[..., Tensors], x: Inputs) -> Tensors:
    image_B1HW = function(*x[:4])[0]
    learning = x.features_BKhw, x.weight_CK
    return image_B1HW, *torch.autograd.grad(image_B1HW, learning, x.grad_B1HW)


def _exact(tensors: Tensors) -> Tensors:
    """The same values in float64, leaves where they were."""
    return tuple(
        t.detach().double().requires_grad_(t.requires_grad) if t.is_floating_point() else t
        for t in tensors
    )

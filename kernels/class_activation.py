"""Class activation maps in Triton: H'_c = sum_k max(0, w_ck) h_k, forward and backward.

Shapes: B batch, K channels, C classes, N = h w the map's cells. Features come in by strides,
contiguous or channels_last; sums are float32 (float64 for float64 features).
"""

from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from pcamx.kernels.class_activation_kernels import (
    class_activation_bwd_kernel,
    class_activation_fwd_kernel,
)
from pcamx.kernels.launch import (
    by_strides,
    contiguous,
    device_of,
    empty_like_map,
    empty_map,
    map_dtype,
)

BLOCK_K, BLOCK_N = 32, 128  # 32 values a thread at 4 warps: no spills; 64 bytes of bf16 channels


def map_arguments(
    features_BKhw: Tensor, weight_CK: Tensor, class_index_B: Tensor
) -> tuple[tuple[Any, ...], dict[str, int]]:
    """Return the first six arguments of every kernel that reads feature maps, and its constants."""
    features_BKhw, strides = by_strides(features_BKhw)
    (C, K), (h, w) = weight_CK.shape, features_BKhw.shape[2:]
    given = features_BKhw, weight_CK.contiguous(), class_index_B.contiguous(), *strides
    sizes = {"C": C, "K": K, "N": h * w, "BLOCK_K": BLOCK_K, "BLOCK_N": BLOCK_N}
    return given, sizes | {"num_warps": 4}


def empty_gradients(features_BKhw: Tensor, weight_CK: Tensor) -> tuple[Tensor, Tensor]:
    """Make room for the gradients to features and weight."""
    return empty_like_map(features_BKhw), weight_CK.new_empty(weight_CK.shape)


def counters(weight_CK: Tensor) -> int:
    """Count the zeros that `launch_backward` counts on."""
    return -(-weight_CK.shape[1] // BLOCK_K)


def launch_backward(
    grad_cam_Bhw: Tensor | None,
    features_BKhw: Tensor,
    weight_CK: Tensor,
    class_index_B: Tensor,
    counter: Tensor,
    positive: bool,
    window: Tensor | None = None,
    span_B: Tensor | None = None,
    **tiling: Any,
) -> tuple[Tensor, Tensor]:
    """Launch the gradients to features and weight at once; ``counter`` holds `counters` zeros."""
    grads = empty_gradients(features_BKhw, weight_CK)
    B, K = len(features_BKhw), weight_CK.shape[1]
    if B == 0:
        return grads[0], grads[1].zero_()
    given, sizes = map_arguments(features_BKhw, weight_CK, class_index_B)
    partial_BK = features_BKhw.new_empty(B, K, dtype=map_dtype(features_BKhw))
    # For 4 programs of 4 warps at once; left to itself ptxas takes 96 for sm_100, and spills.
    registers = {"maxnreg": 128} if features_BKhw.element_size() == 2 else {}
    with device_of(features_BKhw):
        class_activation_bwd_kernel[(B * counters(weight_CK),)](
            *given,
            contiguous(grad_cam_Bhw),
            window,
            span_B,
            *grads,
            partial_BK,
            counter,
            B,
            POSITIVE=positive,
            BLOCK_B=32,
            **registers,
            **sizes,
            **tiling,
        )
    return grads


def _forward(
    features_BKhw: Tensor, weight_CK: Tensor, class_index_B: Tensor, positive: bool
) -> Tensor:
    cam_Bhw = empty_map(features_BKhw)
    given, sizes = map_arguments(features_BKhw, weight_CK, class_index_B)
    programs = len(cam_Bhw) * triton.cdiv(sizes["N"], BLOCK_N)
    if programs > 0:
        with device_of(features_BKhw):
            class_activation_fwd_kernel[(programs,)](*given, cam_Bhw, POSITIVE=positive, **sizes)
    return cam_Bhw


def _backward(
    grad_cam_Bhw: Tensor,
    features_BKhw: Tensor,
    weight_CK: Tensor,
    class_index_B: Tensor,
    positive: bool,
) -> tuple[Tensor, Tensor]:
    counter = class_index_B.new_zeros(counters(weight_CK), dtype=torch.int32)
    return launch_backward(grad_cam_Bhw, features_BKhw, weight_CK, class_index_B, counter, positive)


class _ClassActivation(torch.autograd.Function):
    """What eager PyTorch calls: half of the host's time that the operator takes."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        cam_Bhw = _forward(*given)
        _save(ctx, given, cam_Bhw)
        return cam_Bhw

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_cam_Bhw: Tensor) -> tuple[Tensor | None, ...]:
        given = *ctx.saved_tensors, ctx.positive
        return (*_backward(grad_cam_Bhw, *given), None, None)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.positive = inputs
    ctx.save_for_backward(*tensors)


operator = torch.library.custom_op("pcamx::class_activation", _forward, mutates_args=())
"""What a graph of torch.compile or torch.export holds."""
backward_operator = torch.library.custom_op(
    "pcamx::class_activation_backward", _backward, mutates_args=()
)


@operator.register_fake
def _(features_BKhw: Tensor, *_: object) -> Tensor:
    return empty_map(features_BKhw)


@backward_operator.register_fake
def _(_: Tensor, features_BKhw: Tensor, weight_CK: Tensor, *__: object) -> tuple[Tensor, Tensor]:
    return empty_gradients(features_BKhw, weight_CK)


def _operator_backward(ctx: Any, grad_cam_Bhw: Tensor) -> tuple[Tensor | None, ...]:
    return (*backward_operator(grad_cam_Bhw, *ctx.saved_tensors, ctx.positive), None, None)


operator.register_autograd(_operator_backward, setup_context=_save)


def class_activation(
    features_BKhw: Tensor, weight_CK: Tensor, class_index_B: Tensor, *, positive: bool
) -> Tensor:
    """Reduce as `reference.class_activation`, one launch; two backward with the counter's zeros."""
    run: Callable[..., Tensor] = (
        operator if torch.compiler.is_compiling() else _ClassActivation.apply
    )
    return run(features_BKhw, weight_CK, class_index_B, positive)

"""Positive CAM > min-max > bilinear upsampling > mask > masked image in Triton, 2 + 2 launches.

Shapes: B batch, K channels, C classes, N = h w the map's cells, H W the image. Forward: one kernel
makes the map, one the masked image. Backward: one takes the gradient to the map, one (that of
`class_activation`) on to features and weight. Upsampling and mask are computed anew backward.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pcamx.kernels.attend_kernels import attend_bwd_kernel, attend_map_kernel, attend_mask_kernel
from pcamx.kernels.class_activation import counters, empty_gradients, launch_backward, map_arguments
from pcamx.kernels.launch import contiguous, device_of, empty_map, power_of_two
from pcamx.kernels.strips import COLS, strips, tiling, window

LOG2_E = 1 / math.log(2)
# All channels of 128 cells at once, 32 values a thread: an image waits for memory N / 128 times.
MAP_CHANNELS, MAP_WARPS = 128, 16


def _forward(
    features_BKhw: Tensor,
    weight_CK: Tensor,
    class_index_B: Tensor,
    image_B1HW: Tensor,
    omega: float,
    sigma: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    masked_B1HW, cam_Bhw, area_B, span_B = _outputs(features_BKhw, image_B1HW)
    (B, h, w), (H, W) = cam_Bhw.shape, image_B1HW.shape[2:]
    if B == 0:
        return masked_B1HW, cam_Bhw, area_B, span_B
    given, sizes = map_arguments(features_BKhw, weight_CK, class_index_B)
    sizes["BLOCK_K"] = min(MAP_CHANNELS, power_of_two(sizes["K"]))
    sizes["num_warps"] = MAP_WARPS
    counter_B = span_B.new_empty(B, dtype=torch.int32)
    parts = strips(h, W)
    with device_of(features_BKhw):
        attend_map_kernel[(B,)](*given, cam_Bhw, span_B, counter_B, **sizes)
        attend_mask_kernel[(B * parts,)](
            image_B1HW.contiguous(),
            cam_Bhw,
            span_B,
            masked_B1HW,
            span_B.new_empty(B, parts),
            counter_B,
            area_B,
            **tiling(h, w, H, W),
            SLOPE=omega * LOG2_E,
            SIGMA=sigma,
            BLOCK_PARTS=128,
            num_warps=1,
        )
    return masked_B1HW, cam_Bhw, area_B, span_B


def _outputs(features_BKhw: Tensor, image_B1HW: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    cam_Bhw = empty_map(features_BKhw)
    B = len(cam_Bhw)
    masked_B1HW = image_B1HW.new_empty(image_B1HW.shape)
    return masked_B1HW, cam_Bhw, cam_Bhw.new_empty(B), cam_Bhw.new_empty(B)


def _backward(
    grad_masked_B1HW: Tensor | None,
    grad_cam_Bhw: Tensor | None,
    grad_area_B: Tensor | None,
    features_BKhw: Tensor,
    weight_CK: Tensor,
    class_index_B: Tensor,
    image_B1HW: Tensor,
    cam_Bhw: Tensor,
    span_B: Tensor,
    omega: float,
    sigma: float,
    to_map: bool,
    to_image: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to features, weight (if ``to_map``) and image (if ``to_image``), or empty."""
    (B, h, w), (H, W) = cam_Bhw.shape, image_B1HW.shape[2:]
    grad_image_B1HW = _empty_gradient(image_B1HW, to_image)
    if grad_masked_B1HW is None:
        grad_image_B1HW.zero_()
    cells = window(w, W)
    windows = span_B.new_empty(B, strips(h, W), 2, cells) if to_map else None
    counter = span_B.new_empty(counters(weight_CK), dtype=torch.int32)
    if B > 0:
        with device_of(features_BKhw):
            attend_bwd_kernel[(B * strips(h, W),)](
                contiguous(grad_masked_B1HW),
                contiguous(grad_area_B),
                image_B1HW.contiguous(),
                cam_Bhw,
                span_B,
                grad_image_B1HW if to_image else None,
                windows,
                counter,
                **tiling(h, w, H, W),
                SLOPE=omega * LOG2_E,
                SIGMA=sigma,
                CELLS=cells,
                COUNTERS=len(counter),
                BLOCK_COUNTERS=power_of_two(len(counter)),
                num_warps=1,
            )
    if windows is None:
        return features_BKhw.new_empty(0), weight_CK.new_empty(0), grad_image_B1HW
    given = grad_cam_Bhw, features_BKhw, weight_CK, class_index_B, counter, True, windows, span_B
    of_map = launch_backward(*given, OMEGA=omega, h=h, w=w, W=W, COLS=COLS, CELLS=cells)
    return *of_map, grad_image_B1HW


def _empty_gradient(tensor: Tensor, wanted: bool) -> Tensor:
    return tensor.new_empty(tensor.shape if wanted else 0)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.omega, ctx.sigma = inputs
    _, cam_Bhw, _, span_B = output
    ctx.mark_non_differentiable(span_B)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, cam_Bhw, span_B)


def _gradients(
    backward: Callable[..., tuple[Tensor, ...]], ctx: Any, grads: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    to_features, to_weight, _, to_image = ctx.needs_input_grad[:4]
    to_map = to_features or to_weight
    given = *grads[:3], *ctx.saved_tensors, ctx.omega, ctx.sigma, to_map, to_image
    of_features, of_weight, of_image = backward(*given)
    of_map = (of_features, of_weight) if to_map else (None, None)
    return *of_map, None, of_image if to_image else None, None, None


class _Attend(torch.autograd.Function):
    """What eager PyTorch calls: half of the host's time that the operator takes."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor, ...]:
        output = _forward(*given)
        _save(ctx, given, output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return _gradients(_backward, ctx, grads)


operator = torch.library.custom_op("pcamx::attend", _forward, mutates_args=())
"""What a graph of torch.compile or torch.export holds."""
backward_operator = torch.library.custom_op("pcamx::attend_backward", _backward, mutates_args=())


@operator.register_fake
def _(
    features_BKhw: Tensor, _: Tensor, __: Tensor, image_B1HW: Tensor, *___: object
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _outputs(features_BKhw, image_B1HW)


@backward_operator.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    features_BKhw, weight_CK, _, image_B1HW = arguments[3:7]
    to_map, to_image = arguments[-2:]
    grad_image_B1HW = _empty_gradient(image_B1HW, to_image)
    if not to_map:
        return features_BKhw.new_empty(0), weight_CK.new_empty(0), grad_image_B1HW
    return *empty_gradients(features_BKhw, weight_CK), grad_image_B1HW


def _operator_backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    return _gradients(backward_operator, ctx, grads)


operator.register_autograd(_operator_backward, setup_context=_save)


def attend(
    features_BKhw: Tensor,
    weight_CK: Tensor,
    class_index_B: Tensor,
    image_B1HW: Tensor,
    omega: float,
    sigma: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attend as `reference.attend`, in two launches, and two backward."""
    run: Callable[..., tuple[Tensor, ...]] = (
        operator if torch.compiler.is_compiling() else _Attend.apply
    )
    given = features_BKhw, weight_CK, class_index_B, image_B1HW, omega, sigma
    masked_B1HW, cam_Bhw, area_B, _ = run(*given)
    return masked_B1HW, cam_Bhw, area_B

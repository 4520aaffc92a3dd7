"""Class activation maps in Triton: H'_c = sum_k max(0, w_ck) h_k, forward and backward.

Shapes: B batch, K channels, C classes, N = h w the map's cells. Features come in by strides,
contiguous or channels_last; sums are float32 (float64 for float64 features).
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from pcamx.kernels.launch import (
    arrived_last,
    contiguous,
    device_of,
    empty_like_map,
    empty_map,
    flatten_map,
    map_dtype,
)
from pcamx.kernels.strips import add_windows

BLOCK_K, BLOCK_N = 32, 128  # 32 values a thread at 4 warps: no spills; 64 bytes of bf16 channels


@triton.jit
def class_weight(
    weight_ptr, c, k, C: tl.constexpr, K: tl.constexpr, POSITIVE: tl.constexpr, ACC: tl.constexpr
):
    """Row ``c`` of the weight [C, K] at channels ``k``; zeros for a class that is none."""
    w_k = tl.load(weight_ptr + c * K + k, mask=(k < K) & (c >= 0) & (c < C), other=0.0).to(ACC)
    if POSITIVE:
        w_k = tl.where(w_k < 0, 0.0, w_k)
    return w_k


@triton.jit
def map_tile(
    features_ptr,  # of one image
    weight_ptr,
    c,
    n,  # [BLOCK_N] cells
    stride_k,
    stride_n,
    C: tl.constexpr,
    K: tl.constexpr,
    N: tl.constexpr,
    POSITIVE: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """The map at cells ``n``."""
    sum_kn = tl.zeros([BLOCK_K, BLOCK_N], ACC)
    for k0 in range(0, K, BLOCK_K):
        k = k0 + tl.arange(0, BLOCK_K)
        w_k = class_weight(weight_ptr, c, k, C, K, POSITIVE, ACC)
        h_kn = tl.load(
            features_ptr + k[:, None] * stride_k + n[None, :] * stride_n,
            mask=(k < K)[:, None] & (n < N)[None, :],
            other=0.0,
        ).to(ACC)
        sum_kn += w_k[:, None] * h_kn
    return tl.sum(sum_kn, 0)


@triton.jit
def class_activation_fwd_kernel(
    features_ptr,  # [B, K, N]
    weight_ptr,  # [C, K]
    class_ptr,  # [B]
    stride_b,  # of the features
    stride_k,
    stride_n,
    cam_ptr,  # [B, N]
    C: tl.constexpr,
    K: tl.constexpr,
    N: tl.constexpr,
    POSITIVE: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One program: BLOCK_N cells of one image."""
    ACC: tl.constexpr = cam_ptr.dtype.element_ty
    tiles: tl.constexpr = (N + BLOCK_N - 1) // BLOCK_N
    b = tl.program_id(0).to(tl.int64) // tiles
    n = tl.program_id(0) % tiles * BLOCK_N + tl.arange(0, BLOCK_N)
    c = tl.load(class_ptr + b)
    features_ptr += b * stride_b
    # fmt: off
    cam_n = map_tile(features_ptr, weight_ptr, c, n, stride_k, stride_n,
                     C, K, N, POSITIVE, ACC, BLOCK_K, BLOCK_N)
    # fmt: on
    tl.store(cam_ptr + b * N + n, cam_n, mask=n < N)


@triton.jit(do_not_specialize=["B"])
def class_activation_bwd_kernel(
    features_ptr,  # [B, K, N]
    weight_ptr,  # [C, K]
    class_ptr,  # [B]
    stride_b,  # of the features and of their gradient
    stride_k,
    stride_n,
    grad_cam_ptr,  # [B, N], or None
    window_ptr,  # of the normalised map's gradient, see `add_windows`, or None
    span_ptr,  # [B] by which the map was divided, 0 where it was flat; or None
    grad_features_ptr,  # [B, K, N]
    grad_weight_ptr,  # [C, K]
    partial_ptr,  # [B, K] each image's gradient to its class's row
    counter_ptr,  # [channel blocks], zeros
    B,
    C: tl.constexpr,
    K: tl.constexpr,
    N: tl.constexpr,
    POSITIVE: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr,
    OMEGA: tl.constexpr = 0.0,
    h: tl.constexpr = 0,
    w: tl.constexpr = 0,
    W: tl.constexpr = 0,
    COLS: tl.constexpr = 0,
    CELLS: tl.constexpr = 0,
):
    """One program: BLOCK_K channels of one image; the last of these channels adds the images."""
    ACC: tl.constexpr = partial_ptr.dtype.element_ty
    blocks: tl.constexpr = (K + BLOCK_K - 1) // BLOCK_K
    b = tl.program_id(0).to(tl.int64) // blocks
    block = tl.program_id(0) % blocks
    k = block * BLOCK_K + tl.arange(0, BLOCK_K)
    w_k = class_weight(weight_ptr, tl.load(class_ptr + b), k, C, K, POSITIVE, ACC)
    sum_kn = tl.zeros([BLOCK_K, BLOCK_N], ACC)
    for n0 in range(0, N, BLOCK_N):
        n = n0 + tl.arange(0, BLOCK_N)
        inside = (k < K)[:, None] & (n < N)[None, :]
        offset = b * stride_b + k[:, None] * stride_k + n[None, :] * stride_n
        g_n = tl.zeros([BLOCK_N], ACC)
        if grad_cam_ptr is not None:
            g_n += tl.load(grad_cam_ptr + b * N + n, mask=n < N, other=0.0)
        if window_ptr is not None:
            windows: tl.constexpr = (h + 1) * ((W + COLS - 1) // COLS) * 2 * CELLS
            g_n += OMEGA * add_windows(window_ptr + b * windows, n, h, w, W, COLS, CELLS)
        if span_ptr is not None:
            span = tl.load(span_ptr + b)
            g_n = tl.where(span == 0, 0.0, g_n / tl.where(span == 0, 1.0, span))
        h_kn = tl.load(features_ptr + offset, mask=inside, other=0.0).to(ACC)
        sum_kn += h_kn * g_n[None, :]
        grad_kn = (w_k[:, None] * g_n[None, :]).to(grad_features_ptr.dtype.element_ty)
        tl.store(grad_features_ptr + offset, grad_kn, mask=inside)
    tl.store(partial_ptr + b * K + k, tl.sum(sum_kn, 1), mask=k < K)

    if arrived_last(counter_ptr + block, B):
        for c in range(0, C):
            sum_bk = tl.zeros([BLOCK_B, BLOCK_K], ACC)
            for b0 in range(0, B, BLOCK_B):
                rows = (b0 + tl.arange(0, BLOCK_B)).to(tl.int64)
                of_class = tl.load(class_ptr + rows, mask=rows < B, other=-1) == c
                sum_bk += tl.load(
                    partial_ptr + rows[:, None] * K + k[None, :],
                    mask=of_class[:, None] & (k < K)[None, :],
                    other=0.0,
                    cache_modifier=".cg",  # other multiprocessors wrote it
                )
            grad_k = tl.sum(sum_bk, 0)
            if POSITIVE:
                grad_k = tl.where(class_weight(weight_ptr, c, k, C, K, True, ACC) > 0, grad_k, 0.0)
            grad_k = grad_k.to(grad_weight_ptr.dtype.element_ty)
            tl.store(grad_weight_ptr + c * K + k, grad_k, mask=k < K)


def map_arguments(
    features_BKhw: Tensor, weight_CK: Tensor, class_index_B: Tensor
) -> tuple[tuple[Any, ...], dict[str, int]]:
    """The first six arguments of every kernel that reads feature maps, and its constants."""
    features_BKN = flatten_map(features_BKhw)
    C, K = weight_CK.shape
    given = features_BKN, weight_CK.contiguous(), class_index_B.contiguous(), *features_BKN.stride()
    sizes = {"C": C, "K": K, "N": features_BKN.shape[2], "BLOCK_K": BLOCK_K, "BLOCK_N": BLOCK_N}
    return given, sizes | {"num_warps": 4}


@torch.library.custom_op("pcamx::class_activation", mutates_args=())
def class_activation(
    features_BKhw: Tensor, weight_CK: Tensor, class_index_B: Tensor, positive: bool
) -> Tensor:
    """As `reference.class_activation`, in one launch; two backward with the counter's zeros."""
    cam_Bhw = empty_map(features_BKhw)
    given, sizes = map_arguments(features_BKhw, weight_CK, class_index_B)
    programs = len(cam_Bhw) * triton.cdiv(sizes["N"], BLOCK_N)
    if programs > 0:
        with device_of(features_BKhw):
            class_activation_fwd_kernel[(programs,)](*given, cam_Bhw, POSITIVE=positive, **sizes)
    return cam_Bhw


@class_activation.register_fake
def _(features_BKhw: Tensor, *_: object) -> Tensor:
    return empty_map(features_BKhw)


def empty_gradients(features_BKhw: Tensor, weight_CK: Tensor) -> tuple[Tensor, Tensor]:
    """Room for the gradients to features and weight."""
    return empty_like_map(features_BKhw), weight_CK.new_empty(weight_CK.shape)


def counters(weight_CK: Tensor) -> int:
    """How many zeros `launch_backward` counts on."""
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
    """Gradients to features and weight in one launch; ``counter`` holds `counters` zeros."""
    grads = empty_gradients(features_BKhw, weight_CK)
    B, K = len(features_BKhw), weight_CK.shape[1]
    if B == 0:
        return grads[0], grads[1].zero_()
    given, sizes = map_arguments(features_BKhw, weight_CK, class_index_B)
    partial_BK = features_BKhw.new_empty(B, K, dtype=map_dtype(features_BKhw))
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
            **sizes,
            **tiling,
        )
    return grads


@torch.library.custom_op("pcamx::class_activation_backward", mutates_args=())
def class_activation_backward(
    grad_cam_Bhw: Tensor,
    features_BKhw: Tensor,
    weight_CK: Tensor,
    class_index_B: Tensor,
    positive: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients to features and weight."""
    counter = class_index_B.new_zeros(counters(weight_CK), dtype=torch.int32)
    return launch_backward(grad_cam_Bhw, features_BKhw, weight_CK, class_index_B, counter, positive)


@class_activation_backward.register_fake
def _(_: Tensor, features_BKhw: Tensor, weight_CK: Tensor, *__: object) -> tuple[Tensor, Tensor]:
    return empty_gradients(features_BKhw, weight_CK)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.positive = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad_cam_Bhw: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    return (*class_activation_backward(grad_cam_Bhw, *tensors, ctx.positive), None, None)


class_activation.register_autograd(_backward, setup_context=_save)

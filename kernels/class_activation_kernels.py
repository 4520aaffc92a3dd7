"""The kernels of `class_activation`; `class_activation.py` launches them, and `attend.py` the last.

Shapes: B batch, K channels, C classes, N = h w the map's cells, W the image's columns.
"""

import triton
import triton.language as tl

from pcamx.kernels.launch import arrived_last
from pcamx.kernels.strips import add_windows


@triton.jit
def class_weight(
    weight_ptr, c, k, C: tl.constexpr, K: tl.constexpr, POSITIVE: tl.constexpr, ACC: tl.constexpr
):
    """Load row ``c`` of the weight [C, K] at channels ``k``; zeros for a class that is none."""
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
    """Return the map at cells ``n``."""
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
    """Make BLOCK_N cells of one image in each program."""
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
    """Go back over BLOCK_K channels of an image in each program; the last one adds the images."""
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

"""The three kernels that are `attend`'s own; `attend.py` launches them.

Shapes: B batch, K channels, C classes, N = h w the map's cells, H W the image.
"""

import triton
import triton.language as tl

from pcamx.kernels.class_activation_kernels import map_tile
from pcamx.kernels.launch import arrived_last
from pcamx.kernels.strips import (
    columns,
    exponents,
    first_row,
    first_share,
    sigmoid,
    window_start,
)


@triton.jit
def divide(x, y, ACC: tl.constexpr):
    """Divide, rounded to nearest, so that a map's maximum becomes 1 (Triton's / is approximate)."""
    if ACC == tl.float32:
        return tl.div_rn(x, y)
    else:
        return x / y


@triton.jit
def attend_map_kernel(
    features_ptr,  # [B, K, N]
    weight_ptr,  # [C, K]
    class_ptr,  # [B]
    stride_b,  # of the features
    stride_k,
    stride_n,
    cam_ptr,  # [B, N] normalised
    span_ptr,  # [B] max - min; 0 where flat, NaN where the map holds one
    counter_ptr,  # [B], for attend_mask_kernel
    C: tl.constexpr,
    K: tl.constexpr,
    N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Make one image's map in each program. The raw map waits in ``cam`` for its min and max."""
    ACC: tl.constexpr = cam_ptr.dtype.element_ty
    b = tl.program_id(0).to(tl.int64)
    c = tl.load(class_ptr + b)
    features_ptr += b * stride_b
    cam_ptr += b * N
    low_n = tl.full([BLOCK_N], float("inf"), ACC)
    high_n = tl.full([BLOCK_N], float("-inf"), ACC)
    for n0 in range(0, N, BLOCK_N):
        n = n0 + tl.arange(0, BLOCK_N)
        # fmt: off
        raw_n = map_tile(features_ptr, weight_ptr, c, n, stride_k, stride_n,
                         C, K, N, True, ACC, BLOCK_K, BLOCK_N)
        # fmt: on
        tl.store(cam_ptr + n, raw_n, mask=n < N)
        low_n = tl.minimum(low_n, tl.where(n < N, raw_n, float("inf")))
        raw_n = tl.where(n < N, raw_n, float("-inf"))
        high_n = tl.maximum(high_n, raw_n, propagate_nan=tl.PropagateNan.ALL)
    low = tl.min(low_n, 0)
    # The maximum over a tile, unlike PyTorch's, passes over NaN.
    lost = tl.max((high_n != high_n).to(tl.int32), 0) > 0
    span = tl.where(lost, float("nan"), tl.max(high_n, 0) - low)
    flat = span <= 0
    tl.store(span_ptr + b, tl.where(flat, 0.0, span))
    tl.store(counter_ptr + b, 0)
    tl.debug_barrier()  # a thread may load what another stored
    for n0 in range(0, N, BLOCK_N):
        n = n0 + tl.arange(0, BLOCK_N)
        raw_n = tl.load(cam_ptr + n, mask=n < N, other=0.0)
        a_n = divide(raw_n - low, tl.where(flat, 1.0, span).to(ACC), ACC)
        tl.store(cam_ptr + n, tl.where(flat, 1.0, a_n), mask=n < N)


@triton.jit
def attend_mask_kernel(
    image_ptr,  # [B, 1, H, W]
    cam_ptr,  # [B, h, w] normalised
    span_ptr,  # [B]
    masked_ptr,  # [B, 1, H, W]
    partial_ptr,  # [B, strips] sums of the mask
    counter_ptr,  # [B], zeros
    area_ptr,  # [B]
    h: tl.constexpr,
    w: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    ROWS: tl.constexpr,
    STEPS: tl.constexpr,
    COLS: tl.constexpr,
    SLOPE: tl.constexpr,
    SIGMA: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
):
    """Mask a strip of COLS columns in each program; an image's last one adds up its area."""
    ACC: tl.constexpr = cam_ptr.dtype.element_ty
    blocks: tl.constexpr = (W + COLS - 1) // COLS
    parts: tl.constexpr = (h + 1) * blocks
    b = (tl.program_id(0) // parts).to(tl.int64)
    part = tl.program_id(0) % parts
    s, x = part // blocks, part % blocks * COLS + tl.arange(0, COLS)
    flat = tl.load(span_ptr + b) == 0
    e_x, slope_x = exponents(cam_ptr + b * (h * w), s, x, h, w, H, W, SLOPE, SIGMA)
    image_ptr += b * (H * W)
    masked_ptr += b * (H * W)
    first = first_row(s, h, H)
    rows = first_row(s + 1, h, H) - first
    sum_x = tl.zeros([COLS], ACC)
    for step in range(0, STEPS):
        y = step * ROWS + tl.arange(0, ROWS)
        inside = (y < rows)[:, None] & (x < W)[None, :]
        p = (first + y)[:, None] * W + x[None, :]
        image_yx = tl.load(image_ptr + p, mask=inside, other=0.0).to(ACC)
        e_yx = e_x[None, :] + (y.to(ACC) * (h / H))[:, None] * slope_x[None, :]
        m_yx = tl.where(flat, 1.0, sigmoid(e_yx))
        tl.store(masked_ptr + p, (image_yx * m_yx).to(masked_ptr.dtype.element_ty), mask=inside)
        sum_x += tl.sum(m_yx * (y < rows).to(ACC)[:, None], 0)
    tl.store(partial_ptr + b * parts + part, tl.sum(tl.where(x < W, sum_x, 0.0), 0))

    if arrived_last(counter_ptr + b, parts):
        sum_parts = tl.zeros([BLOCK_PARTS], ACC)
        for p0 in range(0, parts, BLOCK_PARTS):
            n = p0 + tl.arange(0, BLOCK_PARTS)
            sum_parts += tl.load(
                partial_ptr + b * parts + n,
                mask=n < parts,
                other=0.0,
                cache_modifier=".cg",  # other multiprocessors wrote it
            )
        tl.store(area_ptr + b, tl.where(flat, 1.0, tl.sum(sum_parts, 0) / (H * W)))


@triton.jit
def attend_bwd_kernel(
    grad_masked_ptr,  # [B, 1, H, W] or None
    grad_area_ptr,  # [B] or None
    image_ptr,  # [B, 1, H, W]
    cam_ptr,  # [B, h, w] normalised
    span_ptr,  # [B]
    grad_image_ptr,  # [B, 1, H, W] or None
    window_ptr,  # [B, h + 1, blocks, 2, CELLS], see `add_windows`, or None
    counter_ptr,  # [COUNTERS], for class_activation_bwd_kernel
    h: tl.constexpr,
    w: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    ROWS: tl.constexpr,
    STEPS: tl.constexpr,
    COLS: tl.constexpr,
    SLOPE: tl.constexpr,
    SIGMA: tl.constexpr,
    CELLS: tl.constexpr,
    COUNTERS: tl.constexpr,
    BLOCK_COUNTERS: tl.constexpr,
):
    """Go back over a strip of COLS columns in each program: Wy^T G Wx for the cells around it."""
    ACC: tl.constexpr = cam_ptr.dtype.element_ty
    if tl.program_id(0) == 0:
        n = tl.arange(0, BLOCK_COUNTERS)
        tl.store(counter_ptr + n, tl.zeros([BLOCK_COUNTERS], tl.int32), mask=n < COUNTERS)
    blocks: tl.constexpr = (W + COLS - 1) // COLS
    parts: tl.constexpr = (h + 1) * blocks
    b = (tl.program_id(0) // parts).to(tl.int64)
    s, block = tl.program_id(0) % parts // blocks, tl.program_id(0) % blocks
    x = block * COLS + tl.arange(0, COLS)
    e_x, slope_x = exponents(cam_ptr + b * (h * w), s, x, h, w, H, W, SLOPE, SIGMA)
    first = first_row(s, h, H)
    rows = first_row(s + 1, h, H) - first
    sum_x, rising_x = tl.zeros([COLS], ACC), tl.zeros([COLS], ACC)
    for step in range(0, STEPS):
        y = step * ROWS + tl.arange(0, ROWS)
        f_y = y.to(ACC) * (h / H)
        inside = (y < rows)[:, None] & (x < W)[None, :]
        p = (first + y)[:, None] * W + x[None, :]
        m_yx = sigmoid(e_x[None, :] + f_y[:, None] * slope_x[None, :])
        if grad_masked_ptr is not None:
            g_yx = tl.load(grad_masked_ptr + b * (H * W) + p, mask=inside, other=0.0).to(ACC)
            image_yx = tl.load(image_ptr + b * (H * W) + p, mask=inside, other=0.0).to(ACC)
            grad_yx = g_yx * image_yx
            if grad_image_ptr is not None:
                flat = tl.load(span_ptr + b) == 0
                g_yx = (g_yx * tl.where(flat, 1.0, m_yx)).to(grad_image_ptr.dtype.element_ty)
                tl.store(grad_image_ptr + b * (H * W) + p, g_yx, mask=inside)
        else:
            grad_yx = tl.zeros([ROWS, COLS], ACC)
        if grad_area_ptr is not None:
            grad_yx += tl.where(inside, tl.load(grad_area_ptr + b).to(ACC) * (1 / (H * W)), 0.0)
        grad_yx *= m_yx - m_yx * m_yx
        sum_x += tl.sum(grad_yx, 0)
        rising_x += tl.sum(grad_yx * f_y[:, None], 0)
    if window_ptr is not None:
        left, _, right_share = columns(x, w, W, ACC)
        place = left.to(ACC) + right_share
        cell = window_start(block, w, W, COLS) + tl.arange(0, CELLS)
        share_jx = tl.maximum(1 - tl.abs(place[None, :] - cell[:, None].to(ACC)), 0.0)
        out = window_ptr + tl.program_id(0).to(tl.int64) * (2 * CELLS) + tl.arange(0, CELLS)
        # Above the first row of cells all belongs to it, and so below the last.
        lower_x = first_share(s, h, H, ACC) * sum_x + rising_x
        lower_x = tl.where(s == 0, sum_x, tl.where(s == h, 0.0, lower_x))
        tl.store(out, tl.sum(share_jx * (sum_x - lower_x)[None, :], 1))
        tl.store(out + CELLS, tl.sum(share_jx * lower_x[None, :], 1))

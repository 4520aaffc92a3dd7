"""The three kernels that are `attend`'s own; `attend.py` launches them.

Shapes: B batch, K channels, C classes, N = h w the map's cells, H W the image.
"""

import triton
import triton.language as tl

from pcamx.kernels.class_activation import map_tile
from pcamx.kernels.launch import arrived_last


@triton.jit
def divide(x, y, ACC: tl.constexpr):
    """Rounded to nearest, so that the maximum of a map becomes 1 (Triton's / is approximate)."""
    if ACC == tl.float32:
        return tl.div_rn(x, y)
    else:
        return x / y


@triton.jit
def neighbours(i, SMALL: tl.constexpr, LARGE: tl.constexpr, ACC: tl.constexpr):
    """Both source cells of output row or column ``i`` and the second's share, as PyTorch's."""
    place = tl.maximum((i.to(ACC) + 0.5) * (SMALL / LARGE) - 0.5, 0.0)
    first = tl.minimum(place.to(tl.int32), SMALL - 1)
    return first, tl.minimum(first + 1, SMALL - 1), place - first.to(ACC)


@triton.jit
def mask_at(
    cam_ptr,  # [h, w] of one image
    flat,
    y0,
    y1,
    fy,
    x0,
    x1,
    fx,
    inside,
    w: tl.constexpr,
    SLOPE: tl.constexpr,
    SIGMA: tl.constexpr,
):
    """M = sigmoid(omega (A - sigma)), A sampled between four cells; ``SLOPE`` is omega log2(e)."""
    a00 = tl.load(cam_ptr + y0 * w + x0, mask=inside, other=0.0)
    a01 = tl.load(cam_ptr + y0 * w + x1, mask=inside, other=0.0)
    a10 = tl.load(cam_ptr + y1 * w + x0, mask=inside, other=0.0)
    a11 = tl.load(cam_ptr + y1 * w + x1, mask=inside, other=0.0)
    top = (1 - fx) * a00 + fx * a01
    bottom = (1 - fx) * a10 + fx * a11
    a = (1 - fy) * top + fy * bottom
    return tl.where(flat, 1.0, 1 / (1 + tl.exp2((SIGMA - a) * SLOPE)))


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
    """One program: the map of one image. The raw map waits in ``cam`` for its min and max."""
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
    partial_ptr,  # [B, parts] sums of the mask
    counter_ptr,  # [B], zeros
    area_ptr,  # [B]
    h: tl.constexpr,
    w: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    SLOPE: tl.constexpr,
    SIGMA: tl.constexpr,
    PIXELS: tl.constexpr,
    STEPS: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
):
    """One program: a run of pixels of one image; an image's last program adds up its area."""
    ACC: tl.constexpr = cam_ptr.dtype.element_ty
    b = tl.program_id(0).to(tl.int64) // PARTS
    part = tl.program_id(0) % PARTS
    image_ptr += b * (H * W)
    masked_ptr += b * (H * W)
    flat = tl.load(span_ptr + b) == 0
    sum_p = tl.zeros([PIXELS], ACC)
    for step in range(0, STEPS):
        p = (part * STEPS + step) * PIXELS + tl.arange(0, PIXELS)
        inside = p < H * W
        y0, y1, fy = neighbours(p // W, h, H, ACC)
        x0, x1, fx = neighbours(p % W, w, W, ACC)
        # fmt: off
        m_p = mask_at(cam_ptr + b * (h * w), flat, y0, y1, fy, x0, x1, fx,
                      inside, w, SLOPE, SIGMA)
        # fmt: on
        image_p = tl.load(image_ptr + p, mask=inside, other=0.0).to(ACC)
        tl.store(masked_ptr + p, (image_p * m_p).to(masked_ptr.dtype.element_ty), mask=inside)
        sum_p += tl.where(inside, m_p, 0.0)
    tl.store(partial_ptr + b * PARTS + part, tl.sum(sum_p, 0))

    if arrived_last(counter_ptr + b, PARTS):
        sum_parts = tl.zeros([BLOCK_PARTS], ACC)
        for p0 in range(0, PARTS, BLOCK_PARTS):
            parts = p0 + tl.arange(0, BLOCK_PARTS)
            sum_parts += tl.load(
                partial_ptr + b * PARTS + parts,
                mask=parts < PARTS,
                other=0.0,
                cache_modifier=".cg",  # other multiprocessors wrote it
            )
        tl.store(area_ptr + b, tl.where(flat, 1.0, tl.sum(sum_parts, 0) / (H * W)))


@triton.jit
def attend_bwd_kernel(
    grad_masked_ptr,  # [B, 1, H, W] or None
    grad_cam_ptr,  # [B, h, w] or None
    grad_area_ptr,  # [B] or None
    image_ptr,  # [B, 1, H, W]
    cam_ptr,  # [B, h, w] normalised
    span_ptr,  # [B]
    grad_image_ptr,  # [B, 1, H, W] or None
    grad_raw_ptr,  # [B, h, w] to the map before min-max, or None
    counter_ptr,  # [COUNTERS], for class_activation_bwd_kernel
    h: tl.constexpr,
    w: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    OMEGA: tl.constexpr,
    SLOPE: tl.constexpr,
    SIGMA: tl.constexpr,
    COUNTERS: tl.constexpr,
    BLOCK_COUNTERS: tl.constexpr,
    CELLS: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    ROWS_BLOCK: tl.constexpr,
    COLS_BLOCK: tl.constexpr,
):
    """One program: CELLS cells of one row of one map; it gathers Wy^T G Wx from their pixels.

    A pixel's own gradient is written by the program that holds its upper left cell.
    """
    ACC: tl.constexpr = cam_ptr.dtype.element_ty
    if tl.program_id(0) == 0:
        n = tl.arange(0, BLOCK_COUNTERS)
        tl.store(counter_ptr + n, tl.zeros([BLOCK_COUNTERS], tl.int32), mask=n < COUNTERS)
    blocks: tl.constexpr = (w + CELLS - 1) // CELLS
    b = tl.program_id(0).to(tl.int64) // (h * blocks)
    i = tl.program_id(0) // blocks % h
    j0 = tl.program_id(0) % blocks * CELLS
    cells = j0 + tl.arange(0, CELLS)
    image = b * (H * W)
    flat = tl.load(span_ptr + b) == 0
    share = tl.zeros([], ACC)
    if grad_area_ptr is not None:
        share = tl.load(grad_area_ptr + b).to(ACC) / (H * W)
    # The first pixels that can reach row i - 1 and column j0 - 1, one early for rounding.
    first_row = tl.maximum((2 * i - 1) * H // (2 * h) - 1, 0)
    first_col = tl.maximum((2 * j0 - 1) * W // (2 * w) - 1, 0) // 16 * 16
    grad_j = tl.zeros([CELLS], ACC)
    for col in range(0, COLS, COLS_BLOCK):
        x = first_col + col + tl.arange(0, COLS_BLOCK)
        x0, x1, fx = neighbours(x, w, W, ACC)
        sum_yx = tl.zeros([ROWS_BLOCK, COLS_BLOCK], ACC)
        for row in range(0, ROWS, ROWS_BLOCK):
            y = first_row + row + tl.arange(0, ROWS_BLOCK)
            y0, y1, fy = neighbours(y, h, H, ACC)
            inside = (y < H)[:, None] & (x < W)[None, :]
            # fmt: off
            m_yx = mask_at(cam_ptr + b * (h * w), flat, y0[:, None], y1[:, None], fy[:, None],
                           x0[None, :], x1[None, :], fx[None, :], inside, w, SLOPE, SIGMA)
            # fmt: on
            p = image + y[:, None] * W + x[None, :]
            grad_m_yx = tl.zeros([ROWS_BLOCK, COLS_BLOCK], ACC) + share
            if grad_masked_ptr is not None:
                g_yx = tl.load(grad_masked_ptr + p, mask=inside, other=0.0).to(ACC)
                grad_m_yx += g_yx * tl.load(image_ptr + p, mask=inside, other=0.0).to(ACC)
                if grad_image_ptr is not None:
                    own_x = (x0 >= j0) & (x0 < j0 + CELLS)
                    own = inside & (y0 == i)[:, None] & own_x[None, :]
                    g_yx = (g_yx * m_yx).to(grad_image_ptr.dtype.element_ty)
                    tl.store(grad_image_ptr + p, g_yx, mask=own)
            weight_y = tl.where(y0 == i, 1 - fy, 0.0) + tl.where(y1 == i, fy, 0.0)
            grad_yx = grad_m_yx * (m_yx * (1 - m_yx)) * weight_y[:, None]
            sum_yx += tl.where(inside, grad_yx, 0.0)
        sum_x = tl.sum(sum_yx, 0)
        weight_jx = tl.where(x0[None, :] == cells[:, None], (1 - fx)[None, :], 0.0)
        weight_jx += tl.where(x1[None, :] == cells[:, None], fx[None, :], 0.0)
        grad_j += tl.sum(weight_jx * sum_x[None, :], 1)
    if grad_raw_ptr is not None:
        n = b * (h * w) + i * w + cells
        grad_j *= OMEGA
        if grad_cam_ptr is not None:
            grad_j += tl.load(grad_cam_ptr + n, mask=cells < w, other=0.0)
        span = tl.load(span_ptr + b)
        grad_j = tl.where(flat, 0.0, grad_j / tl.where(flat, 1.0, span))
        tl.store(grad_raw_ptr + n, grad_j, mask=cells < w)

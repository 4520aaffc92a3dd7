"""A training batch out of resident canvases: gather, affine warp and standardise in one launch.

Shapes: N canvases, M lesion masks, B batch, H W the canvas. Normalised coordinates are those of
`torch.nn.functional.affine_grid`, align_corners=False: the canvas spans [-1, 1], x right, y down.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from pcamx.kernels.launch import contiguous, device_of

BLOCK_H, BLOCK_W = 8, 32
"""Pixels of one program: near in both directions, so a turned film stays in L1; two a thread,
for eight would take 160 registers."""
WARPS = 4


@triton.jit
def _pixel(base_ptr, x, y, H, W, there):
    """Value at column x, row y as float32; 0 outside."""
    inside = there & (x >= 0) & (x < W) & (y >= 0) & (y < H)
    return tl.load(base_ptr + y * W + x, mask=inside, other=0).to(tl.float32)


@triton.jit
def _bilinear(base_ptr, x, y, H, W, there):
    """Value between the pixels at column x, row y (floating point, centres at whole numbers)."""
    left, top = tl.floor(x), tl.floor(y)
    right_share, low_share = x - left, y - top
    # Far outside nothing is read, but the conversion to int32 must not overflow.
    x0 = tl.minimum(tl.maximum(left, -2.0), W + 1.0).to(tl.int32)
    y0 = tl.minimum(tl.maximum(top, -2.0), H + 1.0).to(tl.int32)
    upper = (
        _pixel(base_ptr, x0, y0, H, W, there) * (1 - right_share)
        + _pixel(base_ptr, x0 + 1, y0, H, W, there) * right_share
    )
    lower = (
        _pixel(base_ptr, x0, y0 + 1, H, W, there) * (1 - right_share)
        + _pixel(base_ptr, x0 + 1, y0 + 1, H, W, there) * right_share
    )
    return upper * (1 - low_share) + lower * low_share


@triton.jit
def batch_kernel(
    canvas_ptr,  # [N, 1, H, W] uint8
    lesion_ptr,  # [M, 1, H, W] uint8 in {0, 1}, or None
    row_ptr,  # [B]
    lesion_row_ptr,  # [B] or None
    theta_ptr,  # [B, 2, 3]
    gain_ptr,  # [B]
    image_out_ptr,  # [B, 1, H, W]
    lesion_out_ptr,  # [B, 1, H, W], not touched without lesions
    N,
    M,
    H,
    W,
    aspect,  # W / H
    mean,
    std,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """One tile of one film: B * ceil(H / BLOCK_H) * ceil(W / BLOCK_W) programs."""
    tiles_across = tl.cdiv(W, BLOCK_W)
    tiles = tiles_across * tl.cdiv(H, BLOCK_H)
    b, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    y = (tile // tiles_across * BLOCK_H + tl.arange(0, BLOCK_H))[:, None]
    x = (tile % tiles_across * BLOCK_W + tl.arange(0, BLOCK_W))[None, :]
    here = (y < H) & (x < W)

    # In pixels about the centre: with whole or half numbers the identity and flips are exact.
    middle_x, middle_y = (W - 1) * 0.5, (H - 1) * 0.5
    from_x, from_y = x - middle_x, y - middle_y
    theta = theta_ptr + b * 6
    t00, t01, t02 = tl.load(theta), tl.load(theta + 1), tl.load(theta + 2)
    t10, t11, t12 = tl.load(theta + 3), tl.load(theta + 4), tl.load(theta + 5)
    at_x = t00 * from_x + t01 * aspect * from_y + t02 * (W * 0.5) + middle_x
    at_y = tl.div_rn(t10, aspect) * from_x + t11 * from_y + t12 * (H * 0.5) + middle_y

    # Rows are 64 bits wide: all canvases together may pass 2^31 pixels, one alone may not.
    out = b.to(tl.int64) * H * W + y * W + x
    row = tl.load(row_ptr + b)
    there = (row >= 0) & (row < N)
    grey = _bilinear(canvas_ptr + row * H * W, at_x, at_y, H, W, here & there)
    grey = tl.minimum(tl.maximum(grey * tl.load(gain_ptr + b), 0.0), 255.0)
    image = tl.where(there, tl.div_rn(grey - mean, std), float("nan"))
    tl.store(image_out_ptr + out, image, mask=here)
    if lesion_ptr is not None:
        row = tl.load(lesion_row_ptr + b)
        there = (row >= 0) & (row < M)
        share = _bilinear(lesion_ptr + row * H * W, at_x, at_y, H, W, here & there)
        lesion = tl.where(there, (share >= 0.5).to(tl.float32), float("nan"))
        tl.store(lesion_out_ptr + out, lesion, mask=here)


@torch.library.custom_op("pcamx::gather_affine_normalise", mutates_args=())
def gather_affine_normalise(
    canvas_N1HW: Tensor,
    row_B: Tensor,
    theta_B23: Tensor,
    gain_B: Tensor,
    mean: float,
    std: float,
    lesion_M1HW: Tensor | None,
    lesion_row_B: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """As `reference.gather_affine_normalise`, in one launch; no such row gives NaN."""
    B, (N, _, H, W) = len(row_B), canvas_N1HW.shape
    image_B1HW, lesion_B1HW = _outputs(canvas_N1HW, row_B, lesion_M1HW)
    tiles = triton.cdiv(H, BLOCK_H) * triton.cdiv(W, BLOCK_W)
    if B * tiles == 0:
        return image_B1HW, lesion_B1HW
    with device_of(canvas_N1HW):
        batch_kernel[(B * tiles,)](
            canvas_N1HW,
            lesion_M1HW,
            row_B.contiguous(),
            contiguous(lesion_row_B),
            theta_B23.contiguous(),
            gain_B.contiguous(),
            image_B1HW,
            lesion_B1HW,
            N,
            0 if lesion_M1HW is None else len(lesion_M1HW),
            H,
            W,
            W / H,
            mean,
            std,
            BLOCK_H=BLOCK_H,
            BLOCK_W=BLOCK_W,
            num_warps=WARPS,
        )
    return image_B1HW, lesion_B1HW


@gather_affine_normalise.register_fake
def _(canvas_N1HW: Tensor, row_B: Tensor, *given: Any) -> tuple[Tensor, Tensor]:
    return _outputs(canvas_N1HW, row_B, lesion_M1HW=given[-2])


def _outputs(
    canvas_N1HW: Tensor, row_B: Tensor, lesion_M1HW: Tensor | None
) -> tuple[Tensor, Tensor]:
    image_B1HW = canvas_N1HW.new_empty(len(row_B), *canvas_N1HW.shape[1:], dtype=torch.float32)
    if lesion_M1HW is None:
        return image_B1HW, image_B1HW.new_zeros(()).expand(image_B1HW.shape)
    return image_B1HW, torch.empty_like(image_B1HW)

"""Films out of resident canvases: gather, affine warp and standardise in one launch.

Shapes: N canvases, M lesion masks, B batch, H W the canvas. Normalised coordinates are those of
`torch.nn.functional.affine_grid`, align_corners=False: the canvas spans [-1, 1], x right, y down.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from pcamx.kernels.launch import INTERPRETED, contiguous, device_of

BLOCK_H, BLOCK_W = 8, 64
"""Pixels of one program at a time: near in both directions, so a turned film stays in L1."""
STEPS = 8
"""Of so many blocks, one below the other: what belongs to a film is computed for all."""
WARPS = 4
TO_FLOAT, TO_GREY = tl.constexpr(2.0**64), tl.constexpr(2.0**85)
"""A byte's bits read as float32 are so many of 2^-149, subnormal; the one scales them to where
float32 is whole, the other, later, to greys. Neither rounds, and no byte has to be converted."""
_COMPILED = tl.constexpr(not INTERPRETED)


@triton.jit
def _to_int(whole):
    """A whole float32 as int32: the nearest there is far outside, any for NaN."""
    if _COMPILED:
        # A plain conversion is undefined beyond int32; this one is not.
        return tl.inline_asm_elementwise(
            "cvt.rzi.s32.f32 $0, $1;", "=r,f", [whole], dtype=tl.int32, is_pure=True, pack=1
        )
    else:
        return tl.minimum(tl.maximum(whole, -1e9), 1e9).to(tl.int32)


@triton.jit
def _divide(x, y, reciprocal_y):
    """x / y rounded to nearest; ``reciprocal_y`` is 1 / y rounded to nearest.

    A quotient within an ulp becomes the nearest by one step (Markstein; see Muller et
    al., Handbook of Floating-Point Arithmetic); the first step makes it so. No slow path, for
    neither is subnormal. The interpreter's fma rounds twice.
    """
    if _COMPILED:
        q = x * reciprocal_y
        q = tl.fma(tl.fma(-q, y, x), reciprocal_y, q)
        return tl.fma(tl.fma(-q, y, x), reciprocal_y, q)
    else:
        return tl.div_rn(x, y)


@triton.jit
def _pixel(pixel_ptr, inside):
    """The byte, 0 outside, as so many of 2^-149."""
    if _COMPILED:
        # Into 32 bits at once; tl.load fills 16 and clears the others with one more instruction.
        byte = tl.inline_asm_elementwise(
            "{ .reg .pred inside; setp.ne.s32 inside, $2, 0; mov.b32 $0, 0;"
            " @inside ld.global.u8 $0, [$1]; }",
            "=&r,l,r",
            [pixel_ptr.to(tl.int64), inside.to(tl.int32)],
            dtype=tl.int32,
            is_pure=True,
            pack=1,
        )
    else:
        byte = tl.load(pixel_ptr, mask=inside, other=0).to(tl.int32)
    return byte.to(tl.float32, bitcast=True)


@triton.jit
def _interpolate(upper_left, upper_right, lower_left, lower_right, x_share, y_share, scale):
    """Value between four of `_pixel`, times ``scale``, as ``x_share`` is; differences are exact."""
    upper = tl.fma(x_share, upper_right - upper_left, upper_left * scale)
    lower = tl.fma(x_share, lower_right - lower_left, lower_left * scale)
    return upper + y_share * (lower - upper)


@triton.jit
def gather_affine_normalise_kernel(
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
    mean,
    std,
    H: tl.constexpr,
    W: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Make a film's tile in each of B * ceil(H / (STEPS BLOCK_H)) * ceil(W / BLOCK_W) programs."""
    across: tl.constexpr = (W + BLOCK_W - 1) // BLOCK_W
    tiles: tl.constexpr = across * ((H + STEPS * BLOCK_H - 1) // (STEPS * BLOCK_H))
    b, tile = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles
    x = tile % across * BLOCK_W + tl.arange(0, BLOCK_W)[None, :]

    # In pixels about the centre: with whole or half numbers the identity and flips are exact.
    theta = theta_ptr + b * 6
    t00, t01, t02 = tl.load(theta), tl.load(theta + 1), tl.load(theta + 2)
    t10, t11, t12 = tl.load(theta + 3), tl.load(theta + 4), tl.load(theta + 5)
    from_x = x - (W - 1) * 0.5
    start_x, start_y = t02 * (W * 0.5) + (W - 1) * 0.5, t12 * (H * 0.5) + (H - 1) * 0.5
    along_x, along_y = t00 * from_x, t10 * (H / W) * from_x

    # Rows are 64 bits wide: all canvases together may pass 2^31 pixels, one alone may not.
    row, gain = tl.load(row_ptr + b), tl.load(gain_ptr + b) * TO_GREY
    there = (row >= 0) & (row < N)
    canvas_ptr += tl.where(there, row, 0) * (H * W)
    image_out_ptr += b * (H * W)
    mean_b = tl.where(there, mean, float("nan"))  # which image and lesion become
    reciprocal_std = tl.div_rn(1.0, std)
    missing = 0.0
    if lesion_ptr is not None:
        row = tl.load(lesion_row_ptr + b)
        there = (row >= 0) & (row < M)
        missing = tl.where(there, 0.0, float("nan"))
        lesion_ptr += tl.where(there, row, 0) * (H * W)
        lesion_out_ptr += b * (H * W)
    for step in range(0, STEPS):
        y = (tile // across * STEPS + step) * BLOCK_H + tl.arange(0, BLOCK_H)[:, None]
        from_y = y - (H - 1) * 0.5
        at_x = along_x + (t01 * (W / H) * from_y + start_x)
        at_y = along_y + (t11 * from_y + start_y)
        floor_x, floor_y = tl.floor(at_x), tl.floor(at_y)
        x_share, y_share = (at_x - floor_x) * TO_FLOAT, at_y - floor_y
        x0, y0 = _to_int(floor_x), _to_int(floor_y)
        left, right = (x0 >= 0) & (x0 < W), (x0 >= -1) & (x0 < W - 1)
        upper, lower = (y0 >= 0) & (y0 < H), (y0 >= -1) & (y0 < H - 1)
        here, at = (y < H) & (x < W), y0 * W + x0
        # Film and lesion side by side, tap by tap: so few predicates live at once.
        grey_00 = _pixel(canvas_ptr + at, upper & left)
        if lesion_ptr is not None:
            lesion_00 = _pixel(lesion_ptr + at, upper & left)
        grey_01 = _pixel(canvas_ptr + at + 1, upper & right)
        if lesion_ptr is not None:
            lesion_01 = _pixel(lesion_ptr + at + 1, upper & right)
        grey_10 = _pixel(canvas_ptr + at + W, lower & left)
        if lesion_ptr is not None:
            lesion_10 = _pixel(lesion_ptr + at + W, lower & left)
        grey_11 = _pixel(canvas_ptr + at + (W + 1), lower & right)
        if lesion_ptr is not None:
            lesion_11 = _pixel(lesion_ptr + at + (W + 1), lower & right)
        grey = _interpolate(grey_00, grey_01, grey_10, grey_11, x_share, y_share, TO_FLOAT)
        grey = tl.minimum(tl.maximum(grey * gain, 0.0), 255.0)
        image = _divide(grey - mean_b, std, reciprocal_std)
        tl.store(image_out_ptr + (y * W + x), image, mask=here)
        if lesion_ptr is not None:
            share = _interpolate(
                lesion_00, lesion_01, lesion_10, lesion_11, x_share, y_share, TO_FLOAT
            )
            lesion = tl.where(share >= 0.5 / TO_GREY, 1.0 + missing, missing)
            tl.store(lesion_out_ptr + (y * W + x), lesion, mask=here)


def _forward(
    canvas_N1HW: Tensor,
    row_B: Tensor,
    theta_B23: Tensor,
    gain_B: Tensor,
    mean: float,
    std: float,
    lesion_M1HW: Tensor | None,
    lesion_row_B: Tensor | None,
) -> tuple[Tensor, Tensor]:
    B, (N, _, H, W) = len(row_B), canvas_N1HW.shape
    image_B1HW, lesion_B1HW = _outputs(canvas_N1HW, row_B, lesion_M1HW)
    tiles = triton.cdiv(H, STEPS * BLOCK_H) * triton.cdiv(W, BLOCK_W)
    if B * tiles == 0:
        return image_B1HW, lesion_B1HW
    with device_of(canvas_N1HW):
        gather_affine_normalise_kernel[(B * tiles,)](
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
            mean,
            std,
            H=H,
            W=W,
            BLOCK_H=BLOCK_H,
            BLOCK_W=BLOCK_W,
            STEPS=STEPS,
            num_warps=WARPS,
        )
    return image_B1HW, lesion_B1HW


def _outputs(
    canvas_N1HW: Tensor, row_B: Tensor, lesion_M1HW: Tensor | None
) -> tuple[Tensor, Tensor]:
    image_B1HW = canvas_N1HW.new_empty(len(row_B), *canvas_N1HW.shape[1:], dtype=torch.float32)
    if lesion_M1HW is None:
        return image_B1HW, image_B1HW.new_zeros(()).expand(image_B1HW.shape)
    return image_B1HW, torch.empty_like(image_B1HW)


operator = torch.library.custom_op("pcamx::gather_affine_normalise", _forward, mutates_args=())
"""What a graph of torch.compile or torch.export holds."""


@operator.register_fake
def _(canvas_N1HW: Tensor, row_B: Tensor, *given: Any) -> tuple[Tensor, Tensor]:
    return _outputs(canvas_N1HW, row_B, lesion_M1HW=given[-2])


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
    """Gather as `reference.gather_affine_normalise`, in one launch; no such row gives NaN."""
    run = operator if torch.compiler.is_compiling() else _forward
    return run(canvas_N1HW, row_B, theta_B23, gain_B, mean, std, lesion_M1HW, lesion_row_B)

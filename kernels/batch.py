"""A training batch out of resident canvases: gather, affine warp and standardise in one launch.

Shapes: N canvases, M lesion masks, B batch, H W the canvas. Normalised coordinates are those of
`torch.nn.functional.affine_grid`, align_corners=False: the canvas spans [-1, 1], x right, y down.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pcamx.kernels.launch import device_of

BLOCK_H, BLOCK_W = 8, 32
"""Pixels of one program: near in both directions, so a turned film stays in L1; two a thread,
for eight would take 160 registers."""
WARPS = 4


@triton.jit  # type: ignore[untyped-decorator]
def _pixel(
    base_ptr: tl.tensor, x: tl.tensor, y: tl.tensor, H: tl.tensor, W: tl.tensor, there: tl.tensor
) -> tl.tensor:
    """Value at column x, row y as float32; 0 outside."""
    inside = there & (x >= 0) & (x < W) & (y >= 0) & (y < H)
    return tl.load(base_ptr + y * W + x, mask=inside, other=0).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def _bilinear(
    base_ptr: tl.tensor, x: tl.tensor, y: tl.tensor, H: tl.tensor, W: tl.tensor, there: tl.tensor
) -> tl.tensor:
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


@triton.jit  # type: ignore[untyped-decorator]
def batch_kernel(
    canvas_ptr: tl.tensor,
    lesion_ptr: tl.tensor,
    row_ptr: tl.tensor,
    lesion_row_ptr: tl.tensor,
    theta_ptr: tl.tensor,
    gain_ptr: tl.tensor,
    image_out_ptr: tl.tensor,
    lesion_out_ptr: tl.tensor,
    N: tl.tensor,
    M: tl.tensor,
    H: tl.tensor,
    W: tl.tensor,
    aspect: tl.tensor,
    mean: tl.tensor,
    std: tl.tensor,
    LESION: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
) -> None:
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
    tl.store(image_out_ptr + out, image.to(image_out_ptr.dtype.element_ty), mask=here)
    if LESION:
        row = tl.load(lesion_row_ptr + b)
        there = (row >= 0) & (row < M)
        share = _bilinear(lesion_ptr + row * H * W, at_x, at_y, H, W, here & there)
        lesion = tl.where(there, (share >= 0.5).to(tl.float32), float("nan"))
        tl.store(lesion_out_ptr + out, lesion, mask=here)


@torch.no_grad()
def gather_affine_normalise(
    canvas_N1HW: Tensor,
    row_B: Tensor,
    theta_B23: Tensor,
    gain_B: Tensor,
    mean: float,
    std: float,
    *,
    lesion_M1HW: Tensor | None = None,
    lesion_row_B: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Films ``row_B`` of the canvases, warped by theta, times gain, standardised; lesions alike.

    As `pcamx.data.augment.augment` on the selected rows: bilinear, black outside the film; grey
    times gain is clipped to [0, 255], then (grey - mean) / std; a lesion's share is 1 from 1/2
    on. Identity and mirror image are exact. ``theta_B23`` takes a point of the output to the
    point of the canvas that it shows.

    Canvases and masks are uint8 and contiguous, masks in {0, 1}; rows are int64, theta and gain
    float32, all on one device; mean and std in grey levels. A row that does not exist comes out
    as NaN: the device is not asked.

    Returns image_B1HW in ``dtype`` (float32 or bfloat16) and lesion_B1HW float32 in {0, 1};
    without masks the lesions are zeros that share one element, not to be written into. Carries
    no gradient. Raises ValueError for shapes, dtypes, layouts or devices that do not fit.
    """
    _check_planes(canvas_N1HW, "canvas", row_B, "row")
    if lesion_M1HW is not None and lesion_row_B is not None:
        _check_planes(lesion_M1HW, "lesion", lesion_row_B, "lesion_row")
    _check_fit(canvas_N1HW, row_B, theta_B23, gain_B, lesion_M1HW, lesion_row_B)
    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"dtype {dtype}: expected float32 or bfloat16")
    if not std > 0:
        raise ValueError(f"std {std}: expected a positive number of grey levels")

    B, (N, _, H, W) = len(row_B), canvas_N1HW.shape
    image_B1HW = canvas_N1HW.new_empty((B, 1, H, W), dtype=dtype)
    lesion_B1HW = (
        canvas_N1HW.new_zeros((), dtype=torch.float32)
        if lesion_M1HW is None
        else torch.empty_like(image_B1HW, dtype=torch.float32)
    )
    tiles = triton.cdiv(H, BLOCK_H) * triton.cdiv(W, BLOCK_W)
    if B * tiles == 0:
        return image_B1HW, lesion_B1HW.expand(image_B1HW.shape)
    with device_of(canvas_N1HW):
        batch_kernel[(B * tiles,)](
            canvas_N1HW,
            canvas_N1HW if lesion_M1HW is None else lesion_M1HW,
            row_B.contiguous(),
            row_B if lesion_row_B is None else lesion_row_B.contiguous(),
            theta_B23.contiguous(),
            gain_B.contiguous(),
            image_B1HW,
            lesion_B1HW,
            N,
            0 if lesion_M1HW is None else len(lesion_M1HW),
            H,
            W,
            W / H,
            float(mean),
            float(std),
            LESION=lesion_M1HW is not None,
            BLOCK_H=BLOCK_H,
            BLOCK_W=BLOCK_W,
            num_warps=WARPS,
        )
    return image_B1HW, lesion_B1HW.expand(image_B1HW.shape)


def _check_planes(planes: Tensor, name: str, row_B: Tensor, row: str) -> None:
    """Raise ValueError unless ``planes`` are uint8 [*, 1, H, W] and the rows int64 [B]."""
    if planes.dim() != 4 or planes.shape[1] != 1 or planes.dtype != torch.uint8:
        raise ValueError(
            f"expected {name} uint8 [*, 1, H, W], got {planes.dtype} {list(planes.shape)}"
        )
    if not planes.is_contiguous():
        raise ValueError(f"expected {name} contiguous, got strides {planes.stride()}")
    if planes.shape[2] * planes.shape[3] >= 2**31:
        raise ValueError(f"expected {name} under 2^31 pixels each, got {list(planes.shape)}")
    if row_B.dim() != 1 or row_B.dtype != torch.int64:
        raise ValueError(f"expected {row} int64 [B], got {row_B.dtype} {list(row_B.shape)}")


def _check_fit(
    canvas_N1HW: Tensor,
    row_B: Tensor,
    theta_B23: Tensor,
    gain_B: Tensor,
    lesion_M1HW: Tensor | None,
    lesion_row_B: Tensor | None,
) -> None:
    """Raise ValueError unless all are of one batch, canvas and device."""
    B = len(row_B)
    for name, tensor, shape in (("theta", theta_B23, [B, 2, 3]), ("gain", gain_B, [B])):
        if list(tensor.shape) != shape or tensor.dtype != torch.float32:
            raise ValueError(
                f"expected {name} float32 {shape}, got {tensor.dtype} {list(tensor.shape)}"
            )
    if (lesion_M1HW is None) != (lesion_row_B is None):
        raise ValueError("lesion_M1HW and lesion_row_B go together; got only one of them")
    if lesion_M1HW is not None and lesion_M1HW.shape[1:] != canvas_N1HW.shape[1:]:
        raise ValueError(f"lesions {list(lesion_M1HW.shape)} on canvases {list(canvas_N1HW.shape)}")
    if lesion_row_B is not None and len(lesion_row_B) != B:
        raise ValueError(f"expected lesion_row [{B}], got {list(lesion_row_B.shape)}")
    given = (row_B, theta_B23, gain_B, lesion_M1HW, lesion_row_B)
    if any(tensor is not None and tensor.device != canvas_N1HW.device for tensor in given):
        raise ValueError(f"expected all tensors on the canvases' device, {canvas_N1HW.device}")

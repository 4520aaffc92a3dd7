"""How an image lies over its map: strips of rows between two rows of cells, columns between two.

Strip s of h + 1 holds the pixels whose centres lie between the rows of cells s - 1 and s; above the
first and below the last row the map goes on as it ends. Within a strip the upsampled map is
A(y, x) = (1 - f(y)) C[s-1](x) + f(y) C[s](x), with C[i] row i of the map interpolated along x. What
belongs to a column is thus computed once a strip, and a pixel costs one multiply-add more.

A program takes one strip of COLS columns. Shapes: h w the map, H W the image.
"""

import triton
import triton.language as tl

from pcamx.kernels.launch import INTERPRETED, power_of_two

COLS = 64  # a warp's: 128 bytes of bfloat16 in a row
ROWS = 16  # of a strip at once: 32 pixels a thread, no spills
_COMPILED = tl.constexpr(not INTERPRETED)


def tiling(h: int, w: int, H: int, W: int) -> dict[str, int]:
    """Return constants of the kernels that go by strips: sizes, rows at once and how often."""
    most = H // h + (H % h > 0)  # rows of a strip
    rows = min(ROWS, power_of_two(most))
    return {
        **{"h": h, "w": w, "H": H, "W": W},
        **{"ROWS": rows, "STEPS": -(-most // rows), "COLS": COLS},
    }


def strips(h: int, W: int) -> int:
    """Count the programs that an image takes."""
    return (h + 1) * -(-W // COLS)


def window(w: int, W: int) -> int:
    """Return the cells, a power of two, that the columns of any program lie between."""
    return power_of_two(min((COLS - 1) * w // W + 3, w))


@triton.jit
def columns(x, w: tl.constexpr, W: tl.constexpr, ACC: tl.constexpr):
    """Return left and right cell of columns ``x`` and the right one's share; whole, so exact."""
    place = tl.minimum(tl.maximum((2 * x + 1) * w - W, 0), (w - 1) * 2 * W)
    left = tl.minimum(place // (2 * W), max(w - 2, 0))
    share = (place - left * (2 * W)).to(ACC) * (1 / (2 * W))
    return left, tl.minimum(left + 1, w - 1), share


@triton.jit
def first_row(s, h: tl.constexpr, H: tl.constexpr):
    """Return the first row of pixels of strip ``s``; H for s = h + 1."""
    return tl.where(s > h, H, tl.maximum((H * (2 * s - 1) + h - 1) // (2 * h), 0))


@triton.jit
def first_share(s, h: tl.constexpr, H: tl.constexpr, ACC: tl.constexpr):
    """Return the share f of cell row ``s`` in the first pixel row of strip s; then h / H more."""
    place = (2 * first_row(s, h, H) + 1) * h - H - (s - 1) * (2 * H)
    return place.to(ACC) * (1 / (2 * H))


@triton.jit
def exponents(
    cam_ptr,  # [h, w] of one image
    s,
    x,
    h: tl.constexpr,
    w: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    SLOPE: tl.constexpr,
    SIGMA: tl.constexpr,
):
    """Return (sigma - A(y, x)) omega log2(e) in strip ``s``'s first row y; what f adds to it."""
    ACC: tl.constexpr = cam_ptr.dtype.element_ty
    left, right, share = columns(x, w, W, ACC)
    upper_ptr = cam_ptr + tl.maximum(s - 1, 0) * w
    lower_ptr = cam_ptr + tl.minimum(s, h - 1) * w
    upper = (1 - share) * tl.load(upper_ptr + left) + share * tl.load(upper_ptr + right)
    lower = (1 - share) * tl.load(lower_ptr + left) + share * tl.load(lower_ptr + right)
    first, slope = (SIGMA - upper) * SLOPE, (upper - lower) * SLOPE
    return first + first_share(s, h, H, ACC) * slope, slope


@triton.jit
def sigmoid(exponent):
    """Return 1 / (1 + 2^exponent), in three instructions of a GPU, each within an ulp or two."""
    if _COMPILED and exponent.dtype == tl.float32:
        return tl.inline_asm_elementwise(
            """{
            .reg .f32 power;
            ex2.approx.ftz.f32 power, $1;
            add.f32 power, power, 0f3F800000;
            rcp.approx.ftz.f32 $0, power;
            }""",
            "=f,f",
            [exponent],
            dtype=tl.float32,
            is_pure=True,
            pack=1,
        )
    else:
        return 1 / (1 + tl.exp2(exponent))


@triton.jit
def window_start(block, w: tl.constexpr, W: tl.constexpr, COLS: tl.constexpr):
    """Return the left cell of the first column of a block of COLS columns."""
    return tl.maximum((2 * block * COLS + 1) * w - W, 0) // (2 * W)


@triton.jit
def add_windows(
    window_ptr,  # [h + 1, blocks, 2, CELLS] of one image, as attend_bwd_kernel writes it
    n,  # cells
    h: tl.constexpr,
    w: tl.constexpr,
    W: tl.constexpr,
    COLS: tl.constexpr,
    CELLS: tl.constexpr,
):
    """Sum over the strips' windows at cells ``n``, each in the same order every time."""
    blocks: tl.constexpr = (W + COLS - 1) // COLS
    i, j = n // w, n % w
    # Columns that reach cell j lie less than W / w from its own place.
    first = tl.maximum((2 * j - 1) * W // (2 * w), 0) // COLS
    sum_n = tl.zeros(n.shape, window_ptr.dtype.element_ty)
    for k in tl.static_range(0, min(2 * W // w // COLS + 2, blocks)):
        block = first + k
        cell = j - window_start(block, w, W, COLS)
        inside = (n < h * w) & (block < blocks) & (cell >= 0) & (cell < CELLS)
        # Of strip i its lower row of cells, and of the strip below its upper one.
        lower_ptr = window_ptr + (i * blocks + block) * (2 * CELLS) + CELLS + cell
        sum_n += tl.load(lower_ptr, mask=inside, other=0.0)
        upper_ptr = lower_ptr + (blocks * 2 * CELLS - CELLS)
        sum_n += tl.load(upper_ptr, mask=inside, other=0.0)
    return sum_n

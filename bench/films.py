"""The training batch's case: films and lesion masks out of resident canvases.

Shapes: B batch, N canvases and as many lesion masks, H W the image.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bench import rivals, roofline
from bench.case import (
    COMPILED,
    EAGER,
    OURS,
    Case,
    Impl,
    Size,
    Tensors,
    compiled,
    name_of,
    shape_of,
    subject,
    working_dtype,
)
from pcamx.config import Augment
from pcamx.data.augment import Warp, augment, draw

MEAN, STD = 51.3, 47.7  # grey levels


def training_batch_case(size: Size, device: torch.device) -> Case:
    """A batch of films and lesion masks out of twice as many uint8 canvases, at least 64."""
    N, dtype = max(64, 2 * size.batch), working_dtype(device)
    generator = torch.Generator(device).manual_seed(2)
    canvas_N1HW = (255 * _smooth(N, size, generator)).to(torch.uint8)
    lesion_N1HW = (_smooth(N, size, generator) > 0.7).to(torch.uint8)
    row_B = torch.randint(N, (size.batch,), generator=generator, device=device)
    warp = draw(Augment(), size.batch, seed=2, epoch=0, step=0)
    planes = canvas_N1HW, lesion_N1HW, row_B
    theta_B23, gain_B = warp.theta_B23.to(device), warp.gain_B.to(device)
    written = partial(rivals.training_batch, mean=MEAN, std=STD, dtype=dtype)
    functions: dict[str, Callable[..., Tensors]] = {
        subject(device): partial(_kernel_batch, dtype=dtype)
        if subject(device) == OURS
        else partial(_reference_batch, warp=warp),
        EAGER: written,
        COMPILED: compiled(written),
    }
    return Case(
        name=name_of("training batch", size, device),
        size=size,
        subject=subject(device),
        impls={
            name: Impl(partial(function, *planes, theta_B23, gain_B))
            for name, function in functions.items()
        },
        outputs=("image", "lesion"),
        truth=lambda: rivals.training_batch(
            *planes, theta_B23.double(), gain_B.double(), MEAN, STD, torch.float64
        ),
        bytes_moved=roofline.training_batch_bytes(shape_of(size), dtype.itemsize),
        inputs=(*planes, theta_B23, gain_B),
    )


def _kernel_batch(
    canvas_N1HW: Tensor,
    lesion_N1HW: Tensor,
    row_B: Tensor,
    theta_B23: Tensor,
    gain_B: Tensor,
    *,
    dtype: torch.dtype,
) -> Tensors:
    from pcamx.kernels.batch import gather_affine_normalise

    return gather_affine_normalise(
        canvas_N1HW,
        row_B,
        theta_B23,
        gain_B,
        MEAN,
        STD,
        lesion_M1HW=lesion_N1HW,
        lesion_row_B=row_B,
        dtype=dtype,
    )


def _reference_batch(
    canvas_N1HW: Tensor, lesion_N1HW: Tensor, row_B: Tensor, *_: Tensor, warp: Warp
) -> Tensors:
    return augment(canvas_N1HW[row_B], lesion_N1HW[row_B], warp, MEAN, STD)


def _smooth(count: int, size: Size, generator: torch.Generator) -> Tensor:
    """Films without noise, in [0, 1]: between pixels there is something to interpolate."""
    coarse = torch.rand(count, 1, 16, 16, generator=generator, device=generator.device)
    return F.interpolate(coarse, size=(size.pixels, size.pixels), mode="bilinear")

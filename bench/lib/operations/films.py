"""The case of `gather_affine_normalise`: films and lesion masks out of resident canvases.

Shapes: B batch, N canvases and as many lesion masks, H W the image.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.lib.operations import rivals, roofline
from bench.lib.operations.case import (
    COMPILED,
    EAGER,
    Case,
    Impl,
    Size,
    Tensors,
    compiled,
    name_of,
    ours,
    shape_of,
    subject,
)
from pcamx import ops
from pcamx.config import Augment
from pcamx.data.feed.augment import draw

MEAN, STD = 51.3, 47.7  # grey levels


def gather_affine_normalise_case(size: Size, device: torch.device) -> Case:
    """Return a batch of films and masks out of twice as many uint8 canvases, at least 64."""
    N = max(64, 2 * size.batch)
    generator = torch.Generator(device).manual_seed(2)
    canvas_N1HW = (255 * _smooth(N, size, generator)).to(torch.uint8)
    lesion_N1HW = (_smooth(N, size, generator) > 0.7).to(torch.uint8)
    row_B = torch.randint(N, (size.batch,), generator=generator, device=device)
    warp = draw(Augment(), size.batch, seed=2, epoch=0, step=0)
    theta_B23, gain_B = (t.to(device) for t in warp)
    operation = partial(ops.gather_affine_normalise, lesion_M1HW=lesion_N1HW, lesion_row_B=row_B)
    written = partial(rivals.gather_affine_normalise, lesion_M1HW=lesion_N1HW)
    functions: dict[str, Callable[..., Tensors]] = {
        **ours(operation, device),
        EAGER: written,
        COMPILED: compiled(written),
    }
    return Case(
        name=name_of("gather_affine_normalise", size, torch.float32),
        size=size,
        subject=subject(device),
        impls={
            name: Impl(partial(function, canvas_N1HW, row_B, theta_B23, gain_B, MEAN, STD))
            for name, function in functions.items()
        },
        outputs=("image", "lesion"),
        truth=lambda: written(canvas_N1HW, row_B, theta_B23.double(), gain_B.double(), MEAN, STD),
        bytes_moved=roofline.gather_affine_normalise_bytes(shape_of(size)),
        inputs=(canvas_N1HW, lesion_N1HW, row_B, theta_B23, gain_B),
    )


def _smooth(count: int, size: Size, generator: torch.Generator) -> Tensor:
    """Films without noise, in [0, 1]: between pixels there is something to interpolate."""
    coarse = torch.rand(count, 1, 16, 16, generator=generator, device=generator.device)
    return F.interpolate(coarse, size=(size.pixels, size.pixels), mode="bilinear")

"""A film's lesion mask on the canvas. Shapes: H W the film, on the canvas the canvas."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import max_pool2d

from pcamx.data.canvas.placement import fit, on_film
from pcamx.data.store import Film
from pcamx.errors import PcamxError


def lesion_canvas(mask_file: Path, film: Film, canvas: int) -> Tensor:
    """Read an upright mask of the film's own size and lay it on the canvas as the decoder does.

    Returns what `lay_lesion` does.

    Raises PcamxError if the file cannot be read or has another size than the film.
    """
    try:
        with Image.open(mask_file) as image:
            mask = np.asarray(image.convert("L")) >= 128
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises each of them
        raise PcamxError(
            f"{mask_file}: not a readable mask ({error}); run pcamx prepare again"
        ) from None
    if mask.shape != (film.height, film.width):
        raise PcamxError(
            f"{mask_file}: the mask has {mask.shape[1]} x {mask.shape[0]} pixels, the film "
            f"{film.path} has {film.width} x {film.height}; run pcamx prepare again"
        )
    return lay_lesion(mask, canvas)


def lay_lesion(mask_HW: NDArray[np.bool_], canvas: int) -> Tensor:
    """Lay a film's mask, of its own size, on the canvas.

    Returns uint8 [1, canvas, canvas] in {0, 1}: a pixel is lesion when at least half of it is
    covered. A connected lesion too thin for that keeps the pixels that it covers at least half
    as well as its best one, so none is lost in a reduction.
    """
    place = fit(mask_HW.shape[1], mask_HW.shape[0], canvas)
    # BOX in float32 is the exact share of each canvas pixel that the mask covers.
    cover = Image.fromarray(mask_HW.astype(np.float32)).resize(
        (place.width, place.height), Image.Resampling.BOX
    )
    cover_1HW = torch.zeros(1, canvas, canvas)
    on_film(cover_1HW[0], place).copy_(torch.from_numpy(np.array(cover)))
    return _threshold(cover_1HW).to(torch.uint8)


def _threshold(cover_1HW: Tensor) -> Tensor:
    """Bool mask of coverage >= 1/2, and of the best part of each lesion that never reaches it."""
    keep = cover_1HW >= 0.5
    support = cover_1HW > 0
    rest = support & ~_flood(keep, support)
    while rest.any():
        best = (cover_1HW * rest).max()
        lesion = _flood(rest & (cover_1HW == best), rest)
        keep |= lesion & (cover_1HW >= best / 2)
        rest &= ~lesion
    return keep


def _flood(seed_1HW: Tensor, within_1HW: Tensor) -> Tensor:
    """All pixels of ``within`` that touch ``seed`` by a chain of neighbours (8 a pixel)."""
    while True:
        grown = (max_pool2d(seed_1HW.float(), 3, stride=1, padding=1) > 0) & within_1HW
        if torch.equal(grown, seed_1HW):
            return grown
        seed_1HW = grown

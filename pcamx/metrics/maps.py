"""What every figure of a map starts from: checked input, min-max, pixels counted by level.

Shapes: B films, H W the canvas. A map may have any scale and any floating dtype; a lesion
is where its mask is at least 0.5. Figures are float64, on the map's device, and defined only for
films with a lesion: an empty lesion raises ValueError, as does a map that holds NaN or infinity,
or shapes that differ.

A map is flat when its range is within the rounding of its dtype (4 eps of its largest magnitude):
bilinear upsampling of a constant is constant only up to that. A flat map says nothing about where,
so it is all ones after min-max, as in the mask of stage 2, and scores the lesion's share of the
area in ``pointing``, ``energy`` and ``relevance_rank``: what a blind guess gets.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Range(NamedTuple):
    """Each map's least and greatest value, and whether it is flat."""

    low_B11: Tensor
    high_B11: Tensor
    flat_B11: Tensor


def value_range(map_BHW: Tensor) -> Range:
    """Check maps and find their range."""
    if map_BHW.ndim != 3 or not map_BHW.is_floating_point():
        raise ValueError(
            f"a map must be [B, H, W] and floating, not {list(map_BHW.shape)} {map_BHW.dtype}"
        )
    low_B11 = map_BHW.amin(dim=(1, 2), keepdim=True)
    high_B11 = map_BHW.amax(dim=(1, 2), keepdim=True)
    if not (low_B11.isfinite() & high_B11.isfinite()).all():  # both carry a NaN through
        raise ValueError("a map holds NaN or infinity")
    low, high = low_B11.double(), high_B11.double()
    rounding = 4 * torch.finfo(map_BHW.dtype).eps * torch.maximum(low.abs(), high.abs())
    return Range(low_B11, high_B11, high - low <= rounding)


def lesion_pixels(lesion_BHW: Tensor, map_BHW: Tensor) -> Tensor:
    """Return bool [B, H, W] of the lesions that belong to ``map_BHW``."""
    if lesion_BHW.shape != map_BHW.shape:  # else [B, 1, H, W] would broadcast to B x B films
        raise ValueError(
            f"lesions {list(lesion_BHW.shape)} do not match maps {list(map_BHW.shape)}"
        )
    inside_BHW = lesion_BHW >= 0.5
    if not inside_BHW.any(dim=2).any(dim=1).all():
        raise ValueError("a lesion is empty: only marked films can be measured")
    return inside_BHW


def share_inside(weight_BHW: Tensor, inside_BHW: Tensor) -> Tensor:
    """Return the share of each film's weights that lies inside: [B]."""
    total_B = weight_BHW.sum(dim=(1, 2), dtype=torch.float64)
    return (weight_BHW * inside_BHW).sum(dim=(1, 2), dtype=torch.float64) / total_B


def minmax(map_BHW: Tensor) -> Tensor:
    """Scale each map to [0, 1] by its own minimum and maximum; a flat map becomes all ones.

    Returns float64 [B, H, W], so that a level such as 7/10 meets the threshold 0.7 exactly.
    """
    low_B11, high_B11, flat_B11 = value_range(map_BHW)
    low, span = low_B11.double(), high_B11.double() - low_B11.double()
    scaled_BHW = (map_BHW.double() - low) / span.masked_fill(flat_B11, 1)
    return scaled_BHW.masked_fill(flat_B11, 1)


def count_pixels(bin_BHW: Tensor, inside_BHW: Tensor, bins: int) -> Tensor:
    """Count the pixels outside and inside the lesion in each of the bins 0 ... ``bins`` - 1.

    ``bin_BHW`` holds integers of any dtype; int64 [B, 2, bins], outside first.
    """
    films = len(bin_BHW)
    row_B11 = torch.arange(films, dtype=torch.int32, device=bin_BHW.device)[:, None, None]
    cell_BHW = (row_B11 * 2 + inside_BHW) * bins + bin_BHW
    return torch.bincount(cell_BHW.flatten(), minlength=films * 2 * bins).view(films, 2, bins)


def reaching(count_BX: Tensor) -> Tensor:
    """Turn pixels in each bin into pixels in it and all above it."""
    return count_BX.flip(-1).cumsum(-1).flip(-1)

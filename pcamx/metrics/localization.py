"""Where a map looks, measured film by film against the marked lesion (see maps.py).

Shapes: B films, H W the canvas, K the most lesion pixels of a film.
"""

import torch
from torch import Tensor

from pcamx.metrics.maps import lesion_pixels, minmax, share_inside, value_range

SIZES = {"small": (0.0, 0.003), "medium": (0.003, 0.01), "large": (0.01, 1.1)}
"""Slices of lesions by their share of the canvas: from the first number on, below the second."""


def pointing(map_BHW: Tensor, lesion_BHW: Tensor) -> Tensor:
    """Play the pointing game: does the map's maximum lie in the lesion? [B] in [0, 1].

    Without tolerance around the lesion, as CheXlocalize's hit rate (Zhang et al., IJCV 2018, allow
    15 px). Of several equal maxima, the share that lies in the lesion: the hit rate of a random
    pick. CheXlocalize takes the first in reading order.
    """
    _, high_B11, flat_B11 = value_range(map_BHW)
    peak_BHW = (map_BHW == high_B11) | flat_B11
    return share_inside(peak_BHW, lesion_pixels(lesion_BHW, map_BHW))


def energy(map_BHW: Tensor, lesion_BHW: Tensor) -> Tensor:
    """Return the share of the min-max normalised map's sum that lies in the lesion: [B] in [0, 1].

    The energy-based pointing game (Score-CAM) or relevance mass accuracy (Arras et al., 2022).
    Subtracting the minimum favours maps that are even outside the lesion, so compare only figures
    that do the same.
    """
    return share_inside(minmax(map_BHW), lesion_pixels(lesion_BHW, map_BHW))


def relevance_rank(map_BHW: Tensor, lesion_BHW: Tensor) -> Tensor:
    """Return the relevance rank accuracy (Arras et al., 2022): [B] in [0, 1].

    Of a map's K highest pixels, the share in the lesion, where K is the lesion's own number of
    pixels. Pixels that tie for the last of the K places count by their share in the lesion.
    """
    scaled_BHW, inside_BHW = minmax(map_BHW), lesion_pixels(lesion_BHW, map_BHW)
    if len(map_BHW) == 0:
        return scaled_BHW.new_zeros(0)
    area_B = inside_BHW.sum(dim=(1, 2))
    top_BK = scaled_BHW.flatten(1).topk(int(area_B.max()), dim=1).values
    last_B11 = top_BK.gather(1, area_B[:, None] - 1)[:, :, None]
    above_BHW, tied_BHW = scaled_BHW > last_B11, scaled_BHW == last_B11
    places_B = area_B - above_BHW.sum(dim=(1, 2))
    inside_above_B = (above_BHW & inside_BHW).sum(dim=(1, 2))
    return (inside_above_B + places_B * share_inside(tied_BHW, inside_BHW)) / area_B


def lesion_share(lesion_BHW: Tensor) -> Tensor:
    """Return the lesion's share of the canvas: float64 [B]."""
    return (lesion_BHW >= 0.5).double().mean(dim=(1, 2))


def in_slice(share_B: Tensor, size: str) -> Tensor:
    """Tell which lesions are of that size, a key of `SIZES`: bool [B]."""
    low, high = SIZES[size]
    return (share_B >= low) & (share_B < high)


def centre_gaussian(size: int, sigma_share: float = 0.25) -> Tensor:
    """Return the map that looks at the middle of every film: float32 [H, W], H = W = ``size``.

    An isotropic Gaussian about the canvas's centre with a standard deviation of ``sigma_share``
    of its side; its maximum is 1 on an odd canvas.
    """
    offset_H = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    square_HW = offset_H[:, None] ** 2 + offset_H**2
    return torch.exp(-square_HW / (2 * (sigma_share * size) ** 2)).float()

"""Where a map looks, measured film by film against the marked lesion.

Shapes: B films, H W the canvas, T thresholds. A map may have any scale and any floating dtype; a
lesion is where its mask is at least 0.5. Every figure is float64, on the map's device, and
defined only for films with a lesion: an empty lesion raises ValueError, as does a map that holds
NaN or infinity, or shapes that differ.

A map is flat when its range is within the rounding of its dtype (4 eps of its largest magnitude):
bilinear upsampling of a constant is constant only up to that. A flat map says nothing about where,
so it is all ones after min-max, as in the mask of stage 2, and scores the lesion's share of the
area in ``pointing`` and ``energy``: what a blind guess gets.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

THRESHOLDS = tuple(step / 20 for step in range(1, 20))
"""0.05, 0.10 ... 0.95 of the min-max normalised map."""


class _Range(NamedTuple):
    low_B11: Tensor
    high_B11: Tensor
    flat_B11: Tensor


def _range(map_BHW: Tensor) -> _Range:
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
    return _Range(low_B11, high_B11, high - low <= rounding)


def _lesion(lesion_BHW: Tensor, map_BHW: Tensor) -> Tensor:
    if lesion_BHW.shape != map_BHW.shape:  # else [B, 1, H, W] would broadcast to B x B films
        raise ValueError(
            f"lesions {list(lesion_BHW.shape)} do not match maps {list(map_BHW.shape)}"
        )
    inside_BHW = lesion_BHW >= 0.5
    if not inside_BHW.any(dim=2).any(dim=1).all():
        raise ValueError("a lesion is empty: only marked films can be measured")
    return inside_BHW


def _share_inside(weight_BHW: Tensor, inside_BHW: Tensor) -> Tensor:
    total_B = weight_BHW.sum(dim=(1, 2), dtype=torch.float64)
    return (weight_BHW * inside_BHW).sum(dim=(1, 2), dtype=torch.float64) / total_B


def minmax(map_BHW: Tensor) -> Tensor:
    """Each map scaled to [0, 1] by its own minimum and maximum; a flat map becomes all ones.

    Returns float64 [B, H, W], so that a level such as 7/10 meets the threshold 0.7 exactly.
    """
    low_B11, high_B11, flat_B11 = _range(map_BHW)
    low, span = low_B11.double(), high_B11.double() - low_B11.double()
    scaled_BHW = (map_BHW.double() - low) / span.masked_fill(flat_B11, 1)
    return scaled_BHW.masked_fill(flat_B11, 1)


def pointing(map_BHW: Tensor, lesion_BHW: Tensor) -> Tensor:
    """Pointing game: does the map's maximum lie in the lesion? [B] in [0, 1].

    Without tolerance around the lesion (as CheXlocalize; Zhang et al., IJCV 2018, allow 15 px).
    Of several equal maxima, the share that lies in the lesion: the hit rate of a random pick.
    """
    _, high_B11, flat_B11 = _range(map_BHW)
    peak_BHW = (map_BHW == high_B11) | flat_B11
    return _share_inside(peak_BHW, _lesion(lesion_BHW, map_BHW))


def energy(map_BHW: Tensor, lesion_BHW: Tensor) -> Tensor:
    """Share of the min-max normalised map's sum that lies in the lesion: [B] in [0, 1].

    The energy-based pointing game (Score-CAM) or relevance mass accuracy (Arras et al., 2022).
    Subtracting the minimum favours maps that are even outside the lesion, so compare only figures
    that do the same.
    """
    return _share_inside(minmax(map_BHW), _lesion(lesion_BHW, map_BHW))


def iou_curve(
    map_BHW: Tensor, lesion_BHW: Tensor, thresholds_T: Sequence[float] = THRESHOLDS
) -> Tensor:
    """Intersection over union of {normalised map >= threshold} and the lesion: [B, T].

    Thresholds must ascend (ValueError). One histogram per film, inside and outside the lesion, so
    memory does not grow with B x T x H x W.
    """
    edges_T = torch.tensor(thresholds_T, dtype=torch.float64, device=map_BHW.device)
    if edges_T.ndim != 1 or len(edges_T) == 0 or not (edges_T.diff() > 0).all():
        raise ValueError("thresholds must be a list of ascending numbers")
    scaled_BHW, inside_BHW = minmax(map_BHW), _lesion(lesion_BHW, map_BHW)
    films, bins = len(map_BHW), len(edges_T) + 1
    # bin t holds the pixels that reach exactly t of the thresholds
    bin_BHW = torch.bucketize(scaled_BHW, edges_T, right=True, out_int32=True)
    row_B11 = torch.arange(films, dtype=torch.int32, device=map_BHW.device)[:, None, None]
    cell_BHW = (row_B11 * 2 + inside_BHW) * bins + bin_BHW
    count_B2T = torch.bincount(cell_BHW.flatten(), minlength=films * 2 * bins).view(films, 2, bins)
    reached_B2T = count_B2T.flip(2).cumsum(2).flip(2)[:, :, 1:]
    outside_BT, hit_BT = reached_B2T.double().unbind(1)
    lesion_B1 = inside_BHW.sum(dim=(1, 2))[:, None]
    return hit_BT / (outside_BT + lesion_B1)


def tune_threshold(iou_BT: Tensor, thresholds_T: Sequence[float] = THRESHOLDS) -> float:
    """The threshold with the highest mean IoU, the lowest of several equal ones.

    ``iou_BT`` must come from training films: a threshold tuned on the films it is judged on
    flatters the map (Choe et al., CVPR 2020). ValueError if there is no film or a NaN.
    """
    if iou_BT.ndim != 2 or len(iou_BT) == 0 or iou_BT.shape[1] != len(thresholds_T):
        raise ValueError(f"IoU must be [B >= 1, T = {len(thresholds_T)}], not {list(iou_BT.shape)}")
    if iou_BT.isnan().any():
        raise ValueError("an IoU is NaN")
    mean_T = iou_BT.double().mean(dim=0).cpu()
    tied_T = mean_T >= mean_T.max() - 1e-12  # equal columns may differ by the order of summing
    return float(thresholds_T[int(tied_T.nonzero()[0])])


def centre_gaussian(size: int, sigma_share: float = 0.25) -> Tensor:
    """The baseline that looks at the middle of every film: float32 [H, W], H = W = ``size``.

    An isotropic Gaussian about the canvas's centre with a standard deviation of ``sigma_share``
    of its side; its maximum is 1 on an odd canvas.
    """
    offset_H = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    square_HW = offset_H[:, None] ** 2 + offset_H**2
    return torch.exp(-square_HW / (2 * (sigma_share * size) ** 2)).float()

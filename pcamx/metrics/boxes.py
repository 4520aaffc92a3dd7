"""MaxBoxAcc and MaxBoxAccV2 (Choe et al., CVPR 2020 and TPAMI 2022): boxes around what is hot.

Follows the published code (clovaai/wsolevaluation) where that decides the numbers:

- the normalised map is truncated to 256 grey levels, and cut at "greater than t"; the published
  1000 thresholds are then t = 0 ... 254 and no others;
- pixels that touch at a corner belong together;
- V2 also takes the rims of holes, since the contours found there include them;
- a box ends one pixel after its last one, unless that is the canvas's last, and its sides are
  then counted inclusively: boxes are about one pixel larger than what they hold.

Differs where that code has nothing to say or another source: the lesions' boxes are those of the
mask's own components by the same rule, so that a map equal to the mask reaches an IoU of 1; the
largest component of MaxBoxAcc is the one of most pixels (the paper's "largest-area connected
component"; the code compares areas of contour polygons, which fill holes and give lines no area);
a flat map is all ones and its box the whole canvas, where the code's is the first pixel.

Shapes: B films, N films, H W the canvas, K boxes, G lesion boxes, D IoU levels, T = 255 thresholds.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcamx.metrics.components import Components, components
from pcamx.metrics.maps import lesion_pixels, minmax

IOU_LEVELS = (0.3, 0.5, 0.7)
_THRESHOLDS = 255


def box_iou_curve(map_BHW: Tensor, lesion_BHW: Tensor, *, largest: bool = False) -> Tensor:
    """Return the IoU of the best pair of a map's and a lesion's box at every threshold: float64 [B,
    T].

    ``largest`` takes the box of the largest component alone (MaxBoxAcc) instead of every box
    (MaxBoxAccV2). The levels go to the CPU, one byte a pixel, and the answer back.
    """
    level_BHW = (minmax(map_BHW) * 255).byte().cpu().numpy()  # truncates
    inside_BHW = lesion_pixels(lesion_BHW, map_BHW).cpu().numpy()
    iou_BT = [
        _film(level_HW, inside_HW.astype(np.uint8), largest)
        for level_HW, inside_HW in zip(level_BHW, inside_BHW, strict=True)
    ]
    stacked_BT = np.array(iou_BT).reshape(len(iou_BT), _THRESHOLDS)
    return torch.from_numpy(stacked_BT).to(map_BHW.device)


def _film(
    level_HW: NDArray[np.uint8], lesion_HW: NDArray[np.uint8], largest: bool
) -> NDArray[np.float64]:
    height, width = level_HW.shape
    ends = width - 1, height - 1
    box_G4 = _lesion_boxes(lesion_HW, ends)
    hot = components(level_HW, diagonal=True)
    alive_ML = _largest(hot) if largest else hot.alive_ML
    threshold_K, box_K4 = _boxes(hot, alive_ML, ends)
    if not largest:
        hole_K, rim_K4 = _rims(level_HW, ends)
        threshold_K = np.concatenate([threshold_K, hole_K])
        box_K4 = np.concatenate([box_K4, rim_K4])
    iou_T = np.zeros(_THRESHOLDS)
    np.maximum.at(iou_T, threshold_K, _iou(box_K4, box_G4).max(axis=1))
    return iou_T


def _lesion_boxes(lesion_HW: NDArray[np.uint8], ends: tuple[int, int]) -> NDArray[np.int64]:
    """Boxes [G, 4] of a mask's components, looked for where the mask is."""
    rows, columns = (np.flatnonzero(lesion_HW.any(axis=axis)) for axis in (1, 0))
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    found = components(lesion_HW[part], diagonal=True)
    here = int(columns[0]), int(rows[0])
    return _boxes(found, found.alive_ML & (np.arange(256) == 1), ends, here)[1]


def _largest(hot: Components) -> NDArray[np.bool_]:
    """The one component of most pixels at every level, of equal ones the first."""
    best_L = np.where(hot.alive_ML, hot.pixels_ML, -1).argmax(axis=0)
    return np.asarray(hot.alive_ML & (np.arange(len(hot.alive_ML))[:, None] == best_L))


def _boxes(
    found: Components,
    take_ML: NDArray[np.bool_],
    ends: tuple[int, int],
    origin: tuple[int, int] = (0, 0),
    grow: int = 0,
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Thresholds [K] and boxes [K, 4] (left, top, right, bottom) of the components taken."""
    component_K, level_K = np.nonzero(take_ML)
    box_K4 = found.box_M4L[component_K, :, level_K].astype(np.int64) + grow
    box_K4[:, :2] = np.array(origin) - box_K4[:, :2]
    box_K4[:, 2:] = np.minimum(box_K4[:, 2:] + 1 + np.array(origin), ends)
    return level_K - 1, box_K4  # reaching a level is being above the one before


def _rims(
    level_HW: NDArray[np.uint8], ends: tuple[int, int]
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Thresholds and boxes of the pixels around holes: what is dark and touches no edge."""
    dark = components(255 - level_HW, diagonal=False)
    low_M1L = np.s_[:, :2]
    touches_ML = (dark.box_M4L[low_M1L] == 0).any(axis=1)
    touches_ML |= (dark.box_M4L[:, 2:] == np.array(ends)[:, None]).any(axis=1)
    level_K, box_K4 = _boxes(dark, dark.alive_ML & ~touches_ML, ends, grow=1)
    return _THRESHOLDS - 1 - level_K, box_K4


def _iou(box_K4: NDArray[np.int64], box_G4: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU [K, G] of boxes whose last row and column belong to them."""
    one_4K1, other_4G = box_K4.T[:, :, None], box_G4.T[:, None]
    low_2KG = np.maximum(one_4K1[:2], other_4G[:2])
    both_KG = _area(low_2KG, np.minimum(one_4K1[2:], other_4G[2:]))
    area_KG = _area(one_4K1[:2], one_4K1[2:]) + _area(other_4G[:2], other_4G[2:])
    return np.asarray(both_KG / (area_KG - both_KG))


def _area(low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.int64]:
    width, height = np.maximum(high - low + 1, 0)
    return np.asarray(width * height)


def box_hits(iou_BT: Tensor, iou_levels: Sequence[float] = IOU_LEVELS) -> Tensor:
    """Tell whether each film's IoU reaches each level: bool [B, D, T]."""
    level_D1 = torch.tensor(iou_levels, dtype=torch.float64, device=iou_BT.device)[:, None]
    return iou_BT[:, None] >= level_D1


def box_hits_of(map_BHW: Tensor, lesion_BHW: Tensor) -> Tensor:
    """Return `box_hits` of `box_iou_curve`, bool [B, D, T]."""
    return box_hits(box_iou_curve(map_BHW, lesion_BHW))


def max_box_acc(hit_NDT: Tensor) -> Tensor:
    """Return MaxBoxAccV2 of `box_hits` over a set, film by film: float64 [N], its mean the figure.

    Every film's share of IoU levels that it reaches, each at the threshold that most of these
    very films reach it at (the lowest of several), as published: so compare only maps measured on
    the same films. An interval of it is one at these thresholds. MaxBoxAcc is this of
    ``box_iou_curve(largest=True)`` at the level 0.5 alone.
    """
    if len(hit_NDT) == 0:
        return torch.zeros(0, dtype=torch.float64, device=hit_NDT.device)
    # Counted by NumPy, for torch makes 8 bytes of every flag: 120 MB of 20,000 films.
    best_D = hit_NDT.cpu().numpy().sum(axis=0).argmax(axis=1)
    at_best_ND = hit_NDT[:, torch.arange(len(best_D)), torch.from_numpy(best_D)]
    return at_best_ND.double().mean(dim=1)

"""How far a thresholded map and the marked lesion are the same pixels (see maps.py).

Shapes: B films, H W the canvas, T thresholds, L grey levels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pcamx.metrics.maps import count_pixels, lesion_pixels, minmax, reaching

THRESHOLDS = tuple(step / 20 for step in range(1, 20))
"""0.05, 0.10 ... 0.95 of the min-max normalised map."""


def iou_curve(
    map_BHW: Tensor, lesion_BHW: Tensor, thresholds_T: Sequence[float] = THRESHOLDS
) -> Tensor:
    """Return intersection over union of {normalised map >= threshold} and the lesion: [B, T].

    Pixels are counted by level once per film, inside and outside the lesion, so memory does not
    grow with B x T x H x W.
    """
    edges_T = torch.tensor(thresholds_T, dtype=torch.float64, device=map_BHW.device)
    if edges_T.ndim != 1 or len(edges_T) == 0 or not (edges_T.diff() > 0).all():
        raise ValueError("thresholds must be a list of ascending numbers")
    scaled_BHW, inside_BHW = minmax(map_BHW), lesion_pixels(lesion_BHW, map_BHW)
    # bin t holds the pixels that reach exactly t of the thresholds
    bin_BHW = torch.bucketize(scaled_BHW, edges_T, right=True, out_int32=True)
    return _iou(count_pixels(bin_BHW, inside_BHW, len(edges_T) + 1))[:, 1:]


def _iou(count_B2T: Tensor) -> Tensor:
    """IoU of the lesion and the pixels in every bin and all above it: [B, T]."""
    outside_BT, hit_BT = reaching(count_B2T).double().unbind(1)
    return hit_BT / (outside_BT + hit_BT[:, :1])


def dice(iou: Tensor) -> Tensor:
    """Return the Dice coefficient 2 |A and G| / (|A| + |G|) of the same sets as ``iou``, same
    shape.
    """
    return 2 * iou / (1 + iou)


def iou_otsu(map_BHW: Tensor, lesion_BHW: Tensor) -> Tensor:
    """Return the IoU of the lesion and the map cut at Otsu's own threshold, film by film: [B].

    As CheXlocalize: the map is normalised, truncated to 256 grey levels and kept where above the
    level that separates two classes best. Of equally good levels the lowest, which keeps all of a
    flat map. Its mean is CheXlocalize's mIoU: of marked films none has an empty prediction.
    """
    level_BHW = (minmax(map_BHW) * 255).int()  # truncates
    count_B2L = count_pixels(level_BHW, lesion_pixels(lesion_BHW, map_BHW), 256)
    kept_B1 = _otsu(count_B2L.sum(dim=1))[:, None] + 1
    return _iou(count_B2L).gather(1, kept_B1)[:, 0]


def _otsu(count_BL: Tensor) -> Tensor:
    """Otsu (1979): the level [B] whose split maximises the variance between the two classes."""
    share_BL = count_BL.double() / count_BL.sum(dim=1, keepdim=True)
    level_L = torch.arange(count_BL.shape[1], dtype=torch.float64, device=count_BL.device)
    below_BL, moment_BL = share_BL.cumsum(1), (share_BL * level_L).cumsum(1)
    apart_BL = moment_BL[:, -1:] * below_BL - moment_BL
    # The variance is apart^2 / (q1 q2); a class without a pixel has none.
    lower_BL, upper_BL = count_BL.cumsum(1) > 0, reaching(count_BL) - count_BL > 0
    both_BL = lower_BL & upper_BL
    spread_BL = (below_BL * (1 - below_BL)).masked_fill(~both_BL, 1)
    return (apart_BL**2 / spread_BL).masked_fill(~both_BL, 0)[:, :-1].argmax(dim=1)


def tune_threshold(iou_BT: Tensor, thresholds_T: Sequence[float] = THRESHOLDS) -> float:
    """Return the threshold with the highest mean IoU, the lowest of several equal ones.

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

"""Deletion and insertion (RISE: Petsiuk et al., BMVC 2018): does the map say what the network uses?

Pixels are taken away, or put back, from the hottest down, and the network's probability of
abnormal is followed: a map that names what the decision rests on makes it fall fast, and rise
fast. Needs no marks, and says nothing about whether the network is right to look there.

Shapes: B films, H W the image, P its pixels, S steps.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pcamx.metrics.maps import value_range

STEPS = 16


def deletion(
    probability: Callable[[Tensor], Tensor], image_B1HW: Tensor, map_BHW: Tensor, steps: int = STEPS
) -> Tensor:
    """Return the area under the probability while the hottest pixels become 0: float64 [B], lower
    is better.

    ``probability`` takes images [B, 1, H, W] to [B]; it is called ``steps`` + 1 times with all
    films, so memory does not grow with the steps. 0 is the mean grey of standardised films. RISE
    removes one row's worth of pixels a step; here each step removes 1 / ``steps`` of the image.
    Of pixels equally hot the earlier in reading order goes first. Raises ValueError as
    `pcamx.metrics.maps` does, and for steps < 1.
    """
    return _area(probability, image_B1HW, torch.zeros_like(image_B1HW), map_BHW, steps)


def insertion(
    probability: Callable[[Tensor], Tensor], image_B1HW: Tensor, map_BHW: Tensor, steps: int = STEPS
) -> Tensor:
    """Return the area under the probability while the hottest pixels appear on the blurred film:
    higher is better; float64 [B], otherwise as `deletion`.

    The blur is RISE's, 5 pixels of standard deviation at 224, scaled to the image.
    """
    return _area(probability, blurred(image_B1HW), image_B1HW, map_BHW, steps)


def blurred(image_B1HW: Tensor) -> Tensor:
    """Blur the image by a Gaussian of 5/224 of its width, cut off at 3 standard deviations."""
    sigma = 5 / 224 * image_B1HW.shape[-1]
    reach = min(int(3 * sigma + 0.5), min(image_B1HW.shape[-2:]) - 1)
    offset = torch.arange(-reach, reach + 1, dtype=image_B1HW.dtype, device=image_B1HW.device)
    kernel = torch.exp(-(offset**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    wide_B1HW = F.pad(image_B1HW, (reach, reach, reach, reach), mode="reflect")
    return F.conv2d(F.conv2d(wide_B1HW, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


def _area(
    probability: Callable[[Tensor], Tensor],
    start_B1HW: Tensor,
    end_B1HW: Tensor,
    map_BHW: Tensor,
    steps: int,
) -> Tensor:
    """Trapezoid rule over the share of pixels that come from ``end`` instead of ``start``."""
    value_range(map_BHW)
    if start_B1HW.shape != map_BHW[:, None].shape or steps < 1:
        raise ValueError(
            f"images {list(start_B1HW.shape)}, maps {list(map_BHW.shape)}, {steps} steps"
        )
    order_BP = map_BHW.flatten(1).argsort(dim=1, descending=True, stable=True)
    place_BP = order_BP.argsort(dim=1)  # 0 for the hottest
    place_B1HW = place_BP.view(map_BHW.shape)[:, None]
    pixels = place_BP.shape[1]
    curve_SB = []
    for step in range(steps + 1):
        changed_B1HW = place_B1HW < step * pixels // steps
        mixed_B1HW = torch.where(changed_B1HW, end_B1HW, start_B1HW)
        curve_SB.append(probability(mixed_B1HW).double())
    share_S = torch.tensor([step * pixels // steps / pixels for step in range(steps + 1)])
    return torch.trapezoid(torch.stack(curve_SB), share_S.double().to(map_BHW.device), dim=0)

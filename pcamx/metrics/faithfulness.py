"""Deletion and insertion (RISE: Petsiuk et al., BMVC 2018): does the map say what the network uses?

Pixels are taken away, or put back, from the hottest down, and the network's probability of
abnormal is followed: a map that names what the decision rests on makes it fall fast, and rise
fast. Needs no marks, and says nothing about whether the network is right to look there.

`patch_correlation` blurs one patch at a time and compares how far the decision falls with what the
map has there.

Shapes: B films, H W the image, P its pixels or patches, S steps.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pcamx.metrics.maps import value_range

STEPS = 16
PATCHES = 8
"""Patches along each side of a film."""
_SUREST = 1e-7
"""Probabilities nearer to 0 or 1 than float32 tells apart count as so near."""


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


def patch_correlation(
    probability: Callable[[Tensor], Tensor],
    image_B1HW: Tensor,
    map_BHW: Tensor,
    patches: int = PATCHES,
) -> Tensor:
    """Return Spearman's correlation of the map's sum in a patch and the logit's fall without: [B].

    A grid of ``patches`` x ``patches`` is blurred one by one, each by a box of its own size, so
    ``probability`` is called so often and once more. Patches brighter on average than the film
    count, those on the limb. float64, 0 where either side is the same for all of them. Raises
    ValueError as `pcamx.metrics.maps` does, and where the grid does not divide the image.
    """
    value_range(map_BHW)
    H, W = map_BHW.shape[-2:]
    if image_B1HW.shape != map_BHW[:, None].shape or H % patches or W % patches:
        raise ValueError(
            f"images {list(image_B1HW.shape)}, maps {list(map_BHW.shape)}, {patches} patches"
        )
    size = (H // patches, W // patches)
    half = (size[0] // 2, size[1] // 2)
    smooth_B1HW = F.avg_pool2d(
        image_B1HW, (2 * half[0] + 1, 2 * half[1] + 1), 1, half, count_include_pad=False
    )
    falls, whole_B = [], _logit(probability(image_B1HW))
    for down in range(0, H, size[0]):
        for right in range(0, W, size[1]):
            at = (..., slice(down, down + size[0]), slice(right, right + size[1]))
            mixed_B1HW = image_B1HW.clone()
            mixed_B1HW[at] = smooth_B1HW[at]
            falls.append(whole_B - _logit(probability(mixed_B1HW)))
    mass_BP = F.avg_pool2d(map_BHW[:, None].double(), size).flatten(1)
    light_BP = F.avg_pool2d(image_B1HW.double(), size).flatten(1)
    limb_BP = light_BP > light_BP.mean(1, keepdim=True)
    return _spearman(mass_BP, torch.stack(falls, 1), limb_BP)


def _logit(probability_B: Tensor) -> Tensor:
    return torch.logit(probability_B.double(), _SUREST)


def _spearman(one_BP: Tensor, other_BP: Tensor, taken_BP: Tensor) -> Tensor:
    """Correlation of the ranks of those taken, equal ones sharing theirs."""
    ranks = []
    for value_BP in (one_BP, other_BP):
        less_BPP = (value_BP[:, None] < value_BP[..., None]) & taken_BP[:, None]
        same_BPP = (value_BP[:, None] == value_BP[..., None]) & taken_BP[:, None]
        rank_BP = less_BPP.sum(2) + same_BPP.sum(2) / 2
        count_B1 = taken_BP.sum(1, keepdim=True).clamp(min=1)
        mean_B1 = (rank_BP * taken_BP).sum(1, keepdim=True) / count_B1
        ranks.append(((rank_BP - mean_B1) * taken_BP).double())
    above_B = (ranks[0] * ranks[1]).sum(1)
    below_B = (ranks[0].square().sum(1) * ranks[1].square().sum(1)).sqrt()
    return torch.where(below_B > 0, above_B / below_B.clamp(min=1e-300), torch.zeros_like(below_B))


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

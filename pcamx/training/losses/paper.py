"""Eq. (3) and (4): L = (1 - lambda) L1 + lambda L2 + lambda' L3, and the accuracy behind lambda.

Shapes: B batch, C classes, H W the image.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcamx.distributed import rank_count, sum_over_ranks

CHANCE = 0.5


def confidence(
    accuracy: Tensor, schedule: Literal["rescaled", "paper", "constant", "none"]
) -> Tensor:
    """Return lambda of the running training accuracy P.

    ``paper``: e^P / e = e^(P-1), already 0.61 at chance. ``rescaled``: (e^q - 1) / (e - 1) with
    q = clip(2P - 1, 0, 1), which is 0 at chance and 1 at P = 1. ``constant``: 1/2; ``none``: 0.
    """
    if schedule == "paper":
        return torch.exp(accuracy - 1)
    if schedule in ("constant", "none"):
        return torch.full_like(accuracy, 0.5 if schedule == "constant" else 0)
    q = (2 * accuracy - 1).clamp(0, 1)
    return torch.expm1(q) / (math.e - 1)


class RunningAccuracy(nn.Module):
    """P: accuracy of the full-image branch on training images, over about the last epoch.

    An exponential average with a window of ``window`` images, fed with the counts of all ranks,
    so it is the same number on each. It is a buffer, so checkpoints hold it.
    """

    value: Tensor

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window
        self.register_buffer("value", torch.tensor(CHANCE, dtype=torch.float64))

    def take_in(self, logits_BC: Tensor, label_B: Tensor) -> None:
        """Take in a training batch, of all ranks together; every rank must call it."""
        correct = (logits_BC.argmax(1) == label_B).sum()
        self.update(*sum_over_ranks(correct, torch.full_like(correct, len(label_B))))

    def update(self, correct: Tensor, count: Tensor) -> None:
        """Take in ``correct`` right answers out of ``count``, already summed over the ranks."""
        weight = (count / self.window).clamp(max=1)
        self.value += weight * (correct / count - self.value)


def lesion_loss(
    logit_B1HW: Tensor,
    lesion_B1HW: Tensor,
    marked_B: Tensor,
    *,
    kind: Literal["mse", "bce_dice"],
    share: float,
    marked_total: Tensor,
) -> Tensor:
    """Return L3: error between the decoder's answer and the marks, over marked images only.

    The answer is the sigmoid of ``logit_B1HW``, float32.

    ``mse`` is the squared error of each pixel; ``bce_dice`` the binary cross-entropy of each, and
    one minus the soft Dice coefficient (Milletari et al. 2016) of the image.

    Lesions fill under 1 % of the pixels, so the plain mean is lowest near an answer of zero
    everywhere. ``share`` of the weight therefore lies on the lesion's pixels and the rest on the
    others; 0 is the plain mean. ``marked_total`` counts the marked images of all ranks; the sum
    here is scaled so that averaging gradients over the ranks gives the mean over those images.
    """
    logit_BN, lesion_BN = logit_B1HW.flatten(1), lesion_B1HW.flatten(1)
    answer_BN = torch.sigmoid(logit_BN)
    if kind == "mse":
        error_BN = (answer_BN - lesion_BN).square()
    else:
        # By the logit: a pixel that is surely wrong keeps its gradient.
        error_BN = F.binary_cross_entropy_with_logits(logit_BN, lesion_BN, reduction="none")
    if share:
        inside_B = (error_BN * lesion_BN).sum(1) / lesion_BN.sum(1).clamp(min=1)
        outside_B = (error_BN * (1 - lesion_BN)).sum(1) / (1 - lesion_BN).sum(1).clamp(min=1)
        loss_B = share * inside_B + (1 - share) * outside_B
    else:
        loss_B = error_BN.mean(1)
    if kind == "bce_dice":
        loss_B = loss_B + _dice_loss(answer_BN, lesion_BN)
    return mean_over_ranks(loss_B, marked_B, marked_total)


def mean_over_ranks(loss_B: Tensor, taken_B: Tensor, total: Tensor) -> Tensor:
    """Return this rank's part of the mean loss of the films ``taken_B``, ``total`` of them on all
    ranks.

    Scaled so that averaging gradients over the ranks gives that mean's; 0 where nobody has any.
    """
    total = total.clamp(min=1).to(loss_B.dtype)
    return torch.where(taken_B, loss_B, torch.zeros_like(loss_B)).sum() * rank_count() / total


def _dice_loss(answer_BN: Tensor, lesion_BN: Tensor) -> Tensor:
    """1 - 2 sum(a l) / (sum(a^2) + sum(l)) of each image; the 1 is for images without a lesion."""
    both_B = (answer_BN * lesion_BN).sum(1)
    return 1 - (2 * both_B + 1) / (answer_BN.square().sum(1) + lesion_BN.sum(1) + 1)

"""Losses on the classifier's own map: where on a marked film the decision may come from.

The map d = sum_k (w_1k - w_0k) h_k is what each cell adds to the decision, abnormal against normal;
its mean over the cells and the biases are the film's log-odds where pooling is the mean. It is
taken at its own stride.

Shapes: B batch, C classes, h w the map, H W the image, N cells.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

MapLoss = Literal["pointing", "energy", "bce", "l1", "gain"]

TAU = 0.5
"""Temperature of the softmax over a standardised map."""
_SMALL = 1e-6


def mark_cells(lesion_B1HW: Tensor, size: tuple[int, int]) -> Tensor:
    """Reduce marks to the cells of a map of ``size``: bool [B, h, w].

    A cell is lesion if one of its pixels is, so that the mark grows a little and no small lesion
    is lost.
    """
    return F.adaptive_max_pool2d(lesion_B1HW, size)[:, 0] > 0


def map_loss(map_Bhw: Tensor, inside_Bhw: Tensor, kind: MapLoss) -> Tensor:
    """Compare each map [B, h, w], float, with its mark, bool; returns the loss of each film [B].

    ``pointing``: -log of the mass inside the mark of the standardised map's softmax. Nothing is
    rectified, so it has a gradient wherever the map is wrong; an empty mark gives 0.
    ``energy``: 1 - share of max(0, d) inside the mark, model guidance's loss (Rao et al. 2023).
    ``l1``: theirs too, mean |max(0, d) / max |d| - mark|.
    ``bce``: mean binary cross-entropy of each cell, d its logit.
    ``gain``: mean squared error of max(0, d) / max d, GAIN's external supervision (Li et al. 2018).
    The published ones compare at the image's size; here all compare cells.
    """
    map_BN, inside_BN = map_Bhw.flatten(1), inside_Bhw.flatten(1)
    return _KINDS[kind](map_BN, inside_BN)


def _pointing(map_BN: Tensor, inside_BN: Tensor) -> Tensor:
    # Where there is no mark everything counts as inside: 0, where log 0 would spoil gradients.
    inside_BN = inside_BN | ~inside_BN.any(1, keepdim=True)
    score_BN = _standardised(map_BN) / TAU
    inside_B = score_BN.masked_fill(~inside_BN, -torch.inf).logsumexp(1)
    return score_BN.logsumexp(1) - inside_B


def _energy(map_BN: Tensor, inside_BN: Tensor) -> Tensor:
    positive_BN = map_BN.relu()
    return 1 - (positive_BN * inside_BN).sum(1) / positive_BN.sum(1).clamp(min=_SMALL)


def _bce(map_BN: Tensor, inside_BN: Tensor) -> Tensor:
    mark_BN = inside_BN.to(map_BN.dtype)
    return F.binary_cross_entropy_with_logits(map_BN, mark_BN, reduction="none").mean(1)


def _l1(map_BN: Tensor, inside_BN: Tensor) -> Tensor:
    largest_B1 = map_BN.abs().amax(1, keepdim=True).clamp(min=_SMALL)
    return (map_BN.relu() / largest_B1 - inside_BN.to(map_BN.dtype)).abs().mean(1)


def _gain(map_BN: Tensor, inside_BN: Tensor) -> Tensor:
    positive_BN = map_BN.relu()
    normalised_BN = positive_BN / positive_BN.amax(1, keepdim=True).clamp(min=_SMALL)
    return (normalised_BN - inside_BN.to(map_BN.dtype)).square().mean(1)


_KINDS: dict[MapLoss, Callable[[Tensor, Tensor], Tensor]] = {
    "pointing": _pointing,
    "energy": _energy,
    "bce": _bce,
    "l1": _l1,
    "gain": _gain,
}


def agreement_loss(map_Bhw: Tensor, answer_B1HW: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence [B], in nats, of the map's softmax and the decoder's
    answer.

    ``answer_B1HW`` is a probability at the image's size; its mean over each cell, divided by their
    sum, is the other distribution. It carries no gradient: the map follows the decoder.
    """
    size = (map_Bhw.shape[-2], map_Bhw.shape[-1])
    answer_BN = F.adaptive_avg_pool2d(answer_B1HW.detach(), size).flatten(1)
    answer_BN = answer_BN / answer_BN.sum(1, keepdim=True).clamp(min=torch.finfo().tiny)
    log_mass_BN = (_standardised(map_Bhw.flatten(1)) / TAU).log_softmax(1)
    mass_BN = log_mass_BN.exp()
    # By logarithms that are never of 0: a spike's other cells have no mass left in float32.
    log_middle_BN = ((mass_BN + answer_BN) / 2).clamp(min=torch.finfo().tiny).log()
    of_map_BN = mass_BN * (log_mass_BN - log_middle_BN)
    of_answer_BN = torch.xlogy(answer_BN, answer_BN) - answer_BN * log_middle_BN
    return (of_map_BN + of_answer_BN).sum(1) / 2


def outside_share(map_Bhw: Tensor, *, omega: float, sigma: float) -> Tensor:
    """Return the share [B] of the normalised map that its own mask, M = sigmoid(omega (A - sigma))
    of each cell, leaves out.

    The mask carries no gradient: what lies outside shrinks, and the area does not move.
    """
    out_Bhw = 1 - torch.sigmoid(omega * (map_Bhw.detach() - sigma))
    total_B = map_Bhw.sum((1, 2)).clamp(min=_SMALL)
    return (map_Bhw * out_Bhw).sum((1, 2)) / total_B


def _standardised(map_BN: Tensor) -> Tensor:
    centred_BN = map_BN - map_BN.mean(1, keepdim=True)
    # Inside the root: a flat map keeps a finite gradient.
    return centred_BN * (centred_BN.square().mean(1, keepdim=True) + _SMALL).rsqrt()


def reasons_loss(logits_BC: Tensor, image_B1HW: Tensor, outside_B1HW: Tensor) -> Tensor:
    """Return the input gradient outside the marks, [B]: right for the right reasons (Ross et al.
    2017).

    The sum over a film's pixels of (outside * d/dx sum_c log p_c)^2. ``image_B1HW`` needs a
    gradient and is what the logits were made of; the loss's own gradient goes through the
    network's backward pass once more.
    """
    dtype = torch.promote_types(logits_BC.dtype, torch.float32)
    likelihood = logits_BC.to(dtype).log_softmax(1).sum()
    (grad_B1HW,) = torch.autograd.grad(likelihood, image_B1HW, create_graph=True)
    return (grad_B1HW * outside_B1HW).square().sum((1, 2, 3))

"""What the marks may teach the classifier itself, beside eq. (4): each term off at weight 0.

Shapes: B batch, C classes, h w the map, H W the image, E the films of the erase loss.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pcamx.config import Objective
from pcamx.data.feed.order import column_of, turns_before
from pcamx.distributed import rank_count, rank_number, sum_over_ranks
from pcamx.model.network import Network, batch_norm_by
from pcamx.training.losses.erasing import erased
from pcamx.training.losses.on_map import agreement_loss, map_loss, mark_cells, reasons_loss
from pcamx.training.losses.paper import mean_over_ranks
from pcamx.types import ABNORMAL, NORMAL, Batch


def guidance(
    network: Network,
    objective: Objective,
    batch: Batch,
    image_B1HW: Tensor,
    deepest_BKhw: Tensor,
    logits_BC: Tensor,
    lesion_logit_B1HW: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted sum of the terms that the objective asks for, and each of them by name.

    ``image_B1HW`` is what the features and logits were made of, with a gradient where
    objective.reasons_weight asks for it. Marked films that show nothing of their lesion, as
    augmentation may move it off the canvas, do not count. Means are over the films of all ranks;
    every rank must call it, also one without a marked film.
    """
    shown_B = batch.marked_B & batch.lesion_B1HW.flatten(1).any(1)
    abnormal_B = batch.label_B == ABNORMAL
    shown, abnormal = sum_over_ranks(shown_B.sum(), abnormal_B.sum())
    terms: list[tuple[str, float, Tensor]] = []
    if objective.map_weight or objective.agreement_weight:
        map_Bhw = network.class_map(deepest_BKhw)
    if objective.map_weight:
        inside_Bhw = mark_cells(batch.lesion_B1HW, (map_Bhw.shape[-2], map_Bhw.shape[-1]))
        loss_B = map_loss(map_Bhw, inside_Bhw, objective.map_loss)
        terms.append(("map", objective.map_weight, mean_over_ranks(loss_B, shown_B, shown)))
    if objective.agreement_weight:
        loss_B = agreement_loss(map_Bhw, torch.sigmoid(lesion_logit_B1HW))
        agree = mean_over_ranks(loss_B, abnormal_B, abnormal)
        terms.append(("agree", objective.agreement_weight, agree))
    if objective.reasons_weight:
        loss_B = reasons_loss(logits_BC, image_B1HW, 1 - batch.lesion_B1HW)
        reasons = mean_over_ranks(loss_B, shown_B, shown)
        terms.append(("reasons", objective.reasons_weight, reasons))
    if objective.erase_weight:
        erase = erase_loss(network, batch, shown_B, objective.marked_per_batch)
        terms.append(("erase", objective.erase_weight, erase))
    total = torch.stack([weight * term for _, weight, term in terms]).sum()
    return total, {name: term for name, _, term in terms}


def guides(objective: Objective) -> bool:
    """Tell whether the objective asks for any of these terms."""
    return any(
        (
            objective.map_weight,
            objective.agreement_weight,
            objective.reasons_weight,
            objective.erase_weight,
        )
    )


def erase_loss(network: Network, batch: Batch, shown_B: Tensor, marked_per_batch: int) -> Tensor:
    """Return cross-entropy of marked films: the lesion erased, normal; another patch, abnormal.

    Both go in one more pass, normalised by its own batch. The films are those in the columns that
    the feed keeps for marked ones, whatever the number of ranks: an index that depended on the
    marks would wait for the device. What shows no lesion does not count. A rank without such a
    column, for which ZeRO-3 and the statistics over the ranks would wait, takes a film in vain.
    """
    B = len(shown_B)
    slots, before = B * rank_count(), B * rank_number()
    marked = min(marked_per_batch, slots)
    first, behind = (turns_before(column, marked, slots) for column in (before, before + B))
    kept = behind > first
    turn_E = torch.arange(first, behind if kept else first + 1, device=shown_B.device)
    row_E = column_of(turn_E, marked, slots) - before
    row_E = row_E.clamp(max=B - 1)
    image_E1HW, lesion_E1HW = batch.image_B1HW[row_E], batch.lesion_B1HW[row_E]
    healed_E1HW, elsewhere_E1HW, free_E = erased(image_E1HW, lesion_E1HW)
    with batch_norm_by(network, "batch", counted=kept):
        logits_FC = network(torch.cat([healed_E1HW, elsewhere_E1HW]))
    # Filled on the device: two numbers from the host would be a wait.
    label_F = torch.cat([torch.full_like(row_E, label) for label in (NORMAL, ABNORMAL)])
    taken_E = shown_B[row_E] & kept
    taken_F = torch.cat([taken_E, taken_E & free_E])
    (taken,) = sum_over_ranks(taken_F.sum())
    loss_F = F.cross_entropy(logits_FC.float(), label_F, reduction="none")
    return mean_over_ranks(loss_F, taken_F, taken)

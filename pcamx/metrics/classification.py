"""How well films and studies are told apart: AUROC, accuracy, kappa, sensitivity, specificity.

Shapes: N films, S studies, R replicates, G groups of equal scores. A score is the probability of
abnormal, a label 0 (normal) or 1 (abnormal); anything else raises ValueError. A figure that the
data leave undefined is None, never an error.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pcamx.metrics.bootstrap import Floats, Statistic, Values, mean, to_floats


class Studies(NamedTuple):
    """Films gathered into studies."""

    score_S: Floats
    label_S: Floats
    patients: list[Any]


def checked(score_N: Values, label_N: Values) -> tuple[Floats, Floats]:
    """Return scores and labels as float64 arrays, or raise ValueError."""
    score, label = to_floats(score_N), to_floats(label_N)
    if len(score) != len(label):
        raise ValueError(f"{len(score)} scores for {len(label)} labels")
    # torchmetrics would take scores outside [0, 1] for logits and put them through a sigmoid
    if len(score) and (score.min() < 0 or score.max() > 1):
        raise ValueError("a score must be a probability: within [0, 1]")
    if not np.isin(label, (0, 1)).all():
        raise ValueError("a label must be 0 (normal) or 1 (abnormal)")
    return score, label


def _ratio(part_R: Floats, whole_R: Floats) -> Floats:
    nan_R = np.full(len(whole_R), np.nan)
    return np.asarray(np.divide(part_R, whole_R, out=nan_R, where=whole_R > 0))


def auroc(score_N: Values, label_N: Values) -> Statistic:
    """Return the area under the ROC curve; equal scores count a half. Undefined with one class
    only.
    """
    score, label = checked(score_N, label_N)
    value = None
    if 0 < label.sum() < len(label):  # torchmetrics would warn and answer 0
        from torchmetrics.functional.classification import binary_auroc

        value = float(binary_auroc(torch.from_numpy(score), torch.from_numpy(label).long()))
    pairs = _ordered_pairs(score, label)
    return Statistic(
        value, len(score), lambda weight_RN: _ratio(*pairs(weight_RN)), rare_N=_rarer(label)
    )


def auroc_within(score_N: Values, label_N: Values, group_N: Sequence[str]) -> Statistic:
    """Return the share of the abnormal-normal pairs of one group that are in the right order.

    The AUROC of each group, weighted by its pairs: what remains once the group, such as the body
    part, says nothing (stratified Mann-Whitney). A film whose group is "" is in none. Undefined
    where no group has both classes.
    """
    score, label = checked(score_N, label_N)
    groups = np.asarray(group_N)
    members = [np.flatnonzero(groups == name) for name in sorted({*group_N} - {""})]
    each = [(films, _ordered_pairs(score[films], label[films])) for films in members]

    def replicate(weight_RN: Floats) -> Floats:
        right_R, pairs_R = np.zeros(len(weight_RN)), np.zeros(len(weight_RN))
        for films, counted in each:
            right, pairs = counted(weight_RN[:, films])
            right_R, pairs_R = right_R + right, pairs_R + pairs
        return _ratio(right_R, pairs_R)

    value = float(replicate(np.ones((1, len(score))))[0]) if len(score) else float("nan")
    found = None if np.isnan(value) else value
    return Statistic(found, len(score), replicate, rare_N=_rarer(label))


def _rarer(label: Floats) -> NDArray[np.bool_]:
    """Films of the class that has fewer of them."""
    return np.asarray(label == (1 if 2 * label.sum() <= len(label) else 0))


def _ordered_pairs(score: Floats, label: Floats) -> Callable[[Floats], tuple[Floats, Floats]]:
    """Mann-Whitney by one sort: of weights [R, N], the abnormal-normal pairs in the right order,
    ties by a half, and all of them."""
    order_N = np.argsort(score, kind="stable")
    label_sorted = label[order_N]
    start_G = np.flatnonzero(np.diff(score[order_N], prepend=-1.0))

    def count(weight_RN: Floats) -> tuple[Floats, Floats]:
        weight_RN = weight_RN[:, order_N]
        abnormal_RG = np.add.reduceat(weight_RN * label_sorted, start_G, axis=1)
        normal_RG = np.add.reduceat(weight_RN * (1 - label_sorted), start_G, axis=1)
        below_RG = np.cumsum(normal_RG, axis=1) - normal_RG / 2
        pairs_R = abnormal_RG.sum(axis=1) * normal_RG.sum(axis=1)
        return (abnormal_RG * below_RG).sum(axis=1), pairs_R

    return count


def sensitivity_at(score_N: Values, label_N: Values, specificity: float) -> Statistic:
    """Return the sensitivity at the lowest threshold of at least this ``specificity``.

    A film is called abnormal at or above the threshold, which is one of the scores; 0 where even
    the highest calls too many. Undefined with one class only.
    """
    score, label = checked(score_N, label_N)
    order_N = np.argsort(-score, kind="stable")
    label_sorted = label[order_N]
    start_G = np.flatnonzero(np.diff(-score[order_N], prepend=-2.0))

    def replicate(weight_RN: Floats) -> Floats:
        weight_RN = weight_RN[:, order_N]
        found_RG = np.cumsum(np.add.reduceat(weight_RN * label_sorted, start_G, axis=1), axis=1)
        false_RG = weight_RN * (1 - label_sorted)
        false_RG = np.cumsum(np.add.reduceat(false_RG, start_G, axis=1), axis=1)
        allowed_RG = false_RG <= (1 - specificity) * false_RG[:, -1:] + 1e-9
        best_R = np.where(allowed_RG, found_RG, 0).max(axis=1)
        best_R[false_RG[:, -1] == 0] = np.nan
        return _ratio(best_R, found_RG[:, -1])

    value = float(replicate(np.ones((1, len(score))))[0]) if len(score) else float("nan")
    found = None if np.isnan(value) else value
    # No share of a fixed number of films: the threshold moves with the normal films drawn.
    return Statistic(found, len(score), replicate, known_N=label == 1, rare_N=_rarer(label))


def accuracy(score_N: Values, label_N: Values) -> Statistic:
    """Return the share of films on the right side: abnormal if the score is above 0.5."""
    score, label = checked(score_N, label_N)
    return mean((score > 0.5) == label, share=True)


def cohen_kappa(score_S: Values, label_S: Values) -> Statistic:
    """Return Cohen's kappa between the label and the decision (abnormal if the score is above 0.5).

    Undefined (0 / 0) where label and decision are one and the same class throughout: then chance
    alone agrees always. If only one of the two is constant, kappa is 0.
    """
    score, label = checked(score_S, label_S)
    called = score > 0.5
    cell_S = (2 * called + label).astype(np.int64)  # true normal, missed, false alarm, found
    cell_S4 = np.eye(4)[cell_S]

    def replicate(weight_RS: Floats) -> Floats:
        """kappa = 2 (tp tn - fp fn) / ((tp + fp)(fp + tn) + (tp + fn)(fn + tn))."""
        tn, fn, fp, tp = (weight_RS @ cell_S4).T  # whole numbers, so 0 / 0 is seen exactly
        chance_R = (tp + fp) * (fp + tn) + (tp + fn) * (fn + tn)
        above_R = 2 * (tp * tn - fp * fn)
        return _ratio(above_R, chance_R)

    value = None
    if set(cell_S.tolist()) not in (set(), {0}, {3}):
        from torchmetrics.functional.classification import binary_cohen_kappa

        value = float(binary_cohen_kappa(torch.from_numpy(called), torch.from_numpy(label).long()))
    return Statistic(value, len(score), replicate)


def share_called(score_S: Values, label_S: Values, label: int) -> Statistic:
    """Return, of the studies labelled ``label``, the share called so (abnormal above a score of
    0.5).

    Sensitivity for label 1, specificity for label 0. It counts the studies of that label alone.
    """
    score, truth = checked(score_S, label_S)
    return mean((score[truth == label] > 0.5) == label, share=True)


def gather_studies(
    score_N: Values, label_N: Values, patients: Sequence[Any], studies: Sequence[Any]
) -> Studies:
    """Return a score a study: the arithmetic mean of its films' probabilities, the rule of MURA.

    A study is abnormal if any of its films is labelled so (in MURA all films of a study share one
    label). A study belongs to one patient: the same name under two patients is two studies.
    """
    score, label = checked(score_N, label_N)
    if not len(score) == len(patients) == len(studies):
        raise ValueError(
            f"{len(score)} scores, {len(patients)} patients' names, {len(studies)} studies' names"
        )
    names: dict[tuple[Any, Any], int] = {}
    pairs = zip(patients, studies, strict=True)
    study_N = np.array([names.setdefault(pair, len(names)) for pair in pairs], dtype=np.int64)
    films_S = np.bincount(study_N)
    score_S = np.bincount(study_N, weights=score) / films_S
    label_S = (np.bincount(study_N, weights=label) > 0).astype(np.float64)
    return Studies(score_S, label_S, [patient for patient, _ in names])

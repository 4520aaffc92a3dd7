"""Whether a probability of 0.8 means abnormal in 80 of 100 films, and what would make it so.

Shapes: N films. Scores and labels as in classification.py.
"""

import math

import numpy as np
import torch

from pcamx.catalogue import TEMPERATURES
from pcamx.metrics.bootstrap import Floats, Statistic, Values, mean
from pcamx.metrics.classification import checked

BINS = 15
_SATURATED = 1e-7
"""How far from 0 and 1 float32 tells probabilities apart."""


def brier(score_N: Values, label_N: Values) -> Statistic:
    """Return the mean squared difference of probability and label (Brier, 1950); 0 is best."""
    score, label = checked(score_N, label_N)
    return mean((score - label) ** 2)


def calibration_error(score_N: Values, label_N: Values) -> Statistic:
    """Return the expected calibration error (Guo et al., ICML 2017), torchmetrics' with 15 equal
    bins.

    The mean over films of |share of abnormal - mean probability| of the film's bin. It has no
    interval: resampling adds noise to every bin, and absolute values add that up, so replicates
    lie above the value itself.
    """
    score, label = checked(score_N, label_N)
    value = None
    if len(score):
        from torchmetrics.functional.classification import binary_calibration_error

        pair = torch.from_numpy(score), torch.from_numpy(label).long()
        value = float(binary_calibration_error(*pair, n_bins=BINS, norm="l1"))

    def replicate(weight_RN: Floats) -> Floats:
        return np.full(len(weight_RN), np.nan)

    return Statistic(value, len(score), replicate)


def temperature(score_N: Values, label_N: Values) -> float | None:
    """Return what the logits are to be divided by (Guo et al., ICML 2017): what makes the labels
    likeliest, within `TEMPERATURES`; None where the films are not of both classes.
    """
    score, label = checked(score_N, label_N)
    if len(set(label.tolist())) < 2:
        return None
    logit = _logit(score)

    def slope(steepness: float) -> float:  # of the convex -log likelihood; it grows
        return float((logit * (sigmoid(steepness * logit) - label)).sum())

    low, high = (-math.log(limit) for limit in reversed(TEMPERATURES))
    for _ in range(60):
        middle = (low + high) / 2
        # 0 where every probability is 0 or 1: steeper still is likelier, or as likely.
        low, high = (middle, high) if slope(math.exp(middle)) <= 0 else (low, middle)
    return math.exp(-(low + high) / 2)


def at_temperature(score_N: Values, temperature: float) -> Floats:
    """Return probabilities [N], float64, whose logit was divided by ``temperature``."""
    score = np.asarray(score_N, np.float64)
    return sigmoid(_logit(score) / temperature)


def _logit(score_N: Floats) -> Floats:
    score_N = score_N.clip(_SATURATED, 1 - _SATURATED)
    return np.log(score_N / (1 - score_N))


def sigmoid(logit_N: Floats) -> Floats:
    """Return the probability of each logit; none is too large."""
    return np.asarray(0.5 * (1 + np.tanh(logit_N / 2)))

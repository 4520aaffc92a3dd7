"""Whether a probability of 0.8 means abnormal in 80 of 100 films: Brier score, calibration error.

Shapes: N films. Scores and labels as in classification.py.
"""

import numpy as np
import torch

from pcamx.metrics.bootstrap import Floats, Statistic, Values, mean
from pcamx.metrics.classification import checked

BINS = 15


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

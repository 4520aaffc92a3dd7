"""The numbers that count: where a map looks, how well films are told apart, how sure we are."""

from pcamx.metrics.bootstrap import Figure, Statistic, figure, mean
from pcamx.metrics.classification import (
    Classification,
    Studies,
    accuracy,
    auroc,
    classification_figures,
    cohen_kappa,
    gather_studies,
)
from pcamx.metrics.localization import (
    THRESHOLDS,
    centre_gaussian,
    energy,
    iou_curve,
    minmax,
    pointing,
    tune_threshold,
)

__all__ = [
    "THRESHOLDS",
    "Classification",
    "Figure",
    "Statistic",
    "Studies",
    "accuracy",
    "auroc",
    "centre_gaussian",
    "classification_figures",
    "cohen_kappa",
    "energy",
    "figure",
    "gather_studies",
    "iou_curve",
    "mean",
    "minmax",
    "pointing",
    "tune_threshold",
]

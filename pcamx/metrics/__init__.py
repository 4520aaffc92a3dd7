"""The numbers that count: where a map looks, how well films are told apart, how sure we are.

Functions of maps and lesions give one number per film; `figure` and `paired` turn such numbers, or
a `Statistic` of a whole set, into a value with an interval or a difference with a test. By the
catalogue `pcamx.evaluation` and `pcamx.compare` call them.
"""

from pcamx.metrics.activation import (
    activation_threshold,
    candidate_level,
    false_activation,
    lesion_peak,
    peak,
)
from pcamx.metrics.bootstrap import (
    Difference,
    Figure,
    Floats,
    Statistic,
    Table,
    figure,
    mean,
    mean_of,
    paired,
)
from pcamx.metrics.boxes import box_hits_of, max_box_acc
from pcamx.metrics.calibration import brier, calibration_error, temperature
from pcamx.metrics.classification import accuracy, auroc
from pcamx.metrics.comparisons import holm
from pcamx.metrics.decisions import Classification, Decisions, classification_figures
from pcamx.metrics.faithfulness import STEPS, deletion, insertion, patch_correlation
from pcamx.metrics.localization import (
    SIZES,
    centre_gaussian,
    energy,
    in_slice,
    lesion_share,
    pointing,
    relevance_rank,
)
from pcamx.metrics.maps import minmax
from pcamx.metrics.overlap import THRESHOLDS, dice, iou_curve, iou_otsu, tune_threshold
from pcamx.metrics.pixels import pixel_average_precision, pixel_counts

__all__ = [
    "SIZES",
    "STEPS",
    "THRESHOLDS",
    "Classification",
    "Decisions",
    "Difference",
    "Figure",
    "Floats",
    "Statistic",
    "Table",
    "accuracy",
    "activation_threshold",
    "auroc",
    "box_hits_of",
    "brier",
    "calibration_error",
    "temperature",
    "candidate_level",
    "centre_gaussian",
    "classification_figures",
    "deletion",
    "dice",
    "energy",
    "false_activation",
    "figure",
    "holm",
    "in_slice",
    "insertion",
    "iou_curve",
    "iou_otsu",
    "lesion_peak",
    "lesion_share",
    "max_box_acc",
    "mean",
    "mean_of",
    "minmax",
    "paired",
    "patch_correlation",
    "peak",
    "pixel_average_precision",
    "pixel_counts",
    "pointing",
    "relevance_rank",
    "tune_threshold",
]

"""What flows between the parts: a batch in, a stage's result out.

Shapes: B batch, C classes (0 normal, 1 abnormal), H W the canvas.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

IntArray = npt.NDArray[np.int64]

NORMAL, ABNORMAL = 0, 1


class Batch(NamedTuple):
    """One rank's share of a batch, on its device.

    ``lesion_B1HW`` is the lesion mask on the canvas, in {0, 1}; where ``marked_B`` is false it
    is zero because nobody marked the film, not because it has no lesion.
    """

    image_B1HW: Tensor  # float32, standardised with the training split's mean and std
    label_B: Tensor  # int64, 0 normal, 1 abnormal
    lesion_B1HW: Tensor  # float32
    marked_B: Tensor  # bool


class StageOutput(NamedTuple):
    """What one forward of a stage returns."""

    loss: Tensor  # scalar, float32: minimise this
    logits_BC: Tensor | None  # full-image branch; None where nothing is classified
    telemetry: dict[str, Tensor]  # detached scalars by name, as metrics.jsonl has them

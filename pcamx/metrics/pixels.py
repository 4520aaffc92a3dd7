"""PxAP (Choe et al., CVPR 2020): average precision of pixels, pooled over all films.

Every threshold of the normalised map gives one precision and one recall over all pixels of all
films together, so large lesions count more than small ones.

Shapes: B films, N films, H W the canvas, L levels, R replicates.
"""

import numpy as np
from torch import Tensor

from pcamx.metrics.bootstrap import Floats, Statistic, Table, weighted_sums
from pcamx.metrics.maps import count_pixels, lesion_pixels, minmax

LEVELS = 1001
"""[0, 0.001), [0.001, 0.002) ... [0.999, 1) and 1 itself: the published interval of thresholds."""


def pixel_counts(map_BHW: Tensor, lesion_BHW: Tensor) -> Tensor:
    """Count a film's pixels outside and inside the lesion, by level: int32 [B, 2, L], outside
    first.

    8 kB a film, whatever the canvas.
    """
    level_BHW = (minmax(map_BHW) * (LEVELS - 1)).int()  # truncates
    return count_pixels(level_BHW, lesion_pixels(lesion_BHW, map_BHW), LEVELS).int()


def average_precision(count_R2L: Floats) -> Floats:
    """Sum over thresholds of precision x gain in recall, from the highest threshold down: [R].

    Of counts as in `pixel_counts`, summed over films. NaN where no pixel is lesion. The published
    code states the same in percent.
    """
    false_RL, true_RL = np.moveaxis(count_R2L[:, :, ::-1].cumsum(axis=2), 1, 0)
    called_RL = false_RL + true_RL
    precision_RL = np.divide(true_RL, called_RL, out=np.zeros_like(true_RL), where=called_RL > 0)
    gain_RL = np.diff(true_RL, prepend=0.0)
    with np.errstate(invalid="ignore"):
        return np.asarray((precision_RL * gain_RL).sum(axis=1) / true_RL[:, -1])


def pixel_average_precision(count_N2L: Table) -> Statistic:
    """Return the PxAP of the films whose `pixel_counts` these are, int [N, 2, L]."""
    films = count_N2L.shape[0]

    def replicate(weight_RN: Floats) -> Floats:
        return average_precision(weighted_sums(weight_RN, count_N2L))

    value = float(replicate(np.ones((1, films)))[0]) if films else None
    return Statistic(value, films, replicate)

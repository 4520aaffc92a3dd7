"""What a map says where there is no lesion: false activation, from maps as they are.

Min-max makes the map of a normal film as hot as that of a lesion, so nothing is normalised here:
a threshold in the map's own unit is chosen on training films and applied to normal ones.

Shapes: B N films, M marked films, H W the canvas.
"""

import torch
from torch import Tensor

from pcamx.metrics.maps import lesion_pixels, value_range

SENSITIVITY = 0.8
"""Share of the marked training lesions on which the map reaches the threshold."""


CANDIDATES = 0.05
"""Share of the normal training films that may have a lesion candidate."""


def peak(map_BHW: Tensor, film_BHW: Tensor) -> Tensor:
    """Return each map's maximum on the film, in its own unit: float64 [B].

    ``film_BHW``, bool, is where the film lies: on the padding nobody is shown anything.
    """
    value_range(map_BHW)
    return map_BHW.masked_fill(~film_BHW, -torch.inf).amax(dim=(1, 2)).double()


def lesion_peak(map_BHW: Tensor, lesion_BHW: Tensor) -> Tensor:
    """Return each map's maximum inside the marked lesion, in its own unit: float64 [B]."""
    value_range(map_BHW)
    outside_BHW = ~lesion_pixels(lesion_BHW, map_BHW)
    return map_BHW.masked_fill(outside_BHW, -torch.inf).amax(dim=(1, 2)).double()


def activation_threshold(lesion_peak_M: Tensor) -> float:
    """Return the level that 80 % of the lesions reach: the 0.2 quantile of `lesion_peak`.

    Over marked training films, between two of them linearly. Raises ValueError without a film.
    """
    if lesion_peak_M.ndim != 1 or len(lesion_peak_M) == 0:
        raise ValueError("the threshold needs the peak of at least one marked film")
    return float(lesion_peak_M.quantile(1 - SENSITIVITY))


def candidate_level(peak_N: Tensor) -> float:
    """Return the level that 5 % of normal films reach: the 0.95 quantile of `peak`.

    Over normal training films, between two of them linearly. A lesion candidate peaks there or
    above, so that a normal film mostly has none, whatever that costs in lesions. Raises ValueError
    without a film.
    """
    if peak_N.ndim != 1 or len(peak_N) == 0:
        raise ValueError("the level needs the peak of at least one normal film")
    return float(peak_N.double().quantile(1 - CANDIDATES))


def false_activation(peak_N: Tensor, threshold: float) -> Tensor:
    """Tell whether a normal film's `peak` exceeds the threshold: float64 [N] of 0 and 1.

    Its mean over normal films is the false activation rate: the share of them whose map of the
    abnormal class, not normalised, is somewhere hotter than the level that it reaches on 80 % of
    lesions. That level (`activation_threshold`) comes from training films and is the map's own,
    so maps in different units compare. A map that is the same on every film exceeds it on all
    normal films or on none.
    """
    return (peak_N.double() > threshold).double()

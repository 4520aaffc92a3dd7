"""What a map says on normal films, in its own unit."""

import math

import pytest
import torch

from pcamx.evaluation.scoring import Tuning, candidate
from pcamx.metrics import (
    activation_threshold,
    candidate_level,
    false_activation,
    lesion_peak,
    peak,
)


def test_peaks_by_hand() -> None:
    map_BHW = torch.tensor([[[3.0, -1.0], [0.0, 2.0]], [[-4.0, -3.0], [-2.0, -9.0]]])
    lesion_BHW = torch.tensor([[[0, 1], [0, 1]], [[1, 1], [0, 0]]])
    film_BHW = torch.ones(2, 2, 2, dtype=torch.bool)
    assert peak(map_BHW, film_BHW).tolist() == [3, -2]
    film_BHW[0, :, 0] = False  # padding
    assert peak(map_BHW, film_BHW).tolist() == [2, -2]
    assert lesion_peak(map_BHW, lesion_BHW).tolist() == [2, -3]
    assert peak(map_BHW, film_BHW).dtype == lesion_peak(map_BHW, lesion_BHW).dtype == torch.float64


def test_four_of_five_lesions_reach_the_threshold() -> None:
    peaks = torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0, 6.0], dtype=torch.float64)
    threshold = activation_threshold(peaks)
    assert threshold == pytest.approx(2)  # the 0.2 quantile of 1 ... 6
    assert (peaks >= threshold).double().mean() > 0.8
    assert activation_threshold(peaks[:1]) == 5
    with pytest.raises(ValueError, match="at least one marked film"):
        activation_threshold(peaks[:0])


def test_only_what_exceeds_the_threshold_is_active() -> None:
    peaks = torch.tensor([0.9, 1.0, 1.1, 7.0])
    assert false_activation(peaks, 1.0).tolist() == [0, 0, 1, 1]
    assert false_activation(peaks * 0, 0.0).tolist() == [0] * 4  # a dead map is not active


def test_min_max_would_not_see_it() -> None:
    """The same shape at a tenth of the height: normalised alike, active or not."""
    cold, hot = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0)).split(1)
    maps = torch.cat([hot, hot / 10, cold / 10])
    assert false_activation(peak(maps, torch.ones_like(maps).bool()), 0.5).tolist() == [1, 0, 0]


def test_refuses_what_is_no_map() -> None:
    broken = torch.zeros(1, 2, 2)
    broken[0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        peak(broken, torch.ones(1, 2, 2).bool())
    with pytest.raises(ValueError, match="NaN"):
        lesion_peak(broken, torch.ones(1, 2, 2))
    with pytest.raises(ValueError, match="empty"):
        lesion_peak(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2))


def test_one_normal_film_in_twenty_reaches_the_level() -> None:
    """Of the peaks 0 ... 100 the 0.95 quantile is 95: 95 to 100 reach it."""
    peak_N = torch.arange(101, dtype=torch.float32)
    assert candidate_level(peak_N) == pytest.approx(95)
    reached_N = candidate(peak_N.double(), Tuning(level=95.0))
    assert reached_N is not None and reached_N.sum() == 6 and reached_N[95] == 1
    assert candidate(peak_N, Tuning()) is None
    with pytest.raises(ValueError, match="at least one normal film"):
        candidate_level(peak_N[:0])

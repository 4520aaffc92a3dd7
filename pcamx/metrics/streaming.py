"""The same figures in torchmetrics' form: updated batch by batch, reduced over ranks at the end.

Memory is the same after one film and after 40,000: sums, counts and histograms on the device,
never a map. `torchmetrics.MetricCollection` takes them; with torch.distributed initialised
``compute`` adds up all ranks. For intervals, keep what the functions give per film instead and
hand it to `pcamx.metrics.figure`.

Shapes: B films, H W the canvas, L levels, D IoU levels, T thresholds.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from pcamx.metrics.boxes import IOU_LEVELS, box_hits, box_iou_curve
from pcamx.metrics.localization import SIZES, in_slice, lesion_share
from pcamx.metrics.pixels import LEVELS, average_precision, pixel_counts


class FilmMean(Metric):  # type: ignore[misc]
    """Mean over films of any per-film function: ``FilmMean(pointing)``, ``FilmMean(energy)``.

    ``update`` takes what ``measure`` takes and passes it on; ``measure`` returns one number per
    film. So ``FilmMean(partial(deletion, probability))`` takes images and maps, and
    ``FilmMean(lambda map_BHW: false_activation(peak(map_BHW), threshold))`` the maps of normal
    films. NaN before the first film. 16 bytes.
    """

    full_state_update = False
    total: Tensor
    films: Tensor

    def __init__(self, measure: Callable[..., Tensor], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.measure = measure
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("films", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, *batch: Tensor) -> None:
        """Add a batch of films."""
        value_B = self.measure(*batch)
        self.total += value_B.double().sum()
        self.films += len(value_B)

    def compute(self) -> Tensor:
        """The mean, float64."""
        return self.total / self.films


class SizeMeans(Metric):  # type: ignore[misc]
    """The mean of a per-film function for each slice of `SIZES`, by the lesion's size."""

    full_state_update = False
    total_S: Tensor
    films_S: Tensor

    def __init__(self, measure: Callable[[Tensor, Tensor], Tensor], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.measure = measure
        zeros_S = torch.zeros(len(SIZES))
        self.add_state("total_S", zeros_S.double(), dist_reduce_fx="sum")
        self.add_state("films_S", zeros_S.long(), dist_reduce_fx="sum")

    def update(self, map_BHW: Tensor, lesion_BHW: Tensor) -> None:
        """Add a batch of marked films."""
        value_B, share_B = self.measure(map_BHW, lesion_BHW), lesion_share(lesion_BHW)
        slice_SB = torch.stack([in_slice(share_B, size) for size in SIZES])
        self.total_S += (slice_SB * value_B).double().sum(dim=1)
        self.films_S += slice_SB.sum(dim=1)

    def compute(self) -> dict[str, Tensor]:
        """The mean of every slice, NaN for a slice without a film."""
        return dict(zip(SIZES, self.total_S / self.films_S, strict=True))


class PixelAveragePrecision(Metric):  # type: ignore[misc]
    """PxAP, pooled over all films; NaN before the first. 16 kB of pixel counts."""

    full_state_update = False
    count_2L: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        zeros_2L = torch.zeros(2, LEVELS, dtype=torch.int64)
        self.add_state("count_2L", zeros_2L, dist_reduce_fx="sum")

    def update(self, map_BHW: Tensor, lesion_BHW: Tensor) -> None:
        """Add a batch of marked films."""
        self.count_2L += pixel_counts(map_BHW, lesion_BHW).sum(dim=0)

    def compute(self) -> Tensor:
        """Average precision as a share, float64."""
        pooled = average_precision(self.count_2L[None].double().cpu().numpy())
        return torch.from_numpy(pooled)[0].to(self.count_2L.device)


class MaxBoxAcc(Metric):  # type: ignore[misc]
    """MaxBoxAccV2, or MaxBoxAcc with ``largest=True, iou_levels=(0.5,)``. 2 kB a level of IoU."""

    full_state_update = False
    hits_DT: Tensor
    films: Tensor

    def __init__(
        self, *, largest: bool = False, iou_levels: Sequence[float] = IOU_LEVELS, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.largest, self.iou_levels = largest, iou_levels
        zeros_DT = torch.zeros(len(iou_levels), 255, dtype=torch.int64)
        self.add_state("hits_DT", zeros_DT, dist_reduce_fx="sum")
        self.add_state("films", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, map_BHW: Tensor, lesion_BHW: Tensor) -> None:
        """Add a batch of marked films."""
        iou_BT = box_iou_curve(map_BHW, lesion_BHW, largest=self.largest)
        self.hits_DT += box_hits(iou_BT, self.iou_levels).sum(dim=0)
        self.films += len(iou_BT)

    def compute(self) -> Tensor:
        """Share of films at the best threshold, averaged over the IoU levels; NaN without films."""
        return (self.hits_DT.double() / self.films).amax(dim=1).mean()

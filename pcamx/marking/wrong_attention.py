"""Signs that a trained network looks at the wrong place of a film that nobody has marked.

Whether it does is only known where a film is marked. Three signs stand for it, each in [0, 1], and
score = (2 doubt + background + change) / 4:

- doubt, min(1, 2 (1 - P)): 1 where an abnormal film is called normal, 0 where it is certain;
- background: the share of the attended area (eq. (3)'s mask of the abnormal class) that lies on
  the film's dark background;
- change: how far P moves when only the attended area is shown.

Doubt weighs double, since it alone also says that the film is not learned yet.

Shapes: B batch, H W the canvas or the film on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pcamx.data.store import Film, Store
from pcamx.marking import film_tiles
from pcamx.progress import Track, silent
from pcamx.run.pretrained import Pretrained
from pcamx.types import ABNORMAL

_SMOOTH = 5  # pixels of the canvas: noise is no limb


@dataclass(frozen=True, slots=True)
class Signs:
    """Of one film, each in [0, 1]."""

    probability: float
    """Of abnormal, by the whole film."""
    attended: float
    """Of abnormal, by the attended area alone."""
    background: float
    """Share of the attended area that lies on the film's dark background."""

    def doubt(self) -> float:
        """Return 1 where the film is called normal, 0 where it is certainly abnormal."""
        return min(1.0, 2 * (1 - self.probability))

    def change(self) -> float:
        """Return how far the probability moves when only the attended area is shown."""
        return abs(self.probability - self.attended)

    def score(self) -> float:
        """Return how much the film is worth marking, in [0, 1]."""
        return (2 * self.doubt() + self.background + self.change()) / 4

    def reason(self) -> str:
        """Return the signs that stand out, in words."""
        said = []
        if self.doubt() >= 1:
            said.append(f"called normal ({self.probability:.2f})")
        elif self.doubt() >= 0.5:
            said.append(f"uncertain ({self.probability:.2f})")
        if self.background >= 0.5:
            said.append(f"{self.background:.0%} of the attended area is background")
        if self.change() >= 0.25:
            said.append(f"the attended area alone gives {self.attended:.2f}")
        return "; ".join(said) or f"nothing stands out ({self.probability:.2f})"


@torch.no_grad()
def measure(
    model: Pretrained, store: Store, films: Sequence[Film], track: Track = silent
) -> list[Signs]:
    """Measure the signs of each film, in order."""
    found: list[Signs] = []
    network, canvas = model.network, model.canvas
    for batch, canvas_B1HW in film_tiles.batches(
        store, films, canvas, model.device, track, "looking at films"
    ):
        image_B1HW = model.standardise(canvas_B1HW)
        features = network.encoder(image_B1HW)
        # An image of ones, attended, is the mask itself.
        logits_BC, attended = network.head(features[-1], torch.ones_like(image_B1HW))
        assert attended is not None
        mask_B1HW = attended.image_B1HW
        attended_BC = network(image_B1HW * mask_B1HW)
        back_B1HW = _background(canvas_B1HW, batch)
        background_B = (mask_B1HW * back_B1HW).sum((1, 2, 3)) / mask_B1HW.sum((1, 2, 3))
        figures_B3 = torch.stack(
            (_abnormal(logits_BC), _abnormal(attended_BC), background_B), dim=1
        )
        found += [Signs(*row) for row in figures_B3.tolist()]
    return found


def _abnormal(logits_BC: Tensor) -> Tensor:
    return logits_BC.float().softmax(1)[:, ABNORMAL]


def _background(canvas_B1HW: Tensor, films: Sequence[Film]) -> Tensor:
    """Where the canvas is padding or the film's background: bool [B, 1, H, W]."""
    smooth_B1HW = F.avg_pool2d(canvas_B1HW.float(), _SMOOTH, stride=1, padding=_SMOOTH // 2)
    limits = [
        background_limit(film_tiles.on_film(canvas_1HW[0], film).cpu().numpy())
        for canvas_1HW, film in zip(canvas_B1HW, films, strict=True)
    ]
    return smooth_B1HW <= torch.tensor(limits, device=canvas_B1HW.device)[:, None, None, None]


def background_limit(grey_HW: NDArray[np.uint8]) -> int:
    """Return the brightest grey level of a film's background, -1 where it seems to have none.

    The triangle method (Zack, Rogers and Latt 1977): where the histogram is farthest below the
    line from its peak, the background, to the bright end. A peak in the brighter half is no
    background of a radiograph that shows bone white.
    """
    dark, bright = (int(level) for level in np.percentile(grey_HW, (1, 99)))
    count = np.bincount(grey_HW.ravel(), minlength=256)
    smooth = np.convolve(count, np.ones(5) / 5, mode="same")[: bright + 1]
    peak = int(smooth.argmax())
    if peak >= (dark + bright) / 2:
        return -1
    line = np.linspace(smooth[peak], smooth[bright], bright + 1 - peak)
    return peak + int((line - smooth[peak:]).argmax())

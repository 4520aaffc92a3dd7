"""Signs that a trained network looks at the wrong place of a film that nobody has marked.

Whether it does is only known where a film is marked. Three signs stand for it, each in [0, 1], and
the score is their mean:

- rival: how near the positive class activation map comes to its peak far from it;
- unsteady: how far the peak moves when the film is mirrored;
- disagreement: how far the decoder's peak lies from the map's, where there is a decoder.

A distance counts fully from a quarter of the canvas on. What else was tried, and how well each
sign tells, is in bench/results/cpu_2026-11_suggest.md.

Shapes: B batch, H W the canvas.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pcamx.catalogue import DECODER, POSITIVE_CAM
from pcamx.data.store import Film, Store
from pcamx.marking import film_tiles
from pcamx.model.maps import explain_once
from pcamx.progress import Track, silent
from pcamx.run.pretrained import Pretrained

NEAR = 1 / 6
"""Of the canvas's side: a second peak is no rival nearer than this to the first."""
FAR = 1 / 4
"""Of the canvas's side: peaks that far apart are of two places."""
_EQUAL = 1e-5
"""Of a map's range: maxima that differ by less are one, by rounding."""


@dataclass(frozen=True, slots=True)
class Signs:
    """Of one film, each in [0, 1]."""

    probability: float
    """Of abnormal."""
    rival: float
    """Height of the map's second peak above the map's mean, the first's being 1."""
    unsteady: float
    """Distance of the map's peaks on the film and on its mirror image; 1 from `FAR` on."""
    disagreement: float | None
    """Distance of the decoder's peak and the map's, likewise; None without a decoder."""

    def score(self) -> float:
        """Return how much the film is worth marking, in [0, 1]."""
        signs = (self.rival, self.unsteady, self.disagreement)
        known = [sign for sign in signs if sign is not None]
        return sum(known) / len(known)

    def reason(self) -> str:
        """Return the signs that stand out, in words, and a film that is called normal."""
        said = []
        if self.probability <= 0.5:
            said.append("called normal")
        if self.disagreement is not None and self.disagreement >= 0.5:
            said.append("map and decoder peak apart")
        if self.unsteady >= 0.5:
            said.append("mirrored, the map peaks elsewhere")
        if self.rival >= 0.9:
            said.append(f"a second peak of {self.rival:.0%}")
        return "; ".join(said) or "nothing stands out"


def measure(
    model: Pretrained, store: Store, films: Sequence[Film], track: Track = silent
) -> list[Signs]:
    """Measure the signs of each film, in order."""
    found: list[Signs] = []
    for _, canvas_B1HW in film_tiles.batches(
        store, films, model.canvas, model.device, track, "looking at films"
    ):
        probability_B, maps = model.explain(canvas_B1HW)
        map_BHW = maps[POSITIVE_CAM.key]
        alone_BHW = _map_alone(model, canvas_B1HW) if model.mirrored else map_BHW
        mirrored_BHW = _map_alone(model, canvas_B1HW.flip(-1)).flip(-1)
        columns = [
            probability_B.tolist(),
            rival(map_BHW).tolist(),
            apart(alone_BHW, mirrored_BHW).tolist(),
            apart(map_BHW, maps[DECODER.key]).tolist()
            if DECODER.key in maps
            else [None] * len(map_BHW),
        ]
        found += [Signs(*row) for row in zip(*columns, strict=True)]
    return found


def _map_alone(model: Pretrained, canvas_B1HW: Tensor) -> Tensor:
    """The positive CAM of canvases that knows nothing of their mirror images."""
    image_B1HW = model.standardise(canvas_B1HW)
    return explain_once(model.network, image_B1HW, [POSITIVE_CAM])[1][POSITIVE_CAM.key]


def rival(map_BHW: Tensor) -> Tensor:
    """Return the second peak's height above the map's mean as a share of the first's: [B].

    The second is the highest value `NEAR` or farther from the first. Nothing tells the places of a
    flat map apart: 1.
    """
    _, H, W = map_BHW.shape
    row_H1 = torch.arange(H, device=map_BHW.device)[:, None]
    column_W = torch.arange(W, device=map_BHW.device)
    row_B, column_B = peak(map_BHW).T[..., None, None]
    near_BHW = (row_H1 - row_B) ** 2 + (column_W - column_B) ** 2 < (NEAR * W) ** 2
    first_B, mean_B = map_BHW.amax((1, 2)), map_BHW.mean((1, 2))
    second_B = map_BHW.masked_fill(near_BHW, -torch.inf).amax((1, 2))
    share_B = (second_B - mean_B) / (first_B - mean_B)
    return torch.where(first_B > mean_B, share_B.clamp(0, 1), 1.0)


def apart(one_BHW: Tensor, other_BHW: Tensor) -> Tensor:
    """Return the distance of two maps' peaks, as a share of `FAR`, 1 at the most: [B]."""
    move_B2 = peak(one_BHW) - peak(other_BHW)
    distance_B = torch.hypot(move_B2[:, 0], move_B2[:, 1])
    return (distance_B / (FAR * one_BHW.shape[-1])).clamp(max=1)


def peak(map_BHW: Tensor) -> Tensor:
    """Return row and column of each map's maximum, the mean of equal ones: float64 [B, 2].

    A map that was brought to the canvas's size is flat along its edge.
    """
    low_B11, high_B11 = map_BHW.amin((1, 2), keepdim=True), map_BHW.amax((1, 2), keepdim=True)
    top_BHW = (map_BHW >= high_B11 - _EQUAL * (high_B11 - low_B11)).double()
    count_B = top_BHW.sum((1, 2))
    places = [
        (top_BHW.sum(3 - axis) * torch.arange(n, device=map_BHW.device)).sum(1) / count_B
        for axis, n in ((1, map_BHW.shape[1]), (2, map_BHW.shape[2]))
    ]
    return torch.stack(places, dim=1)

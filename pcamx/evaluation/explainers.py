"""Who is measured: trained networks and baselines, each giving a probability and maps of films.

Shapes: B batch, H W the canvas.
"""

from collections.abc import Callable, Iterable

from torch import Tensor

from pcamx import metrics
from pcamx.catalogue import MAPS, MapKind
from pcamx.model.maps import explain
from pcamx.model.network import Network, Segmenter
from pcamx.types import ABNORMAL

Maps = dict[str, Tensor]
Explainer = Callable[[Tensor], tuple[Tensor | None, Maps]]
"""Image [B, 1, H, W] to the probability of abnormal [B], if any, and maps [B, H, W] by key."""


def abnormal_probability(logits_BC: Tensor) -> Tensor:
    """Return the probability of abnormal of each image, float32 [B]."""
    return logits_BC.float().softmax(1)[:, ABNORMAL]


def explainer(network: Network | Segmenter, kinds: Iterable[MapKind]) -> Explainer:
    """Return what gives the ``kinds`` of maps of a network, whatever the film's label."""
    kinds = list(kinds)

    def answer(image_B1HW: Tensor) -> tuple[Tensor | None, Maps]:
        logits_BC, maps = explain(network, image_B1HW, kinds)
        return None if logits_BC is None else abnormal_probability(logits_BC), maps

    return answer


def centre(image_B1HW: Tensor) -> tuple[None, Maps]:
    """Give a Gaussian in the middle of every film in the place of every map."""
    gaussian_HW = metrics.centre_gaussian(image_B1HW.shape[-1]).to(image_B1HW.device)
    map_BHW = gaussian_HW.expand(len(image_B1HW), -1, -1)
    return None, dict.fromkeys((kind.key for kind in MAPS if not kind.gradient), map_BHW)

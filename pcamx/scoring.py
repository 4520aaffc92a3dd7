"""Run trained networks and map baselines over films and score them film by film.

Shapes: B batch, N films, M marked films, T thresholds, H W the canvas.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from pcamx import metrics
from pcamx.model.network import Network
from pcamx.types import ABNORMAL, Batch

Maps = dict[str, Tensor]
Explain = Callable[[Tensor], tuple[Tensor | None, Maps]]
"""Image [B, 1, H, W] to the probability of abnormal [B], if any, and maps [B, H, W] by name."""


class MapScores(NamedTuple):
    """Of one map, on the marked films only."""

    pointing_M: Tensor
    energy_M: Tensor
    iou_MT: Tensor


class Scores(NamedTuple):
    """Of one network or baseline; ``probability_N`` is None where it does not classify."""

    probability_N: Tensor | None
    maps: dict[str, MapScores]


def network_maps(network: Network) -> Explain:
    """The maps of the abnormal class, of the full image, whatever the film's label."""

    def explain(image_B1HW: Tensor) -> tuple[Tensor, Maps]:
        logits_BC, maps = network.explain(image_B1HW)
        named = {"cam": maps.cam_BHW, "positive_cam": maps.positive_cam_BHW}
        if maps.decoder_BHW is not None:
            named["decoder"] = maps.decoder_BHW
        return logits_BC.float().softmax(1)[:, ABNORMAL], named

    return explain


def centre_maps(image_B1HW: Tensor) -> tuple[None, Maps]:
    """A Gaussian in the middle of every film, in the place of every map."""
    gaussian_HW = metrics.centre_gaussian(image_B1HW.shape[-1]).to(image_B1HW.device)
    map_BHW = gaussian_HW.expand(len(image_B1HW), -1, -1)
    return None, dict.fromkeys(("cam", "positive_cam", "decoder"), map_BHW)


def score(explainers: dict[str, Explain], batches: Iterable[Batch]) -> dict[str, Scores]:
    """Score every explainer on the same films, decoded once."""
    probabilities: dict[str, list[Tensor]] = {name: [] for name in explainers}
    parts: dict[str, dict[str, list[MapScores]]] = {name: {} for name in explainers}
    for batch in batches:
        marked_B = batch.marked_B
        lesion_MHW = batch.lesion_B1HW[marked_B, 0]
        for name, explain in explainers.items():
            probability_B, maps = explain(batch.image_B1HW)
            if probability_B is not None:
                probabilities[name].append(probability_B.cpu())
            for map_name, map_BHW in maps.items():
                part = _score_maps(map_BHW[marked_B], lesion_MHW)
                parts[name].setdefault(map_name, []).append(part)
    return {
        name: Scores(
            torch.cat(probabilities[name]) if probabilities[name] else None,
            {key: MapScores(*map(torch.cat, zip(*p, strict=True))) for key, p in found.items()},
        )
        for name, found in parts.items()
    }


def _score_maps(map_MHW: Tensor, lesion_MHW: Tensor) -> MapScores:
    return MapScores(
        metrics.pointing(map_MHW, lesion_MHW).cpu(),
        metrics.energy(map_MHW, lesion_MHW).cpu(),
        metrics.iou_curve(map_MHW, lesion_MHW).cpu(),
    )

"""Run trained networks and map baselines over films and score them film by film.

Shapes: B batch, N films, M marked films, K films with a side marker, T thresholds,
L levels of PxAP, D IoU levels, H W the canvas. What is kept is small: about 9 kB per marked film
and map, whatever the canvas, and one number per other film.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from pcamx import metrics
from pcamx.data.canvas.side_markers import Box
from pcamx.model.network import Maps as NetworkMaps
from pcamx.model.network import Network, Segmenter
from pcamx.types import ABNORMAL, Batch

Maps = dict[str, Tensor]
Explain = Callable[[Tensor], tuple[Tensor | None, Maps]]
"""Image [B, 1, H, W] to the probability of abnormal [B], if any, and maps [B, H, W] by name."""

_UNTUNED = 0.5
"""Threshold where no marked training film is there to tune it on."""


class MapScores(NamedTuple):
    """Of one map: what `pcamx.metrics` says of each marked film, the peak on every film, and
    whether that peak is on the side marker, for films that carry one."""

    pointing_M: Tensor
    energy_M: Tensor
    relevance_rank_M: Tensor
    iou_MT: Tensor
    iou_otsu_M: Tensor
    pixels_M2L: Tensor
    box_hits_MDT: Tensor
    peak_N: Tensor  # not normalised
    on_marker_K: Tensor


class Scores(NamedTuple):
    """Of one network or baseline; ``probability_N`` is None where it does not classify."""

    probability_N: Tensor | None
    maps: dict[str, MapScores]
    lesion_share_M: Tensor


class Tuning(NamedTuple):
    """What one map's figures on other films take from the marked training films."""

    threshold: float = _UNTUNED
    """Of the normalised map, for IoU and Dice."""
    tuned: bool = False
    activation: float | None = None
    """Of the map as it is, for false activation; None without a marked training film."""


def abnormal_probability(logits_BC: Tensor) -> Tensor:
    """Of each image, float32 [B]."""
    return logits_BC.float().softmax(1)[:, ABNORMAL]


def network_maps(network: Network) -> Explain:
    """The maps of the abnormal class, of the full image, whatever the film's label."""

    def explain(image_B1HW: Tensor) -> tuple[Tensor, Maps]:
        logits_BC, maps = network.explain(image_B1HW)
        return abnormal_probability(logits_BC), _named(maps)

    return explain


def _named(maps: NetworkMaps) -> Maps:
    named = {"cam": maps.cam_BHW, "positive_cam": maps.positive_cam_BHW}
    return named if maps.decoder_BHW is None else named | {"decoder": maps.decoder_BHW}


def all_maps(network: Network) -> Explain:
    """`network_maps`, and those that its gradients give, as they are evaluated side by side."""

    def explain(image_B1HW: Tensor) -> tuple[Tensor, Maps]:
        logits_BC, maps, gradient = network.explain_with_gradients(image_B1HW)
        named = _named(maps) | {"gradcam": gradient.gradcam_BHW, "layercam": gradient.layercam_BHW}
        return abnormal_probability(logits_BC), named

    return explain


def segmenter_maps(segmenter: Segmenter) -> Explain:
    """The one map of the baseline of stage 3, which does not classify."""

    @torch.no_grad()
    def explain(image_B1HW: Tensor) -> tuple[None, Maps]:
        return None, {"decoder": torch.sigmoid(segmenter(image_B1HW))[:, 0]}

    return explain


def centre_maps(image_B1HW: Tensor) -> tuple[None, Maps]:
    """A Gaussian in the middle of every film, in the place of every map."""
    gaussian_HW = metrics.centre_gaussian(image_B1HW.shape[-1]).to(image_B1HW.device)
    map_BHW = gaussian_HW.expand(len(image_B1HW), -1, -1)
    return None, dict.fromkeys(("cam", "positive_cam", "decoder"), map_BHW)


def score(
    explainers: Mapping[str, Explain],
    batches: Iterable[Batch],
    markers: Sequence[Box | None] | None = None,
) -> dict[str, Scores]:
    """Score every explainer on the same films, decoded once.

    ``markers`` are the regions of the films' side markers on the canvas, in the films' order.
    """
    probabilities: dict[str, list[Tensor]] = {name: [] for name in explainers}
    shares: dict[str, list[Tensor]] = {name: [] for name in explainers}
    parts: dict[str, dict[str, list[MapScores]]] = {name: {} for name in explainers}
    start = 0
    for batch in batches:
        truth = _truth(batch, markers[start:] if markers else [])
        start += len(batch.label_B)
        for name, explain in explainers.items():
            probability_B, maps = explain(batch.image_B1HW)
            if probability_B is not None:
                probabilities[name].append(probability_B.cpu())
            shares[name].append(metrics.lesion_share(truth.lesion_MHW).cpu())
            measured: dict[int, MapScores] = {}  # the centre's one map has three names
            for map_name, map_BHW in maps.items():
                if id(map_BHW) not in measured:
                    measured[id(map_BHW)] = _measure(map_BHW, truth)
                parts[name].setdefault(map_name, []).append(measured[id(map_BHW)])
    return {
        name: Scores(
            torch.cat(probabilities[name]) if probabilities[name] else None,
            {key: MapScores(*map(torch.cat, zip(*p, strict=True))) for key, p in found.items()},
            torch.cat(shares[name]),
        )
        for name, found in parts.items()
    }


class _Truth(NamedTuple):
    """What is known of a batch's films: lesions of the marked ones, markers of some."""

    marked_B: Tensor
    lesion_MHW: Tensor
    marker_B: Tensor
    marker_KHW: Tensor


def _truth(batch: Batch, markers: Sequence[Box | None]) -> _Truth:
    films, _, height, width = batch.image_B1HW.shape
    marker_BHW = torch.zeros(films, height, width)
    for film, box in enumerate(markers[:films]):
        if box is not None:
            marker_BHW[film, box.top : box.bottom, box.left : box.right] = 1
    marker_B = marker_BHW.any(dim=2).any(dim=1)
    device = batch.image_B1HW.device
    return _Truth(
        batch.marked_B,
        batch.lesion_B1HW[batch.marked_B, 0],
        marker_B.to(device),
        marker_BHW[marker_B].to(device),
    )


def _measure(map_BHW: Tensor, truth: _Truth) -> MapScores:
    map_MHW, lesion_MHW = map_BHW[truth.marked_B], truth.lesion_MHW
    return MapScores(
        metrics.pointing(map_MHW, lesion_MHW).cpu(),
        metrics.energy(map_MHW, lesion_MHW).cpu(),
        metrics.relevance_rank(map_MHW, lesion_MHW).cpu(),
        metrics.iou_curve(map_MHW, lesion_MHW).cpu(),
        metrics.iou_otsu(map_MHW, lesion_MHW).cpu(),
        metrics.pixel_counts(map_MHW, lesion_MHW).cpu(),
        metrics.box_hits(metrics.box_iou_curve(map_MHW, lesion_MHW)).cpu(),
        metrics.peak(map_BHW).cpu(),
        metrics.pointing(map_BHW[truth.marker_B], truth.marker_KHW).cpu(),
    )


def tune(
    explainers: Mapping[str, Explain], batches: Iterable[Batch]
) -> dict[str, dict[str, Tuning]]:
    """What every map of every explainer takes from ``batches``, the marked training films."""
    found: dict[tuple[str, str], list[tuple[Tensor, Tensor]]] = {}
    for batch in batches:
        lesion_MHW = batch.lesion_B1HW[batch.marked_B, 0]
        for name, explain in explainers.items():
            for map_name, map_BHW in explain(batch.image_B1HW)[1].items():
                map_MHW = map_BHW[batch.marked_B]
                iou_MT = metrics.iou_curve(map_MHW, lesion_MHW).cpu()
                peak_M = metrics.lesion_peak(map_MHW, lesion_MHW).cpu()
                found.setdefault((name, map_name), []).append((iou_MT, peak_M))
    tuned: dict[str, dict[str, Tuning]] = {name: {} for name in explainers}
    for (name, map_name), parts in found.items():
        iou_MT, peak_M = map(torch.cat, zip(*parts, strict=True))
        if len(iou_MT):
            threshold, activation = (
                metrics.tune_threshold(iou_MT),
                metrics.activation_threshold(peak_M),
            )
            tuned[name][map_name] = Tuning(threshold, True, activation)
    return tuned


@torch.no_grad()
def probabilities(networks: Mapping[str, Network], batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Every network's probability of abnormal [N], where no map is asked for."""
    found: dict[str, list[Tensor]] = {name: [] for name in networks}
    for batch in batches:
        for name, network in networks.items():
            found[name].append(_probability(network, batch.image_B1HW).cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}


class Faithfulness(NamedTuple):
    """Of one map, on the films that were tried."""

    deletion_N: Tensor
    insertion_N: Tensor


@torch.no_grad()
def faithfulness(
    networks: Mapping[str, Network], explainers: Mapping[str, Explain], batches: Iterable[Batch]
) -> dict[str, dict[str, Faithfulness]]:
    """Deletion and insertion of every map of a network by the network itself.

    Each film passes through the network 2 x (`pcamx.metrics.STEPS` + 1) times for each map.
    """
    found: dict[str, dict[str, list[Faithfulness]]] = {name: {} for name in networks}
    for batch in batches:
        for name, network in networks.items():
            for map_name, map_BHW in explainers[name](batch.image_B1HW)[1].items():
                areas = (
                    measure(partial(_probability, network), batch.image_B1HW, map_BHW).cpu()
                    for measure in (metrics.deletion, metrics.insertion)
                )
                found[name].setdefault(map_name, []).append(Faithfulness(*areas))
    return {
        name: {m: Faithfulness(*map(torch.cat, zip(*p, strict=True))) for m, p in maps.items()}
        for name, maps in found.items()
    }


def _probability(network: Network, image_B1HW: Tensor) -> Tensor:
    logits_BC: Tensor = network(image_B1HW)
    return logits_BC.float().softmax(1)[:, ABNORMAL]

"""Run explainers over films and score them film by film.

Shapes: B batch, N films, M marked films, K films with a marker, T thresholds, L levels of
PxAP, D IoU levels, H W the canvas. What is kept is about 9 kB per marked film and map, whatever the
canvas, nearly all of it on the disk (`pcamx.evaluation.rows`), and one number per other film.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from pcamx import metrics
from pcamx.catalogue import Films, Measure, measures, resolve
from pcamx.data.canvas.placement import fit, on_film
from pcamx.data.canvas.side_markers import Box
from pcamx.data.store import Film
from pcamx.evaluation.explainers import Explainer, Maps, abnormal_probability
from pcamx.evaluation.rows import Rows
from pcamx.metrics import Statistic
from pcamx.model.network import Network
from pcamx.types import Batch

Watch = Callable[[Batch, str, Maps], None]
_UNTUNED = 0.5
"""Threshold where no marked training film is there to tune it on."""
_SEEN: dict[Films, Films] = {"abnormal with marker": "with marker", "normal": "every"}
"""Films whose observations a measure shares with those of others."""


class Tuning(NamedTuple):
    """What one map's figures on other films take from the marked training films."""

    threshold: float = _UNTUNED
    """Of the normalised map, for IoU and Dice."""
    tuned: bool = False
    activation: float | None = None
    """Of the map as it is, for false activation; None without a marked training film."""
    level: float | None = None
    """Of the map as it is, that a lesion candidate reaches; None without a normal training film."""


@dataclass(frozen=True, slots=True)
class MapScores:
    """Of one map: what each measure's function says of each of its films, [N, ...]."""

    found: dict[tuple[str, Films], Rows]
    """By function and films, so that measures share what they look at."""

    def of(self, measure: Measure) -> Tensor:
        """Return what the measure's function said of its films."""
        return self.found[_place(measure)].read()

    def values(self, measure: Measure, tuning: Tuning) -> Tensor | Statistic | None:
        """Return the measure's value of each film, or as a whole; None where undefined.

        Of films "normal" and "abnormal with marker" those of all, or of all films with a marker,
        which the caller takes its own from.
        """
        if not measure.value:
            return self.of(measure)
        found = self.found[_place(measure)].table() if measure.whole else self.of(measure)
        value: Tensor | Statistic | None = resolve(measure.value)(found, tuning)
        return value


def _place(measure: Measure) -> tuple[str, Films]:
    return measure.function, _SEEN.get(measure.films, measure.films)


@dataclass(frozen=True, slots=True)
class Scores:
    """Of one network or baseline; ``probability_N`` is None where it does not classify."""

    probability_N: Tensor | None
    maps: dict[str, MapScores]
    lesion_share_M: Tensor


def iou_at_threshold(iou_MT: Tensor, tuning: Tuning) -> Tensor:
    """Return each film's IoU at the tuned threshold, [M]."""
    return iou_MT[:, metrics.THRESHOLDS.index(tuning.threshold)]


def dice_at_threshold(iou_MT: Tensor, tuning: Tuning) -> Tensor:
    """Return each film's Dice at the tuned threshold, [M]."""
    return metrics.dice(iou_at_threshold(iou_MT, tuning))


def best_box_hits(hit_MDT: Tensor, tuning: Tuning) -> Tensor:
    """Return `pcamx.metrics.max_box_acc` of each film, [M]; its thresholds are its own."""
    del tuning
    return metrics.max_box_acc(hit_MDT)


def average_precision(count_M2L: metrics.Table, tuning: Tuning) -> Statistic:
    """Return PxAP of all films; it knows no threshold."""
    del tuning
    return metrics.pixel_average_precision(count_M2L)


def active(peak_N: Tensor, tuning: Tuning) -> Tensor | None:
    """Return whether each map's peak exceeds the activation level, [N]; None without one."""
    if tuning.activation is None:
        return None
    return metrics.false_activation(peak_N, tuning.activation)


def candidate(peak_N: Tensor, tuning: Tuning) -> Tensor | None:
    """Return whether each map's peak reaches the candidates' level, [N]; None without one."""
    return None if tuning.level is None else (peak_N >= tuning.level).double()


@dataclass(slots=True)
class _Parts:
    """What the batches so far have given for one explainer."""

    probability: Rows | None = None
    share: Rows = field(default_factory=Rows)
    maps: dict[str, dict[tuple[str, Films], Rows]] = field(default_factory=dict)

    def scores(self) -> Scores:
        return Scores(
            None if self.probability is None else self.probability.read(),
            {name: MapScores(found) for name, found in self.maps.items()},
            self.share.read(),
        )


def score(
    explainers: Mapping[str, Explainer],
    batches: Iterable[Batch],
    films: Sequence[Film],
    markers: Sequence[Sequence[Box]] | None = None,
    watch: Watch | None = None,
) -> dict[str, Scores]:
    """Score every explainer on the same ``films``, decoded once into ``batches``.

    ``markers`` are the regions of the films' markers on the canvas, in the films' order.
    ``watch`` is called with each batch, explainer's name and maps.
    """
    parts = {name: _Parts() for name in explainers}
    start = 0
    for batch in batches:
        truth = _truth(batch, films[start:], markers[start:] if markers else [])
        start += len(batch.label_B)
        for name, explain in explainers.items():
            part = parts[name]
            probability_B, maps = explain(batch.image_B1HW)
            if watch is not None:
                watch(batch, name, maps)
            if probability_B is not None:
                if part.probability is None:
                    part.probability = Rows()
                part.probability.add(probability_B)
            part.share.add(metrics.lesion_share(truth.lesion_MHW))
            observed: dict[int, dict[tuple[str, Films], Rows]] = {}  # the centre's are one map
            for map_name, map_BHW in maps.items():
                if id(map_BHW) not in observed:
                    places = part.maps.setdefault(map_name, {})
                    observed[id(map_BHW)] = places
                    for place, value in _observe(map_BHW, truth).items():
                        places.setdefault(place, Rows()).add(value)
                part.maps[map_name] = observed[id(map_BHW)]
    return {name: found.scores() for name, found in parts.items()}


class _Truth(NamedTuple):
    """What is known of a batch's films: where they lie, lesions of the marked, markers of some."""

    film_BHW: Tensor
    marked_B: Tensor
    lesion_MHW: Tensor
    marker_B: Tensor
    marker_KHW: Tensor


def _truth(batch: Batch, films: Sequence[Film], markers: Sequence[Sequence[Box]]) -> _Truth:
    count, _, height, width = batch.image_B1HW.shape
    marker_BHW = torch.zeros(count, height, width)
    for film, boxes in enumerate(markers[:count]):
        for box in boxes:
            marker_BHW[film, box.top : box.bottom, box.left : box.right] = 1
    marker_B = marker_BHW.any(dim=2).any(dim=1)
    device = batch.image_B1HW.device
    return _Truth(
        _places(batch, films),
        batch.marked_B,
        batch.lesion_B1HW[batch.marked_B, 0],
        marker_B.to(device),
        marker_BHW[marker_B].to(device),
    )


def _places(batch: Batch, films: Sequence[Film]) -> Tensor:
    """Bool [B, H, W]: where the first of ``films``, those of the batch, lie on the canvas."""
    place_BHW = torch.zeros_like(batch.image_B1HW[:, 0], dtype=torch.bool)
    for place_HW, film in zip(place_BHW, films[: len(place_BHW)], strict=True):
        on_film(place_HW, fit(film.width, film.height, place_HW.shape[-1])).fill_(True)
    return place_BHW


def _observe(map_BHW: Tensor, truth: _Truth) -> dict[tuple[str, Films], Tensor]:
    """What the measures' functions say of a batch's maps, each asked once."""
    given: dict[Films, tuple[Tensor, ...]] = {
        "marked": (map_BHW[truth.marked_B], truth.lesion_MHW),
        "with marker": (map_BHW[truth.marker_B], truth.marker_KHW),
        "every": (map_BHW, truth.film_BHW),
    }
    places = dict.fromkeys(_place(measure) for measure in measures("map"))
    return {(function, films): resolve(function)(*given[films]).cpu() for function, films in places}


def tune(
    explainers: Mapping[str, Explainer], batches: Iterable[Batch]
) -> dict[str, dict[str, Tuning]]:
    """Return what every map takes from ``batches``, the marked training films."""
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
            threshold = metrics.tune_threshold(iou_MT)
            activation = metrics.activation_threshold(peak_M)
            tuned[name][map_name] = Tuning(threshold, True, activation)
    return tuned


def add_levels(
    tuned: Mapping[str, dict[str, Tuning]],
    explainers: Mapping[str, Explainer],
    batches: Iterable[Batch],
    films: Sequence[Film],
) -> None:
    """Put the candidates' level of every map, from ``batches`` of normal ``films``, into
    ``tuned``.
    """
    peaks: dict[tuple[str, str], list[Tensor]] = {}
    start = 0
    for batch in batches:
        place_BHW = _places(batch, films[start:])
        start += len(place_BHW)
        for name, explain in explainers.items():
            for map_name, map_BHW in explain(batch.image_B1HW)[1].items():
                peak_B = metrics.peak(map_BHW, place_BHW).cpu()
                peaks.setdefault((name, map_name), []).append(peak_B)
    for (name, map_name), parts in peaks.items():
        level = metrics.candidate_level(torch.cat(parts))
        before = tuned[name].get(map_name, Tuning())
        tuned[name][map_name] = before._replace(level=level)


@torch.no_grad()
def probabilities(networks: Mapping[str, Network], batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Return every network's probability of abnormal [N], where no map is asked for."""
    found: dict[str, list[Tensor]] = {name: [] for name in networks}
    for batch in batches:
        for name, network in networks.items():
            found[name].append(abnormal_probability(network(batch.image_B1HW)).cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}


@torch.no_grad()
def faithfulness(
    networks: Mapping[str, Network], explainers: Mapping[str, Explainer], batches: Iterable[Batch]
) -> dict[str, dict[str, dict[str, Tensor]]]:
    """Return every map's figures by the network's own answers: network > map > key > [N].

    Each film passes through the network 99 times for each map: 17 for deletion, as many for
    insertion, 65 for the patches.
    """
    found: dict[str, dict[str, dict[str, list[Tensor]]]] = {name: {} for name in networks}
    for batch in batches:
        for name, network in networks.items():
            answer = partial(_probability, network)
            for map_name, map_BHW in explainers[name](batch.image_B1HW)[1].items():
                areas = found[name].setdefault(map_name, {})
                for measure in measures("faithfulness"):
                    area_B = resolve(measure.function)(answer, batch.image_B1HW, map_BHW).cpu()
                    areas.setdefault(measure.key, []).append(area_B)
    return {
        name: {m: {k: torch.cat(p) for k, p in areas.items()} for m, areas in maps.items()}
        for name, maps in found.items()
    }


def _probability(network: Network, image_B1HW: Tensor) -> Tensor:
    return abnormal_probability(network(image_B1HW))

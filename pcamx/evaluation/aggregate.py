"""From scores film by film to the figures of report.json, each with its patient-level interval.

Shapes: N films, M marked films, K films with a side marker.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pcamx import metrics
from pcamx.data.canvas.side_markers import Box
from pcamx.data.store import Film
from pcamx.evaluation.scoring import Faithfulness, MapScores, Scores, Tuning
from pcamx.metrics import SIZES, THRESHOLDS
from pcamx.types import ABNORMAL, NORMAL


class _Films(NamedTuple):
    """The films that a figure is about, and their patients."""

    marked: list[str]
    normal: list[str]
    normal_N: Tensor
    with_marker: list[str]
    abnormal_with_marker: list[str]
    abnormal_K: Tensor  # among those with a marker


def figures(
    scores: Scores,
    tuning: dict[str, Tuning],
    films: Sequence[Film],
    markers: Sequence[Box | None],
    seed: int,
) -> dict[str, Any]:
    """``{"classification": ..., "localization": {map: ...}}`` of one network or baseline.

    ``films`` and ``markers`` are those scored, in order; the seed is the bootstrap's.
    """
    found: dict[str, Any] = {}
    if scores.probability_N is not None:
        found["classification"] = metrics.classification_figures(
            scores.probability_N,
            torch.tensor([film.label for film in films]),
            patients=[film.patient for film in films],
            studies=[film.study for film in films],
            parts=[film.part for film in films],
            seed=seed,
        ).to_dict()
    kinds = _kinds(films, markers)
    found["localization"] = {
        name: _on_lesions(maps, tuning.get(name, Tuning()), scores.lesion_share_M, kinds, seed)
        | _elsewhere(maps, tuning.get(name, Tuning()), kinds, seed)
        for name, maps in scores.maps.items()
    }
    return found


def against_segmenter(
    scores: Mapping[str, Scores],
    tuning: Mapping[str, Mapping[str, Tuning]],
    films: Sequence[Film],
    seed: int,
) -> dict[str, Any]:
    """Stage 3's decoder minus the segmenter's on the same films, and their ratio.

    ``{"stage3_against_segmenter": {key: {"value", "low", "high", "p", "n", "ratio"}}}`` for
    pointing, energy and mIoU; the ratio is None where undefined. Empty where one is missing.
    """
    pair = ("stage 3", "segmenter")
    if not scores.keys() >= set(pair):
        return {}
    patients = [film.patient for film in films if film.mark]
    one, other = (
        per_film(scores[n].maps["decoder"], tuning[n].get("decoder", Tuning())) for n in pair
    )
    found = {}
    for key in ("pointing", "energy", "miou"):
        difference = metrics.paired(one[key], other[key], patients, seed=seed)
        below = float(other[key].double().mean()) if patients else 0.0
        ratio = float(one[key].double().mean()) / below if below else None
        found[key] = difference.to_dict() | {"ratio": ratio}
    return {"stage3_against_segmenter": found}


def _kinds(films: Sequence[Film], markers: Sequence[Box | None]) -> _Films:
    lettered = [film for film, box in zip(films, markers, strict=True) if box]
    return _Films(
        [film.patient for film in films if film.mark],
        [film.patient for film in films if film.label == NORMAL],
        torch.tensor([film.label == NORMAL for film in films]),
        [film.patient for film in lettered],
        [film.patient for film in lettered if film.label == ABNORMAL],
        torch.tensor([film.label == ABNORMAL for film in lettered], dtype=torch.bool),
    )


def per_film(scores: MapScores, tuning: Tuning) -> dict[str, Tensor]:
    """The figures that are means over marked films, film by film: [M] each, by their key."""
    iou_M = scores.iou_MT[:, THRESHOLDS.index(tuning.threshold)]
    return {
        "pointing": scores.pointing_M,
        "energy": scores.energy_M,
        "miou": iou_M,
        "dice": metrics.dice(iou_M),
        "miou_otsu": scores.iou_otsu_M,
        "relevance_rank": scores.relevance_rank_M,
        "maxboxacc_v2": metrics.max_box_acc(scores.box_hits_MDT),
    }


def _on_lesions(
    scores: MapScores, tuning: Tuning, share_M: Tensor, films: _Films, seed: int
) -> dict[str, Any]:
    """Figures of the marked films, all and by size, and the threshold that some depend on."""
    figure, value_M = partial(metrics.figure, seed=seed), per_film(scores, tuning)
    pixel_ap = metrics.pixel_average_precision(scores.pixels_M2L)
    by_size: dict[str, dict[str, Any]] = {}
    for size in SIZES:
        taken_M = metrics.in_slice(share_M, size)
        names = [p for p, taken in zip(films.marked, taken_M.tolist(), strict=True) if taken]
        by_size[size] = {
            key: figure(value_M[key][taken_M], names).to_dict()
            for key in ("pointing", "energy", "miou")
        }
    return {
        **{key: figure(value, films.marked).to_dict() for key, value in value_M.items()},
        "pxap": figure(pixel_ap, films.marked).to_dict(),
        "by_size": by_size,
        "threshold": tuning.threshold,
        "threshold_tuned": tuning.tuned,
    }


def _elsewhere(scores: MapScores, tuning: Tuning, films: _Films, seed: int) -> dict[str, Any]:
    """Figures about films without a lesion, and about side markers where films carry some."""
    figure = partial(metrics.figure, seed=seed)
    active = figure([], [])
    if tuning.activation is not None:
        peak_N = scores.peak_N[films.normal_N]
        active = figure(metrics.false_activation(peak_N, tuning.activation), films.normal)
    found: dict[str, Any] = {
        "false_activation": active.to_dict(),
        "activation_threshold": tuning.activation,
    }
    if films.with_marker:
        at_K, abnormal = scores.on_marker_K, films.abnormal_with_marker
        found["on_marker"] = figure(at_K, films.with_marker).to_dict()
        found["on_marker_abnormal"] = figure(at_K[films.abnormal_K], abnormal).to_dict()
    return found


def choose_abnormal(films: Sequence[Film], most: int, *, seed: int) -> list[Film]:
    """At most so many abnormal films, drawn by the seed, in the set's order."""
    abnormal = [film for film in films if film.label == ABNORMAL]
    drawn = np.random.default_rng(seed).permutation(len(abnormal))[:most]
    return [abnormal[i] for i in sorted(drawn)]


def add_faithfulness(
    measured: Mapping[str, dict[str, Any]],
    found: Mapping[str, Mapping[str, Faithfulness]],
    films: Sequence[Film],
    seed: int,
) -> None:
    """Put deletion and insertion on ``films`` beside the other figures of every map."""
    patients = [film.patient for film in films]
    for name, maps in found.items():
        for map_name, areas in maps.items():
            measured[name]["localization"][map_name] |= {
                "deletion": metrics.figure(areas.deletion_N, patients, seed=seed).to_dict(),
                "insertion": metrics.figure(areas.insertion_N, patients, seed=seed).to_dict(),
            }

"""From scores film by film to the figures of report.json, each with its patient-level interval.

Shapes: N films, M marked films, K films with a marker.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pcamx import metrics
from pcamx.catalogue import DECODER, SEGMENTER, STAGE_3, Films, Measure, measures
from pcamx.data.canvas.side_markers import Box
from pcamx.data.store import Film
from pcamx.evaluation.scoring import MapScores, Scores, Tuning
from pcamx.metrics import SIZES
from pcamx.run.report import Measured
from pcamx.types import ABNORMAL, NORMAL


class _Kinds(NamedTuple):
    """Which of all films, or of all films with a marker, each kind of measure is about."""

    patients: dict[Films, list[str]]
    taken: dict[Films, Tensor]
    """Of what was observed of more films, those that count; a kind that is not here takes all."""


def figures(
    scores: Scores,
    tuning: Mapping[str, Tuning],
    films: Sequence[Film],
    markers: Sequence[Sequence[Box]],
    seed: int,
    temperature: float | None = None,
    strata: Sequence[str] = (),
) -> Measured:
    """Return the figures of one network or baseline, as report.json has them.

    ``films`` and ``markers`` are those scored, in order; the seed is the bootstrap's, and the
    ``temperature`` fitted on other films. ``strata`` names each film's markers.
    """
    found = Measured()
    if scores.probability_N is not None:
        found["classification"] = metrics.classification_figures(
            scores.probability_N,
            torch.tensor([film.label for film in films]),
            patients=[film.patient for film in films],
            studies=[film.study for film in films],
            parts=[film.part for film in films],
            markers=strata,
            temperature=temperature,
            seed=seed,
        ).to_dict()
        found["temperature"] = temperature
    kinds = _kinds(films, markers)
    found["localization"] = {
        name: _of_map(maps, tuning.get(name, Tuning()), kinds, seed)
        | {"by_size": _by_size(maps, tuning.get(name, Tuning()), scores, kinds, seed)}
        for name, maps in scores.maps.items()
    }
    return found


def against_segmenter(
    scores: Mapping[str, Scores],
    tuning: Mapping[str, Mapping[str, Tuning]],
    films: Sequence[Film],
    seed: int,
) -> dict[str, Any] | None:
    """Return stage 3's decoder minus the segmenter's on the same films, and their ratio.

    ``{key: {"value", "low", "high", "p", "n", "ratio"}}`` for the first figures of maps; the ratio
    is None where undefined. None where one of the two is missing.
    """
    pair = (STAGE_3.title, SEGMENTER.title)
    if not scores.keys() >= set(pair):
        return None
    patients = [film.patient for film in films if film.mark]
    one, other = (
        per_film(scores[n].maps[DECODER.key], tuning[n].get(DECODER.key, Tuning())) for n in pair
    )
    found = {}
    for key in (measure.key for measure in measures("map") if measure.shown == "first"):
        difference = metrics.paired(one[key], other[key], patients, seed=seed)
        below = float(other[key].double().mean()) if patients else 0.0
        ratio = float(one[key].double().mean()) / below if below else None
        found[key] = difference.to_dict() | {"ratio": ratio}
    return found


def _kinds(films: Sequence[Film], markers: Sequence[Sequence[Box]]) -> _Kinds:
    bearing = [film for film, boxes in zip(films, markers, strict=True) if boxes]
    return _Kinds(
        {
            "marked": [film.patient for film in films if film.mark],
            "normal": [film.patient for film in films if film.label == NORMAL],
            "with marker": [film.patient for film in bearing],
            "abnormal with marker": [film.patient for film in bearing if film.label == ABNORMAL],
        },
        {
            "normal": torch.tensor([film.label == NORMAL for film in films], dtype=torch.bool),
            "abnormal with marker": torch.tensor(
                [film.label == ABNORMAL for film in bearing], dtype=torch.bool
            ),
        },
    )


def per_film(scores: MapScores, tuning: Tuning) -> dict[str, Tensor]:
    """Return the figures that are means over marked films, film by film: [M] each, by key."""
    found = {}
    for measure in measures("map"):
        if measure.column and measure.films == "marked":
            value_M = scores.values(measure, tuning)
            assert isinstance(value_M, Tensor)
            found[measure.key] = value_M
    return found


def _of_map(scores: MapScores, tuning: Tuning, kinds: _Kinds, seed: int) -> dict[str, Any]:
    """Every measure of one map, and the thresholds that some depend on."""
    found: dict[str, Any] = {}
    for measure in measures("map"):
        patients = kinds.patients[measure.films]
        if measure.films.endswith("with marker") and not kinds.patients["with marker"]:
            continue  # of a data set that names no markers
        value = scores.values(measure, tuning)
        if value is None:
            value, patients = torch.zeros(0), []
        elif isinstance(value, Tensor) and measure.films in kinds.taken:
            value = value[kinds.taken[measure.films]]
        found[measure.key] = _figure(measure, value, patients, seed)
    return found | {
        "threshold": tuning.threshold,
        "threshold_tuned": tuning.tuned,
        "activation_threshold": tuning.activation,
        "candidate_level": tuning.level,
    }


def _figure(
    measure: Measure, values: Tensor | metrics.Statistic, patients: Sequence[str], seed: int
) -> dict[str, Any]:
    share = measure.unit in ("share", "probability")
    return metrics.figure(values, patients, share=share, seed=seed).to_dict()


def _by_size(
    maps: MapScores, tuning: Tuning, scores: Scores, kinds: _Kinds, seed: int
) -> dict[str, dict[str, Any]]:
    """The first figures of a map for each size of lesion."""
    value_M, marked = per_film(maps, tuning), kinds.patients["marked"]
    by_size: dict[str, dict[str, Any]] = {}
    for size in SIZES:
        taken_M = metrics.in_slice(scores.lesion_share_M, size)
        names = [p for p, taken in zip(marked, taken_M.tolist(), strict=True) if taken]
        by_size[size] = {
            measure.key: _figure(measure, value_M[measure.key][taken_M], names, seed)
            for measure in measures("map")
            if measure.shown == "first"
        }
    return by_size


def choose_abnormal(films: Sequence[Film], most: int, *, seed: int) -> list[Film]:
    """Return at most so many abnormal films, drawn by the seed, in the set's order."""
    abnormal = [film for film in films if film.label == ABNORMAL]
    drawn = np.random.default_rng(seed).permutation(len(abnormal))[:most]
    return [abnormal[i] for i in sorted(drawn)]


def add_faithfulness(
    measured: Mapping[str, Measured],
    found: Mapping[str, Mapping[str, Mapping[str, Tensor]]],
    films: Sequence[Film],
    seed: int,
) -> None:
    """Put the figures by the network's own answers on ``films`` beside the others of every map."""
    patients = [film.patient for film in films]
    for name, maps in found.items():
        for map_name, areas in maps.items():
            measured[name]["localization"][map_name] |= {
                measure.key: _figure(measure, areas[measure.key], patients, seed)
                for measure in measures("faithfulness")
                if measure.key in areas
            }

"""Everything that can be trained, mapped and measured: one entry each, in one room.

Whoever lists them (training, evaluation, report.json, films.csv, pages, console, compare, the
ablation, the command lines) iterates over `TRAINABLES`, `MAPS`, `BASELINES` and `MEASURES`, in
their order. To add one, write its function or class, and its entry in `trainables`, `maps`,
`map_measures` or `decision_measures`.

An entry names its function or class as packaging's entry points do, "package.module:name", since
those lie above this room; `resolve` imports it on first use.
"""

import importlib
from collections.abc import Iterator
from functools import cache
from typing import Any

from pcamx.catalogue.decision_measures import (
    ACCURACY,
    AUROC,
    BASIS_MEASURES,
    BY_TEMPTATION,
    DECISION_MEASURES,
    KAPPA,
    KAPPA_BY_PART,
    TEMPERATURES,
    TEMPTING,
)
from pcamx.catalogue.map_measures import (
    ENERGY,
    FALSE_ACTIVATION,
    FALSE_CANDIDATES,
    LESIONS_FOUND,
    MAP_MEASURES,
    MIOU,
    ON_MARKER,
    ON_MARKER_ABNORMAL,
    POINTING,
)
from pcamx.catalogue.maps import (
    CAM,
    DECODER,
    GRADCAM,
    LAYERCAM,
    MAPS,
    POSITIVE_CAM,
    MapKind,
    best_map,
    maps_of,
)
from pcamx.catalogue.measure import Films, Judged, Measure
from pcamx.catalogue.trainables import (
    AGAINST_SEGMENTER,
    BASELINES,
    CENTRE,
    L1,
    L2,
    L3,
    LOSS,
    SAME_MARKS,
    SEGMENTER,
    STAGE_1,
    STAGE_2,
    STAGE_3,
    TRAINABLES,
    UNTRAINED,
    Baseline,
    Loss,
    StageId,
    Trainable,
    classifiers,
    key_of,
    losses,
    trainable,
)

__all__ = [
    "ACCURACY",
    "AGAINST_SEGMENTER",
    "AUROC",
    "BASELINES",
    "BY_TEMPTATION",
    "CAM",
    "CENTRE",
    "DECODER",
    "ENERGY",
    "FALSE_ACTIVATION",
    "FALSE_CANDIDATES",
    "GRADCAM",
    "KAPPA",
    "KAPPA_BY_PART",
    "L1",
    "L2",
    "L3",
    "LAYERCAM",
    "MAPS",
    "MEASURES",
    "MIOU",
    "LESIONS_FOUND",
    "LOSS",
    "ON_MARKER",
    "ON_MARKER_ABNORMAL",
    "POINTING",
    "POSITIVE_CAM",
    "SAME_MARKS",
    "SEGMENTER",
    "STAGE_1",
    "STAGE_2",
    "STAGE_3",
    "TEMPERATURES",
    "TEMPTING",
    "TRAINABLES",
    "UNTRAINED",
    "Baseline",
    "Films",
    "Judged",
    "Loss",
    "MapKind",
    "Measure",
    "StageId",
    "Trainable",
    "best_map",
    "classifiers",
    "key_of",
    "losses",
    "maps_of",
    "measures",
    "resolve",
    "trainable",
]

MEASURES: list[Measure] = [*BASIS_MEASURES, *MAP_MEASURES, *DECISION_MEASURES]


def measures(of: Judged) -> Iterator[Measure]:
    """Yield the measures that judge ``of``."""
    return (measure for measure in MEASURES if measure.of == of)


@cache
def resolve(reference: str) -> Any:
    """Import and return what ``"package.module:name"`` names."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)

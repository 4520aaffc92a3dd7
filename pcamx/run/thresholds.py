"""From which value on a map counts as lesion, and from which peak on as a candidate."""

from collections.abc import Mapping
from typing import NamedTuple

from pcamx.catalogue import StageId, maps_of, trainable
from pcamx.run.report import Report

UNTUNED = 0.5
"""Threshold of a map that no marked film has tuned."""


class Threshold(NamedTuple):
    """Where a map, scaled to [0, 1] by its own minimum and maximum, counts as lesion."""

    value: float
    tuned: bool
    level: float | None = None
    """What a lesion candidate's peak reaches, in the map's own unit, as 5 % of the normal training
    films do; None where nobody has measured that."""


def map_keys(stage: StageId) -> list[str]:
    """Return the keys of the maps that one forward of a stage gives."""
    return [kind.key for kind in maps_of(trainable(stage), gradient=False)]


def thresholds_of(report: Report | None, stage: StageId) -> dict[str, Threshold]:
    """Return those of a stage's maps that ``report`` found, `UNTUNED` where nobody measured."""
    found = report["stages"][str(stage)]["localization"] if report else {}
    measured = {
        name: Threshold(m["threshold"], m.get("threshold_tuned", False), m.get("candidate_level"))
        for name, m in found.items()
    }
    return of_every_map(stage, measured)


def of_every_map(stage: StageId, known: Mapping[str, Threshold]) -> dict[str, Threshold]:
    """Return those of a stage's maps, `UNTUNED` where ``known`` has none."""
    return {key: known.get(key, Threshold(UNTUNED, False)) for key in map_keys(stage)}

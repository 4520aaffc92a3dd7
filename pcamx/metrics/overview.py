"""All classification figures of one set of films, with their intervals.

Shapes: N films, S studies.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from pcamx.metrics.bootstrap import Figure, Statistic, Values, figure
from pcamx.metrics.calibration import brier, calibration_error
from pcamx.metrics.classification import (
    accuracy,
    auroc,
    checked,
    cohen_kappa,
    gather_studies,
    share_called,
)


class Classification(NamedTuple):
    """The figures of one set of films; the field names are the keys of ``report.json``."""

    auroc: Figure  # over films
    accuracy: Figure  # over films
    kappa: Figure  # over studies
    sensitivity: Figure  # over abnormal studies
    specificity: Figure  # over normal studies
    brier: Figure  # over films
    calibration_error: Figure  # over films, without an interval
    kappa_by_part: dict[str, Figure]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dicts and numbers, for JSON."""
        figures = self._asdict()
        by_part = figures.pop("kappa_by_part")
        return {
            **{key: figure.to_dict() for key, figure in figures.items()},
            "kappa_by_part": {part: kappa.to_dict() for part, kappa in by_part.items()},
        }


def classification_figures(
    score_N: Values,
    label_N: Values,
    *,
    patients: Sequence[Any],
    studies: Sequence[Any],
    parts: Sequence[str],
    replicates: int = 1000,
    seed: int,
) -> Classification:
    """All classification figures with patient-level intervals.

    ``patients``, ``studies`` and ``parts`` name those of each film; a film without a body part
    ("") is in no entry of ``kappa_by_part``, which is in alphabetical order.
    """
    score, label = checked(score_N, label_N)
    for what, names in (("patients", patients), ("studies", studies), ("parts", parts)):
        if len(names) != len(score):
            raise ValueError(f"{len(score)} scores for {len(names)} names of {what}")

    def estimate(statistic: Statistic, names: Sequence[Any] = patients) -> Figure:
        return figure(statistic, names, replicates=replicates, seed=seed)

    def kappa(films: Sequence[int]) -> Figure:
        study = gather_studies(
            score[films], label[films], [patients[i] for i in films], [studies[i] for i in films]
        )
        return estimate(cohen_kappa(study.score_S, study.label_S), study.patients)

    def called(truth: int) -> Figure:
        names = [p for p, x in zip(whole.patients, whole.label_S, strict=True) if x == truth]
        return estimate(share_called(whole.score_S, whole.label_S, truth), names)

    whole = gather_studies(score, label, patients, studies)
    by_part: dict[str, list[int]] = {}
    for film, part in enumerate(parts):
        if part:
            by_part.setdefault(part, []).append(film)
    return Classification(
        auroc=estimate(auroc(score, label)),
        accuracy=estimate(accuracy(score, label)),
        kappa=estimate(cohen_kappa(whole.score_S, whole.label_S), whole.patients),
        sensitivity=called(1),
        specificity=called(0),
        brier=estimate(brier(score, label)),
        calibration_error=estimate(calibration_error(score, label)),
        kappa_by_part={part: kappa(by_part[part]) for part in sorted(by_part)},
    )

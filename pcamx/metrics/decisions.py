"""What is said of a classifier's decisions, on films and on studies.

`pcamx.catalogue.MEASURES` lists the measures; each is a function of `Decisions` here.

Shapes: N films, S studies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pcamx.catalogue import KAPPA_BY_PART, measures, resolve
from pcamx.metrics.bootstrap import Figure, Floats, Statistic, Values, figure
from pcamx.metrics.calibration import at_temperature, brier, calibration_error
from pcamx.metrics.classification import (
    Studies,
    accuracy,
    auroc,
    auroc_within,
    checked,
    cohen_kappa,
    gather_studies,
    sensitivity_at,
    share_called,
)
from pcamx.types import ABNORMAL, NORMAL


class Decisions(NamedTuple):
    """Probability and label of every film, and of every study."""

    score_N: Floats
    label_N: Floats
    patients: Sequence[Any]
    whole: Studies
    parts: Sequence[str]
    markers: Sequence[str]
    temperature: float | None = None
    """Fitted on other films; None where that was not done."""


class Sample(NamedTuple):
    """A statistic, and the patient of each film or study that it is of."""

    statistic: Statistic
    patients: Sequence[Any]


def film_auroc(found: Decisions) -> Sample:
    """Return the area under the ROC curve, over films."""
    return Sample(auroc(found.score_N, found.label_N), found.patients)


def film_auroc_within_parts(found: Decisions) -> Sample:
    """Return the area under the ROC curve of pairs of films of one body part."""
    return _auroc_within(found, found.parts)


def film_auroc_within_markers(found: Decisions) -> Sample:
    """Return the area under the ROC curve of pairs of films with the same markers."""
    return _auroc_within(found, found.markers)


def _auroc_within(found: Decisions, groups: Sequence[str]) -> Sample:
    """Of the films that are compared: those of a group of both classes."""
    classes: dict[str, set[float]] = {}
    for name, label in zip(groups, found.label_N.tolist(), strict=True):
        classes.setdefault(name, set()).add(label)
    taken = [i for i, name in enumerate(groups) if name and len(classes[name]) > 1]
    within = auroc_within(found.score_N[taken], found.label_N[taken], [groups[i] for i in taken])
    return Sample(within, [found.patients[i] for i in taken])


def film_sensitivity_at_90(found: Decisions) -> Sample:
    """Return the sensitivity, over films, where 90 % of the normal films are called so."""
    return Sample(sensitivity_at(found.score_N, found.label_N, 0.9), found.patients)


def film_accuracy(found: Decisions) -> Sample:
    """Return the share of films on the right side of 1/2."""
    return Sample(accuracy(found.score_N, found.label_N), found.patients)


def study_kappa(found: Decisions) -> Sample:
    """Return Cohen's kappa, over studies."""
    return Sample(cohen_kappa(found.whole.score_S, found.whole.label_S), found.whole.patients)


def sensitivity(found: Decisions) -> Sample:
    """Return the share of abnormal studies that are called abnormal."""
    return _called(found, ABNORMAL)


def specificity(found: Decisions) -> Sample:
    """Return the share of normal studies that are called normal."""
    return _called(found, NORMAL)


def _called(found: Decisions, truth: int) -> Sample:
    whole = found.whole
    names = [p for p, x in zip(whole.patients, whole.label_S, strict=True) if x == truth]
    return Sample(share_called(whole.score_S, whole.label_S, truth), names)


def film_brier(found: Decisions) -> Sample:
    """Return the mean squared error of the probability, over films."""
    return Sample(brier(found.score_N, found.label_N), found.patients)


def film_calibration_error(found: Decisions) -> Sample:
    """Return the expected calibration error, over films, without an interval."""
    return Sample(calibration_error(found.score_N, found.label_N), found.patients)


def film_calibration_error_at_temperature(found: Decisions) -> Sample:
    """Return the same of the probabilities at the temperature; undefined without one."""
    if found.temperature is None:
        return Sample(calibration_error([], []), [])
    score = at_temperature(found.score_N, found.temperature)
    return Sample(calibration_error(score, found.label_N), found.patients)


@dataclass(frozen=True, slots=True)
class Classification:
    """The figures of one set of films, by the keys of ``report.json``."""

    figures: dict[str, Figure]
    kappa_by_part: dict[str, Figure]

    def to_dict(self) -> dict[str, Any]:
        """Return the same as plain dicts and numbers, for JSON."""
        by_part = {part: kappa.to_dict() for part, kappa in self.kappa_by_part.items()}
        found = {key: figure.to_dict() for key, figure in self.figures.items()}
        return {**found, KAPPA_BY_PART: by_part}


def classification_figures(
    score_N: Values,
    label_N: Values,
    *,
    patients: Sequence[Any],
    studies: Sequence[Any],
    parts: Sequence[str],
    markers: Sequence[str] = (),
    temperature: float | None = None,
    replicates: int = 1000,
    seed: int,
) -> Classification:
    """Return all classification figures with patient-level intervals.

    ``patients``, ``studies`` and ``parts`` name those of each film; a film without a body part
    ("") is in no entry of ``kappa_by_part``, which is in alphabetical order. ``markers`` names what
    is on each film, "" or left out where nothing is known; ``temperature`` was fitted on other
    films. Raises ValueError where one is not as long as the scores.
    """
    score, label = checked(score_N, label_N)
    markers = markers or [""] * len(score)
    named = {"patients": patients, "studies": studies, "parts": parts, "markers": markers}
    for what, names in named.items():
        if len(names) != len(score):
            raise ValueError(f"{len(score)} scores for {len(names)} names of {what}")

    def estimate(sample: Sample) -> Figure:
        return figure(sample.statistic, sample.patients, replicates=replicates, seed=seed)

    def decisions(films: Sequence[int]) -> Decisions:
        names = [patients[i] for i in films]
        chosen = score[films], label[films]
        whole = gather_studies(*chosen, names, [studies[i] for i in films])
        return Decisions(*chosen, names, whole, [parts[i] for i in films], ())

    by_part: dict[str, list[int]] = {}
    for film, part in enumerate(parts):
        if part:
            by_part.setdefault(part, []).append(film)
    whole = gather_studies(score, label, patients, studies)
    every = Decisions(score, label, patients, whole, parts, markers, temperature)
    return Classification(
        {m.key: estimate(resolve(m.function)(every)) for m in measures("decision")},
        {part: estimate(study_kappa(decisions(by_part[part]))) for part in sorted(by_part)},
    )

"""What a decision rests on: how it moves when one thing in a film is changed.

A film and its twin differ in nothing but the lesion, or one temptation. The measures of
`pcamx.catalogue` are functions of all `Pairs` of one network.

Shapes: N pairs; R replicates of the bootstrap.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pcamx.metrics.bootstrap import Floats, Statistic, mean
from pcamx.metrics.decisions import Sample

Change = Literal["lesion_removed", "lesion_added", "temptation_removed", "temptation_added"]
CHANGES: tuple[Change, ...] = (
    "lesion_removed",
    "lesion_added",
    "temptation_removed",
    "temptation_added",
)


class Pairs(NamedTuple):
    """Films and their twins; a margin is the logit of abnormal minus that of normal."""

    film_N: Floats
    twin_N: Floats
    """Margins of the films and of their twins; above 0 a film is called abnormal."""
    changes: Sequence[Change]
    patients: Sequence[Any]


def lesion_flips(pairs: Pairs) -> Sample:
    """Return the share of films called abnormal that are called normal without their lesion."""
    return _flips(pairs, _changed(pairs, "lesion_removed") & (pairs.film_N > 0))


def lesion_put_in_flips(pairs: Pairs) -> Sample:
    """Return the share of films called normal that are called abnormal with a lesion put in."""
    return _flips(pairs, _changed(pairs, "lesion_added") & (pairs.film_N <= 0))


def temptation_flips(pairs: Pairs) -> Sample:
    """Return the share of decisions that change with the temptation, put in or taken away."""
    return _flips(pairs, _changed(pairs, "temptation_removed", "temptation_added"))


def _flips(pairs: Pairs, taken_N: NDArray[np.bool_]) -> Sample:
    flip_N = (pairs.film_N > 0) != (pairs.twin_N > 0)
    return Sample(mean(flip_N[taken_N].astype(float)), _patients(pairs, taken_N))


def lesion_effect(pairs: Pairs) -> Sample:
    """Return the mean margin with a lesion minus the mean margin without, in logits."""
    return _effect(pairs, "lesion_removed", "lesion_added")


def temptation_effect(pairs: Pairs) -> Sample:
    """Return the mean margin with the temptation minus the mean margin without, in logits."""
    return _effect(pairs, "temptation_removed", "temptation_added")


def _effect(pairs: Pairs, removed: Change, added: Change) -> Sample:
    taken_N = _changed(pairs, removed, added)
    return Sample(mean(_gain(pairs)[taken_N]), _patients(pairs, taken_N))


def share(pairs: Pairs) -> Sample:
    """Return the temptation's share of the decision, |E_t| / (|E_t| + |E_l|).

    E_l and E_t are `lesion_effect` and `temptation_effect`; undefined without both kinds of pairs.
    """
    lesion_N = _changed(pairs, "lesion_removed", "lesion_added").astype(float)
    tempted_N, gain_N = 1 - lesion_N, _gain(pairs)

    def of(weight_RN: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            lesion_R, tempted_R = (
                np.abs((weight_RN * kind_N) @ gain_N / (weight_RN @ kind_N))
                for kind_N in (lesion_N, tempted_N)
            )
            return np.asarray(tempted_R / (tempted_R + lesion_R))

    count = len(gain_N)
    value = float(of(np.ones((1, count)))[0]) if count else np.nan
    defined = float(value) if np.isfinite(value) else None
    return Sample(Statistic(defined, count, of), pairs.patients)


def _changed(pairs: Pairs, *changes: Change) -> NDArray[np.bool_]:
    return np.array([change in changes for change in pairs.changes], dtype=bool)


def _gain(pairs: Pairs) -> Floats:
    """Of each pair, the margin of the one that has what was changed minus the other's."""
    there_N = _changed(pairs, "lesion_removed", "temptation_removed")
    return np.where(there_N, 1.0, -1.0) * (pairs.film_N - pairs.twin_N)


def _patients(pairs: Pairs, taken_N: NDArray[np.bool_]) -> list[Any]:
    return [patient for patient, taken in zip(pairs.patients, taken_N, strict=True) if taken]

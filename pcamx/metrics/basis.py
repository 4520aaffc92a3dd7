"""What a decision rests on: how it moves when one thing in a film is changed.

A film and its twin differ in nothing but the lesion, or one temptation; a real film has its lesion
erased, or the same patch elsewhere. The measures of `pcamx.catalogue` are functions of all `Pairs`,
or of all `Erased` films, of one network; each gives a value per pair or film, NaN where it is not
about that one.

Shapes: N pairs or films; M erased films; D draws of another patch; R replicates of the bootstrap.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pcamx.catalogue import Measure, resolve
from pcamx.metrics.bootstrap import Floats, Statistic, mean_known
from pcamx.metrics.calibration import sigmoid

Change = Literal["lesion_removed", "lesion_added", "temptation_removed", "temptation_added"]
CHANGES: tuple[Change, ...] = (
    "lesion_removed",
    "lesion_added",
    "temptation_removed",
    "temptation_added",
)
Fill = Literal["blur", "inpaint"]
"""What takes an erased patch's place."""


class Pairs(NamedTuple):
    """Films and their twins; a margin is the logit of abnormal minus that of normal."""

    film_N: Floats
    twin_N: Floats
    """Margins of the films and of their twins; above 0 a film is called abnormal."""
    changes: Sequence[Change]


class Erased(NamedTuple):
    """Margins of marked films as they are, with the lesion erased, with another patch erased."""

    film_M: Floats
    lesion_M: Floats
    other_MD: Floats


def lesion_flips(pairs: Pairs) -> Floats:
    """Return whether a film called abnormal is called normal without its lesion."""
    return _where(_flips(pairs), _changed(pairs, "lesion_removed") & (pairs.film_N > 0))


def lesion_put_in_flips(pairs: Pairs) -> Floats:
    """Return whether a film called normal is called abnormal with a lesion put in."""
    return _where(_flips(pairs), _changed(pairs, "lesion_added") & (pairs.film_N <= 0))


def temptation_flips(pairs: Pairs) -> Floats:
    """Return whether the decision changes with the temptation, put in or taken away."""
    return _where(_flips(pairs), _changed(pairs, "temptation_removed", "temptation_added"))


def lesion_effect(pairs: Pairs) -> Floats:
    """Return the margin with the lesion minus that without, in logits."""
    return _where(_gain(pairs), _changed(pairs, "lesion_removed", "lesion_added"))


def temptation_effect(pairs: Pairs) -> Floats:
    """Return the margin with the temptation minus that without, in logits."""
    return _where(_gain(pairs), _changed(pairs, "temptation_removed", "temptation_added"))


def share(lesion_N: Floats, tempted_N: Floats) -> Statistic:
    """Return the temptation's share of the decision, |E_t| / (|E_t| + |E_l|).

    E_l and E_t are the means of `lesion_effect` and `temptation_effect`; undefined without both.
    """
    lesion, tempted = mean_known(lesion_N), mean_known(tempted_N)

    def of(lesion_R: Floats, tempted_R: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.abs(tempted_R) / (np.abs(tempted_R) + np.abs(lesion_R)))

    value = None
    if lesion.value is not None and tempted.value is not None and (lesion.value or tempted.value):
        value = float(of(np.array(lesion.value), np.array(tempted.value)))
    return Statistic(
        value, lesion.n, lambda w_RN: of(lesion.replicate(w_RN), tempted.replicate(w_RN))
    )


def erase_blur(erased: Mapping[Fill, Erased]) -> Floats:
    """Return how far p falls by blurring the lesion, less the mean fall by another patch."""
    return _fall(erased["blur"], sigmoid)


def erase_inpaint(erased: Mapping[Fill, Erased]) -> Floats:
    """Return the same by in-painting."""
    return _fall(erased["inpaint"], sigmoid)


def erase_blur_logit(erased: Mapping[Fill, Erased]) -> Floats:
    """Return the same as `erase_blur` of the margin, in logits."""
    return _fall(erased["blur"], np.asarray)


def erase_inpaint_logit(erased: Mapping[Fill, Erased]) -> Floats:
    """Return the same as `erase_inpaint` of the margin, in logits."""
    return _fall(erased["inpaint"], np.asarray)


def erase_blur_flips(erased: Mapping[Fill, Erased]) -> Floats:
    """Return whether a film called abnormal is called normal by it, less the share of patches."""
    return _where(_fall(erased["blur"], _called), erased["blur"].film_M > 0)


def erase_inpaint_flips(erased: Mapping[Fill, Erased]) -> Floats:
    """Return the same by in-painting."""
    return _where(_fall(erased["inpaint"], _called), erased["inpaint"].film_M > 0)


def statistic(measure: Measure, column: Mapping[str, Floats]) -> Statistic:
    """Return a measure of the decision's basis from the films' columns, [N] each, NaN if unknown.

    The mean over the films that have a value, or what the measure makes of several columns.
    """
    if measure.made_of:
        found: Statistic = resolve(measure.function)(*(column[key] for key in measure.made_of))
        return found
    return mean_known(column[measure.column], share=measure.unit == "share")


def _fall(erased: Erased, of: Callable[[Floats], Floats]) -> Floats:
    """What the lesion's erasing takes off less what another patch's does, of the same film."""
    return np.asarray(of(erased.other_MD).mean(1) - of(erased.lesion_M))


def _called(margin: Floats) -> Floats:
    return np.asarray(margin > 0, dtype=np.float64)


def _flips(pairs: Pairs) -> Floats:
    return np.asarray((pairs.film_N > 0) != (pairs.twin_N > 0), dtype=np.float64)


def _gain(pairs: Pairs) -> Floats:
    """Of each pair, the margin of the one that has what was changed minus the other's."""
    there_N = _changed(pairs, "lesion_removed", "temptation_removed")
    return np.where(there_N, 1.0, -1.0) * (pairs.film_N - pairs.twin_N)


def _where(value_N: Floats, taken_N: NDArray[np.bool_]) -> Floats:
    return np.where(taken_N, value_N, np.nan)


def _changed(pairs: Pairs, *changes: Change) -> NDArray[np.bool_]:
    return np.array([change in changes for change in pairs.changes], dtype=bool)

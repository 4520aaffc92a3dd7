"""A figure with its interval: the bootstrap over patients.

Films of one patient are alike, so the patient is what is drawn: a replicate draws as many
patients as there are, with replacement, and each brings all its films (cluster bootstrap). A
replicate is therefore a weight for every film, and a statistic a function of weights.

Shapes: N films (or studies), P patients, R replicates.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Values = Tensor | NDArray[Any] | Sequence[float]

_CELLS = 4_000_000  # weights held at a time: 32 MB


class Figure(NamedTuple):
    """A value, its 95 % interval and the number of films (or studies) behind it.

    None where undefined, never NaN, so that it can go into JSON as it is.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int

    def to_dict(self) -> dict[str, float | int | None]:
        """``{"value", "low", "high", "n"}``."""
        return self._asdict()


class Statistic(NamedTuple):
    """A number and how to work it out again for other weights of the same N films."""

    value: float | None  # None where undefined
    n: int
    replicate: Callable[[Floats], Floats]  # weights_RN to R values, NaN where undefined


def to_floats(values: Values) -> Floats:
    """A float64 array on the CPU from a tensor of any device and dtype, an array or a list.

    Raises ValueError unless it is one-dimensional and finite.
    """
    if isinstance(values, Tensor):
        values = values.detach().double().cpu().numpy()
    values_N = np.asarray(values, dtype=np.float64)
    if values_N.ndim != 1 or not np.isfinite(values_N).all():
        raise ValueError("values must be one finite number per film")
    return values_N


def mean(values: Values) -> Statistic:
    """The mean of one value per film."""
    values_N = to_floats(values)

    def replicate(weight_RN: Floats) -> Floats:
        return np.asarray(weight_RN @ values_N / weight_RN.sum(axis=1))

    return Statistic(float(values_N.mean()) if len(values_N) else None, len(values_N), replicate)


def draw_patients(patients: int, replicates: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """How often each patient was drawn, in blocks [R, P]; a pure function of its arguments.

    The blocks bound the memory: together they have ``replicates`` rows, each summing to P.
    """
    generator = np.random.default_rng(seed)
    block = max(1, _CELLS // patients)
    for start in range(0, replicates, block):
        rows = min(block, replicates - start)
        drawn_RP = generator.integers(patients, size=(rows, patients))
        drawn_RP += np.arange(rows)[:, None] * patients
        count = np.bincount(drawn_RP.ravel(), minlength=rows * patients)
        yield count.reshape(rows, patients)


def figure(
    values: Values | Statistic, patients: Sequence[Any], *, replicates: int = 1000, seed: int
) -> Figure:
    """A statistic, or the mean of one value per film, with its patient-level 95 % interval.

    The interval is the 2.5 and 97.5 percentiles of the replicates, those left out in which the
    statistic is undefined. ``patients`` names the patient of each of the N films, in the order of
    the values. One patient alone shows no spread: low = high = value. Raises ValueError if the
    lengths differ or ``replicates`` < 1.
    """
    statistic = values if isinstance(values, Statistic) else mean(values)
    if len(patients) != statistic.n or replicates < 1:
        raise ValueError(
            f"{statistic.n} films, {len(patients)} patients' names, {replicates} replicates"
        )
    if statistic.value is None:
        return Figure(None, None, None, statistic.n)
    names_P, patient_N = np.unique(np.asarray(patients), return_inverse=True)
    if len(names_P) == 1:
        return Figure(statistic.value, statistic.value, statistic.value, statistic.n)
    step = max(1, _CELLS // statistic.n)
    value_R = np.concatenate(
        [
            statistic.replicate(count_RP[start : start + step, patient_N].astype(np.float64))
            for count_RP in draw_patients(len(names_P), replicates, seed)
            for start in range(0, len(count_RP), step)
        ]
    )
    value_R = value_R[~np.isnan(value_R)]
    if len(value_R) == 0:
        return Figure(statistic.value, None, None, statistic.n)
    low, high = np.percentile(value_R, [2.5, 97.5])
    return Figure(statistic.value, float(low), float(high), statistic.n)

"""Figures over seeds, and differences to another figure over the same seeds."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from bench.ablation.grid import LEAST_SEEDS
from bench.lib.record import Row
from pcamx.catalogue import Measure
from pcamx.compare.differences import basis_difference, difference
from pcamx.compare.measured import Measured
from pcamx.evaluation.film_table import FilmTable
from pcamx.metrics import Difference, holm
from pcamx.report.comparison_rows import SURE
from pcamx.report.numbers import DASH, number


@dataclass(frozen=True, slots=True)
class Level:
    """A figure over the seeds."""

    mean: float
    low: float
    high: float

    def text(self) -> str:
        spread = f" ({number(self.low)} to {number(self.high)})" if self.low < self.high else ""
        return number(self.mean) + spread


@dataclass(frozen=True, slots=True)
class Gain:
    """A difference to the base: its interval over patients, its range over seeds."""

    value: float
    interval: tuple[float, float] | None
    seeds: tuple[float, float]
    count: int
    p: float | None = None
    """Two-sided, over patients; once `correct` was called, for all differences together."""

    @property
    def clear(self) -> bool:
        """Whether p is small and all seeds, of which there are enough, lie on one side of 0."""
        sure = self.p is not None and self.p <= SURE
        one_side = self.seeds[0] > 0 or self.seeds[1] < 0
        return sure and self.count >= LEAST_SEEDS and one_side

    def text(self) -> str:
        mark = "**" if self.clear else ""
        interval = ", ".join(f"{end:+.3f}" for end in self.interval or ())
        low, high = self.seeds
        seeds = f" ({low:+.3f} to {high:+.3f})" if low < high else ""
        return f"{mark}{self.value:+.3f}{mark} [{interval or DASH}]{seeds}"


def level(runs: Sequence[Measured], keys: Sequence[str]) -> Level | None:
    """Return what ``keys`` lead to in report.json; None where it is undefined for a seed."""
    values = []
    for run in runs:
        found: Any = run.report
        for key in (*keys, "value"):
            found = found.get(key) if isinstance(found, dict) else None
        if found is None:
            return None
        values.append(float(found))
    return Level(fmean(values), min(values), max(values))


def gain(
    ones: Sequence[Measured],
    firsts: Sequence[Measured],
    place: tuple[str, str],
    key: str,
    minus: tuple[str, str] | None = None,
) -> Gain | None:
    """Compare column ``key`` of ``place``, network and map, in ``ones`` minus ``firsts``; see
    `difference`.

    None where it is undefined for any of the seeds.
    """
    return _gain(ones, firsts, lambda a, b: difference(a, b, *place, key, minus=minus))


def basis_gain(
    ones: Sequence[Measured], firsts: Sequence[Measured], network: str, measure: Measure
) -> Gain | None:
    """Return what ``network``'s decisions rest on in ``ones`` minus ``firsts``, as `gain`."""
    return _gain(ones, firsts, lambda a, b: basis_difference(a, b, network, measure))


Tables = list[FilmTable]


def _gain(
    ones: Sequence[Measured],
    firsts: Sequence[Measured],
    minus: Callable[[Tables, Tables], Difference | None],
) -> Gain | None:
    """By ``minus`` over all seeds, and for each; None where it is undefined for any."""
    if not ones:
        return None
    found = minus([run.films for run in ones], [run.films for run in firsts])
    single = [minus([one.films], [first.films]) for one, first in zip(ones, firsts, strict=True)]
    values = [d.value for d in single if d is not None and d.value is not None]
    if found is None or found.value is None or len(values) != len(ones):
        return None
    low, high = found.low, found.high
    interval = None if low is None or high is None else (low, high)
    return Gain(found.value, interval, (min(values), max(values)), len(values), found.p)


def correct(groups: Iterable[dict[str, Any]]) -> int:
    """Replace each `Gain` of all ``groups`` by one whose p, by Holm, holds for all of them.

    Returns how many have one.
    """
    places = [
        (group, name)
        for group in groups
        for name, figure in group.items()
        if isinstance(figure, Gain)
    ]
    corrected = holm([group[name].p for group, name in places])
    for (group, name), p in zip(places, corrected, strict=True):
        group[name] = replace(group[name], p=p)
    return sum(p is not None for p in corrected)


def level_rows(group: str, name: str, levels: Mapping[str, Level]) -> Iterator[Row]:
    """Return the rows of a record that say what ``levels`` are."""
    for metric, found in levels.items():
        yield Row(group, name, metric, found.mean, "")
        yield Row(group, name, f"{metric}, smallest seed", found.low, "")
        yield Row(group, name, f"{metric}, largest seed", found.high, "")


def gain_rows(group: str, name: str, gains: Mapping[str, Gain]) -> Iterator[Row]:
    """Return the rows of a record that say what ``gains`` are."""
    for metric, found in gains.items():
        values = {"": found.value}
        if found.interval:
            values |= {", low": found.interval[0], ", high": found.interval[1]}
        if found.p is not None:
            values |= {", p by Holm": found.p}
        values |= {", smallest seed": found.seeds[0], ", largest seed": found.seeds[1]}
        for suffix, value in values.items():
            yield Row(group, name, f"{metric}{suffix}", value, "")

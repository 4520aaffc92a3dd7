"""Figures over seeds, and differences to another figure over the same seeds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from bench.ablation.grid import LEAST_SEEDS
from bench.lib.record import Row
from pcamx.compare.differences import difference
from pcamx.compare.measured import Measured
from pcamx.report.rows import DASH, number


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

    @property
    def clear(self) -> bool:
        """Whether interval and seeds, of which there are enough, all lie on one side of 0."""
        ends = [*(self.interval or (0.0,)), *self.seeds]
        return self.count >= LEAST_SEEDS and bool(min(ends) > 0 or max(ends) < 0)

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
    if not ones:
        return None
    found = difference([r.films for r in ones], [r.films for r in firsts], *place, key, minus=minus)
    single = [
        difference([one.films], [first.films], *place, key, minus=minus)
        for one, first in zip(ones, firsts, strict=True)
    ]
    values = [d.value for d in single if d is not None and d.value is not None]
    if found is None or found.value is None or len(values) != len(ones):
        return None
    low, high = found.low, found.high
    interval = None if low is None or high is None else (low, high)
    return Gain(found.value, interval, (min(values), max(values)), len(values))


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
        values |= {", smallest seed": found.seeds[0], ", largest seed": found.seeds[1]}
        for suffix, value in values.items():
            yield Row(group, name, f"{metric}{suffix}", value, "")

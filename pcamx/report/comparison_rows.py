"""Runs side by side: what the comparison's tables say, for the terminal and for the page alike."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pcamx.catalogue import AUROC, MIOU, POINTING
from pcamx.report import rows
from pcamx.report.rows import Estimate, Group, Row
from pcamx.report.tables import cell, new_table

_PRINTED = (AUROC, POINTING, MIOU)
"""What a terminal has room for; the page shows the rest."""


def differences() -> dict[str, str]:
    """Return the titles by key of the figures whose differences are shown."""
    return {AUROC.key: AUROC.title, **rows.titles("map", "first")}


@dataclass(frozen=True, slots=True)
class Gap:
    """How much a run's figure exceeds the first run's: 95 % interval, p of no difference."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    n: int | None = None

    @property
    def clear(self) -> bool:
        """Whether 0 lies outside the interval."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high

    def text(self) -> str:
        """Return the value with its sign."""
        return rows.DASH if self.value is None else f"{self.value:+.3f}"

    def interval(self) -> str:
        """Return the interval with signs, empty where there is none."""
        if self.low is None or self.high is None:
            return ""
        return f"[{self.low:+.3f}, {self.high:+.3f}]"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs by name, the first being what the others are compared with."""

    reports: Mapping[str, Mapping[str, Any]]
    gaps: Mapping[str, Mapping[str, Mapping[str, Gap]]]
    """By run, by what (``stage 2``; ``stage 2, positive CAM``), by figure's key."""
    remarks: Sequence[str] = ()
    """What could not be compared or shown, and why."""
    settings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By run: the keys of its config that differ from the first run's."""

    @property
    def first(self) -> str:
        """Name of the first run."""
        return next(iter(self.reports))


def localization(found: Comparison) -> tuple[Group, ...]:
    """Return where the maps lie: a group per stage or baseline and map, a row per run."""
    by_run = {
        name: {f"{g.title}, {row.name}": row for g in rows.localization(report) for row in g.rows}
        for name, report in found.reports.items()
    }
    return _grouped(by_run)


def classification(found: Comparison) -> tuple[Group, ...]:
    """Return how well they classify: a group per stage or baseline, a row per run."""
    by_run = {
        name: {row.name: row for row in rows.classification(report)}
        for name, report in found.reports.items()
    }
    return _grouped(by_run)


def _grouped(by_run: Mapping[str, Mapping[str, Row]]) -> tuple[Group, ...]:
    titles = sorted(dict.fromkeys(t for found in by_run.values() for t in found), key=_baseline)
    return tuple(
        Group(
            title,
            tuple(
                Row(name, found[title].figures, found[title].threshold, found[title].tuned)
                for name, found in by_run.items()
                if title in found
            ),
        )
        for title in titles
    )


def _baseline(title: str) -> tuple[bool, str]:
    """Stages first and in order, baselines as they come."""
    return (True, "") if rows.is_baseline(title) else (False, title.split(",")[0])


def gaps(found: Comparison) -> Iterator[tuple[str, dict[str, dict[str, Gap]]]]:
    """Return title, then by run and figure what exceeds the first run's; a dash's Gap where
    unknown.
    """
    for title in dict.fromkeys(t for gaps in found.gaps.values() for t in gaps):
        yield (
            title,
            {
                name: {key: gaps[title].get(key, Gap()) for key in differences()}
                for name, gaps in found.gaps.items()
                if title in gaps
            },
        )


def print_comparison(found: Comparison) -> None:
    """Print the stages' tables, the differences and the remarks on stdout."""
    console = Console(highlight=False, markup=False, emoji=False)
    console.width = max(console.width, 110)
    stages = [g for g in localization(found) if not g.baseline]
    classes = [g for g in classification(found) if not g.baseline]
    console.print(_table("Classification", rows.titles("decision", "first"), classes), "")
    console.print(
        _table("Localization of the abnormal map", rows.titles("map", "first"), stages), ""
    )
    if found.gaps:
        console.print(_gap_table(found), "")
    console.print(
        "[low, high]: 95 % bootstrap interval over patients; of differences, film by film"
    )
    console.print(
        "over the same patients. *: 0 lies outside it. The page shows baselines and films."
    )
    for remark in found.remarks:
        console.print(Text(remark), soft_wrap=True)


def _table(title: str, columns: Mapping[str, str], groups: Sequence[Group]) -> Table:
    table = new_table(title, [*columns.values(), "n"], first=30)
    for group in groups:
        table.add_row(Text(group.title, style="bold"))
        for row in group.rows:
            figures: dict[str, Estimate] = row.figures
            table.add_row(Text(row.name), *map(cell, figures.values()), rows.counts(figures))
    return table


def _gap_table(found: Comparison) -> Table:
    names = [measure.title for measure in _PRINTED]
    table = new_table(f"Differences to {found.first}", names, first=30)
    for title, by_run in gaps(found):
        table.add_row(Text(title, style="bold"))
        for name, by_key in by_run.items():
            shown = [
                f"{gap.text()}{'*' if gap.clear else ''} {gap.interval()}".strip()
                for gap in (by_key[measure.key] for measure in _PRINTED)
            ]
            table.add_row(Text(name), *shown)
    return table

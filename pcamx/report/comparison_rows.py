"""Runs side by side: what the comparison's tables say, for the terminal and for the page alike."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pcamx.catalogue import AUROC, MIOU, POINTING, measures
from pcamx.report import numbers, rows, sentences
from pcamx.report.rows import Estimate, Group, Row
from pcamx.report.tables import cell, new_table

_PRINTED = (AUROC, POINTING, MIOU)
"""What a terminal has room for; the page shows the rest."""


SURE = 0.05
"""Largest p, corrected for the number of comparisons, of a difference that is marked."""


@dataclass(frozen=True, slots=True)
class Gap(Estimate):
    """How much a run's figure exceeds the first run's: 95 % interval, p of no difference."""

    p: float | None = None
    p_of_all: float | None = None
    """p corrected, by Holm, for all gaps of the comparison."""

    @property
    def clear(self) -> bool:
        """Whether it would be a surprise, among all gaps of the comparison, were it chance."""
        return self.p_of_all is not None and self.p_of_all <= SURE

    def text(self, digits: int = 3) -> str:
        """Return the value with its sign."""
        return numbers.DASH if self.value is None else f"{self.value:+.{digits}f}"

    def interval(self, digits: int = 3) -> str:
        """Return the interval with signs, empty where there is none."""
        if self.low is None or self.high is None:
            return ""
        return f"[{self.low:+.{digits}f}, {self.high:+.{digits}f}]"


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

    @property
    def over(self) -> str:
        """What the intervals draw; differences are over the films of the first run."""
        return sentences.over(self.reports[self.first])


def differences(found: Comparison) -> dict[str, str]:
    """Return the titles by key of the figures that runs differ by, where any of them is known."""
    titles = rows.titles("basis", "first") | {AUROC.key: AUROC.title} | rows.titles("map", "first")
    known = {key for run in found.gaps.values() for by_key in run.values() for key in by_key}
    return {key: title for key, title in titles.items() if key in known}


def localization(found: Comparison) -> tuple[Group, ...]:
    """Return where the maps lie: a group per stage or baseline and map, a row per run."""
    by_run = {
        name: {f"{g.title}, {row.name}": row for g in rows.localization(report) for row in g.rows}
        for name, report in found.reports.items()
    }
    return _grouped(by_run)


def basis(found: Comparison) -> tuple[Group, ...]:
    """Return what their decisions rest on: a group per stage or baseline, a row per run."""
    by_run = {
        name: {row.name: row for row in rows.basis(report)}
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


def gaps(found: Comparison) -> Iterator[Group]:
    """Yield what each run's figures exceed the first run's by, a row for each."""
    shown = differences(found)
    for title in dict.fromkeys(t for gaps in found.gaps.values() for t in gaps):
        rows_of = (
            Row(name, {key: gaps[title].get(key, Gap()) for key in shown})
            for name, gaps in found.gaps.items()
            if title in gaps
        )
        yield Group(title, tuple(rows_of))


def print_comparison(found: Comparison) -> None:
    """Print the stages' tables, the differences and the remarks on stdout."""
    console = Console(highlight=False, markup=False, emoji=False)
    console.width = max(console.width, 110)
    stages = [g for g in localization(found) if not g.baseline]
    classes = [g for g in classification(found) if not g.baseline]
    rests = [g for g in basis(found) if not g.baseline]
    known = rows.basis_columns((row for g in rests for row in g.rows), "first")
    for columns in known.values():
        console.print(_table("What the decision rests on", columns, rests), "")
    console.print(_table("Classification", rows.titles("decision", "first"), classes), "")
    console.print(
        _table("Localization of the abnormal map", rows.titles("map", "first"), stages), ""
    )
    if found.gaps:
        for columns in _printed(found):
            if (table := _gap_table(found, columns)).row_count:
                console.print(table, "")
    console.print(
        f"[low, high]: 95 % bootstrap interval over {found.over}; of differences, film by film"
    )
    console.print(
        f"over the same {found.over}. *: p <= {SURE} after Holm's correction for all differences. "
        "The page shows baselines and films."
    )
    for remark in found.remarks:
        console.print(Text(remark), soft_wrap=True)


def _table(title: str, columns: Mapping[str, str], groups: Sequence[Group]) -> Table:
    table = new_table(title, [*columns.values(), "n"], first=30)
    for group in groups:
        table.add_row(Text(group.title, style="bold"))
        for row in group.rows:
            figures: dict[str, Estimate] = {key: row.figures[key] for key in columns}
            table.add_row(Text(row.name), *map(cell, figures.values()), rows.counts(figures))
    return table


def _printed(found: Comparison) -> Iterator[dict[str, str]]:
    """Columns of the tables of differences: first what is known of the decisions' basis."""
    known = [m for m in measures("basis") if m.key in differences(found)]
    for films in dict.fromkeys(measure.films for measure in known):
        yield {measure.key: measure.title for measure in known if measure.films == films}
    yield {measure.key: measure.title for measure in _PRINTED}


def _gap_table(found: Comparison, columns: Mapping[str, str]) -> Table:
    table = new_table(f"Differences to {found.first}", columns.values(), first=30)
    for group in gaps(found):
        kept = {
            row.name: [found.gaps[row.name][group.title].get(key, Gap()) for key in columns]
            for row in group.rows
        }
        if all(gap == Gap() for found_gaps in kept.values() for gap in found_gaps):
            continue
        table.add_row(Text(group.title, style="bold"))
        for name, shown in kept.items():
            cells = [f"{g.text(2)}{'*' if g.clear else ''} {g.interval(2)}".strip() for g in shown]
            table.add_row(Text(name), *cells)
    return table

"""The tables that `pcamx evaluate` prints on stdout."""

from collections.abc import Iterable, Mapping

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pcamx.catalogue import FALSE_ACTIVATION, KAPPA, MIOU
from pcamx.report import numbers, rows, sentences


def new_table(title: str, columns: Iterable[str], first: int = 12) -> Table:
    """Return an empty table; its first column, at most so many letters wide, may wrap."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("", max_width=first)  # a number is never cut
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def cell(figure: rows.Estimate) -> str:
    """Return a figure with its interval."""
    return f"{figure.text(2)} {figure.interval(2)}".strip()


def classification_table(report: Mapping[str, object]) -> Table:
    """Tabulate AUROC, accuracy and kappa with their intervals, a row per stage and baseline."""
    table = new_table("Classification", [*rows.titles("decision", "first").values(), "n"])
    for row in rows.classification(report):
        figures = map(cell, row.figures.values())
        table.add_row(Text(row.name), *figures, rows.counts(row.figures))
    return table


def basis_table(report: Mapping[str, object]) -> Table:
    """Make a table of what the decisions rest on, a column per stage and baseline."""
    found = rows.basis(report)
    table = new_table("What the decision rests on", [row.name for row in found], first=26)
    for titles in rows.basis_columns(found, "first").values():
        for key, title in titles.items():
            table.add_row(Text(title), *(cell(row.figures[key]) for row in found))
    return table


def results_table(report: Mapping[str, object]) -> Table:
    """Tabulate pointing, energy and mIoU with intervals, a row per stage or baseline and map."""
    head = [*rows.titles("map", "first").values(), "at", "n"]
    table = new_table("Localization of the abnormal map", head)
    for group in rows.localization(report):
        table.add_row(Text(group.title, style="bold"))
        for row in group.rows:
            at = numbers.number(row.threshold, 2) + ("" if row.tuned else "*")
            figures = map(cell, row.figures.values())
            table.add_row(Text(row.name), *figures, at, rows.counts(row.figures))
    return table


def more_table(report: Mapping[str, object]) -> Table:
    """Tabulate PxAP, MaxBoxAccV2 and false activation, as `results_table`."""
    # What 80 columns have room for; the page shows the rest.
    more = rows.titles("map", "console")
    table = new_table("More figures of the same maps", [*more.values(), "n"])
    for group in rows.localization(report, more):
        table.add_row(Text(group.title, style="bold"))
        for row in group.rows:
            figures = map(cell, row.figures.values())
            table.add_row(Text(row.name), *figures, rows.counts(row.figures))
    return table


def print_results(report: Mapping[str, object]) -> None:
    """Print them."""
    console = Console(highlight=False, markup=False, emoji=False)
    # The tables take 80 columns; room beyond that lets an unusual figure stay whole.
    console.width = max(console.width, 100)
    tables = [classification_table(report)]
    marked = rows.any_measured(rows.localization(report))
    if marked:
        tables += [results_table(report), more_table(report)]
    if rows.basis(report):
        tables.insert(0, basis_table(report))
    for table in tables:
        console.print(table)
        console.print()
    interval = f"[low, high]: 95 % bootstrap interval over {sentences.over(report)}"
    activation = f",\n{FALSE_ACTIVATION.title}'s: normal films." if marked else "."
    console.print(f"{interval}. n: films; {KAPPA.title}'s: studies{activation}")
    if compared := sentences.against(report):
        console.print(compared)
    if marked:
        tuned = "tuned on training films (* not tuned)"
        console.print(f"at: the map's threshold for {MIOU.title}, {tuned}.")
    else:
        console.print(
            "No evaluated film has a marked lesion, so where the maps lie is not measured."
        )

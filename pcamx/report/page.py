"""Writes report.html: one file for people, opened without a network and fit for print."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcamx.catalogue import POINTING, TEMPTING, TRAINABLES
from pcamx.output import write_text
from pcamx.report import html, rows, sentences
from pcamx.report.figures import film_figure, gallery
from pcamx.report.figures.curves import stage_curves
from pcamx.report.figures.film_figure import Panel

_FINDINGS = (sentences.found, sentences.against, sentences.calibrated)


def write_page(
    report: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    panels: Sequence[Panel],
    out: Path,
    all_films: str = "",
) -> None:
    """Write ``report`` (report.json), ``metrics`` (metrics.jsonl) and ``panels`` as one HTML file.

    ``all_films`` is the address of the page that shows every film. All of it or nothing: raises
    PcamxError where ``out`` cannot be written.
    """
    write_text(out, render(report, metrics, panels, all_films))


def render(
    report: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    panels: Sequence[Panel],
    all_films: str = "",
) -> str:
    """Return the page as text."""
    data = report.get("data")
    store = data.get("store") if isinstance(data, Mapping) else None
    values = {
        "evaluation": report.get("films_sha256") or "",
        "subject": store or "a run",
        "date": str(report.get("created") or "").partition("T")[0],
        "measured": sentences.measured(report),
        "found": " ".join(filter(None, [say(report) for say in _FINDINGS])),
        "made": sentences.made(report),
        "films": [gallery.film(panel) for panel in film_figure.ordered(panels)],
        "all_films": all_films,
        "legend": gallery.legend(),
        "curves": _curves(report, metrics),
        "meanings": list(sentences.terms(sentences.over(report))),
        "run": list(sentences.facts(report)),
        "config": json.dumps(report["config"], indent=2) if report.get("config") else "",
    }
    return html.render("report.html", values | _tables(report))


def _tables(report: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the tables' columns (names by key) and rows."""
    more = rows.titles("decision", "console", "page")
    more_classes = rows.classification(report, more)
    titles, parts = rows.kappa_by_part(report)
    bases = rows.basis(report)
    groups = rows.localization(report)
    return {
        "bases": bases,
        "basis": rows.basis_columns(bases, "first"),
        "tempted": rows.by_temptation(report),
        "tempting": {key: rows.titles("basis", "first", "page")[key] for key in TEMPTING},
        "more_basis": rows.basis_columns(bases, "console", "page"),
        "localization": rows.titles("map", "first"),
        "groups": groups if rows.any_measured(groups) else (),
        "more": _more(report),
        "classification": rows.titles("decision", "first"),
        "classes": rows.classification(report),
        "more_classification": more,
        "more_classes": more_classes if rows.measured(more_classes) else (),
        "part_columns": {title: title for title in titles},
        "parts": parts,
    }


@dataclass(frozen=True, slots=True)
class _Table:
    """Holds groups of rows and, by key, the names of the columns that were measured."""

    title: str
    columns: dict[str, str]
    groups: tuple[rows.Group, ...]


def _more(report: Mapping[str, Any]) -> list[_Table]:
    """Collect what says more about where the maps lie; a table without figures is left out."""
    titles = rows.titles("map", "console", "page")
    more = rows.localization(report, titles)
    found = {
        "More figures of the same maps": (titles, more),
        f"{POINTING.title.capitalize()} by size of the lesion": (
            rows.SIZES,
            rows.pointing_by_size(report),
        ),
    }
    tables = []
    for name, (names, groups) in found.items():
        seen = rows.measured(row for group in groups for row in group.rows)
        columns = {key: column for key, column in names.items() if key in seen}
        if columns:
            tables.append(_Table(name, columns, groups))
    return tables


def _curves(
    report: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Draw the curves of everything that was trained, each under its name and its cost."""
    costs = rows.trained(report)
    drawn = {entry.title: stage_curves(metrics, entry.key) for entry in TRAINABLES}
    return [
        {"name": name.capitalize(), "cost": sentences.cost(costs.get(name, {})), "curves": curves}
        for name, curves in drawn.items()
        if curves
    ]

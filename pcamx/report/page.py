"""report.html: one file for people, opened without a network and fit for print.

Shapes: H W a film's pixels, 3 red green blue. Text from data goes through Jinja's autoescape;
only this package's own style and drawings are marked as safe.
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from pcamx.catalogue import TRAINABLES
from pcamx.output import write_text
from pcamx.report import film_figure, rows, sentences
from pcamx.report.curves import Curve, stage_curves
from pcamx.report.film_figure import Panel
from pcamx.report.style import STYLE
from pcamx.report.template import PAGE


@dataclass(frozen=True, slots=True)
class _Cell:
    """One picture of a film: ``uri`` holds it, the paths lie over it."""

    name: str
    uri: str
    alt: str
    width: int
    height: int
    verdict: str = ""
    missed: bool = False
    outline: str = ""
    cross: str = ""


def write_page(
    report: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    panels: Sequence[Panel],
    out: Path,
) -> None:
    """Write ``report`` (report.json), ``metrics`` (metrics.jsonl) and ``panels`` as one HTML file.

    All of it or nothing: raises PcamxError where ``out`` cannot be written.
    """
    write_text(out, render(report, metrics, panels))


def render(
    report: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]], panels: Sequence[Panel]
) -> str:
    """The page as text."""
    titles, parts = rows.kappa_by_part(report)
    more_classes = rows.classification(report, rows.titles("decision", "console", "page"))
    data = report.get("data")
    store = data.get("store") if isinstance(data, Mapping) else None
    return (
        environment()
        .from_string(PAGE)
        .render(
            title=store or "a run",
            date=str(report.get("created") or "").partition("T")[0],
            style=Markup(STYLE),  # noqa: S704
            dash=rows.DASH,
            number=rows.number,
            share=share,
            measured=sentences.measured(report),
            found=" ".join(filter(None, (sentences.found(report), sentences.against(report)))),
            made=sentences.made(report),
            localization=tuple(rows.titles("map", "first").values()),
            groups=rows.localization(report),
            more=_tables(report),
            classification=tuple(rows.titles("decision", "first").values()),
            classes=rows.classification(report),
            more_classification=rows.titles("decision", "console", "page"),
            more_classes=more_classes if rows.measured(more_classes) else (),
            part_titles=titles,
            parts=parts,
            films=[film(panel) for panel in film_figure.ordered(panels)],
            legend=legend(),
            curves=_curves(report, metrics),
            terms=list(sentences.terms()),
            facts=list(sentences.facts(report)),
            config=json.dumps(report["config"], indent=2) if report.get("config") else "",
        )
    )


def environment() -> Environment:
    """Where templates become pages; not files of a web server but constants of this package.

    Autoescape covers whatever data brings.
    """
    return Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of groups: names of its columns by key, those that something was measured for."""

    title: str
    columns: dict[str, str]
    groups: tuple[rows.Group, ...]


def _tables(report: Mapping[str, Any]) -> list[_Table]:
    """What says more about where the maps lie than the first table; empty tables left out."""
    titles = rows.titles("map", "console", "page")
    more = rows.localization(report, titles)
    found = {
        "More figures of the same maps": (titles, more),
        "Pointing by size of the lesion": (rows.SIZES, rows.pointing_by_size(report)),
    }
    tables = []
    for name, (names, groups) in found.items():
        seen = rows.measured(row for group in groups for row in group.rows)
        columns = {key: column for key, column in names.items() if key in seen}
        if columns:
            tables.append(_Table(name, columns, groups))
    return tables


def share(value: float) -> str:
    return f"{100 * min(max(value, 0.0), 1.0):.2f}"


def _curves(
    report: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    costs = rows.trained(report)
    drawn = {entry.title: stage_curves(metrics, entry.key) for entry in TRAINABLES}
    return [
        {
            "name": name.capitalize(),
            "cost": sentences.cost(costs.get(name, {})),
            "curves": [Curve(Markup(c.svg), c.alt) for c in curves],  # noqa: S704
        }
        for name, curves in drawn.items()
        if curves
    ]


def legend() -> dict[str, str]:
    """The colour bar of the template's gallery."""
    alt = "Colour bar from 0, where the film shows through unchanged, to 1, bright yellow."
    return {"uri": _uri(film_figure.legend_bar(), "PNG"), "alt": alt, "text": film_figure.LEGEND}


def film(panel: Panel) -> dict[str, Any]:
    """What the template's gallery shows of a film."""
    height, width = panel.image_HW.shape
    bare = _Cell("film", _uri(panel.image_HW, "PNG"), f"Film {panel.title}.", width, height)
    return {
        "title": panel.title,
        "caption": panel.caption,
        "probabilities": film_figure.probabilities(panel),
        "missed": ", ".join(panel.missed()),
        "cells": [bare, *(_cell(panel, name) for name in panel.maps)],
    }


def _cell(panel: Panel, name: str) -> _Cell:
    map_HW, verdict = panel.maps[name], film_figure.verdict(panel, name)
    height, width = map_HW.shape
    alt = f"{name} over {panel.title}"
    if at := film_figure.peak(map_HW):
        alt += f", peak at row {at[0]}, column {at[1]}"
    alt += f": {verdict}." if verdict else "."
    lines = [] if panel.lesion_HW is None else film_figure.outlines(panel.lesion_HW)
    return _Cell(
        name,
        _uri(film_figure.overlay(panel.image_HW, map_HW), "JPEG"),
        alt,
        width,
        height,
        verdict,
        "missed" in verdict,
        "".join(map(_path, lines)),
        _cross(at, max(height, width)) if at else "",
    )


def _cross(at: tuple[int, int], size: int) -> str:
    """SVG path of a cross that leaves the pixel at ``at`` (row, column) itself in view."""
    y, x = at[0] + 0.5, at[1] + 0.5
    near, arm = 0.008 * size, 0.02 * size
    ends = ((-near - arm, 0), (near, 0), (0, -near - arm), (0, near))
    return "".join(f"M{x + dx:.1f} {y + dy:.1f}{'h' if dx else 'v'}{arm:.1f}" for dx, dy in ends)


def _path(line: film_figure.Polyline) -> str:
    """SVG path of an outline; SVG puts pixel centres at halves."""
    return "M" + "L".join(f"{x + 0.5:.1f} {y + 0.5:.1f}" for x, y in line) + "Z"


def _uri(pixels: NDArray[np.uint8], kind: str) -> str:
    """The picture as a data: address; PNG keeps every grey level, JPEG is for heat maps."""
    buffer = io.BytesIO()
    options = {"quality": 90, "subsampling": 0} if kind == "JPEG" else {"optimize": True}
    Image.fromarray(pixels).save(buffer, format=kind, **options)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{text}"

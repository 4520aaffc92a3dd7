"""Prepares films for the gallery of a page: pictures as data: addresses, lines as SVG paths.

Shapes: H W a film's pixels, 3 red green blue.
"""

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pcamx.report.figures import film_figure
from pcamx.report.figures.film_figure import Panel


@dataclass(frozen=True, slots=True)
class _Cell:
    """Holds one picture of a film: ``uri`` is its pixels, the paths lie over it."""

    name: str
    uri: str
    alt: str
    width: int
    height: int
    verdict: str = ""
    missed: bool = False
    outline: str = ""
    cross: str = ""


def legend() -> dict[str, str]:
    """Draw the colour bar that explains the maps; returns its address and its words."""
    alt = "Colour bar from 0, where the film shows through unchanged, to 1, bright yellow."
    return {"uri": _uri(film_figure.legend_bar(), "PNG"), "alt": alt, "text": film_figure.LEGEND}


def film(panel: Panel) -> dict[str, Any]:
    """Draw a film and its maps; returns what the template ``films.html`` shows of it."""
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
    """Lay the map ``name`` over its film, with its peak, the mark's outline and the verdict."""
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
    """Return the SVG path of a cross that leaves its own pixel, ``at`` (row, column), in view."""
    y, x = at[0] + 0.5, at[1] + 0.5
    near, arm = 0.008 * size, 0.02 * size
    ends = ((-near - arm, 0), (near, 0), (0, -near - arm), (0, near))
    return "".join(f"M{x + dx:.1f} {y + dy:.1f}{'h' if dx else 'v'}{arm:.1f}" for dx, dy in ends)


def _path(line: film_figure.Polyline) -> str:
    """Return the SVG path of an outline; SVG puts pixel centres at halves."""
    return "M" + "L".join(f"{x + 0.5:.1f} {y + 0.5:.1f}" for x, y in line) + "Z"


def _uri(pixels: NDArray[np.uint8], kind: str) -> str:
    """Write a picture as a data: address; PNG keeps every grey level, JPEG is for heat maps."""
    buffer = io.BytesIO()
    options = {"quality": 90, "subsampling": 0} if kind == "JPEG" else {"optimize": True}
    Image.fromarray(pixels).save(buffer, format=kind, **options)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{text}"

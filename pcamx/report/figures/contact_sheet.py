"""Draws a contact sheet: many films on one page, each with its mark's outline or its map."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from pcamx.errors import PcamxError
from pcamx.report.figures.film_figure import (
    SOFTWARE,
    Panel,
    draw_outlines,
    end_of,
    overlay,
    write_figure,
)

FILMS = 48
"""Says how many films fit on a page."""
_COLUMNS, _CELL, _TEXT, _HEAD = 8, 1.6, 0.36, 0.25  # inches
_LETTERS = 34  # a line, of 4.5 points


def draw_sheet(panels: Sequence[Panel], heading: str) -> Figure:
    """Draw the films in true grey, in order, as a grid; a panel's first map is laid over its film.

    Raises PcamxError where there is no film.
    """
    if not panels:
        raise PcamxError("no films to draw; name at least one")
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    width, height = max(_CELL * columns, 3 * _CELL), (_CELL + _TEXT) * rows + _HEAD
    figure = Figure(figsize=(width, height), facecolor="white")
    words = textwrap.fill(heading, int(width * 13))
    figure.text(0.08 / width, 1 - 0.06 / height, words, va="top", fontsize=7, parse_math=False)
    for place, panel in enumerate(panels):
        row, column = divmod(place, columns)
        bottom = height - _HEAD - (row + 1) * (_CELL + _TEXT)
        corner = (column * _CELL + 0.04) / width, bottom / height
        axis = figure.add_axes((*corner, (_CELL - 0.08) / width, (_CELL - 0.04) / height))
        _draw_film(axis, panel)
    return figure


def _draw_film(axis: Any, panel: Panel) -> None:
    axis.set_axis_off()
    maps = list(panel.maps.values())
    if maps:
        axis.imshow(overlay(panel.image_HW, maps[0]))
    else:
        axis.imshow(panel.image_HW, cmap="gray", vmin=0, vmax=255)
    draw_outlines(axis, panel)
    lines = [
        end_of(panel.title, _LETTERS),
        *textwrap.wrap(panel.caption, _LETTERS, max_lines=2, placeholder=" ..."),
    ]
    axis.set_title(
        "\n".join(lines), fontsize=4.5, loc="left", pad=1.5, linespacing=1.1, parse_math=False
    )


def save_sheet(panels: Sequence[Panel], path: Path, heading: str) -> None:
    """Write `draw_sheet`'s page as PNG. Raises PcamxError if it cannot."""
    write_figure(draw_sheet(panels, heading), path, dpi=200)


def check_place(path: Path, suffix: str) -> None:
    """Raise PcamxError unless a file of this kind may be written at ``path``: before long work.

    A PNG that is there makes way if it is a figure of ours.
    """
    if path.suffix.lower() != suffix or path.is_dir():
        raise PcamxError(f"--out {path}: name a {suffix} file")
    if not path.parent.is_dir():
        raise PcamxError(f"--out {path}: its folder is not there; make it first")
    if suffix == ".png" and path.exists() and not _is_ours(path):
        raise PcamxError(f"{path} is no contact sheet of an earlier run; choose another --out")


def _is_ours(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.info.get("Software") == SOFTWARE
    except (OSError, ValueError, SyntaxError):
        return False

"""Draws one explained film: as it is, and again with the map and the candidates on top.

Shapes: H W the film as drawn, 3 red green blue, P points. Lengths of the layout are pixels of the
picture.
"""

import gc
import io
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pcamx.report.figures.film_figure import end_of, legend_bar, overlay

CANDIDATE = "#56F0C8"  # a green that neither a film nor the map has
_DPI = 200
_MARGIN, _HEAD, _LINE, _BAR, _LEAST = 24, 104, 25, 400, 1040
_LETTER = 10.6  # width of a letter of 7 points
_HALO = [effects.withStroke(linewidth=2.0, foreground="black", alpha=0.7)]


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """Holds a candidate, in the pixels of the drawn film."""

    label: str
    rings: Sequence[NDArray[np.float64]]  # [P, 2] each, closed; the first is the outer one
    box: tuple[float, float, float, float]  # left, top, width, height


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Holds what is drawn of a film, and the words around it."""

    title: str
    verdict: str
    image_HW: NDArray[np.uint8]
    map_HW: NDArray[np.float32]  # in [0, 1], of the drawn film's size
    map_name: str
    outlines: Sequence[Outline]
    sure: bool  # whether the film is called abnormal; if not, candidates are dashed
    threshold: float
    threshold_from: str
    ends: tuple[float, float]  # the map's own values that 0 and 1 stand for
    notes: str


class _Sheet(NamedTuple):
    """Places things on a figure by pixels from its upper left corner."""

    figure: Figure
    width: int
    height: int

    def axes(self, left: int, top: int, width: int, height: int) -> Axes:
        bottom = self.height - top - height
        frame = (left / self.width, bottom / self.height)
        return self.figure.add_axes((*frame, width / self.width, height / self.height))

    def write(self, left: int, top: int, text: str, size: int = 7, **style: Any) -> None:
        at = (left / self.width, 1 - top / self.height)
        self.figure.text(*at, text, fontsize=size, va="top", parse_math=False, **style)


def draw(picture: Picture) -> bytes:
    """Return the picture as PNG, 200 pixels an inch.

    A pixel of ``image_HW`` is a pixel of the picture.
    """
    # A figure refers to itself: its 15 MB and more would stay until Python has counted enough
    # objects to look for cycles, dozens of films later. While nobody looks, all of it stays among
    # the youngest objects, and looking at those takes milliseconds, at all of them half a second.
    collects = gc.isenabled()
    gc.disable()
    try:
        drawn = _drawn(picture)
    finally:
        if collects:
            gc.enable()
    gc.collect(0)
    return drawn


def _drawn(picture: Picture) -> bytes:
    high, wide = picture.image_HW.shape
    width = max(2 * wide + 3 * _MARGIN, _LEAST)
    words = _words(picture, width - _BAR - 3 * _MARGIN)
    height = _HEAD + high + max(_LINE * len(words), 60) + 2 * _MARGIN
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    sheet = _Sheet(figure, width, height)
    room = int((width - 2 * _MARGIN) / _LETTER)
    sheet.write(_MARGIN, 20, end_of(picture.title, room), weight="bold")
    sheet.write(_MARGIN, 62, textwrap.shorten(picture.verdict, room))
    left = (width - 2 * wide - _MARGIN) // 2
    _show(sheet, picture.image_HW[..., None].repeat(3, axis=2), left)
    right = _show(sheet, overlay(picture.image_HW, picture.map_HW), left + wide + _MARGIN)
    _draw_candidates(right, picture)
    _draw_legend(sheet, picture, words, _HEAD + high + _MARGIN)
    return _png(figure)


def _show(sheet: _Sheet, image_HW3: NDArray[np.uint8], left: int) -> Axes:
    """Show a film and return its axes, in the film's pixels; 0 0 is the upper left corner."""
    rows, columns, _ = image_HW3.shape
    axis = sheet.axes(left, _HEAD, columns, rows)
    axis.set(xticks=[], yticks=[])
    for edge in axis.spines.values():
        edge.set(color="0.6", lw=0.4)  # a film may be as white as the paper
    # Three bytes a pixel are drawn as they are; by a grey colour map some are one level off.
    axis.imshow(image_HW3, extent=(0, columns, rows, 0), aspect="auto", interpolation="none")
    return axis


def _draw_candidates(axis: Axes, picture: Picture) -> None:
    style = "-" if picture.sure else (0, (4, 3))
    rows, columns = picture.image_HW.shape
    for outline in picture.outlines:
        for ring in outline.rings:
            axis.plot(*ring.T, color=CANDIDATE, lw=0.9, ls=style, path_effects=_HALO)
        x, y, w, h = outline.box
        corners = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h], [x, y]])
        axis.plot(*corners.T, color=CANDIDATE, lw=0.5, ls=style, path_effects=_HALO)
        below = y < 0.05 * rows
        axis.text(
            min(x, 0.88 * columns),
            y + h if below else y,
            outline.label,
            color=CANDIDATE,
            fontsize=7,
            va="top" if below else "bottom",
            path_effects=_HALO,
            parse_math=False,
        )


def _words(picture: Picture, room: float) -> list[str]:
    """Break the words beside the legend into lines that fit ``room`` pixels."""
    low, high = picture.ends
    legend = (
        f"{picture.map_name}, scaled over this film: 0 is {low:.3g}, 1 is {high:.3g}; "
        f"line: threshold {picture.threshold:g} of the candidates, {picture.threshold_from}"
    )
    letters = int(room / _LETTER)
    return [line for text in (legend, picture.notes) for line in textwrap.wrap(text, letters)]


def _draw_legend(sheet: _Sheet, picture: Picture, words: list[str], top: int) -> None:
    axis = sheet.axes(_MARGIN, top, _BAR, 28)
    axis.imshow(legend_bar(), extent=(0, 1, 0, 1), aspect="auto")
    axis.axvline(picture.threshold, color=CANDIDATE, lw=1.2, path_effects=_HALO)
    axis.set(xticks=[0, 0.5, 1], xticklabels=["0", "0.5", "1"], yticks=[])
    axis.tick_params(labelsize=6, length=2, pad=1)
    axis.set_frame_on(False)
    sheet.write(2 * _MARGIN + _BAR, top, "\n".join(words), linespacing=1.15)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A file name's letter that the font lacks is drawn as a box; that is no news to anyone.
        warnings.filterwarnings("ignore", message="Glyph")
        # The usual level takes twice as long and spares a tenth.
        figure.savefig(buffer, format="png", pil_kwargs={"compress_level": 3})
    return buffer.getvalue()

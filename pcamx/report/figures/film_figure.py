"""Pictures: the true grey film with a map on top, its peak, and the marked lesion's outline.

Shapes: H W the film's pixels, 3 red green blue.
"""

import io
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import contourpy
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.path import Path as MarkerPath
from numpy.typing import NDArray

from pcamx.errors import PcamxError
from pcamx.output import printable, write_bytes

COLORMAP = "inferno"  # lightness rises evenly; no blue or cyan, which is left to the outline
OPACITY = 0.65  # of the map's highest value: the bone stays visible below it
OUTLINE = "#56B4E9"  # sky blue of Okabe and Ito's colour-blind safe palette
_CELL, _LEGEND, _LETTERS = 1.68, 0.6, 15  # inches, inches, letters of 7 points an inch
FORMATS = (".pdf", ".svg", ".png")
SOFTWARE = "pcamx"
"""What a picture says of who drew it."""
LEGEND = "map value, min-max per film"

# Open in the middle: the peak's own pixel stays in view.
_CROSS = MarkerPath(
    [(-1, 0), (-0.3, 0), (0.3, 0), (1, 0), (0, -1), (0, -0.3), (0, 0.3), (0, 1)],
    [MarkerPath.MOVETO, MarkerPath.LINETO] * 4,
)

Polyline = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One film of the figure: a row of it; ``lesion_HW`` is not zero where marked."""

    title: str  # the film's path
    caption: str
    image_HW: NDArray[np.uint8]
    maps: dict[str, NDArray[np.float32]]  # map_HW in [0, 1], by column; names may have lines
    lesion_HW: NDArray[np.uint8] | None = None
    hits: dict[str, bool] = field(default_factory=dict)  # by map: the peak lies in the mark
    probability: dict[str, float] = field(default_factory=dict)  # of abnormal, by stage

    def missed(self) -> tuple[str, ...]:
        """Return the names of the maps whose peak lies outside the mark."""
        return tuple(name for name in self.maps if self.hits.get(name) is False)


def ordered(panels: Sequence[Panel]) -> list[Panel]:
    """Return the films with the most misses first; otherwise in the order given."""
    return sorted(panels, key=lambda panel: -len(panel.missed()))


def overlay(image_HW: NDArray[np.uint8], map_HW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Blend the map over the film: uint8 HW3.

    Opacity is proportional to the map's value, so a pixel of value 0 (or not a number) keeps its
    grey level exactly. Raises PcamxError where the two differ in size.
    """
    if image_HW.shape != map_HW.shape:
        raise PcamxError(
            f"a map of {map_HW.shape} cannot lie on a film of {image_HW.shape}; resize it first"
        )
    value_HW = np.clip(np.nan_to_num(map_HW.astype(np.float64), nan=0.0), 0.0, 1.0)
    colour_HW3 = matplotlib.colormaps[COLORMAP](value_HW)[..., :3] * 255.0
    alpha_HW1 = OPACITY * value_HW[..., None]
    blend_HW3 = (1.0 - alpha_HW1) * image_HW[..., None] + alpha_HW1 * colour_HW3
    return np.rint(blend_HW3).astype(np.uint8)


def end_of(path: str, letters: int) -> str:
    """Return a path as one line of at most ``letters``: its end, which tells films apart."""
    line = printable(path)
    return line if len(line) <= letters else f"...{line[3 - letters :]}"


def peak(map_HW: NDArray[np.float32]) -> tuple[int, int] | None:
    """Return row and column of the map's first maximum, None where it is flat or not a number."""
    if not map_HW.size or not np.isfinite(map_HW).all() or map_HW.min() == map_HW.max():
        return None
    row, column = np.unravel_index(int(map_HW.argmax()), map_HW.shape)
    return int(row), int(column)


def outlines(lesion_HW: NDArray[np.uint8]) -> list[Polyline]:
    """Return closed outlines of a mask as [N, 2] points (x, y), pixel centres at whole numbers."""
    padded = np.pad((lesion_HW > 0).astype(np.float64), 1)
    lines = contourpy.contour_generator(z=padded).lines(0.5)
    return [np.asarray(line) - 1.0 for line in lines]


def legend_bar(width: int = 256, height: int = 12) -> NDArray[np.uint8]:
    """Draw what map values 0 to 1 look like over black (upper half) and over light grey (lower)."""
    value_HW = np.tile(np.linspace(0, 1, width, dtype=np.float32), (2 * height, 1))
    grey_HW = np.repeat(np.array([0, 170], np.uint8), height)[:, None].repeat(width, axis=1)
    return overlay(grey_HW, value_HW)


def probabilities(panel: Panel) -> str:
    """Return P(abnormal) of each stage in one line, empty where none is known."""
    if not panel.probability:
        return ""
    values = ", ".join(f"{name} {value:.2f}" for name, value in panel.probability.items())
    return f"P(abnormal): {values}"


def verdict(panel: Panel, name: str) -> str:
    """Return ``hit``, ``missed``, ``flat map`` or nothing, for a map of the panel."""
    if peak(panel.maps[name]) is None:
        return "flat map, missed" if panel.hits.get(name) is False else "flat map"
    return {True: "hit", False: "missed", None: ""}[panel.hits.get(name)]


def draw(panels: Sequence[Panel]) -> Figure:
    """Draw the paper's Figure 2: a row per film, in order, the bare film first, then its maps."""
    if not panels:
        raise PcamxError("no films to draw; name at least one")
    columns = 1 + max(len(panel.maps) for panel in panels)
    width = _CELL * columns
    headings = [_heading(panel, width) for panel in panels]
    names = [name for panel in panels for name in panel.maps]
    titles = 0.12 * max((name.count("\n") for name in names), default=0)
    heights = [
        _CELL * min(panel.image_HW.shape[0] / panel.image_HW.shape[1], 2.0)
        + (0.3 + titles + 0.13 * lines)
        for panel, lines in zip(panels, (h.count("\n") + 1 for h in headings), strict=True)
    ] + [_LEGEND]
    figure = Figure(figsize=(width, sum(heights)), layout="constrained", facecolor="white")
    strips: Any = figure.subfigures(len(panels) + 1, 1, height_ratios=heights)
    for strip, panel, heading in zip(strips, panels, headings, strict=False):
        strip.suptitle(heading, fontsize=7, x=0.05 / width, ha="left", parse_math=False)
        axes: Any = strip.subplots(1, columns, squeeze=False)[0]
        for axis in axes:
            axis.set(xticks=[], yticks=[])  # whose places would be worked out, shown or not
            axis.set_axis_off()
        axes[0].imshow(panel.image_HW, cmap="gray", vmin=0, vmax=255)
        axes[0].set_title("film", fontsize=7)
        for axis, name in zip(axes[1:], panel.maps, strict=False):
            _draw_map(axis, panel, name)
    _draw_legend(strips[-1], width)
    return figure


def _heading(panel: Panel, width: float) -> str:
    """Title, caption and probabilities, broken to fit ``width`` inches."""
    parts = (panel.title, panel.caption, probabilities(panel))
    return textwrap.fill("   ".join(p for p in parts if p), int(width * _LETTERS))


def _draw_map(axis: Axes, panel: Panel, name: str) -> None:
    axis.imshow(overlay(panel.image_HW, panel.maps[name]))
    draw_outlines(axis, panel)
    if at := peak(panel.maps[name]):
        for colour, width in (("black", 2.0), ("white", 0.9)):
            axis.plot(at[1], at[0], marker=_CROSS, color=colour, ms=8, mew=width)
    said = verdict(panel, name)
    weight = "bold" if "missed" in said else "normal"
    title = f"{name}: {said.upper() if weight == 'bold' else said}" if said else name
    axis.set_title(title, fontsize=7, fontweight=weight, parse_math=False)


def draw_outlines(axis: Axes, panel: Panel) -> None:
    """Draw the outlines of the marked lesion, blue with a dark rim."""
    for line in [] if panel.lesion_HW is None else outlines(panel.lesion_HW):
        axis.plot(line[:, 0], line[:, 1], color="black", lw=1.8, alpha=0.6)
        axis.plot(line[:, 0], line[:, 1], color=OUTLINE, lw=0.8)


def _draw_legend(strip: SubFigure, width: float) -> None:
    bar = 1.5  # inches
    axis = strip.add_axes((0.1 / width, 0.6, bar / width, 0.2))
    axis.imshow(legend_bar(), extent=(0, 1, 0, 1), aspect="auto")
    axis.set(xticks=[0, 0.5, 1], yticks=[])
    axis.tick_params(labelsize=6, length=2)
    axis.set_frame_on(False)
    text = f"{LEGEND} (over black, over light grey); + peak; blue outline: marked lesion"
    text = textwrap.fill(text, int((width - bar - 0.3) * _LETTERS))
    strip.text((bar + 0.25) / width, 0.7, text, fontsize=7, va="center")


def save(panels: Sequence[Panel], path: Path, dpi: int = 200) -> None:
    """Write `draw`'s figure in print quality, as what the path ends in, one of `FORMATS`.

    The same figure gives the same bytes. Raises PcamxError if it cannot be written.
    """
    write_figure(draw(panels), path, dpi)


def write_figure(figure: Figure, path: Path, dpi: int) -> None:
    """Write any figure as `save` does."""
    kind = path.suffix[1:].lower()
    metadata = {
        "png": {"Software": SOFTWARE},
        "pdf": {"Creator": SOFTWARE, "CreationDate": None},
        "svg": {"Creator": SOFTWARE, "Date": None},
    }[kind]
    buffer = io.BytesIO()
    # In a drawing for print text stays text, to be searched and edited.
    style: Any = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": SOFTWARE}
    with warnings.catch_warnings(), matplotlib.rc_context(style):
        # A file name's letter that the font lacks is drawn as a box; that is no news to anyone.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    write_bytes(path, buffer.getvalue())

"""Draws how a run went: losses, lambda and the attention over its steps, as SVG."""

import io
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pcamx.catalogue import ACCURACY, AUROC, LOSS, StageId, losses, trainable

_Style = tuple[str, str, Any]
"""What the legend says, the colour, and the dash or the dot."""
# Okabe and Ito's palette; each line has its own dash as well, for print and colour-blind eyes.
_LINES: list[tuple[str, Any]] = [
    ("#000000", "-"),
    ("#0072B2", "-"),
    ("#D55E00", (0, (5, 1.5))),
    ("#009E73", (0, (1.5, 1.2))),
    ("#CC79A7", (0, (5, 1.5, 1.5, 1.5))),
    ("#E69F00", (0, (8, 2))),
]
_SHARES: dict[str, _Style] = {
    "p": ("P, training accuracy", *_LINES[1]),
    "lam": ("λ, weight of L2", *_LINES[2]),
    "area": ("mask area", *_LINES[3]),
}
_VALIDATION: dict[str, _Style] = {
    AUROC.key: (f"validation {AUROC.title}", "#CC79A7", "o"),
    ACCURACY.key: (f"validation {ACCURACY.title}", "#000000", "D"),
}


def _losses(stage: StageId) -> dict[str, _Style]:
    """The losses of ``stage``; one has the same line in every stage's drawing."""
    lines = dict(zip(losses(), itertools.cycle(_LINES)))
    return {loss.key: (loss.title, *lines[loss]) for loss in trainable(stage).losses}


_WIDTH, _HEIGHT = 5.6, 3.1
"""Of a drawing, in inches."""
_LEGEND_COLUMNS = 2
_RC: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's own font
    "font.family": "sans-serif",
    "font.size": 9,
}


class Curve(NamedTuple):
    """Holds one drawing: ``svg`` for the page, ``alt`` for those who cannot see it."""

    svg: str
    alt: str


def stage_curves(metrics: Sequence[Mapping[str, Any]], stage: StageId) -> list[Curve]:
    """Draw the losses of ``stage``, and its lambda, P, mask area and validation.

    What was not logged is not drawn: the list is empty where the stage did not run.
    """
    train = _last_by_step(metrics, stage, "train")
    valid = _last_by_step(metrics, stage, "valid")
    return [
        *_curve("losses", stage, train, _losses(stage), [], {}),
        *_curve("shares", stage, train, _SHARES, valid, _VALIDATION),
    ]


def _last_by_step(
    metrics: Sequence[Mapping[str, Any]], stage: StageId, kind: str
) -> list[Mapping[str, Any]]:
    # A run that was killed and resumed logged some steps twice; the later ones count.
    found = {
        line["step"]: line
        for line in metrics
        if line.get("stage") == stage and line.get("kind") == kind and _number(line.get("step"))
    }
    return [found[step] for step in sorted(found)]


def _curve(
    what: str,
    stage: StageId,
    train: list[Mapping[str, Any]],
    lines: Mapping[str, _Style],
    valid: list[Mapping[str, Any]],
    dots: Mapping[str, _Style],
) -> list[Curve]:
    said = []
    settings: Any = _RC | {"svg.hashsalt": f"s{stage}-{what}"}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(_WIDTH, _HEIGHT))
        figure.patch.set_alpha(0.0)
        axis = figure.subplots()
        for source, styles in ((train, lines), (valid, dots)):
            for key, style in styles.items():
                if points := [(e["step"], e[key]) for e in source if _number(e.get(key))]:
                    _plot(axis, style, points, thin=key == LOSS.key)
                    said.append(f"{style[0]} {points[0][1]:.3g} to {points[-1][1]:.3g}")
        if not said:
            return []
        _dress(axis, what, stage)
        # By hand: matplotlib's own layout takes as long as all the drawing.
        legend = 0.16 + 0.17 * math.ceil(len(said) / _LEGEND_COLUMNS)
        figure.subplots_adjust(
            left=0.6 / _WIDTH, right=0.985, bottom=0.45 / _HEIGHT, top=1 - legend / _HEIGHT
        )
        name = trainable(stage).title.capitalize()
        alt = f"{name}, {what} over the steps, first to last: {'; '.join(said)}."
        return [Curve(_svg(figure, f"s{stage}-{what}"), alt)]


def _plot(axis: Axes, style: _Style, points: list[tuple[float, float]], *, thin: bool) -> None:
    label, colour, line = style
    steps, values = zip(*points, strict=True)
    if line in ("o", "D"):
        axis.plot(steps, values, line, label=label, color=colour, ms=4.5, mec="white", mew=0.6)
    else:
        width = 0.8 if thin else 1.4
        dot = "o" if len(points) == 1 else None  # of which a line would show nothing
        axis.plot(steps, values, label=label, color=colour, ls=line, lw=width, marker=dot, ms=4.5)


def _dress(axis: Axes, what: str, stage: StageId) -> None:
    axis.set_xlabel(f"step of {trainable(stage).title}")
    axis.set_xlim(left=0)
    if what == "losses":
        axis.set_ylabel("loss")
        axis.set_ylim(bottom=0)
    else:
        axis.set_ylabel("share")
        axis.set_ylim(0, 1.02)
    axis.grid(color="#d9d9d9", lw=0.5)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.01)
    axis.figure.legend(loc="upper left", ncols=_LEGEND_COLUMNS, frameon=False, handlelength=2.6)


def _svg(figure: Figure, name: str) -> str:
    """Write a figure as an inline <svg>: text as text, no metadata, ids of its own."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Several drawings share a page, so ids and what refers to them get the drawing's name.
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", text, count=1)
    return re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", text, count=1)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)

"""Draws how a run went: losses, lambda and the attention over its steps, as SVG."""

import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pcamx.errors import PcamxError
from pcamx.types import SEGMENTER, StageId, title

# Okabe and Ito's palette; each line has its own dash as well, for print and colour-blind eyes.
_STYLES: dict[str, tuple[str, str, Any]] = {
    "loss": ("L, the sum", "#000000", "-"),
    "l1": ("L1, full film", "#0072B2", "-"),
    "l2": ("L2, attended area", "#D55E00", (0, (5, 1.5))),
    "l3": ("L3, marked lesions", "#009E73", (0, (1.5, 1.2))),
    "p": ("P, training accuracy", "#0072B2", "-"),
    "lam": ("λ, weight of L2", "#D55E00", (0, (5, 1.5))),
    "area": ("mask area", "#009E73", (0, (1.5, 1.2))),
    "auroc": ("validation AUROC", "#CC79A7", "o"),
    "accuracy": ("validation accuracy", "#000000", "D"),
}


_RC: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's own font
    "font.family": "sans-serif",
    "font.size": 9,
}


class Curve(NamedTuple):
    """Holds one drawing: ``svg`` for the page, ``alt`` for those who cannot see it."""

    svg: str
    alt: str


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a run's metrics.jsonl.

    A last line that was cut off by a kill is left out; any other bad line raises PcamxError.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise PcamxError(f"{path}: {reason}; is this the folder of a run?") from None
    found = []
    for index, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            if index == len(lines):
                break
            entry = None
        if not isinstance(entry, dict):
            raise PcamxError(f"{path}: line {index} is not a JSON object; remove it") from None
        found.append(entry)
    return found


def stage_curves(metrics: Sequence[Mapping[str, Any]], stage: StageId) -> list[Curve]:
    """Draw the losses of ``stage``, and its lambda, P, mask area and validation.

    What was not logged is not drawn: the list is empty where the stage did not run.
    """
    train = _last_by_step(metrics, stage, "train")
    valid = _last_by_step(metrics, stage, "valid")
    alone = {1: ("l1",), SEGMENTER: ("l3",)}  # where one loss is the sum itself
    losses = alone.get(stage, ("loss", "l1", "l2", "l3"))
    return [
        *_curve("losses", stage, train, losses, [], ()),
        *_curve("shares", stage, train, ("p", "lam", "area"), valid, ("auroc", "accuracy")),
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
    lines: tuple[str, ...],
    valid: list[Mapping[str, Any]],
    dots: tuple[str, ...],
) -> list[Curve]:
    said = []
    style: Any = _RC | {"svg.hashsalt": f"s{stage}-{what}"}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(5.6, 3.1), layout="constrained")
        figure.patch.set_alpha(0.0)
        axis = figure.subplots()
        for source, keys in ((train, lines), (valid, dots)):
            for key in keys:
                if points := [(e["step"], e[key]) for e in source if _number(e.get(key))]:
                    _plot(axis, key, points)
                    said.append(f"{_STYLES[key][0]} {points[0][1]:.3g} to {points[-1][1]:.3g}")
        if not said:
            return []
        _dress(axis, what, stage)
        name = title(stage).capitalize()
        alt = f"{name}, {what} over the steps, first to last: {'; '.join(said)}."
        return [Curve(_svg(figure, f"s{stage}-{what}"), alt)]


def _plot(axis: Axes, key: str, points: list[tuple[float, float]]) -> None:
    label, colour, style = _STYLES[key]
    steps, values = zip(*points, strict=True)
    if isinstance(style, str) and style in "oD":
        axis.plot(steps, values, style, label=label, color=colour, ms=4.5, mec="white", mew=0.6)
    else:
        width = 0.8 if key == "loss" else 1.4
        axis.plot(steps, values, label=label, color=colour, ls=style, lw=width)


def _dress(axis: Axes, what: str, stage: StageId) -> None:
    axis.set_xlabel(f"step of {title(stage)}")
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
    axis.figure.legend(loc="outside upper left", ncols=2, frameon=False, handlelength=2.6)


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

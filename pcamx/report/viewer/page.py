"""Writes the page of all films: what is known of them as JSON in the file, pictures beside it."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib

from pcamx.errors import PcamxError
from pcamx.report import html
from pcamx.report.figures.film_figure import COLORMAP, OPACITY
from pcamx.report.viewer.pictures import FILM, MAPS, SCALE, THUMB, Ring

_DATA = re.compile(r'<script type="application/json" id="data">([^<]*)')
_SAMPLES = 33  # of the colour map, between which a browser draws straight lines

Column = Sequence[float | None]
"""A number a film, None or NaN where it has none."""


@dataclass(frozen=True, slots=True)
class MapOf:
    """One map of a network."""

    title: str
    tile: int | None
    """Its place in each film's strip, from above; None where it was not drawn."""
    columns: dict[str, Column]
    """What was measured of it, by title."""


@dataclass(frozen=True, slots=True)
class NetworkOf:
    """One network that was measured."""

    title: str
    probability: Column
    """Of abnormal."""
    maps: list[MapOf]


@dataclass(frozen=True, slots=True)
class AllFilms:
    """Holds everything that the page says of N films; every list below has N entries."""

    subject: str
    """What was measured, in words."""
    folder: str
    """Of the pictures, from the page."""
    paths: Sequence[str]
    stems: Sequence[str]
    """Of each film's pictures, in the folder (`pcamx.report.viewer.pictures`)."""
    facts: Mapping[str, Sequence[str]]
    """Text by name; of few different values, films are chosen by it. "label", if it is there, is
    normal or abnormal."""
    networks: Sequence[NetworkOf]
    start: tuple[int, int] = (0, 0)
    """The network, and of its maps the one, that are shown first."""
    called_from: float = 0.5
    """Probability from which a film is called abnormal."""
    marks: Sequence[Sequence[Ring]] = ()
    candidates: Sequence[Sequence[Ring]] = ()
    endings: dict[str, str] = field(
        default_factory=lambda: {"film": FILM, "small": THUMB, "maps": MAPS}
    )


def render(found: AllFilms, title: str, back: str = "") -> Iterator[str]:
    """Yield the page piece by piece; ``back`` is the address of the page that it belongs to."""
    colours = matplotlib.colormaps[COLORMAP]([i / (_SAMPLES - 1) for i in range(_SAMPLES)])
    channels = {
        name: " ".join(f"{value:.4f}" for value in colours[:, i])
        for i, name in enumerate(("R", "G", "B"))
    }
    stops = ", ".join(matplotlib.colors.to_hex(colour) for colour in colours[::4])
    values = {
        "title": title,
        "subject": found.subject,
        "back": back,
        "channels": channels,
        "stops": stops,
        "opacity": OPACITY,
        "data": _json(found),
    }
    return html.pieces("viewer.html", values)


def read(page: Path) -> AllFilms:
    """Read what `render` was given for ``page``; measured numbers have the page's four digits.

    Raises PcamxError that names the file where it cannot be read.
    """
    try:
        (text,) = _DATA.findall(page.read_text(encoding="utf-8"))
        tree = json.loads(text)
        networks = [
            NetworkOf(one["title"], one["probability"], [MapOf(**each) for each in one["maps"]])
            for one in tree.pop("networks")
        ]
        start, called_from = tuple(tree.pop("start")), tree.pop("calledFrom")
        del tree["scale"]
        tree = {"subject": ""} | tree  # pages of an earlier pcamx have none there
        return AllFilms(**tree, networks=networks, start=start, called_from=called_from)
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = getattr(error, "strerror", None) or "not a page of this version"
        raise PcamxError(f"{page}: {why}; run pcamx evaluate {page.parent} again") from None


def _json(found: AllFilms) -> Iterator[str]:
    """Column by column: the numbers of 40,000 films make 30 MB of text, which nobody holds."""
    known = {
        "subject": found.subject,
        "folder": found.folder,
        "endings": found.endings,
        "scale": SCALE,
        "start": list(found.start),
        "calledFrom": found.called_from,
        "paths": list(found.paths),
        "stems": list(found.stems),
    }
    return _object(
        {name: _text(value) for name, value in known.items()}
        | {
            "facts": _object({name: _text(list(v)) for name, v in found.facts.items()}),
            "marks": _text(list(found.marks)),
            "candidates": _text(list(found.candidates)),
            "networks": _array(map(_network, found.networks)),
        }
    )


def _network(network: NetworkOf) -> Iterator[str]:
    known = {"title": _text(network.title), "probability": _text(list(network.probability))}
    return _object(known | {"maps": _array(map(_map, network.maps))})


def _map(one: MapOf) -> Iterator[str]:
    columns = _object({name: _rounded(column) for name, column in one.columns.items()})
    return _object({"title": _text(one.title), "tile": _text(one.tile), "columns": columns})


def _object(parts: Mapping[str, Iterable[str]]) -> Iterator[str]:
    before = "{"
    for name, pieces in parts.items():
        yield f"{before}{json.dumps(name, ensure_ascii=False)}:"
        yield from pieces
        before = ","
    yield "}" if parts else "{}"


def _array(parts: Iterable[Iterable[str]]) -> Iterator[str]:
    before = "["
    for pieces in parts:
        yield before
        yield from pieces
        before = ","
    yield "]" if before == "," else "[]"


def _text(value: Any) -> Iterator[str]:
    yield json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def _rounded(column: Column) -> Iterator[str]:
    """To four digits; not the probability, which may lie close to where a film is called normal."""
    known = (None if value is None or math.isnan(value) else value for value in column)
    yield from _text([value if value is None else float(f"{value:.4g}") for value in known])

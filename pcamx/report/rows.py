"""What the tables of a report say, for the terminal and for the page alike.

The shape of ``report.json`` is read here once: a part that is missing is a dash, never an error.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pcamx.catalogue import (
    AGAINST_SEGMENTER,
    BASELINES,
    BY_TEMPTATION,
    CENTRE,
    KAPPA_BY_PART,
    MAPS,
    MEASURES,
    MIOU,
    POINTING,
    TEMPTING,
    TRAINABLES,
    Judged,
    classifiers,
    measures,
)
from pcamx.report.numbers import DASH, finite, number

SIZES = {"small": "small lesions", "medium": "medium lesions", "large": "large lesions"}


Shown = Literal["first", "console", "page"]


def titles(of: Judged, *shown: Shown) -> dict[str, str]:
    """Return the titles by key of the measures that are ``shown`` so: a table's columns.

    Those that judge a map by the network's own answers stand with the map's others.
    """
    return {
        measure.key: measure.title
        for measure in MEASURES
        if (measure.of == of or (of == "map" and measure.of == "faithfulness"))
        and measure.shown in shown
    }


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval over ``n`` films or studies; None where undefined."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None

    def text(self, digits: int = 3) -> str:
        """Return the value as ``0.563``."""
        return number(self.value, digits)

    def interval(self, digits: int = 3) -> str:
        """Return the interval as ``[0.481, 0.640]``, empty where there is none."""
        if self.low is None or self.high is None:
            return ""
        return f"[{number(self.low, digits)}, {number(self.high, digits)}]"

    @property
    def on_scale(self) -> bool:
        """Whether it lies between 0 and 1 with the interval that it has."""
        places = (self.value, self.low, self.high)
        return all(place is not None and 0 <= place <= 1 for place in places)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: what it is about, its figures by key, and the map's threshold."""

    name: str
    figures: Mapping[str, Estimate]
    threshold: float | None = None
    tuned: bool = True  # the threshold comes from marked training films


@dataclass(frozen=True, slots=True)
class Group:
    """The rows of one stage or baseline."""

    title: str
    rows: tuple[Row, ...]

    @property
    def baseline(self) -> bool:
        """Whether it is of no stage of the paper."""
        return is_baseline(self.title)


def is_baseline(title: str) -> bool:
    """Tell whether a group's title, ``stage 2`` or ``stage 2, positive CAM``, is of no stage."""
    return title.split(",")[0] not in [entry.title for entry in classifiers()]


def counts(figures: Mapping[str, Estimate]) -> str:
    """Return the n of a row; ``512/207`` where its figures rest on different numbers."""
    seen = dict.fromkeys(DASH if f.n is None else str(f.n) for f in figures.values())
    return "/".join(seen) or DASH


def localization(
    report: Mapping[str, Any], keys: Mapping[str, str] | None = None
) -> tuple[Group, ...]:
    """Return where the maps lie: a group per stage, then one per baseline, a row per map."""
    keys = titles("map", "first") if keys is None else keys
    groups = (
        Group(title, _map_rows(_mapping(part, "localization"), keys, keep=name != CENTRE.key))
        for name, title, part in _parts(report)
    )
    return tuple(g for g in groups if g.rows)


def classification(
    report: Mapping[str, Any], keys: Mapping[str, str] | None = None
) -> tuple[Row, ...]:
    """Return how well it classifies: a row per stage and per baseline that does."""
    keys = titles("decision", "first") if keys is None else keys
    return tuple(
        Row(title, _estimates(found, keys))
        for _, title, part in _parts(report)
        if (found := _mapping(part, "classification"))
    )


def basis(report: Mapping[str, Any]) -> tuple[Row, ...]:
    """Return what the decisions rest on: a row per stage and baseline that was asked."""
    keys = [measure.key for measure in measures("basis")]
    return tuple(
        Row(title, _estimates(found, keys))
        for _, title, part in _parts(report)
        if (found := _mapping(part, "basis"))
    )


def by_temptation(report: Mapping[str, Any]) -> tuple[Row, ...]:
    """Return what each temptation does where they are several: a row per network and kind."""
    return tuple(
        Row(f"{title}, {kind}", _estimates(_mapping(kinds, kind), TEMPTING))
        for _, title, part in _parts(report)
        for kinds in [_mapping(_mapping(part, "basis"), BY_TEMPTATION)]
        for kind in kinds
    )


def basis_columns(found: Iterable[Row], *shown: Shown) -> dict[str, dict[str, str]]:
    """Return titles by key of what was measured of the basis, by its films: twins, then marked."""
    seen = measured(found)
    columns: dict[str, dict[str, str]] = {}
    for measure in measures("basis"):
        if measure.shown in shown and measure.key in seen:
            columns.setdefault(measure.films, {})[measure.key] = measure.title
    return columns


def pointing_by_size(report: Mapping[str, Any]) -> tuple[Group, ...]:
    """Return as `localization` the pointing for each size of lesion under that size's key."""

    def by_size(part: Mapping[str, Any]) -> dict[str, Any]:
        maps = _mapping(part, "localization")
        sizes = {name: _mapping(_mapping(maps, name), "by_size") for name in maps}
        return {
            "localization": {
                name: {size: _mapping(found, size).get(POINTING.key) for size in found}
                for name, found in sizes.items()
            }
        }

    parts = {where: _mapping(report, where) for where in ("stages", "baselines")}
    slices = {w: {n: by_size(_mapping(p, n)) for n in p} for w, p in parts.items()}
    return localization(slices, SIZES)


def measured(rows: Iterable[Row]) -> frozenset[str]:
    """Return the keys of the figures that rest on at least one film in at least one row."""
    return frozenset(key for row in rows for key, figure in row.figures.items() if figure.n)


def any_measured(groups: Iterable[Group]) -> bool:
    """Tell whether any figure of the groups has a value."""
    figures = (f for group in groups for row in group.rows for f in row.figures.values())
    return any(figure.value is not None for figure in figures)


def kappa_by_part(report: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[Row, ...]]:
    """Return stage titles, and a row per body part with kappa under each title."""
    found = {
        title: _mapping(_mapping(part, "classification"), KAPPA_BY_PART)
        for _, title, part in _parts(report)
    }
    found = {title: kappas for title, kappas in found.items() if kappas}
    parts = sorted({str(name) for kappas in found.values() for name in kappas})
    rows = (
        Row(p or "not stated", {t: _estimate(kappas.get(p)) for t, kappas in found.items()})
        for p in parts
    )
    return tuple(found), tuple(rows)


def stages(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the report's stages, by number as text, in order."""
    found = _mapping(report, "stages")
    return {key: _mapping(found, key) for key in sorted(found)}


def trained(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return what was trained, by its title, in the order of training."""
    found = {
        entry.title: _mapping(_mapping(report, "stages"), str(entry.key))
        or _mapping(_mapping(report, "baselines"), str(entry.key))
        for entry in TRAINABLES
    }
    return {title: measured for title, measured in found.items() if measured}


def temperatures(report: Mapping[str, Any]) -> dict[str, float]:
    """Return what the logits of every stage are to be divided by, by its title, where known."""
    found = {
        title: finite(measured.get("temperature")) for title, measured in trained(report).items()
    }
    return {title: value for title, value in found.items() if value is not None}


def against_segmenter(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return stage 3's decoder minus the segmenter's, in mIoU; empty where one is missing."""
    return _mapping(_mapping(report, AGAINST_SEGMENTER), MIOU.key)


def _parts(report: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Key, title and content of every stage and baseline."""
    known = {str(entry.key): entry.title for entry in TRAINABLES}
    known |= {baseline.key: baseline.title for baseline in BASELINES}
    for found in (stages(report), _mapping(report, "baselines")):
        for key in found:
            yield key, known.get(key, key.replace("_", " ")), _mapping(found, key)


def _map_rows(maps: Mapping[str, Any], keys: Mapping[str, str], *, keep: bool) -> tuple[Row, ...]:
    """A row per map; without ``keep``, maps that say the same become one row."""
    known = {kind.key: kind.title for kind in MAPS}
    names = [*(m for m in known if m in maps), *(m for m in maps if m not in known)]
    if not keep and len(names) > 1 and all(maps[n] == maps[names[0]] for n in names):
        return (_map_row("for any map", _mapping(maps, names[0]), keys),)
    return tuple(
        _map_row(known.get(n, n.replace("_", " ")), _mapping(maps, n), keys) for n in names
    )


def _map_row(name: str, found: Mapping[str, Any], keys: Mapping[str, str]) -> Row:
    threshold, tuned = finite(found.get("threshold")), found.get("threshold_tuned")
    return Row(name, _estimates(found, keys), threshold, tuned is not False)


def _estimates(found: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Estimate]:
    return {key: _estimate(found.get(key)) for key in keys}


def _estimate(found: Any) -> Estimate:
    if not isinstance(found, Mapping):
        return Estimate(finite(found))
    n = found.get("n")
    value, low, high = (finite(found.get(k)) for k in ("value", "low", "high"))
    return Estimate(value, low, high, n if isinstance(n, int) else None)


def _mapping(found: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = found.get(key)
    return value if isinstance(value, Mapping) else {}

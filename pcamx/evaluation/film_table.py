"""films.csv: what was measured of every film, so that two runs can be compared film by film.

One row per film, network (a stage or a baseline) and map. Columns, empty where undefined:

path, patient, study, part, label    the film, as in the store's manifest
lesion_share      the lesion's share of the canvas; of marked films, like all figures of maps
network           title of what was trained ("stage 1"), or key of a baseline ("centre")
probability       of abnormal, by that network
map               key of the map ("positive_cam")
peak              the map's maximum on the film, not normalised: on normal films, what false
                  activation and false candidates read
on_marker, pointing, ...
                  the film's own share in the figure of that name in report.json, for every measure
                  in `pcamx.catalogue` that has a column; on_marker of films with a marker
lesion_effect, erase_blur, ...
                  the same of what that network's decision rests on, whatever the map

The mean of a column over its films is report.json's figure. Two runs on the same films are
compared by `pcamx.metrics.paired` on two such columns.
"""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from pcamx.catalogue import FALSE_ACTIVATION, Measure, measures
from pcamx.data.canvas.side_markers import Box
from pcamx.data.store import Film
from pcamx.errors import PcamxError
from pcamx.evaluation.scoring import Scores, Tuning
from pcamx.metrics import Floats
from pcamx.output import plain_cell, replacing_file, safe_cell

FILM = ("path", "patient", "study", "part", "label")
HEAD = (*FILM, "lesion_share", "network", "probability", "map", "peak")


def measured() -> list[Measure]:
    """Return the measures that have a column, those of films with a marker first."""
    found = [measure for measure in measures("map") if measure.column]
    return sorted(found, key=lambda measure: measure.films == "marked")


def bases() -> list[Measure]:
    """Return the measures of what the decision rests on that have a column."""
    return [measure for measure in measures("basis") if measure.column]


def columns() -> tuple[str, ...]:
    """Return the header of the file."""
    return (*HEAD, *(measure.column for measure in (*measured(), *bases())))


@dataclass(frozen=True, slots=True)
class FilmTable:
    """A films.csv: by film, in the file's order, who it is of and what was measured."""

    patient: dict[str, str] = field(default_factory=dict)
    label: dict[str, int] = field(default_factory=dict)
    cells: dict[tuple[str, str, str], dict[str, float]] = field(default_factory=dict)
    """By network, map and column: value by film, of the films that have one."""

    def values(self, network: str, name: str, column: str) -> dict[str, float]:
        """Return a column's value by film for map ``name``; empty where nothing was measured."""
        return self.cells.get((network, name, column), {})


def read_films(path: Path) -> FilmTable:
    """Read what `write_films` wrote.

    Raises PcamxError that names the file and the row.
    """
    found = FilmTable()
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file, strict=True)
            if tuple(next(rows, ())) != columns():
                raise ValueError("its columns are not those of this version")
            for row in rows:
                try:
                    _take(dict(zip(columns(), row, strict=True)), found)
                except ValueError as error:
                    raise ValueError(f"row {rows.line_num}: {error}") from None
    except (OSError, ValueError, csv.Error) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise PcamxError(f"{path}: {why}; run pcamx evaluate {path.parent}") from None
    return found


def _take(row: Mapping[str, str], found: FilmTable) -> None:
    """Put a row of the file into the table."""
    path = plain_cell(row["path"])
    found.patient[path] = plain_cell(row["patient"])
    found.label[path] = int(row["label"])
    for column in ("probability", "peak", *columns()[len(HEAD) :]):
        if cell := row[column]:
            value = float(cell)
            if not math.isfinite(value):
                raise ValueError(f"{column} is {cell}")
            place = (row["network"], row["map"], column)
            found.cells.setdefault(place, {})[path] = value


def write_films(
    path: Path,
    films: Sequence[Film],
    markers: Sequence[Sequence[Box]],
    scores: Mapping[str, Scores],
    tuning: Mapping[str, Mapping[str, Tuning]],
    basis: Mapping[str, Mapping[str, Floats]],
) -> None:
    """Write the file whole or not at all; ``scores``, ``tuning`` and ``basis`` by network.

    ``basis`` has values of all films by column, NaN where a film has none.

    Raises PcamxError where it cannot be written.
    """
    with (
        replacing_file(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns())
        for network, found in scores.items():
            rests = [
                basis.get(network, {}).get(measure.column, np.full(len(films), np.nan))
                for measure in bases()
            ]
            tuned = tuning.get(network, {})
            writer.writerows(_rows(network, found, tuned, films, markers, rests))


def _rows(
    network: str,
    scores: Scores,
    tuning: Mapping[str, Tuning],
    films: Sequence[Film],
    markers: Sequence[Sequence[Box]],
    basis: Sequence[Floats],
) -> Iterator[list[object]]:
    marked = [bool(film.mark) for film in films]
    where = {"marked": marked, "with marker": [bool(boxes) for boxes in markers]}
    for name, maps in scores.maps.items():
        # The cells of numbers are made row by row: those of 40,000 films would fill 60 MB.
        cells_of = [
            _spread(scores.lesion_share_M, marked),
            [network] * len(films),
            [""] * len(films) if scores.probability_N is None else _cells(scores.probability_N),
            [name] * len(films),
            _cells(maps.of(FALSE_ACTIVATION)),
        ]
        for measure in measured():
            value = maps.values(measure, tuning.get(name, Tuning()))
            assert isinstance(value, Tensor)
            cells_of.append(_spread(value, where[measure.films]))
        cells_of += (map(_known, value_N.tolist()) for value_N in basis)
        for film, *cells in zip(films, *cells_of, strict=True):
            yield [*(safe_cell(str(getattr(film, key))) for key in FILM), *cells]


def _cells(value_N: Tensor) -> Iterator[str]:
    return (f"{value:.9g}" for value in value_N.tolist())


def _known(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.9g}"


def _spread(value_M: Tensor, where: Sequence[bool]) -> Iterator[str]:
    """The values at the films that they belong to, nothing elsewhere."""
    cells = _cells(value_M)
    for here in where:
        yield next(cells) if here else ""

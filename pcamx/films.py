"""films.csv: what was measured of every film, so that two runs can be compared film by film.

One row per film, network (a stage or a baseline) and map. Columns, empty where undefined:

path, patient, study, part, label    the film, as in the store's manifest
lesion_share      the lesion's share of the canvas; of marked films, like all figures of maps
network           "stage 1", "stage 2", "stage 3", "centre", "untrained"
probability       of abnormal, by that network
map               "cam", "positive_cam", "decoder"
peak              the map's maximum, not normalised: on normal films, what false activation reads
on_marker         share of the map's peak on the side marker; of films that carry one
pointing, energy, miou, dice, miou_otsu, relevance_rank, maxboxacc_v2
                  the film's own share in the figure of that name in report.json

The mean of a column over its films is report.json's figure. Two runs on the same films are
compared by `pcamx.metrics.paired` on two such columns.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from pcamx import checkpoint
from pcamx.data.markers import Box
from pcamx.data.store import Film
from pcamx.figures import per_film
from pcamx.scoring import Scores, Tuning

FILM = ("path", "patient", "study", "part", "label")
MEASURED = (
    *("pointing", "energy", "miou", "dice", "miou_otsu", "relevance_rank"),
    "maxboxacc_v2",
)
COLUMNS = (
    *(*FILM, "lesion_share", "network", "probability", "map", "peak", "on_marker"),
    *MEASURED,
)


def write_films(
    path: Path,
    films: Sequence[Film],
    markers: Sequence[Box | None],
    scores: Mapping[str, Scores],
    tuning: Mapping[str, Mapping[str, Tuning]],
) -> None:
    """Write the file whole or not at all; ``scores`` and ``tuning`` by network.

    Raises PcamxError where it cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for network, found in scores.items():
        writer.writerows(_rows(network, found, tuning.get(network, {}), films, markers))
    checkpoint.write_text(path, text.getvalue())


def _rows(
    network: str,
    scores: Scores,
    tuning: Mapping[str, Tuning],
    films: Sequence[Film],
    markers: Sequence[Box | None],
) -> Iterator[list[object]]:
    marked = [bool(film.mark) for film in films]
    with_marker = [box is not None for box in markers]
    share = _spread(scores.lesion_share_M, marked)
    probability = (
        [""] * len(films) if scores.probability_N is None else _cells(scores.probability_N)
    )
    for name, maps in scores.maps.items():
        values = per_film(maps, tuning.get(name, Tuning()))
        columns = [
            *(share, [network] * len(films), probability, [name] * len(films)),
            *(_cells(maps.peak_N), _spread(maps.on_marker_K, with_marker)),
            *(_spread(values[key], marked) for key in MEASURED),
        ]
        for film, *cells in zip(films, *columns, strict=True):
            yield [*(getattr(film, key) for key in FILM), *cells]


def _cells(value_N: Tensor) -> list[str]:
    return [f"{value:.9g}" for value in value_N.tolist()]


def _spread(value_M: Tensor, where: Sequence[bool]) -> list[str]:
    """The values at the films that they belong to, nothing elsewhere."""
    cells = iter(_cells(value_M))
    return [next(cells) if here else "" for here in where]

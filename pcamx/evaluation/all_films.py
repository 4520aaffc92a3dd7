"""films.html: every film that was measured, with its maps, to filter, sort and look at.

`FilmPictures` draws the maps while they are scored, so that no network runs twice; numbers come
from films.csv, whatever columns it has. Shapes: B batch, H W the canvas, h w the film on it.
"""

import csv
import math
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pcamx import metrics
from pcamx.catalogue import BASELINES, CENTRE, MAPS, MEASURES, TRAINABLES, best_map
from pcamx.data.canvas.placement import fit, on_film
from pcamx.data.canvas.side_markers import Box
from pcamx.data.files.file_content import UnfitError
from pcamx.data.files.film import read_film
from pcamx.data.phantom.temptations import LETTER
from pcamx.data.store import Film, Store
from pcamx.errors import PcamxError
from pcamx.evaluation.explainers import Maps
from pcamx.evaluation.film_table import FILM
from pcamx.evaluation.twins import Twin
from pcamx.metrics import SIZES
from pcamx.output import plain_cell
from pcamx.report.figures.film_figure import outlines
from pcamx.report.viewer.page import AllFilms, MapOf, NetworkOf
from pcamx.report.viewer.pictures import (
    Ring,
    eight_bits,
    reduced,
    ring,
    write_film,
    write_maps,
)
from pcamx.types import ABNORMAL, Batch

_CELL = 4  # canvas pixels of one pixel of a map as kept: the decoder answers at stride 4
_PICTURE = re.compile(r"\d{6}(\.small)?\.(jpg|png)")
_TITLES = {"peak": "peak of the map as it is"} | {
    measure.column: measure.title for measure in MEASURES if measure.column
}


def only_pictures(folder: Path) -> None:
    """Raise PcamxError unless ``folder`` is missing or holds what `FilmPictures` draws alone."""
    for path in folder.iterdir() if folder.exists() else ():
        if not _PICTURE.fullmatch(path.name):
            raise PcamxError(f"{path} is no picture of pcamx evaluate; move it elsewhere")


class FilmPictures:
    """Draws into ``folder`` what films.html shows of ``films``, of a split of ``store``.

    ``networks`` are the titles of those whose maps are drawn, in the order in which `watch` hears
    of them.
    """

    def __init__(
        self, folder: Path, store: Store, films: Sequence[Film], networks: Sequence[str]
    ) -> None:
        self.folder, self.store, self.films, self._networks = folder, store, films, networks
        self.tiles: dict[tuple[str, str], int] = {}
        """By network and map: the place of a map in each film's strip."""
        self.marks: list[list[Ring]] = []
        self._strips: list[list[NDArray[np.uint8]]] = []
        self._drawn = 0

    def stem(self, row: int) -> str:
        """Return what the names of a film's pictures begin with."""
        return f"{row:06}"

    def watch(self, batch: Batch, network: str, maps: Maps) -> None:
        """Draw a batch's maps by one network; a `pcamx.evaluation.scoring.Watch`."""
        if network not in self._networks:
            return
        films = self.films[self._drawn : self._drawn + len(batch.label_B)]
        if network == self._networks[0]:
            self._strips = [[] for _ in films]
            self.marks += _marks(batch, films)
            grey_BHW = batch.image_B1HW[:, 0] * self.store.std + self.store.mean
            for row, (film, grey_HW) in enumerate(zip(films, grey_BHW, strict=True), self._drawn):
                part_hw = _on_film(grey_HW, film).round().clamp(0, 255).byte().cpu().numpy()
                write_film(self.folder / self.stem(row), part_hw)
        for key, map_BHW in maps.items():
            self.tiles.setdefault((network, key), len(self.tiles))
            for strip, film, scaled_HW in zip(
                self._strips, films, metrics.minmax(map_BHW), strict=True
            ):
                strip.append(_tile(scaled_HW, film))
        if network == self._networks[-1]:
            for row, strip in enumerate(self._strips, self._drawn):
                write_maps(self.folder / self.stem(row), strip)
            self._drawn += len(films)

    def draw_films(self) -> Iterator[None]:
        """Draw the films anew from their files, at their own size; yield after each.

        One that is not read here, such as those transcoded to HTJ2K, stays as the network saw it.
        """
        for row, one in enumerate(self.films):
            with suppress(UnfitError):
                film = read_film(self.store.root / one.path)
                write_film(self.folder / self.stem(row), eight_bits(film.grey_HW, film.white))
            yield


def _tile(scaled_HW: Tensor, film: Film) -> NDArray[np.uint8]:
    """The film's part of a map in [0, 1], a pixel for each _CELL x _CELL; nothing if it is flat."""
    part_hw = _on_film(scaled_HW, film)
    if scaled_HW.min() == 1:
        part_hw = part_hw * 0
    height, width = (max(1, round(side / _CELL)) for side in part_hw.shape)
    mean_hw = F.adaptive_avg_pool2d(part_hw[None, None], (height, width))[0, 0]
    return (255 * mean_hw).round().byte().cpu().numpy()


def _on_film(canvas_HW: Tensor, film: Film) -> Tensor:
    return on_film(canvas_HW, fit(film.width, film.height, canvas_HW.shape[-1]))


def _marks(batch: Batch, films: Sequence[Film]) -> Iterator[list[Ring]]:
    """Outlines of each film's marked lesion, none where it is not marked."""
    for film, marked, lesion_HW in zip(
        films, batch.marked_B.tolist(), batch.lesion_B1HW[:, 0], strict=True
    ):
        if not marked:
            yield []
            continue
        mask_hw = (_on_film(lesion_HW, film) >= 0.5).byte().cpu().numpy()
        height, width = mask_hw.shape
        # Pixel centres lie at halves there.
        yield [ring(points_P2 + 0.5, width, height) for points_P2 in outlines(mask_hw)]


def all_films(
    table: Path,
    pictures: FilmPictures,
    markers: Sequence[Sequence[Box]],
    twins: Sequence[Twin],
    subject: str,
) -> AllFilms:
    """Return what films.html says; ``table`` is the films.csv of the films that were drawn."""
    films = pictures.films
    networks, shares = _read(table, films, pictures.tiles)
    facts = {
        "label": ["abnormal" if film.label == ABNORMAL else "normal" for film in films],
        "lesion": [_size(shares.get(film.path)) for film in films],
        **{name: [getattr(film, name) for film in films] for name in FILM[1:-1]},
        "split": [film.split for film in films],
    }
    if any(sizes := [reduced(film.width, film.height) for film in films]):
        facts["size"] = sizes
    if any(markers):
        facts["marker"] = ["with" if boxes else "without" for boxes in markers]
    facts |= _temptations(twins, len(films))
    first = max(i for i, n in enumerate(networks) if n.title in _classifying())
    return AllFilms(
        subject=subject,
        folder="films",
        paths=[film.path for film in films],
        stems=[pictures.stem(row) for row in range(len(films))],
        facts=facts,
        networks=networks,
        start=(first, _best(networks[first])),
        marks=pictures.marks,
    )


def _classifying() -> set[str]:
    return {entry.title for entry in TRAINABLES if entry.classifies}


def _best(network: NetworkOf) -> int:
    """Place of the map that shows best where a stage looks."""
    entry = next(entry for entry in TRAINABLES if entry.title == network.title)
    return [one.title for one in network.maps].index(best_map(entry).title)


def _size(share: float | None) -> str:
    """Of a marked lesion, in a word."""
    sizes = (name for name, (low, high) in SIZES.items() if share and low <= share < high)
    return next(sizes, "")


def _temptations(twins: Sequence[Twin], films: int) -> dict[str, list[str]]:
    """Which films hold which temptation, where their twins say so: by its kind.

    Of letters that is the R, which says "abnormal": a film with an L has none.
    """
    found: dict[str, list[str]] = {}
    for twin in twins:
        if twin.temptation:
            there = "with" if twin.change == "temptation_removed" else "without"
            name = "letter R" if twin.temptation == LETTER else twin.temptation
            if name not in found:
                found[name] = [""] * films
            found[name][twin.film] = there
    return found


def _read(
    table: Path, films: Sequence[Film], tiles: Mapping[tuple[str, str], int]
) -> tuple[list[NetworkOf], dict[str, float]]:
    """films.csv column by column, and each marked lesion's share of the canvas by film."""
    row_of = {film.path: row for row, film in enumerate(films)}
    known = {*FILM, "lesion_share", "network", "probability", "map"}
    empty = array("d", [math.nan]) * len(films)  # of a number, 8 bytes instead of a list's 32
    probability: dict[str, list[float | None]] = {}
    maps: dict[str, dict[str, dict[str, array[float]]]] = {}
    shares: dict[str, float] = {}
    with table.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        order = [name for name in reader.fieldnames or () if name not in known]
        for line in reader:
            name, row = line["network"], row_of[plain_cell(line["path"])]
            if name == CENTRE.key:  # the same on every film
                continue
            probability.setdefault(name, [None] * len(films))[row] = _number(line["probability"])
            if line["lesion_share"]:
                shares[plain_cell(line["path"])] = float(line["lesion_share"])
            columns = maps.setdefault(name, {}).setdefault(line["map"], {})
            for column in order:
                if cell := line[column]:  # what was measured of no film is no column
                    if column not in columns:
                        columns[column] = empty[:]
                    columns[column][row] = float(cell)
    titles = {kind.key: kind.title for kind in MAPS}
    names = {baseline.key: baseline.title for baseline in BASELINES}
    networks = [
        NetworkOf(
            names.get(name, name),
            probability[name],
            [
                MapOf(
                    titles.get(key, key),
                    tiles.get((name, key)),
                    {_title(column): columns[column] for column in order if column in columns},
                )
                for key, columns in found.items()
            ],
        )
        for name, found in maps.items()
    ]
    return networks, shares


def _title(column: str) -> str:
    return _TITLES.get(column, column.replace("_", " "))


def _number(cell: str) -> float | None:
    return float(cell) if cell else None

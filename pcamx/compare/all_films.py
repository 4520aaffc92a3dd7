"""films.html of a comparison: every film, once, under the maps of all runs.

Numbers and pictures are those of the runs' own pages, so that no network runs again.
"""

import dataclasses
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pcamx.compare.measured import Measured
from pcamx.errors import PcamxError
from pcamx.output import write_text
from pcamx.report.viewer.page import AllFilms, NetworkOf, read, render
from pcamx.report.viewer.pictures import FILM, MAPS, THUMB, join_maps
from pcamx.run.folder import RunFolder


class Page(NamedTuple):
    """A run's own page of all films."""

    pictures: Path
    """The folder that they lie in."""
    films: AllFilms

    @property
    def tiles(self) -> int:
        """How many maps each film's strip has."""
        maps = [one for network in self.films.networks for one in network.maps]
        return sum(one.tile is not None for one in maps)


def read_pages(runs: Sequence[Measured]) -> tuple[dict[str, Page], list[str]]:
    """Read the pages of runs on the same films, by name, and why one is left out."""
    pages: dict[str, Page] = {}
    remarks = []
    for run in runs:
        try:
            page = _read(RunFolder(run.folder))
            first = next(iter(pages.values()), page)
            if page.films.paths != first.films.paths:
                raise PcamxError(f"{run.folder}: its films are in another order")
            pages[run.name] = page
        except PcamxError as error:
            remarks.append(f"All films without {run.name}: {error}.")
    return pages, remarks


def _read(run: RunFolder) -> Page:
    films = read(run.all_films_file)
    for stem in films.stems:
        for ending in (FILM, THUMB, MAPS):
            if not (file := run.pictures / (stem + ending)).is_file():
                raise PcamxError(f"{file} is missing; run pcamx evaluate {run.path} again")
    return Page(run.pictures, films)


def write_all_films(pages: Mapping[str, Page], file: Path, back: str) -> None:
    """Write the page ``file`` and a folder of pictures beside it; films are as the first run's.

    ``back`` is the address of the comparison. Raises OSError where the disk refuses.
    """
    first = next(iter(pages.values()))
    folder = file.parent / first.films.folder
    folder.mkdir()
    for row, stem in enumerate(first.films.stems):
        for ending in (FILM, THUMB):
            shutil.copyfile(first.pictures / (stem + ending), folder / (stem + ending))
        strips = [
            (page.pictures / (page.films.stems[row] + MAPS), page.tiles) for page in pages.values()
        ]
        join_maps(folder / stem, strips)
    write_text(file, render(_merged(pages), "All films", back))


def _merged(pages: Mapping[str, Page]) -> AllFilms:
    """The first page with the networks of all, and what is known of its films in any."""
    facts = {name: values for page in pages.values() for name, values in page.films.facts.items()}
    name, (_, first) = next(iter(pages.items()))
    networks = list(_networks(pages))
    shown = first.networks[first.start[0]]
    start = [network.title for network in networks].index(_title(name, shown))
    wanted = shown.maps[first.start[1]].title
    return dataclasses.replace(
        first,
        subject="; ".join(pages),
        facts=facts | dict(first.facts),
        networks=networks,
        start=(start, [one.title for one in networks[start].maps].index(wanted)),
    )


def _title(run: str, network: NetworkOf) -> str:
    return f"{run}: {network.title}"


def _networks(pages: Mapping[str, Page]) -> Iterator[NetworkOf]:
    """Those whose maps were drawn, named by run; tiles as `join_maps` puts them."""
    above = 0
    for name, page in pages.items():
        for network in page.films.networks:
            maps = [
                dataclasses.replace(one, tile=above + one.tile)
                for one in network.maps
                if one.tile is not None
            ]
            if maps:
                yield dataclasses.replace(network, title=_title(name, network), maps=maps)
        above += page.tiles

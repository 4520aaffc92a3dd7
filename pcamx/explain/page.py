"""index.html of an explanation: its films with maps and candidates, to filter, sort and look at."""

from collections.abc import Sequence
from pathlib import Path

from pcamx.catalogue import MAPS, trainable
from pcamx.explain.messages import CALLED, Row, Settings
from pcamx.explain.read_film import LONG_SIDE
from pcamx.explain.results import PICTURES
from pcamx.report.viewer.page import AllFilms, Column, MapOf, NetworkOf, render
from pcamx.report.viewer.pictures import reduced, ring

PAGE = "index.html"


def write_page(folder: Path, rows: Sequence[Row], settings: Settings) -> None:
    """Write the page of the films that could be read. Raises OSError where the disk refuses."""
    with (folder / PAGE).open("w", encoding="utf-8") as file:
        file.writelines(render(_films(rows, settings), "Explained films"))


def _films(rows: Sequence[Row], settings: Settings) -> AllFilms:
    seen = [row for row in rows if row.probability is not None]
    title = next(kind.title for kind in MAPS if kind.key == settings.map)
    columns: dict[str, Column] = {
        "candidates": [float(len(row.candidates)) for row in seen],
        "score": [row.candidates[0].score if row.candidates else None for row in seen],
    }
    model = settings.about["model"]
    network = trainable(model["stage"]).title
    facts = {
        "called": [row.called for row in seen],
        "candidate": ["none" if not row.candidates else "one or more" for row in seen],
    }
    if any(sizes := [reduced(row.width, row.height, LONG_SIDE) for row in seen]):
        facts["size"] = sizes
    return AllFilms(
        subject=f"{network} of {model['folder']}; not for diagnosis",
        folder=PICTURES,
        paths=[row.film for row in seen],
        stems=[row.film for row in seen],
        facts=facts,
        networks=[
            NetworkOf(network, [row.probability for row in seen], [MapOf(title, 0, columns)])
        ],
        called_from=CALLED,
        candidates=[
            [
                ring(points, row.width, row.height)
                for one in row.candidates
                for points in (one.candidate.outline, *one.candidate.holes)
            ]
            for row in seen
        ],
    )

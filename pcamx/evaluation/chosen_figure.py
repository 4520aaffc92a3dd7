"""`pcamx figure RUN FILM...`: the paper's Figure 2 of films of one's choice."""

from collections.abc import Sequence
from pathlib import Path

from pcamx.data.marks.names import Names
from pcamx.data.store import Film
from pcamx.errors import PcamxError
from pcamx.evaluation.example_films import draw_panels
from pcamx.evaluation.measured_run import Split, open_run
from pcamx.progress import Say, Track, mute, silent
from pcamx.report.figures.film_figure import FORMATS, save

MOST = 50
"""Films of a figure, whose time grows faster than their number."""


def draw_figure(
    folder: Path,
    names: Sequence[str],
    out: Path,
    *,
    other: Path | None = None,
    split: Split = "valid",
    track: Track = silent,
    say: Say = mute,
) -> list[Film]:
    """Draw the films ``names``, in that order, under the maps of every stage of a run into ``out``.

    PDF, SVG or PNG, by the suffix of ``out``. A name is a film's path in the store, or the end of
    one that no other film of the ``split`` has; ``other`` is a store as in
    `pcamx.evaluation.evaluate.evaluate`. Returns the films. Raises PcamxError for a suffix that is
    none of these, for more than `MOST` names, for a name that means no film or several, and as
    `open_run` does.
    """
    if out.suffix.lower() not in FORMATS:
        raise PcamxError(f"{out}: a figure is written as {', '.join(FORMATS)}; choose one of these")
    if len(names) > MOST:
        raise PcamxError(f"{len(names)} films: a figure holds {MOST} at most; draw several")
    run = open_run(folder, other, split, track, say)
    films = chosen(run.store.split(split), names)
    stages = run.trained_explainers(run.networks(), classify=True)
    panels = draw_panels(stages, run.store, run.some(run.store, films), films)
    save(panels, out)
    return films


def chosen(films: Sequence[Film], names: Sequence[str]) -> list[Film]:
    """Return the film that each name means; raises PcamxError where it means none, or several."""
    by_path, known = {film.path: film for film in films}, Names(film.path for film in films)
    found = []
    for name in names:
        meant, _ = known.find(name)
        if not meant:
            raise PcamxError(f"{name}: no film of this split; films.csv of the run has their paths")
        if len(meant) > 1:
            raise PcamxError(f"{name} may be {meant[0]} or {meant[1]}; give more of the path")
        found.append(by_path[meant[0]])
    return found

"""Figure 2 of several runs: the same films in rows, runs and stages in columns."""

import dataclasses
import textwrap
from collections.abc import Sequence

import numpy as np
import torch

from pcamx.catalogue import (
    DECODER,
    POINTING,
    POSITIVE_CAM,
    STAGE_3,
    TRAINABLES,
    best_map,
    classifiers,
    maps_of,
)
from pcamx.compare.measured import Measured
from pcamx.data.canvas.provider import stream
from pcamx.data.feed.batches import eval_batches
from pcamx.devices import command_device
from pcamx.errors import PcamxError
from pcamx.evaluation.example_films import draw_panels
from pcamx.evaluation.explainers import explainer
from pcamx.report.figures.film_figure import Panel
from pcamx.run.films import read_films_of
from pcamx.run.folder import RunFolder
from pcamx.run.pretrained import from_pretrained

FILMS = 8
_COLUMNS = 8
"""More than so many maps leave only the last stage's of each run."""
_BATCH, _LETTERS = 32, 22


def _shown() -> dict[str, str]:
    """Column of a run's own figure: its name here. All but the last are positive CAM."""
    first, *later = (entry.title for entry in classifiers())
    decoder = f"{STAGE_3.title}, {DECODER.title}"
    return {POSITIVE_CAM.title: first, **{name: name for name in later}, DECODER.title: decoder}


def choose(runs: Sequence[Measured], *, seed: int = 0) -> list[str]:
    """Choose the names of films that all runs have marked, half of them missed by the last map of a
    run.

    Drawn by the seed; fewer missed, or fewer hit, leave room for the others.
    """
    hits = [_last_map(run) for run in runs]
    shared = [film for film in hits[0] if all(film in found for found in hits)]
    drawn = [shared[i] for i in np.random.default_rng(seed).permutation(len(shared))]
    hit = [film for film in drawn if all(found[film] >= 0.5 for found in hits)]
    missed = [film for film in drawn if film not in set(hit)]
    half = FILMS // 2
    return missed[: max(half, FILMS - len(hit))] + hit[: max(half, FILMS - len(missed))]


def _last_map(run: Measured) -> dict[str, float]:
    """Pointing by film of the last stage's decoder, or of its positive CAM."""
    last = [entry for entry in TRAINABLES if str(entry.key) in run.report["stages"]][-1]
    return run.films.values(last.title, best_map(last).key, POINTING.column)


def draw(runs: Sequence[Measured], films: Sequence[str]) -> tuple[list[Panel], list[str]]:
    """Return a panel for each of ``films`` with all runs' maps, and what could not be drawn."""
    drawn: dict[str, list[Panel]] = {}
    remarks: list[str] = []
    for run in runs if films else ():
        try:
            panels = _panels(run, films)
            first = next(iter(drawn.values()), panels)
            if panels[0].image_HW.shape != first[0].image_HW.shape:
                raise PcamxError(f"{run.folder}: its canvas is of another size")
            drawn[run.name] = panels
        except PcamxError as error:
            remarks.append(f"Without maps of {run.name}: {error}.")
    return _merged(drawn), remarks


def _panels(run: Measured, names: Sequence[str]) -> list[Panel]:
    """A run's own panels of the films."""
    folder = RunFolder(run.folder)
    if not folder.is_run():
        raise PcamxError(f"{run.folder}: holds a report and no networks")
    config = folder.read_config()
    entries = [entry for entry in classifiers() if str(entry.key) in run.report["stages"]]
    weights = [folder.load_weights(entry.key) for entry in entries]
    store = read_films_of(folder, config, weights)
    known = {film.path: film for film in store.split("valid")}
    if lost := [name for name in names if name not in known]:
        raise PcamxError(f"{store.folder}: {lost[0]} is not in its valid split any more")
    films = [known[name] for name in names]
    explainers, device = {}, torch.device("cpu")
    for entry in entries:
        model = from_pretrained(run.folder, stage=entry.key, device=command_device())
        device = model.device
        explainers[entry.title] = explainer(model.network, maps_of(entry, gradient=False))
    canvases = stream(config.data, store, films, device)
    batches = eval_batches(store, films, canvases, batch_size=_BATCH, device=device)
    return draw_panels(explainers, store, batches, films)


def _merged(drawn: dict[str, list[Panel]]) -> list[Panel]:
    """One panel a film, its columns named by run and stage."""
    if not drawn:
        return []
    names = _shown()
    columns = [[c for c in names if c in panels[0].maps] for panels in drawn.values()]
    if sum(map(len, columns)) > _COLUMNS:
        columns = [[c for c in found if c not in _before(found)] for found in columns]
    merged = []
    for row, first in enumerate(next(iter(drawn.values()))):
        maps, hits, probability = {}, {}, {}
        for (name, panels), shown in zip(drawn.items(), columns, strict=True):
            panel = panels[row]
            short = textwrap.fill(name, _LETTERS)
            for column in shown:
                title = f"{short}\n{names[column]}"
                maps[title] = panel.maps[column]
                hits[title] = panel.hits[column]
            last = list(panel.probability)[-1]
            probability[name] = panel.probability[last]
        merged.append(dataclasses.replace(first, maps=maps, hits=hits, probability=probability))
    return merged


def _before(columns: Sequence[str]) -> list[str]:
    """The columns of all stages but the last."""
    last = STAGE_3.title if STAGE_3.title in columns else columns[-1]
    return list(columns[: columns.index(last)])

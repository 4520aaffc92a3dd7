"""`pcamx evaluate RUN`: what each stage learned, on films it was not trained on, beside baselines.

Shapes: N films.
"""

import datetime
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pcamx import config as configs
from pcamx import metrics, provenance
from pcamx.catalogue import AGAINST_SEGMENTER, AUROC, CENTRE, TRAINABLES, UNTRAINED, trainable
from pcamx.data.canvas.side_markers import Box, read_markers, strata_of
from pcamx.data.contents import digest_of, sha256_of
from pcamx.data.patients import drawn
from pcamx.data.store import Film, Store, fingerprint, read_store
from pcamx.errors import PcamxError
from pcamx.evaluation.aggregate import (
    add_faithfulness,
    against_segmenter,
    choose_abnormal,
    figures,
)
from pcamx.evaluation.all_films import FilmPictures, all_films, only_pictures
from pcamx.evaluation.basis import all_figures, measure_basis
from pcamx.evaluation.example_films import choose_films, draw_panels
from pcamx.evaluation.explainers import Explainer
from pcamx.evaluation.film_table import write_films
from pcamx.evaluation.measured_run import MeasuredRun, Split, open_run
from pcamx.evaluation.scoring import Tuning, add_levels, faithfulness, probabilities, score, tune
from pcamx.evaluation.twins import Twin, read_twins
from pcamx.model.network import Network
from pcamx.output import replacing_files, write_text
from pcamx.progress import Say, Track, mute, silent
from pcamx.report.figures.film_figure import ordered, save
from pcamx.report.page import write_page
from pcamx.report.viewer.page import render
from pcamx.run.folder import RunFolder
from pcamx.run.history import read_history
from pcamx.run.lock import FolderLock
from pcamx.run.report import FORMAT, Measured, Report, read_report, write_report
from pcamx.run.weights import Weights


def evaluate(
    folder: Path,
    *,
    other: Path | None = None,
    split: Split = "valid",
    twins: Path | None = None,
    faithful: int = 0,
    track: Track = silent,
    say: Say = mute,
) -> Report:
    """Measure every finished stage of the run in ``folder``.

    Writes report.json, films.csv, report.html, figure2.png, films.html and its pictures into
    `RunFolder.measured_on`. With ``other``, a store, on its films instead, as it was trained:
    standardised and thresholds tuned by the run's own store, whose AUROC stands beside, if it holds
    that ``split``. What the decisions rest on is asked by erasing the lesions of marked films, and
    by ``twins``, a store of the same films with one thing changed each
    (`pcamx.evaluation.twins`). ``faithful`` is how many abnormal films are tried by deletion,
    insertion and patches as well, each of which costs about as much as two hundred films otherwise.
    Returns the report. Raises PcamxError where the folder holds no run or no finished stage, or
    cannot be written.
    """
    run = open_run(folder, other, split, track, say)
    out = RunFolder(folder).measured_on(other, split)
    if other is not None:
        _refuse_another(out, other)
    with FolderLock(out.path):  # an empty folder goes again if anything fails
        only_pictures(out.pictures)
        pages = [path.name for path in (out.figure_file, out.all_films_file, out.page_file)]
        with replacing_files(out.path, out.films_file.name, pages) as draft:
            return _measure(run, RunFolder(draft), twins, faithful)


def _measure(run: MeasuredRun, new: RunFolder, twins: Path | None, faithful: int) -> Report:
    seed, films, tuning = run.config.run.seed, run.store.split(run.split), run.tuning_films()
    # What may be amiss is said now, not after the measuring.
    paired = None if twins is None else _open_twins(run, twins)
    history = read_history(run.run)
    networks, untrained = run.networks(), run.untrained()
    stages = {name: net for name, net in networks.items() if isinstance(net, Network)}
    explainers = run.explainers(networks, untrained)
    markers = read_markers(run.store, films, run.config.data.canvas)
    new.pictures.mkdir()
    pictures = FilmPictures(new.pictures, run.store, films, list(networks))
    batches = run.measured(run.store, "evaluating films")
    scores = score(explainers, batches, films, markers, pictures.watch)
    tuned = _tuned(run, explainers, tuning)
    classifiers = stages | {UNTRAINED.key: untrained}
    cooled = _temperatures(run, classifiers)
    strata = strata_of(run.store, films)
    measured = {
        name: figures(scores[name], tuned[name], films, markers, seed, cooled.get(name), strata)
        for name in explainers
    }
    basis = measure_basis(run, classifiers, paired)
    for name, asked in basis.items():
        if rests := all_figures(asked, films, seed):
            measured[name]["basis"] = rests
    if faithful:
        tried = choose_abnormal(films, faithful, seed=seed)
        some = run.some(run.store, tried, "deleting pixels of films")
        add_faithfulness(measured, faithfulness(classifiers, explainers, some), tried, seed)
    report = _report(run, measured, len(tuning))
    if compared := against_segmenter(scores, tuned, films, seed):
        report[AGAINST_SEGMENTER] = compared
    if twins is not None:
        report["data"]["twins"] = fingerprint(twins)
    if parent := run.run.parent():
        report["parent"] = parent
    if run.store is not run.own and run.own.split(run.split):
        report["own"] = _own_auroc(run, stages)
    shown = choose_films(films, scores[list(stages)[-1]], seed=seed)
    panels = draw_panels(
        {name: explainers[name] for name in stages},
        run.store,
        run.some(run.store, shown),
        shown,
    )
    columns = {name: asked.columns for name, asked in basis.items()}
    write_films(new.films_file, films, markers, scores, tuned, columns)
    report["films_sha256"] = sha256_of(new.films_file)
    write_report(new, report)
    write_page(report, history, panels, new.page_file, new.all_films_file.name)
    if panels:
        save(ordered(panels), new.figure_file)
    del scores, basis, columns  # of every film, which the page of all films has to hold anew
    _write_all_films(run, pictures, markers, paired[1] if paired else [], new)
    return report


def _tuned(
    run: MeasuredRun, explainers: Mapping[str, Explainer], tuning: Sequence[Film]
) -> dict[str, dict[str, Tuning]]:
    """What every map takes from training films: the marked ones, ``tuning``, and normal ones."""
    tuned = tune(explainers, run.some(run.own, tuning, "tuning thresholds on films"))
    normal = run.normal_films()
    some = run.some(run.own, normal, "looking at normal films")
    add_levels(tuned, explainers, some, normal)
    return tuned


def _write_all_films(
    run: MeasuredRun,
    pictures: FilmPictures,
    markers: Sequence[Sequence[Box]],
    twins: Sequence[Twin],
    new: RunFolder,
) -> None:
    list(run.track(pictures.draw_films(), "drawing films", len(pictures.films)))
    subject = f"{run.run.path}, {run.split} split of {run.store.folder}"
    found = all_films(new.films_file, pictures, markers, twins, subject)
    write_text(new.all_films_file, render(found, "All films", new.page_file.name))


def _open_twins(run: MeasuredRun, folder: Path) -> tuple[Store, list[Twin]]:
    """The store of twins, standardised as the run was trained, and whose twins they are."""
    store = replace(read_store(folder), mean=run.own.mean, std=run.own.std)
    films, twins = run.store.split(run.split), store.split("valid")
    return store, read_twins(store, films, twins, run.store.contents)


def _refuse_another(out: RunFolder, store: Path) -> None:
    """Keep the report on another store of the same name, where that is still there."""
    try:
        earlier = Path(read_report(out)["data"]["store"])
    except PcamxError:  # there is none, or it cannot be read, and goes
        return
    if earlier.exists() and earlier.resolve() != store.resolve():
        raise PcamxError(
            f"{out.path} holds the report on {earlier}, a store of the same name; move it away"
        )


def _temperatures(run: MeasuredRun, networks: Mapping[str, Network]) -> dict[str, float | None]:
    films = run.calibrating_films()
    batches = run.some(run.own, films, "calibrating on films")
    label_N = torch.tensor([film.label for film in films])
    found = probabilities(networks, batches)
    return {name: metrics.temperature(score_N, label_N) for name, score_N in found.items()}


def _own_auroc(run: MeasuredRun, networks: Mapping[str, Network]) -> dict[str, Any]:
    """AUROC of each stage on the store that it was trained with, None for one class only."""
    films = run.own.split(run.split)
    batches = run.measured(run.own, "evaluating the run's own films")
    label_N = torch.tensor([film.label for film in films])
    keys = {entry.title: str(entry.key) for entry in TRAINABLES}
    found = {
        keys[name]: metrics.auroc(probability_N, label_N).value
        for name, probability_N in probabilities(networks, batches).items()
    }
    return {"store": str(run.own.folder), "films": len(films), AUROC.key: found}


def _report(run: MeasuredRun, measured: Mapping[str, Measured], tuning: int) -> Report:
    stages: dict[str, Measured] = {}
    baselines: dict[str, Measured] = {}
    for weights in run.weights:
        entry = trainable(weights.stage)
        found = measured[entry.title]
        found.update(_cost(weights))
        (stages if entry.classifies else baselines)[str(entry.key)] = found
    baselines = {b.key: measured[b.key] for b in (CENTRE, UNTRAINED)} | baselines
    finished = [weights.stage for weights in run.weights]
    return {
        "format": FORMAT,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": provenance.device_name(run.device),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "command": shlex.join(sys.argv),
        "data": _data(run, tuning),
        "config": configs.as_tree(run.config),
        "stages": stages,
        "unfinished": [key for key in run.run.begun() if key not in finished],
        "baselines": baselines,
    }


def _cost(weights: Weights) -> Measured:
    return {
        "seconds": weights.seconds,
        "epochs": weights.epochs,
        "ranks": weights.world,
        "device": weights.device,
    }


def _data(run: MeasuredRun, tuning: int) -> dict[str, Any]:
    splits = {
        name: {
            "films": len(films),
            "abnormal": sum(film.label for film in films),
            "marked": sum(bool(film.mark) for film in films),
            "patients": len({film.patient for film in films}),
        }
        for name in ("train", "valid", "test")
        if (films := run.store.split(name))
    }
    return {
        "store": str(run.store.folder),
        "split": run.split,
        "intervals_over": drawn(run.store.split(run.split)),
        "splits": splits,
        "marked_used": tuning,
        "content": digest_of(run.store.contents, [f.path for f in run.store.split(run.split)]),
    }

"""`pcamx evaluate RUN`: what each stage learned, on films it was not trained on, beside baselines.

Shapes: N films.
"""

import datetime
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pcamx import config as configs
from pcamx import metrics, provenance
from pcamx.data.canvas.side_markers import read_markers
from pcamx.errors import PcamxError
from pcamx.evaluation.aggregate import add_faithfulness, against_segmenter, choose_abnormal, figures
from pcamx.evaluation.example_films import choose_films, draw_panels
from pcamx.evaluation.film_table import write_films
from pcamx.evaluation.measured_run import OpenRun, Split, open_run
from pcamx.evaluation.scoring import (
    Explain,
    all_maps,
    centre_maps,
    faithfulness,
    network_maps,
    probabilities,
    score,
    segmenter_maps,
    tune,
)
from pcamx.model.network import Network
from pcamx.output import write_text
from pcamx.progress import Say, Track, mute, silent
from pcamx.report.curves import read_metrics
from pcamx.report.film_figure import Panel, save_png
from pcamx.report.page import write_page
from pcamx.run.checkpoints import Weights
from pcamx.run.lock import FolderLock
from pcamx.types import SEGMENTER, TRAINABLE, section

_ON_TEST = "on_test"


def evaluate(
    folder: Path,
    *,
    other: Path | None = None,
    split: Split = "valid",
    faithful: int = 0,
    track: Track = silent,
    say: Say = mute,
) -> dict[str, Any]:
    """Measure every finished stage of the run in ``folder``.

    Writes report.json, films.csv, report.html and figure2.png into `out_folder`. With ``other``, a
    store, on its films instead, as it was trained: standardised and thresholds tuned by the run's
    own store, whose AUROC stands beside, if it holds that ``split``. ``faithful`` is how many
    abnormal films are tried by deletion and insertion as well, each of which costs about as much
    as a hundred films otherwise. Returns the report. Raises PcamxError where the folder holds no
    run or no finished stage, or cannot be written.
    """
    run, out = open_run(folder, other, split, track, say), out_folder(folder, other, split)
    with FolderLock(out):  # an empty folder goes again if anything fails
        return _measure(run, out, faithful)


def _measure(run: OpenRun, out: Path, faithful: int) -> dict[str, Any]:
    seed, films, tuning = run.config.run.seed, run.store.split(run.split), run.tuning_films()
    networks = run.networks()
    classifiers = networks | {"untrained": run.untrained()}
    explainers: dict[str, Explain] = {n: all_maps(net) for n, net in networks.items()}
    explainers |= {"centre": centre_maps, "untrained": network_maps(classifiers["untrained"])}
    if segmenter := run.trained_segmenter():
        explainers["segmenter"] = segmenter_maps(segmenter)
    markers = read_markers(run.store, films, run.config.data.canvas)
    scores = score(explainers, run.measured(run.store, "evaluating films"), markers)
    tuned = tune(explainers, run.some(run.own, tuning, "tuning thresholds on films"))
    measured = {n: figures(scores[n], tuned[n], films, markers, seed) for n in explainers}
    if faithful:
        tried = choose_abnormal(films, faithful, seed=seed)
        batches = run.some(run.store, tried, "deleting pixels of films")
        add_faithfulness(measured, faithfulness(classifiers, explainers, batches), tried, seed)
    report = _report(run, measured, len(tuning))
    report |= against_segmenter(scores, tuned, films, seed)
    if run.store is not run.own and run.own.split(run.split):
        report["own"] = _own_auroc(run, networks)
    write_text(out / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    write_films(out / "films.csv", films, markers, scores, tuned)
    shown = choose_films(films, scores[f"stage {max(run.weights)}"], seed=seed)
    panels = draw_panels(networks, run.store, run.some(run.store, shown), shown)
    _write_pictures(report, panels, run.folder, out)
    return report


def _write_pictures(
    report: dict[str, Any], panels: Sequence[Panel], folder: Path, out: Path
) -> None:
    write_page(report, read_metrics(folder / "metrics.jsonl"), panels, out / "report.html")
    (out / "figure2.png").unlink(missing_ok=True)
    if panels:
        save_png(panels, out / "figure2.png")


def out_folder(run: Path, other: Path | None, split: Split = "valid") -> Path:
    """Where the report goes: into the run, or for another store into a folder named after it.

    The test split's goes to on_test in there, so no other report is overwritten. Raises
    PcamxError if a store is called test.
    """
    folder = run
    if other is not None:
        folder = run / f"on_{other.resolve().name}"
        if folder.name == _ON_TEST:
            raise PcamxError(
                f"{other}: {folder} is for the test split of the run's own store; rename this store"
            )
    return folder / _ON_TEST if split == "test" else folder


def _own_auroc(run: OpenRun, networks: Mapping[str, Network]) -> dict[str, Any]:
    """AUROC of each stage on the store that it was trained with, None for one class only."""
    films = run.own.split(run.split)
    batches = run.measured(run.own, "evaluating the run's own films")
    label_N = torch.tensor([film.label for film in films])
    found = {
        name.removeprefix("stage "): metrics.auroc(probability_N, label_N).value
        for name, probability_N in probabilities(networks, batches).items()
    }
    return {"store": str(run.own.folder), "films": len(films), "auroc": found}


def _report(run: OpenRun, measured: Mapping[str, dict[str, Any]], tuning: int) -> dict[str, Any]:
    report = _describe(run, tuning)
    report["stages"] = {
        str(n): measured[f"stage {n}"] | _cost(weights) for n, weights in run.weights.items()
    }
    begun = [n for n in TRAINABLE if (run.folder / section(n)).is_dir()]
    finished = [*run.weights, *([SEGMENTER] if run.segmenter else [])]
    report["unfinished"] = [n for n in begun if n not in finished]
    baselines = {n: f for n, f in measured.items() if not n.startswith("stage ")}
    if run.segmenter is not None:
        baselines["segmenter"] |= _cost(run.segmenter)
    return report | {"baselines": baselines}


def _cost(weights: Weights) -> dict[str, Any]:
    names = {"seconds": "seconds", "epochs": "epochs", "ranks": "world", "device": "device"}
    return {key: getattr(weights, name) for key, name in names.items()}


def _describe(run: OpenRun, tuning: int) -> dict[str, Any]:
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
        "format": 1,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": provenance.device_name(run.device),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "command": shlex.join(sys.argv),
        "data": {
            "store": str(run.store.folder),
            "split": run.split,
            "splits": splits,
            "marked_used": tuning,
        },
        "config": configs.as_tree(run.config),
    }

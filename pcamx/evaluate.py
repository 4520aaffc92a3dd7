"""`pcamx evaluate RUN`: what each stage learned, on the validation split, beside baselines.

Shapes: B batch, N films, M marked films, T thresholds, H W the canvas.
"""

import datetime
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pcamx import checkpoint, metrics, preflight, provenance
from pcamx import config as configs
from pcamx.checkpoint import Weights
from pcamx.config import Config
from pcamx.data.canvases import Canvases, Decoded, stream
from pcamx.data.feed import eval_batches
from pcamx.data.order import choose_marked
from pcamx.data.store import Film, Store, read_store
from pcamx.errors import PcamxError
from pcamx.metrics import THRESHOLDS, Figure
from pcamx.model.network import Network
from pcamx.panels import choose_films, draw_panels
from pcamx.progress import Say, Track, mute, silent
from pcamx.report.curves import read_metrics
from pcamx.report.figure import save_png
from pcamx.report.page import write_page
from pcamx.scoring import Explain, MapScores, Scores, centre_maps, network_maps, score
from pcamx.types import Batch

_BATCH = 32
_UNTUNED = 0.5
"""Threshold where no marked training film is there to tune it on."""


def evaluate(
    run: Path, *, other: Path | None = None, track: Track = silent, say: Say = mute
) -> dict[str, Any]:
    """Measure every finished stage of ``run``; write report.json, report.html and figure2.png.

    With ``other``, a store, on its validation split instead, as it was trained: standardised and
    thresholds tuned by the run's own store, whose AUROC stands beside; all goes to `out_folder`.
    Returns the report. Raises PcamxError where the folder holds no run or no finished stage.
    """
    if not (run / "config.yaml").is_file():
        raise PcamxError(f"{run}: not a run's folder, config.yaml is not there")
    config = configs.load(run / "config.yaml")
    own = read_store(Path(config.data.store))
    preflight.check_store(run, own.folder)
    store = own if other is None else replace(read_store(other), mean=own.mean, std=own.std)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    weights = _finished(run)
    networks = {f"stage {n}": _network(config, run, w, device) for n, w in weights.items()}
    explainers: dict[str, Explain] = {n: network_maps(net) for n, net in networks.items()}
    explainers["centre"] = centre_maps
    explainers["untrained"] = network_maps(_untrained(config, device))
    valid, tuning = store.split("valid"), _tuning_films(config, own)
    if not valid:
        raise PcamxError(f"{store.folder}: no film is in the valid split; prepare it anew")
    canvases = Decoded(config.data, store, device, track, say).split("valid")
    batches = _batches(config, store, valid, canvases, device)
    on_valid = score(explainers, _shown(track, batches, "evaluating films", valid))
    batches = _batches(config, own, tuning, stream(config.data, own, tuning, device), device)
    on_tuning = score(explainers, _shown(track, batches, "tuning thresholds on films", tuning))
    report = _describe(config, store, len(tuning), device)
    if other is not None:
        report["own"] = _own_auroc(config, own, networks, device, track, say)
    figures = {
        name: _figures(on_valid[name], on_tuning.get(name), valid, config.run.seed)
        for name in explainers
    }
    report["stages"] = {
        str(n): figures[f"stage {n}"]
        | {"seconds": w.seconds, "epochs": w.epochs, "ranks": w.world, "device": w.device}
        for n, w in weights.items()
    }
    report["unfinished"] = [n for n in (1, 2, 3) if n not in weights and _begun(run, n)]
    report["baselines"] = {name: figures[name] for name in ("centre", "untrained")}
    out = out_folder(run, other)
    out.mkdir(exist_ok=True)
    checkpoint.write_text(out / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    shown = choose_films(valid, on_valid[f"stage {max(weights)}"], seed=config.run.seed)
    batches = _batches(config, store, shown, stream(config.data, store, shown, device), device)
    panels = draw_panels(networks, store, batches, shown)
    write_page(report, read_metrics(run / "metrics.jsonl"), panels, out / "report.html")
    (out / "figure2.png").unlink(missing_ok=True)
    if panels:
        save_png(panels, out / "figure2.png")
    return report


def out_folder(run: Path, other: Path | None) -> Path:
    """Where the report goes: into the run, or for another store into a folder named after it."""
    return run if other is None else run / f"on_{other.resolve().name}"


def _own_auroc(
    config: Config,
    own: Store,
    networks: dict[str, Network],
    device: torch.device,
    track: Track,
    say: Say,
) -> dict[str, Any]:
    """AUROC of each stage on the store that it was trained with, None for one class only."""
    films = own.split("valid")
    canvases = Decoded(config.data, own, device, track, say).split("valid")
    batches = _batches(config, own, films, canvases, device)
    explainers = {name: network_maps(network) for name, network in networks.items()}
    scores = score(explainers, _shown(track, batches, "evaluating the run's own films", films))
    label_N = torch.tensor([film.label for film in films])
    found = {
        name.removeprefix("stage "): metrics.auroc(one.probability_N, label_N).value
        for name, one in scores.items()
        if one.probability_N is not None
    }
    return {"store": str(own.folder), "films": len(films), "auroc": found}


def _finished(run: Path) -> dict[int, Weights]:
    found = {n: run / f"stage{n}" / "weights.pt" for n in (1, 2, 3)}
    weights = {n: checkpoint.load_weights(path) for n, path in found.items() if path.is_file()}
    if not weights:
        raise PcamxError(f"{run}: no stage is finished; train one, or --resume it")
    return weights


def _begun(run: Path, number: int) -> bool:
    return (run / f"stage{number}").is_dir()


def _network(config: Config, run: Path, weights: Weights, device: torch.device) -> Network:
    network = Network(config, decoder=weights.stage == 3)
    path = run / f"stage{weights.stage}" / "weights.pt"
    missing = checkpoint.fill(network, weights, path, layout=config.model.layout)
    if missing:
        raise PcamxError(f"{path}: lacks {missing[0]}")
    return network.to(device).eval()


def _untrained(config: Config, device: torch.device) -> Network:
    torch.manual_seed(config.run.seed)
    return Network(config, decoder=True).to(device).eval()


def _tuning_films(config: Config, store: Store) -> list[Film]:
    """The marked training films that stage 3 may see, so no stage is tuned on more marks."""
    films = store.split("train")
    chosen = choose_marked(films, config.data.marked, seed=config.run.seed)
    return [films[i] for i in chosen]


def _batches(
    config: Config, store: Store, films: Sequence[Film], canvases: Canvases, device: torch.device
) -> Iterator[Batch]:
    impl = config.attention.impl
    return eval_batches(store, films, canvases, batch_size=_BATCH, device=device, impl=impl)


def _shown(
    track: Track, batches: Iterator[Batch], what: str, films: Sequence[Film]
) -> Iterator[Batch]:
    return track(batches, f"{what}, {_BATCH} at a time", -(-len(films) // _BATCH))


def _figures(
    scores: Scores, tuning: Scores | None, films: Sequence[Film], seed: int
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if scores.probability_N is not None:
        found["classification"] = metrics.classification_figures(
            scores.probability_N,
            torch.tensor([film.label for film in films]),
            patients=[film.patient for film in films],
            studies=[film.study for film in films],
            parts=[film.part for film in films],
            seed=seed,
        ).to_dict()
    patients = [film.patient for film in films if film.mark]
    found["localization"] = {
        name: _localization(maps, tuning.maps.get(name) if tuning else None, patients, seed)
        for name, maps in scores.maps.items()
    }
    return found


def _localization(
    scores: MapScores, tuning: MapScores | None, patients: Sequence[str], seed: int
) -> dict[str, Any]:
    tuned = tuning is not None and len(tuning.iou_MT) > 0
    threshold = metrics.tune_threshold(tuning.iou_MT) if tuned and tuning else _UNTUNED
    iou_M = scores.iou_MT[:, THRESHOLDS.index(threshold)]

    def figure(values_M: torch.Tensor) -> dict[str, Any]:
        if not patients:
            return Figure(None, None, None, 0).to_dict()
        return metrics.figure(values_M, patients, seed=seed).to_dict()

    return {
        "pointing": figure(scores.pointing_M),
        "energy": figure(scores.energy_M),
        "miou": figure(iou_M),
        "threshold": threshold,
        "threshold_tuned": tuned,
    }


def _describe(config: Config, store: Store, tuning: int, device: torch.device) -> dict[str, Any]:
    splits = {
        name: {
            "films": len(films),
            "abnormal": sum(film.label for film in films),
            "marked": sum(bool(film.mark) for film in films),
            "patients": len({film.patient for film in films}),
        }
        for name in ("train", "valid", "test")
        if (films := store.split(name))
    }
    return {
        "format": 1,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": provenance.device_name(device),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "command": shlex.join(sys.argv),
        "data": {"store": str(store.folder), "splits": splits, "marked_used": tuning},
        "config": configs.as_tree(config),
    }

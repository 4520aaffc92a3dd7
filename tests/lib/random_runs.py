"""Finished stages with random weights, where no training is needed."""

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pcamx import config as configs
from pcamx.config import Config
from pcamx.model.network import Network
from pcamx.run.folder import RunFolder
from pcamx.run.weights import Weights, load_weights, save_weights

SECONDS = 12.34567890123


def random_run(folder: Path, config: Path, stages: tuple[int, ...] = (1, 2, 3)) -> Path:
    """A run of ``stages`` in ``folder``, with the config written at ``config``."""
    loaded = configs.load(config)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(configs.dump(loaded))
    for number in stages:
        path = folder / f"stage{number}" / "weights.pt"
        path.parent.mkdir()
        path.write_bytes(_weights(number, loaded))
    return folder


_WRITTEN: dict[str, bytes] = {}
"""By all that they depend on, since a network takes longer to make than to write."""


def _weights(number: int, config: Config) -> bytes:
    """The file of one stage's weights."""
    key = repr((number, config.model, config.attention, config.impl, config.data.canvas))
    if key not in _WRITTEN:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "weights.pt"
            _save(path, number, config)
            _WRITTEN[key] = path.read_bytes()
    return _WRITTEN[key]


def _save(path: Path, number: int, config: Config) -> None:
    torch.manual_seed(number)
    network = Network(config, decoder=number == 3)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    save_weights(
        path,
        Weights(
            stage=number,
            encoder=config.model.encoder,
            canvas=config.data.canvas,
            accuracy=0.75,
            seconds=SECONDS + number,
            epochs=number,
            world=2,
            device="cpu",
            state=network.state_dict(),
        ),
    )


def figure(value: float, n: int) -> dict[str, float]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05, "n": n}


def write_report(run: Path, stages: tuple[int, ...] = (1, 2, 3)) -> dict[str, Any]:
    """A report.json that measures ``stages``: thresholds 0.35, 0.45, 0.55 for the three maps."""

    def part(maps: int) -> dict[str, Any]:
        return {
            "classification": {name: figure(0.8, 14) for name in ("auroc", "accuracy", "kappa")},
            "localization": {
                name: {key: figure(0.4, 7) for key in ("pointing", "energy", "miou")}
                | {"threshold": threshold, "threshold_tuned": True}
                for name, threshold in list(
                    zip(("cam", "positive_cam", "decoder"), (0.35, 0.45, 0.55), strict=True)
                )[:maps]
            },
        }

    split = {"films": 14, "abnormal": 7, "marked": 7, "patients": 9}
    report = {
        "format": 1,
        "created": "2026-11-22T04:08:34+00:00",
        "device": "a machine, 2 cores",
        "versions": {"pcamx": "0.1.0", "torch": "2.13.0"},
        "commit": "0123abc",
        "command": "pcamx evaluate run",
        "config": {},
        "unfinished": [],
        "data": {"store": "/secret/place", "splits": {"valid": split}, "marked_used": 6},
        "stages": {
            str(n): part(3 if n == 3 else 2) | {"epochs": n, "seconds": SECONDS + n} for n in stages
        },
        "baselines": {"untrained": part(3)},
    }
    (run / "report.json").write_text(json.dumps(report))
    return report


def retrained(run: Path, stage: int) -> None:
    """As after another training of ``stage`` in the same folder."""
    path = run / f"stage{stage}" / "weights.pt"
    weights = load_weights(path)
    save_weights(path, dataclasses.replace(weights, seconds=99.5))


def sign(run: RunFolder, run_id: str) -> None:
    """Let stage 1's weights say that they are of the run ``run_id``."""
    path = run.weights(1)
    save_weights(path, dataclasses.replace(load_weights(path), run=run_id))

"""A trained network ready for films: out of a run's folder, or out of what `pcamx export` wrote.

FOLDER/config.json         format, network, standardisation, thresholds, what made them
FOLDER/model.safetensors   the weights, float32; nothing that is read here can run code

Shapes: B batch, H W the canvas.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pcamx import __version__
from pcamx import config as configs
from pcamx.config import Attention, ConfigError, Model
from pcamx.data.store import read_head
from pcamx.errors import PcamxError
from pcamx.model.encoder import Layout
from pcamx.model.network import Network
from pcamx.run import checkpoints
from pcamx.run.checkpoints import Weights
from pcamx.run.folder import check_store

FORMAT = 1
CONFIG, SAFETENSORS = "config.json", "model.safetensors"
CLASSES = ("normal", "abnormal")
UNTUNED = 0.5
"""Threshold of a map that no marked film has tuned."""


class Threshold(NamedTuple):
    """Where a map, scaled to [0, 1] by its own minimum and maximum, counts as lesion."""

    value: float
    tuned: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretrained:
    """A network in eval mode and what a film needs to enter and leave it."""

    folder: Path
    network: Network = field(repr=False)
    stage: int
    layout: str
    canvas: int
    """Side of the square canvas in pixels; `data.canvas.placement.fit` places a film on it."""
    mean: float
    """Of the training films, in grey levels of 0..255; ``std`` likewise."""
    std: float
    thresholds: Mapping[str, Threshold]
    """By map: cam, positive_cam and, from stage 3 on, decoder."""
    versions: Mapping[str, str]
    """Of the software that measured the thresholds; empty where nothing was measured."""
    commit: str | None

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return self.network.head.weight.device

    def standardise(self, grey_B1HW: Tensor) -> Tensor:
        """Grey levels 0..255 of any dtype to the network's input, float32."""
        return (grey_B1HW.float() - self.mean) / self.std


@dataclass(frozen=True, slots=True)
class _Architecture:
    model: Model
    attention: Attention = Attention()  # whatever trained it, any device runs it


def from_pretrained(
    folder: str | Path, *, stage: int | None = None, device: torch.device | str | None = None
) -> Pretrained:
    """Load an export's folder, or a run's: its last finished stage, or ``stage``.

    ``device`` is the GPU where there is one. Weights-only: no file of the folder can run code.
    Raises PcamxError, one line, where it holds no model, is damaged or of another version.
    """
    folder = Path(folder)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if (folder / CONFIG).is_file():
        return _from_export(folder, stage, device)
    if (folder / "config.yaml").is_file():
        return _from_run(folder, stage, device)
    what = "no model in it" if folder.is_dir() else "no such folder"
    raise PcamxError(f"{folder}: {what}; expected a run's config.yaml or an export's {CONFIG}")


def _from_run(run: Path, stage: int | None, device: torch.device) -> Pretrained:
    try:
        store = Path(configs.load(run / "config.yaml").data.store)
    except ConfigError as error:
        raise PcamxError(f"{error} (pcamx {__version__}; is the run of another version?)") from None
    finished = [n for n in (1, 2, 3) if (run / f"stage{n}" / "weights.pt").is_file()]
    if not finished:
        raise PcamxError(f"{run}: none of stages 1, 2, 3 is finished; train one, or --resume it")
    number = finished[-1] if stage is None else stage
    if number not in finished:
        raise PcamxError(f"{run}: stage {number} is not finished; there is {_words(finished)}")
    path = run / f"stage{number}" / "weights.pt"
    weights = checkpoints.load_weights(path)
    if not store.is_dir():
        raise PcamxError(
            f"{run}: mean and std of its films are in {store}, which is not there; go to the "
            "folder you trained in, or run pcamx export there and take the export"
        )
    head = read_head(store)
    check_store(run, store)
    report = read_report(run, weights)
    return Pretrained(
        folder=run,
        network=_network(weights.layout, weights.state, path, number, device),
        stage=number,
        layout=weights.layout,
        canvas=weights.canvas,
        mean=head.mean,
        std=head.std,
        thresholds=_thresholds(report, number),
        versions=report.get("versions", {}),
        commit=report.get("commit"),
    )


def _words(stages: list[int]) -> str:
    return " and ".join(f"stage {n}" for n in stages)


def read_report(run: Path, weights: Weights) -> dict[str, Any]:
    """report.json of a run; empty where nobody has measured these weights.

    Raises PcamxError where it is damaged, or measures weights that were trained over since.
    """
    path = run / "report.json"
    damaged = PcamxError(f"{path}: damaged or of another version; run pcamx evaluate {run}")
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if report["format"] != 1:
            raise damaged
        measured = report["stages"].get(str(weights.stage))
        if measured is None:
            return {}
        trained = measured["epochs"], measured["seconds"]
        if not all(0 <= found["threshold"] <= 1 for found in measured["localization"].values()):
            raise damaged
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise damaged from None
    if trained != (weights.epochs, weights.seconds):
        raise PcamxError(
            f"{path}: measures another training of stage {weights.stage}; run pcamx evaluate {run}"
        )
    return report


def _maps(stage: int) -> tuple[str, ...]:
    return ("cam", "positive_cam", "decoder")[: 3 if stage == 3 else 2]


def _thresholds(report: Mapping[str, Any], stage: int) -> dict[str, Threshold]:
    found = report["stages"][str(stage)]["localization"] if report else {}
    untuned = {"threshold": UNTUNED, "threshold_tuned": False}
    chosen = {name: found.get(name, untuned) for name in _maps(stage)}
    return {name: Threshold(m["threshold"], m["threshold_tuned"]) for name, m in chosen.items()}


def _network(
    layout: Any, state: Mapping[str, Tensor], path: Path, stage: int, device: torch.device
) -> Network:
    if layout not in get_args(Layout):
        raise PcamxError(f"{path}: layout {layout!r} is unknown to pcamx {__version__}")
    network = Network(_Architecture(Model(layout=layout)), decoder=stage == 3)
    try:
        network.load_state_dict(state)
    except RuntimeError:
        raise PcamxError(
            f"{path}: not the weights of this network; pcamx {__version__} did not write them"
        ) from None
    return network.to(device).eval()


def save_pretrained(model: Pretrained, folder: Path) -> None:
    """Write config.json and model.safetensors, which `from_pretrained` reads, into ``folder``."""
    state = {k: v.detach().cpu().contiguous() for k, v in model.network.state_dict().items()}
    weights = save(state, metadata={"format": "pt"})
    facts = {
        "format": FORMAT,
        "model_type": "pcamx",
        "pcamx": __version__,
        "stage": model.stage,
        "layout": model.layout,
        "canvas": model.canvas,
        "mean": model.mean,
        "std": model.std,
        "classes": CLASSES,
        "thresholds": {name: t._asdict() for name, t in model.thresholds.items()},
        "versions": dict(model.versions),
        "commit": model.commit,
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    (folder / SAFETENSORS).write_bytes(weights)
    (folder / CONFIG).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _from_export(folder: Path, stage: int | None, device: torch.device) -> Pretrained:
    facts = _facts(folder / CONFIG)
    if stage not in (None, facts["stage"]):
        raise PcamxError(f"{folder}: an export of stage {facts['stage']}, not of stage {stage}")
    path = folder / SAFETENSORS
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != facts["sha256"]:
            raise PcamxError(f"{path}: damaged, its SHA-256 is not {CONFIG}'s; export it again")
        state = load(content)
    except OSError as error:
        raise PcamxError(f"{path}: {error.strerror}; export it again") from None
    except SafetensorError:
        raise PcamxError(f"{path}: not a safetensors file; export it again") from None
    return Pretrained(
        folder=folder,
        network=_network(facts["layout"], state, path, facts["stage"], device),
        stage=facts["stage"],
        layout=facts["layout"],
        canvas=facts["canvas"],
        mean=facts["mean"],
        std=facts["std"],
        thresholds={n: Threshold(**t) for n, t in facts["thresholds"].items()},
        versions=facts["versions"],
        commit=facts["commit"],
    )


def _facts(path: Path) -> dict[str, Any]:
    """config.json of an export, checked."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise PcamxError(
                f"{path}: format {facts['format']} of pcamx {facts.get('pcamx')}, this pcamx "
                f"{__version__} reads format {FORMAT}; export the run anew"
            )
        fine = (
            facts["stage"] in (1, 2, 3)
            and facts["canvas"] in range(32, 4097, 16)
            and math.isfinite(facts["mean"])
            and 0 < facts["std"] < math.inf
            and facts["thresholds"].keys() == set(_maps(facts["stage"]))
            and all(0 <= t["value"] <= 1 for t in facts["thresholds"].values())
            and {"layout", "versions", "commit", "sha256"} <= facts.keys()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        fine = False
    if not fine:
        raise PcamxError(f"{path}: not a config.json of pcamx export, or damaged; export it again")
    return dict(facts)

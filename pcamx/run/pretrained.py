"""A trained network ready for films: out of a run's folder, or out of what `pcamx export` wrote.

FOLDER/config.json         format, network, standardisation, thresholds, what made them
FOLDER/model.safetensors   the weights, float32; nothing that is read here can run code

Shapes: B batch, H W the canvas.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from safetensors.torch import save
from torch import Tensor

import pcamx
from pcamx import __version__
from pcamx.catalogue import StageId, classifiers, maps_of, trainable
from pcamx.config import Attention, Config, ConfigError, Pooling
from pcamx.data.store import read_head
from pcamx.devices import usable_device
from pcamx.errors import PcamxError
from pcamx.model.maps import explain
from pcamx.model.network import Network
from pcamx.run.exported import CONFIG, FORMAT, SAFETENSORS, read_facts, read_state
from pcamx.run.folder import RunFolder
from pcamx.run.report import read_report_of
from pcamx.run.thresholds import Threshold, of_every_map, thresholds_of
from pcamx.run.weights import Weights, network_of
from pcamx.seals import sealed
from pcamx.types import ABNORMAL

if TYPE_CHECKING:
    from pcamx import Prediction

CLASSES = ("normal", "abnormal")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretrained:
    """A network in eval mode and what a film needs to enter and leave it."""

    folder: Path
    network: Network = field(repr=False)
    stage: StageId
    encoder: str
    pooling: Pooling
    canvas: int
    """Side of the square canvas in pixels; `data.canvas.placement.fit` places a film on it."""
    mean: float
    """Of the training films, in grey levels of 0..255; ``std`` likewise."""
    std: float
    thresholds: Mapping[str, Threshold]
    """By the key of each map that one forward of it gives."""
    versions: Mapping[str, str]
    """Of the software that measured the thresholds; empty where nothing was measured."""
    commit: str | None

    @property
    def mirrored(self) -> bool:
        """Whether its answers are means over a film and its mirror image (`model.mirrored`)."""
        return self.network.mirrored

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return self.network.head.weight.device

    def standardise(self, grey_B1HW: Tensor) -> Tensor:
        """Turn grey levels 0..255 of any dtype into the network's input, float32."""
        return (grey_B1HW.float() - self.mean) / self.std

    def explain(self, grey_B1HW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the probability of abnormal [B] of canvases of grey levels 0..255 on ``device``,
        and maps of the abnormal class by key, float32 [B, H, W], not normalised. Raises
        PcamxError for canvases of another shape than [B, 1, ``canvas``, ``canvas``].
        """
        if grey_B1HW.ndim != 4 or grey_B1HW.shape[1:] != (1, self.canvas, self.canvas):
            raise PcamxError(
                f"canvases are {list(grey_B1HW.shape)}; pass grey ones of this network's size, "
                f"[B, 1, {self.canvas}, {self.canvas}]"
            )
        kinds = maps_of(trainable(self.stage), gradient=False)
        logits_BC, maps = explain(self.network, self.standardise(grey_B1HW), kinds)
        assert logits_BC is not None
        return logits_BC.float().softmax(1)[:, ABNORMAL], maps

    @overload
    def predict(self, films: str | Path) -> "Prediction": ...
    @overload
    def predict(self, films: list[str] | Sequence[Path]) -> "list[Prediction]": ...
    def predict(
        self, films: str | Path | list[str] | Sequence[Path]
    ) -> "Prediction | list[Prediction]":
        """Return what is found in a film, or in several; see `pcamx.predict`."""
        return pcamx.predict(self, films)


def from_pretrained(
    folder: str | Path, *, stage: StageId | None = None, device: torch.device | str | None = None
) -> Pretrained:
    """Load an export's folder, or a run's: its last finished stage, or ``stage``.

    ``device`` is the GPU where there is one. Weights-only: no file of the folder can run code.
    Raises PcamxError, one line, where it holds no model, is damaged or of another version, and for
    a stage or device that there is not.
    """
    folder, device = Path(folder), usable_device(device)
    known = [entry.key for entry in classifiers()]
    if stage is not None and (isinstance(stage, bool) or stage not in known):
        numbers = ", a number" if all(isinstance(key, int) for key in known) else ""
        raise PcamxError(f"stage {stage!r}: name one of {', '.join(map(repr, known))}{numbers}")
    if (folder / CONFIG).is_file():
        return _from_export(folder, stage, device)
    if (run := RunFolder(folder)).is_run():
        return _from_run(run, stage, device)
    what = "no model in it" if folder.is_dir() else "no such folder"
    raise PcamxError(f"{folder}: {what}; expected a run's config.yaml or an export's {CONFIG}")


def _from_run(run: RunFolder, stage: StageId | None, device: torch.device) -> Pretrained:
    try:
        config = run.read_config()
    except ConfigError as error:
        raise PcamxError(f"{error} (pcamx {__version__}; is the run of another version?)") from None
    finished = run.finished_classifiers()
    number = run.last_finished() if stage is None else stage
    if number not in finished:
        there = " and ".join(trainable(n).title for n in finished)
        asked = trainable(number).title
        raise PcamxError(f"{run.path}: {asked} is not finished; there is {there}")
    weights = run.load_weights(number)
    mean, std = _standardisation(run, config, weights)
    report = read_report_of(run, weights)
    network = network_of(
        weights,
        run.weights(number),
        device,
        Attention(),
        "auto",
        mirrored=config.model.mirrored,
    )
    assert isinstance(network, Network)
    return Pretrained(
        folder=run.path,
        network=network,
        stage=number,
        encoder=weights.encoder,
        pooling=weights.pooling,
        canvas=weights.canvas,
        mean=mean,
        std=std,
        thresholds=thresholds_of(report, number),
        versions=report.get("versions", {}) if report else {},
        commit=report.get("commit") if report else None,
    )


def _standardisation(run: RunFolder, config: Config, weights: Weights) -> tuple[float, float]:
    """Mean and standard deviation that the network was trained with."""
    if weights.mean is not None and weights.std is not None:
        return weights.mean, weights.std
    head = read_head(run.find_store(config))  # of a run before the weights kept them
    return head.mean, head.std


def save_pretrained(model: Pretrained, folder: Path) -> None:
    """Write config.json and model.safetensors, which `from_pretrained` reads, into ``folder``."""
    state = {k: v.detach().cpu().contiguous() for k, v in model.network.state_dict().items()}
    weights = save(state, metadata={"format": "pt"})
    facts = {
        **facts_of(model),
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    (folder / SAFETENSORS).write_bytes(weights)
    (folder / CONFIG).write_text(json.dumps(sealed(facts), indent=1) + "\n", encoding="utf-8")


def facts_of(model: Pretrained) -> dict[str, Any]:
    """Return what an export says of a model, in its config.json and in its ONNX file."""
    return {
        "format": FORMAT,
        "model_type": "pcamx",
        "pcamx": __version__,
        "stage": model.stage,
        "encoder": model.encoder,
        "pooling": model.pooling,
        "mirrored": model.mirrored,
        "canvas": model.canvas,
        "mean": model.mean,
        "std": model.std,
        "classes": CLASSES,
        "thresholds": {name: t._asdict() for name, t in model.thresholds.items()},
        "versions": dict(model.versions),
        "commit": model.commit,
    }


def _from_export(folder: Path, stage: StageId | None, device: torch.device) -> Pretrained:
    facts = read_facts(folder / CONFIG)
    if stage not in (None, facts["stage"]):
        theirs, asked = (trainable(key).title for key in (facts["stage"], stage))
        raise PcamxError(f"{folder}: an export of {theirs}, not of {asked}")
    path = folder / SAFETENSORS
    state = read_state(path, facts["sha256"])
    network = _network(facts, state, path, device)
    return Pretrained(
        folder=folder,
        network=network,
        stage=facts["stage"],
        encoder=facts["encoder"],
        pooling=facts["pooling"],
        canvas=facts["canvas"],
        mean=facts["mean"],
        std=facts["std"],
        # A map that the catalogue got since is in no export of before.
        thresholds=of_every_map(
            facts["stage"], {n: Threshold(**t) for n, t in facts["thresholds"].items()}
        ),
        versions=facts["versions"],
        commit=facts["commit"],
    )


def _network(
    facts: Mapping[str, Any], state: dict[str, Tensor], path: Path, device: torch.device
) -> Network:
    weights = Weights(
        stage=facts["stage"],
        encoder=facts["encoder"],
        pooling=facts["pooling"],
        canvas=facts["canvas"],
        accuracy=None,
        seconds=0.0,
        epochs=0,
        world=0,
        device="",
        state=state,
    )
    network = network_of(weights, path, device, Attention(), "auto", mirrored=facts["mirrored"])
    assert isinstance(network, Network)
    return network

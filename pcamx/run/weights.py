"""The weights of a finished stage, RUN/<stage>/weights.pt, and networks made of them."""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pcamx import __version__
from pcamx.catalogue import StageId, trainable
from pcamx.config import Attention, Config, ConfigError, Model, Pooling
from pcamx.errors import PcamxError
from pcamx.model.network import Network, Segmenter, build_network
from pcamx.model.timm_backbone import input_scale
from pcamx.ops import Impl
from pcamx.output import replacing_file


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """A finished stage: its network's weights and what made them."""

    stage: StageId
    encoder: str
    canvas: int
    accuracy: float | None
    """P; None where nothing is classified."""
    seconds: float
    epochs: int
    world: int
    device: str
    state: dict[str, Tensor]
    mean: float | None = None
    """Of the training films, grey levels of 0..255; None in files of pcamx before it was kept."""
    std: float | None = None
    pooling: Pooling = "mean"
    run: str | None = None
    """The id of the run, as in its origin.json; None in older files."""
    config: dict[str, Any] | None = None
    """The settings that it was trained with, as `pcamx.config.as_tree` has them; None likewise."""


def save_weights(path: Path, weights: Weights) -> None:
    """Write a finished stage's weights whole or not at all, with a digest of all of it."""
    facts = {f.name: getattr(weights, f.name) for f in dataclasses.fields(weights)}
    with replacing_file(path) as temporary:
        torch.save(facts | {"sha256": _digest(facts)}, temporary)


def _digest(facts: Mapping[str, Any]) -> str:
    """SHA-256 of every fact and of every tensor's bytes."""
    digest = hashlib.sha256()
    for name in sorted(facts.keys() - {"state"}):
        digest.update(f"{name} {facts[name]!r}\n".encode())
    for name, tensor in sorted(facts["state"].items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def load_weights(path: Path, stage: StageId | None = None) -> Weights:
    """Read what `save_weights` wrote, tensors and plain values only.

    Raises PcamxError where the file is missing, something else, damaged, or not of ``stage``.
    """
    try:
        facts = torch.load(path, map_location="cpu", weights_only=True)
        written = facts.pop("sha256", None)
        damaged = written is not None and written != _digest(facts)
        if "layout" in facts:  # as an encoder was called before
            facts["encoder"] = facts.pop("layout")
        weights = Weights(**facts)
    except FileNotFoundError:
        raise PcamxError(f"{path}: no such weights; train that stage first") from None
    except Exception as error:
        # torch.load raises pickle, zip, runtime and key errors alike for a foreign file.
        raise PcamxError(
            f"{path}: not a stage's weights ({type(error).__name__}); expected a weights.pt "
            f"of pcamx {__version__}"
        ) from None
    if damaged:
        raise PcamxError(f"{path}: damaged, its SHA-256 is another; restore it or train again")
    _check_finite(path, weights.state)
    if stage is not None and weights.stage != stage:
        raise PcamxError(f"{path}: weights of {weights.stage!r}, not of {stage!r}; restore its own")
    return weights


def _check_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise PcamxError(f"{path}: {name} is not finite everywhere; train again, or restore it")


def load_start(path: Path, config: Config, stage: StageId) -> Weights:
    """Return the weights that a stage starts from.

    Raises PcamxError where they are missing, or of another encoder, pooling or input scale.
    """
    entry = trainable(stage)
    if not path.is_file():
        raise PcamxError(
            f"{entry.title} starts from {path}, which is not there: train that stage first, or set "
            f"stages.{entry.section}.init_from to scratch"
        )
    weights = load_weights(path)
    _check_encoder(weights, path, config.model.encoder)
    if weights.pooling != config.model.pooling:
        raise PcamxError(
            f"{path}: weights of the pooling {weights.pooling}, the config says "
            f"{config.model.pooling}; set model.pooling or start from another run"
        )
    if config.model.timm and (weights.mean, weights.std) != input_scale(config.model.encoder):
        raise PcamxError(
            f"{path}: trained by another mean and deviation of films than the timm that is "
            "installed expects; install the one that it was trained with"
        )
    return weights


def _check_encoder(weights: Weights, path: Path, encoder: str) -> None:
    if weights.encoder != encoder:
        raise PcamxError(
            f"{path}: weights of the encoder {weights.encoder}, the config says {encoder}; "
            "set model.encoder or start from another run"
        )


def fill(network: nn.Module, weights: Weights, path: Path, *, encoder: str) -> list[str]:
    """Put ``weights`` into ``network``; return the parameters that they do not hold.

    Raises PcamxError where they belong to another layout.
    """
    _check_encoder(weights, path, encoder)
    known = network.state_dict()
    state = {name: value for name, value in weights.state.items() if name in known}
    try:
        missing = network.load_state_dict(state, strict=False).missing_keys
    except RuntimeError:
        raise PcamxError(f"{path}: weights of another model") from None
    return list(missing)


@dataclass(frozen=True, slots=True)
class _Architecture:
    model: Model
    attention: Attention
    impl: Impl


def network_of(
    weights: Weights,
    path: Path,
    device: torch.device,
    attention: Attention,
    impl: Impl,
    *,
    mirrored: bool = False,
) -> Network | Segmenter:
    """Return the network that ``weights``, read from ``path``, were trained in, in eval mode.

    ``mirrored`` is the run's `model.mirrored` as it is now: weights are not bound to it.
    Raises PcamxError where they are not its weights, or of an encoder that is unknown here.
    """
    try:
        model = Model(encoder=weights.encoder, pooling=weights.pooling, mirrored=mirrored)
    except (ConfigError, TypeError, AttributeError):
        raise PcamxError(
            f"{path}: encoder {weights.encoder!r} is unknown to pcamx {__version__}"
        ) from None
    network = build_network(trainable(weights.stage), _Architecture(model, attention, impl))
    _check_finite(path, weights.state)
    try:
        network.load_state_dict(weights.state)
    except RuntimeError:
        raise PcamxError(
            f"{path}: not the weights of this network; pcamx {__version__} did not write them"
        ) from None
    return network.to(device).eval()

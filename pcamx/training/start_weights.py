"""Where a stage starts: from scratch, from an earlier stage of the run, or from a weights.pt."""

from pathlib import Path

from pcamx.catalogue import TRAINABLES, StageId
from pcamx.config import Config
from pcamx.errors import PcamxError
from pcamx.model.timm_encoder import TimmEncoder
from pcamx.run.backbone import load_backbone
from pcamx.run.folder import RunFolder
from pcamx.run.weights import Weights, fill, load_start
from pcamx.training.stages import Stage


def start_weights(config: Config, stage: StageId) -> Path | None:
    """Return the weights.pt that a stage starts from, None where it starts from scratch."""
    start = config.stage(stage).init_from
    if start == "scratch":
        return None
    own = _own(config, stage)
    return Path(start) if own is None else RunFolder(Path(config.run.folder)).weights(own)


def _own(config: Config, stage: StageId) -> StageId | None:
    """The stage of the same run that ``stage`` starts from, if it does."""
    start = config.stage(stage).init_from
    return next((entry.key for entry in TRAINABLES if entry.section == start), None)


def read_start(path: Path, config: Config, stage: StageId) -> Weights:
    """Read the weights at ``path`` that ``stage`` starts from.

    Raises PcamxError where they are missing, of another encoder or pooling, or in an earlier
    stage's place and not that stage's of this run.
    """
    weights = load_start(path, config, stage)
    if (own := _own(config, stage)) is not None:
        RunFolder(Path(config.run.folder)).check_weights(weights, own)
    return weights


def init_from(stage: Stage, config: Config, key: StageId) -> None:
    """Put the weights that ``key`` starts from, and their running accuracy, into ``stage``.

    Raises PcamxError where they are missing, of another encoder, or lack more than a decoder.
    """
    path = start_weights(config, key)
    if path is None:
        if config.model.weights:
            assert isinstance(stage.network.encoder, TimmEncoder)
            load_backbone(stage.network.encoder, config.model.weights, config.model.encoder)
        return
    weights = read_start(path, config, key)
    missing = fill(stage.network, weights, path, encoder=config.model.encoder)
    if any(not name.startswith("decoder.") for name in missing):
        raise PcamxError(f"{path}: lacks {missing[0]}; start from another weights.pt")
    if stage.accuracy is not None and weights.accuracy is not None:
        stage.accuracy.value.fill_(weights.accuracy)

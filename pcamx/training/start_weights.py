"""Where a stage starts: from scratch, from an earlier stage of the run, or from a weights.pt."""

from pathlib import Path

from pcamx.catalogue import TRAINABLES, StageId
from pcamx.config import Config
from pcamx.errors import PcamxError
from pcamx.model.timm_encoder import TimmEncoder
from pcamx.run.backbone import load_backbone
from pcamx.run.folder import RunFolder
from pcamx.run.weights import fill, load_start
from pcamx.training.stages import Stage


def start_weights(config: Config, stage: StageId) -> Path | None:
    """Return the weights.pt that a stage starts from, None where it starts from scratch."""
    start = config.stage(stage).init_from
    if start == "scratch":
        return None
    own = [entry.key for entry in TRAINABLES if entry.section == start]
    return RunFolder(Path(config.run.folder)).weights(own[0]) if own else Path(start)


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
    weights = load_start(path, config, key)
    missing = fill(stage.network, weights, path, encoder=config.model.encoder)
    if any(not name.startswith("decoder.") for name in missing):
        raise PcamxError(f"{path}: lacks {missing[0]}; start from another weights.pt")
    if stage.accuracy is not None and weights.accuracy is not None:
        stage.accuracy.value.fill_(weights.accuracy)

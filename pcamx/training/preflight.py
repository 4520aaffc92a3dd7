"""What must hold before a run's first step: said at once, not after the hours of stage 1."""

from importlib.util import find_spec
from pathlib import Path

import torch

from pcamx import config as configs
from pcamx import engine
from pcamx.config import Config
from pcamx.data.feed.order import LEARN_MARKS, by_class, marked_films, steps_per_epoch
from pcamx.data.store import Store
from pcamx.errors import PcamxError
from pcamx.run import checkpoints
from pcamx.run.folder import check_store
from pcamx.types import ABNORMAL, SEGMENTER, TRAINABLE, StageId, section, title

_FREE = (
    "data.threads",
    "data.feed",
    "data.cache",
    "runtime.log_every",
    "runtime.save_every",
    "deepspeed.",
)
"""Keys that change no figure, and so may change within a run."""


def check(config: Config, store: Store, stages: list[StageId], *, world: int, resume: bool) -> None:
    """Check the run's folder, the batch, the films and the starting weights; writes nothing.

    Raises PcamxError for what stands in the way of ``stages`` on ``world`` ranks.
    """
    if SEGMENTER in stages and config.stages.segmenter is None:
        raise PcamxError(
            "stages.segmenter: not in the config; add a line such as segmenter: {epochs: 4}"
        )
    _check_folder(config, stages, resume)
    check_store(Path(config.run.folder), store.folder)
    engine.deepspeed_config(config, world)
    if config.deepspeed.tensorboard.enabled and find_spec("tensorboard") is None:
        raise PcamxError(
            "deepspeed.tensorboard.enabled: the package tensorboard is missing; "
            "pip install 'pcamx[tensorboard]'"
        )
    if config.attention.impl == "triton" and not torch.cuda.is_available():
        raise PcamxError("attention.impl: triton needs an NVIDIA GPU; set it to auto")
    _check_films(config, store, stages)
    for i, stage in enumerate(stages):
        folder = checkpoints.stage_folder(config, stage)
        if resume and ((folder / "weights.pt").is_file() or checkpoints.latest(folder)):
            continue
        path = start_weights(config, stage)
        trained_first = [checkpoints.stage_folder(config, earlier) for earlier in stages[:i]]
        if path is not None and path.parent not in trained_first:
            checkpoints.load_start(path, config, stage)


def binding_differences(config: Config, other: Config) -> list[str]:
    """Dotted keys, with both values, in which two configs differ and may not within one run."""
    return [line for line in configs.differences(config, other) if not line.startswith(_FREE)]


def start_weights(config: Config, stage: StageId) -> Path | None:
    """The weights.pt that a stage starts from, None where it starts from scratch."""
    start: str = getattr(config.stages, section(stage)).init_from
    if start == "scratch":
        return None
    if start in ("stage1", "stage2"):
        return checkpoints.stage_folder(config, int(start[-1])) / "weights.pt"
    return Path(start)


def _check_folder(config: Config, stages: list[StageId], resume: bool) -> None:
    """Refuse to mix runs: another config in the same folder, or a stage begun without --resume."""
    folder = Path(config.run.folder)
    if folder.exists() and not folder.is_dir():
        raise PcamxError(f"run.folder: {folder} is a file; set it to a new folder")
    there = [stage for stage in TRAINABLE if checkpoints.stage_folder(config, stage).exists()]
    if there and (folder / "config.yaml").is_file():
        # The baseline may be added to a run that has none, and changes nothing of the stages.
        changed = [
            line
            for line in binding_differences(config, configs.load(folder / "config.yaml"))
            if SEGMENTER in there or not line.startswith("stages.segmenter")
        ]
        if changed:
            raise PcamxError(
                f"{folder} holds a run with another config ({'; '.join(changed[:3])}); "
                "set run.folder to a new folder"
            )
    begun = [stage for stage in stages if stage in there]
    if begun and not resume:
        raise PcamxError(
            f"{folder} already holds {title(begun[0])}: add --resume to continue it, or set "
            "run.folder to a new folder"
        )
    if resume and not begun:
        asked = ", ".join(map(title, stages))
        raise PcamxError(
            f"{folder} holds nothing of {asked} to resume; leave out --resume to start"
        )


def _check_films(config: Config, store: Store, stages: list[StageId]) -> None:
    train, objective = store.split("train"), config.objective
    for split in ("train", "valid"):
        if not store.split(split):
            raise PcamxError(
                f"{store.folder}: no film is in the {split} split; training needs train and valid"
            )
    if config.data.balanced and (lacking := [n for n, i in by_class(train).items() if not i]):
        raise PcamxError(
            f"{store.folder}: data.balanced needs films of both classes, and no training film is "
            f"{'abnormal' if lacking == [ABNORMAL] else 'normal'}; set it to false"
        )
    for stage in stages:
        marked = objective.marked_per_batch if stage == 3 else 0
        steps_per_epoch(len(train), config.runtime.batch_size, marked)
    for stage in stages:
        if stage in LEARN_MARKS:
            marked_films(config, store, stage)

"""What must hold before a run's first step: said at once, not after the hours of stage 1."""

import dataclasses
import hashlib
import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from pcamx import engine
from pcamx.catalogue import TRAINABLES, StageId, trainable
from pcamx.config import Config
from pcamx.data.feed.order import marked_films, marked_per_batch, steps_per_epoch
from pcamx.data.feed.strata import strata_digest
from pcamx.data.store import Store
from pcamx.errors import PcamxError
from pcamx.run import checkpoints
from pcamx.run.bound import FREE, binding_differences
from pcamx.run.checkpoints import Progress
from pcamx.run.folder import RunFolder
from pcamx.training.held_back import held_back
from pcamx.training.start_weights import read_start, start_weights


def check(config: Config, store: Store, stages: list[StageId], *, world: int, resume: bool) -> None:
    """Check the run's folder, the batch, the films and the starting weights; writes nothing.

    Raises PcamxError for what stands in the way of ``stages`` on ``world`` ranks.
    """
    for stage in stages:
        config.stage(stage)
    run = RunFolder(Path(config.run.folder))
    _check_folder(config, stages, resume)
    run.check_store(store.folder)
    engine.deepspeed_config(config, world)
    _check_monitors(config)
    if config.impl == "triton" and not torch.cuda.is_available():
        raise PcamxError("runtime.impl: triton needs an NVIDIA GPU; set it to auto")
    if config.runtime.compile == "whole-step" and not torch.cuda.is_available():
        raise PcamxError("runtime.compile: whole-step needs an NVIDIA GPU; set it to off")
    _check_films(config, store, stages)
    for i, stage in enumerate(stages):
        if resume and run.weights(stage).is_file():
            continue
        if resume and last_checkpoint(config, stage):
            continue
        path = start_weights(config, stage)
        trained_first = [run.stage(earlier) for earlier in stages[:i]]
        if path is not None and path.parent not in trained_first:
            read_start(path, config, stage)


def last_checkpoint(config: Config, stage: StageId) -> tuple[str, Progress, int] | None:
    """Return what `checkpoints.latest` does of a stage, also where its store has moved."""
    run = RunFolder(Path(config.run.folder))
    # To an earlier pcamx the store's name was a setting, which config.yaml has as it was.
    named = {config.data.store, *([run.read_config().data.store] if run.is_run() else [])}
    earlier = [binding_digest(config, stage, store=name) for name in named]
    return checkpoints.latest(run.stage(stage), binding_digest(config, stage), earlier)


def binding_digest(config: Config, stage: StageId, *, store: str | None = None) -> str:
    """Return the SHA-256 of all settings that a checkpoint of ``stage`` depends on.

    Of those that are not the defaults: a later pcamx, with more keys, finds the same. With
    ``store``, a data.store, as an earlier pcamx had it.
    """
    # Other stages' settings, and a baseline's, may be added; a run may be moved.
    chosen = _chosen(config) | {"stages": _chosen(config.stage(stage)), "run": config.run.seed}
    for name in FREE:
        section, _, key = name.partition(".")
        if key:
            chosen.get(section, {}).pop(key, None)
        else:
            chosen.pop(section, None)
    chosen["data"]["store"] = store  # wherever it lies now, its fingerprint tells it
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()


def _chosen(section: Any) -> dict[str, Any]:
    """The keys of a part of the config, and of those below it, that are not at their defaults."""
    values = {f.name: (getattr(section, f.name), f.default) for f in dataclasses.fields(section)}
    return {
        name: _chosen(value) if dataclasses.is_dataclass(value) else value
        for name, (value, default) in values.items()
        if value != default and name != "stages"
    }


def _check_folder(config: Config, stages: list[StageId], resume: bool) -> None:
    """Refuse to mix runs: another config in the same folder, or a stage begun without --resume."""
    folder = Path(config.run.folder)
    if folder.exists() and not folder.is_dir():
        raise PcamxError(f"run.folder: {folder} is a file; set it to a new folder")
    run = RunFolder(folder)
    there = run.begun()
    if not there and (foreign := run.foreign()):
        raise PcamxError(
            f"run.folder: {foreign} is of no run and would be replaced; set run.folder to a new "
            "folder"
        )
    if there and run.is_run():
        # A baseline may be added to a run that has none, and changes nothing of the stages.
        addable = tuple(
            f"stages.{entry.section}"
            for entry in TRAINABLES
            if entry.optional and entry.key not in there
        )
        changed = [
            line
            for line in binding_differences(config, run.read_config())
            # These were moved, or are spelt otherwise.
            if not line.startswith(("run.folder:", "data.store:", *addable))
        ]
        if changed:
            raise PcamxError(
                f"{folder} holds a run with another config ({'; '.join(changed[:3])}); "
                "set run.folder to a new folder"
            )
    begun = [stage for stage in stages if stage in there]
    if begun and not resume:
        raise PcamxError(
            f"{folder} already holds {trainable(begun[0]).title}: add --resume to continue it, or "
            "set run.folder to a new folder"
        )
    # A job that Slurm starts anew is to resume what there is, be it nothing.
    if resume and not begun and os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
        asked = ", ".join(trainable(stage).title for stage in stages)
        raise PcamxError(
            f"{folder} holds nothing of {asked} to resume; leave out --resume to start"
        )


def _check_monitors(config: Config) -> None:
    for name in ("tensorboard", "wandb"):
        if getattr(config.deepspeed, name).enabled and find_spec(name) is None:
            raise PcamxError(
                f"deepspeed.{name}.enabled: the package {name} is missing; "
                f"pip install 'pcamx[{name}]'"
            )
    online = os.environ.get("WANDB_MODE", "online") == "online"
    if not (config.deepspeed.wandb.enabled and online and engine.is_first()):
        return
    import wandb

    if not wandb.login(prompt=False):
        raise PcamxError(
            "deepspeed.wandb.enabled: Weights & Biases knows no key here; run wandb login, or set "
            "WANDB_MODE=offline and run wandb sync later"
        )


def _check_films(config: Config, store: Store, stages: list[StageId]) -> None:
    train = store.split("train")
    for split in ("train", "valid"):
        if not store.split(split):
            raise PcamxError(
                f"{store.folder}: no film is in the {split} split; training needs train and valid"
            )
    RunFolder(Path(config.run.folder)).check_strata(strata_digest(config, store))
    if config.data.watched and not held_back(config, store):
        raise PcamxError(
            "data.watched: every marked training film is learned from, so none is left to watch; "
            "lower data.marked, or set it to 0"
        )
    for stage in stages:
        steps_per_epoch(len(train), config.runtime.batch_size, marked_per_batch(config, stage))
    for stage in stages:
        if trainable(stage).learns_marks:
            marked_films(config, store, stage)

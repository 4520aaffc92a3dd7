"""One stage from its start to its weights: epochs, steps, checkpoints; it knows none by name."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pcamx import config as configs
from pcamx import engine
from pcamx.catalogue import LOSS, TRAINABLES, StageId, trainable
from pcamx.config import Config
from pcamx.data.canvas.provider import Decoded
from pcamx.data.feed.batches import Feed, open_feed
from pcamx.data.feed.strata import strata_digest
from pcamx.distributed import sum_over_ranks, telemetry_on_host
from pcamx.engine import Ranks, Watch
from pcamx.errors import PcamxError
from pcamx.output import make_folder, write_text
from pcamx.report.console import TrainingDisplay
from pcamx.run import checkpoints
from pcamx.run.checkpoints import Progress
from pcamx.run.folder import RunFolder
from pcamx.run.history import History
from pcamx.run.weights import Weights, save_weights
from pcamx.training import preflight
from pcamx.training.held_back import look
from pcamx.training.pulse import noted
from pcamx.training.stages import Stage, build_stage
from pcamx.training.start_weights import init_from
from pcamx.training.stopping import Interrupted, StopSignal
from pcamx.training.validation import validate
from pcamx.types import Batch

_COLLAPSE = (0.01, 0.9)


class StageRun:
    """One stage from its start, or its last checkpoint, to its weights."""

    def __init__(
        self,
        config: Config,
        stage: StageId,
        decoded: Decoded,
        ranks: Ranks,
        display: TrainingDisplay,
        stop: StopSignal,
        watch: Watch,
        *,
        resume: bool,
    ) -> None:
        self.watch = watch
        self.config, self.stage, self.store = config, stage, decoded.store
        self.ranks, self.display, self.stop = ranks, display, stop
        self.title = trainable(stage).title
        self.binding = preflight.binding_digest(config, stage)
        self.settings = config.stage(stage)
        self.run = RunFolder(Path(config.run.folder))
        self.folder = self.run.stage(stage)
        self.feed: Feed = open_feed(
            config, decoded, stage=stage, rank=ranks.rank, world=ranks.world
        )
        self.valid = noted(decoded.split("valid"), watch)
        self.train = noted(decoded.split("train"), watch)
        self.history = History(self.run)
        self.engine: Any = None
        self.progress = Progress()
        self._start(resume)
        self.started = time.monotonic() - self.progress.seconds

    def _start(self, resume: bool) -> None:
        """Make the engine: fresh, or as the newest checkpoint left it."""
        torch.manual_seed(self.config.run.seed + 1 + TRAINABLES.index(trainable(self.stage)))
        stage = build_stage(self.stage, self.config, self.feed.images)
        found = preflight.last_checkpoint(self.config, self.stage) if resume else None
        config = self.config
        if found is None:
            init_from(stage, self.config, self.stage)
            self.engine = self._initialize(stage)
        else:
            self._continue(stage, *found)
            if self.run.is_run():  # by this name a checkpoint of an earlier pcamx knows the store
                name = self.run.read_config().data.store
                config = configs.changed(config, {"data.store": name})
        if self.ranks.rank == 0:
            make_folder(self.folder)
            self.run.write_origin(self.store.folder, strata=strata_digest(self.config, self.store))
            write_text(self.run.config_file, configs.dump(config))
            self.history.forget(self.stage, self.progress.done)

    def _continue(self, stage: Stage, tag: str, progress: Progress, world: int) -> None:
        """Load a checkpoint that ``world`` ranks wrote, on as many or on others."""
        self.progress = progress
        others = world != self.ranks.world
        # Without ZeRO every rank has the whole state, and any number can read it.
        universal = others and self.config.runtime.zero_stage > 0
        if universal:
            tag = checkpoints.for_any_ranks(self.folder, tag)
        self.engine = self._initialize(stage, universal=universal)
        checkpoints.restore(self.engine, self.folder, tag, self.ranks)
        ranks = f", now on {self.ranks.world} ranks instead of {world}" if others else ""
        self.display.note(
            f"{self.title} continues in epoch {progress.epoch + 1} after step "
            f"{progress.step}{ranks}"
        )

    def _initialize(self, stage: Stage, *, universal: bool = False) -> Any:
        return engine.initialize(
            stage.to(self.ranks.device),
            self.config,
            self.settings,
            self.settings.epochs * self.feed.steps_per_epoch,
            folder=self.folder,
            universal=universal,
        )

    def fit(self) -> None:
        """Train the epochs that are left, then write the stage's weights."""
        # No attribute: a graph must be gone before NCCL is left, which waits for it.
        update = engine.stepper(self.engine, self.config)
        with self.stop.watching():
            while self.progress.epoch < self.settings.epochs:
                self._train_epoch(update)
                self._end_epoch()
                self._stop_if_asked("after validation")
            self._finish()
            engine.finish(self.config)

    def _train_epoch(self, update: Callable[[Batch], dict[str, Tensor]]) -> None:
        self.engine.train()
        progress, steps = self.progress, self.feed.steps_per_epoch
        runtime = self.config.runtime
        self.display.epoch_start(
            self.stage, progress.epoch, self.settings.epochs, steps, progress.step
        )
        # The first step may compile, the others may not take longer than runtime.timeout.
        self.watch.doing(f"{self.title}, first batch of epoch {progress.epoch + 1}", long=True)
        for number, batch in enumerate(self.feed.epoch(progress.epoch, progress.step)):
            self.watch.doing(f"{self.title}, step {progress.done + 1}", long=number == 0)
            lr = self.engine.get_lr()[0]
            telemetry = update(batch)
            progress.step += 1
            progress.done += 1
            # No checkpoint without a look at the loss.
            save = progress.done % runtime.save_every == 0
            scalars = None
            if save or progress.done % runtime.log_every == 0 or progress.step == steps:
                scalars = self._log(telemetry, lr)
            self.display.step(progress.step, runtime.batch_size, scalars)
            if progress.step == steps:
                # The checkpoint of the epoch's end comes next.
                return
            # On a GPU the question waits for the device; logging has just done so.
            if self.ranks.device.type != "cuda" or scalars is not None:
                self._stop_if_asked(f"after step {progress.step}", save=True)
            if save:
                self._save()
            self.watch.doing(f"{self.title}, batch of step {progress.done + 1}")

    def _stop_if_asked(self, where: str, *, save: bool = False) -> None:
        """Raise Interrupted if any rank was told to stop; all ranks must ask at the same steps."""
        flag = torch.tensor(float(self.stop.seen), device=self.ranks.device)
        if not sum_over_ranks(flag)[0]:
            return
        if save:
            self._save()
        epoch = self.progress.epoch + save
        raise Interrupted(f"stopped in {self.title}, epoch {epoch}, {where}; checkpoint saved")

    def _log(self, telemetry: dict[str, Tensor], lr: float) -> dict[str, float]:
        """Write a step's figures, after a look at them."""
        scalars = telemetry_on_host(telemetry)
        if (accuracy := self.engine.module.accuracy) is not None:
            scalars["p"] = float(accuracy.value)
        if not scalars[LOSS.key] < float("inf"):
            raise PcamxError(
                f"{self.title}: the loss is {scalars[LOSS.key]} at step {self.progress.done}; "
                f"lower stages.{trainable(self.stage).section}.lr"
            )
        area = scalars.get("area")
        if area is not None and not _COLLAPSE[0] <= area <= _COLLAPSE[1]:
            self.display.warn(
                f"{self.title}: the mask has collapsed, its area left "
                f"{_COLLAPSE[0]:.0%} to {_COLLAPSE[1]:.0%} of the image; see area in metrics.jsonl"
            )
        self._write_line("train", scalars | {"lr": lr})
        return scalars

    def _end_epoch(self) -> None:
        progress = self.progress
        self.watch.doing(f"{self.title}, validation", long=True)
        engine.average_buffers(self.engine.module)
        self.engine.eval()
        validation = {}
        if self.engine.module.accuracy is not None:
            network = self.engine.module.network
            validation = validate(network, self.config, self.store, self.valid, self.ranks)
            self._write_line("valid", validation)
        seen: dict[str, float] = {}
        if self.config.data.watched:
            network = self.engine.module.network
            seen, pictures = look(
                network, self.stage, self.config, self.store, self.train, self.ranks
            )
            self._write_line("watched", seen)
            engine.show(self.engine, "watched", pictures)
        self.display.epoch_end(progress.epoch, validation, seen)
        progress.epoch += 1
        progress.step = 0
        self._save()

    def _save(self) -> None:
        self.watch.doing(f"{self.title}, checkpoint of step {self.progress.done}", long=True)
        self.progress.seconds = time.monotonic() - self.started
        checkpoints.save(self.engine, self.folder, self.progress, self.ranks, self.binding)

    def _finish(self) -> None:
        self.watch.doing(f"{self.title}, writing its weights", long=True)
        state = engine.whole_state(self.engine)
        if self.ranks.rank == 0:
            prefix = "network."
            weights = Weights(
                stage=self.stage,
                encoder=self.config.model.encoder,
                pooling=self.config.model.pooling,
                canvas=self.config.data.canvas,
                accuracy=float(state["accuracy.value"]) if "accuracy.value" in state else None,
                seconds=self.progress.seconds,
                epochs=self.settings.epochs,
                world=self.ranks.world,
                device=_device_name(self.ranks.device),
                mean=self.store.mean,
                std=self.store.std,
                run=self.run.id(),
                config=configs.as_tree(self.config),
                state={k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)},
            )
            save_weights(self.run.weights(self.stage), weights)
        dist.barrier()

    def _write_line(self, kind: str, values: dict[str, float]) -> None:
        if self.ranks.rank:
            return
        where = {
            "kind": kind,
            "stage": self.stage,
            "epoch": self.progress.epoch + 1,
            "step": self.progress.done,
            "seconds": round(time.monotonic() - self.started, 3),
        }
        self.history.add(where | values)
        engine.report(self.engine, kind, values)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"

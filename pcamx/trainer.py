"""The training loop. It knows epochs, steps, checkpoints and display, and no stage."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pcamx import checkpoint, engine
from pcamx import config as configs
from pcamx.checkpoint import Progress, Weights
from pcamx.config import Config
from pcamx.data.feed import Feed, eval_batches, open_feed
from pcamx.data.store import Store, read_store
from pcamx.engine import Ranks
from pcamx.errors import PcamxError
from pcamx.losses import over_ranks
from pcamx.metrics import accuracy, auroc
from pcamx.progress import Track, silent
from pcamx.report.console import TrainingDisplay, track
from pcamx.stages import Stage, build_stage
from pcamx.types import ABNORMAL

_COLLAPSE = (0.01, 0.9)


class Interrupted(Exception):  # noqa: N818 - it is no error
    """Training stopped on Ctrl-C or SIGTERM, with a checkpoint saved."""

    def __init__(self, message: str, rank: int) -> None:
        super().__init__(message)
        self.rank = rank


class _StopSignal:
    """Remembers SIGINT and SIGTERM until the loop asks; DeepSpeed's launcher sends both."""

    def __init__(self) -> None:
        self.seen = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.seen = True

    @contextmanager
    def watching(self) -> Iterator[None]:
        before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def train(config: Config, numbers: list[int], *, resume: bool) -> None:
    """Train the stages ``numbers`` one after the other in this process's share of the ranks.

    Raises PcamxError for what a user can mend and Interrupted after Ctrl-C.
    """
    store = read_store(Path(config.data.store))
    _check_run_folder(config, numbers, resume)
    ranks = engine.start()
    try:
        if ranks.rank == 0:
            folder = Path(config.run.folder)
            folder.mkdir(parents=True, exist_ok=True)
            checkpoint.write_text(folder / "config.yaml", configs.dump(config))
        with TrainingDisplay(enabled=ranks.rank == 0) as display:
            for number in numbers:
                if resume and (checkpoint.stage_folder(config, number) / "weights.pt").is_file():
                    display.note(f"stage {number} is finished")
                    continue
                StageRun(config, number, store, ranks, display, resume=resume).fit()
    finally:
        engine.stop()


def _check_run_folder(config: Config, numbers: list[int], resume: bool) -> None:
    """Refuse to mix runs: another config in the same folder, or a stage begun without --resume."""
    folder = Path(config.run.folder)
    if (folder / "config.yaml").is_file():
        changed = configs.differences(config, configs.load(folder / "config.yaml"))
        if changed:
            raise PcamxError(
                f"{folder} holds a run with another config ({'; '.join(changed[:3])}); "
                "set run.folder to a new folder"
            )
    begun = [n for n in numbers if checkpoint.stage_folder(config, n).exists()]
    if begun and not resume:
        raise PcamxError(
            f"{folder} already holds stage {begun[0]}: add --resume to continue it, or set "
            "run.folder to a new folder"
        )


class StageRun:
    """One stage from its start, or its last checkpoint, to its weights."""

    def __init__(
        self,
        config: Config,
        number: int,
        store: Store,
        ranks: Ranks,
        display: TrainingDisplay,
        *,
        resume: bool,
    ) -> None:
        self.config, self.number, self.store = config, number, store
        self.ranks, self.display = ranks, display
        self.settings = getattr(config.stages, f"stage{number}")
        self.folder = checkpoint.stage_folder(config, number)
        self.track: Track = track if ranks.rank == 0 else silent
        engine.deepspeed_config(config, ranks.world)
        self.feed: Feed = open_feed(
            config,
            store,
            stage=number,
            rank=ranks.rank,
            world=ranks.world,
            device=ranks.device,
            track=self.track,
        )
        self.engine: Any = None
        self.progress = Progress()
        self._open_engine(resume)
        self.started = time.monotonic() - self.progress.seconds
        self.stop = _StopSignal()

    def _open_engine(self, resume: bool) -> None:
        torch.manual_seed(self.config.run.seed + self.number)
        stage = build_stage(self.number, self.config, self.feed.images)
        found = checkpoint.latest(self.folder) if resume else None
        if found is None:
            self._init_from(stage)
        tag, other_ranks = "", False
        if found is not None:
            tag, self.progress, world = found
            other_ranks = world != self.ranks.world and self.config.runtime.zero_stage > 0
            if other_ranks:
                tag = engine.to_universal(self.folder / "checkpoints", tag)
        self.engine = engine.initialize(
            stage.to(self.ranks.device),
            self.config,
            self.settings.lr,
            self.settings.epochs * self.feed.steps_per_epoch,
            universal=other_ranks,
        )
        if found is not None:
            checkpoint.restore(self.engine, self.folder, tag, self.ranks)
            self.display.note(
                f"stage {self.number} continues in epoch {self.progress.epoch + 1} after step "
                f"{self.progress.step}"
            )
        if self.ranks.rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._forget_lines_after_checkpoint()

    def _init_from(self, stage: Stage) -> None:
        """Start from earlier weights and their running accuracy where the config says so."""
        start = self.settings.init_from
        if start == "scratch":
            return
        path = Path(start)
        if start in ("stage1", "stage2"):
            path = checkpoint.stage_folder(self.config, int(start[-1])) / "weights.pt"
        if not path.is_file():
            raise PcamxError(
                f"stage {self.number} starts from {path}, which is not there: train that stage "
                f"first, or set stages.stage{self.number}.init_from to scratch"
            )
        weights = checkpoint.load_weights(path)
        missing = checkpoint.fill(stage.network, weights, path, layout=self.config.model.layout)
        if any(not name.startswith("decoder.") for name in missing):
            raise PcamxError(f"{path}: lacks {missing[0]}")
        stage.accuracy.value.fill_(weights.accuracy)

    def fit(self) -> None:
        """Train the epochs that are left, then write the stage's weights."""
        with self.stop.watching():
            while self.progress.epoch < self.settings.epochs:
                self._train_epoch()
                self._end_epoch()
        self._finish()

    def _train_epoch(self) -> None:
        self.engine.train()
        progress, steps = self.progress, self.feed.steps_per_epoch
        self.display.epoch_start(
            self.number, progress.epoch, self.settings.epochs, steps, progress.step
        )
        for batch in self.feed.epoch(progress.epoch, progress.step):
            output = self.engine(batch)
            self.engine.backward(output.loss)
            self.engine.step()
            progress.step += 1
            progress.done += 1
            runtime = self.config.runtime
            scalars = None
            if progress.done % runtime.log_every == 0 or progress.step == steps:
                scalars = self._log(output.telemetry)
            self.display.step(progress.step, runtime.batch_size, scalars)
            if self._stop_agreed(logged=scalars is not None):
                self._save()
                raise Interrupted(
                    f"stopped in stage {self.number}, epoch {progress.epoch + 1}, after step "
                    f"{progress.step}; checkpoint saved",
                    self.ranks.rank,
                )
            if progress.done % runtime.save_every == 0 and progress.step < steps:
                self._save()

    def _stop_agreed(self, *, logged: bool) -> bool:
        """Whether any rank was told to stop; all ranks must ask at the same steps."""
        # On a GPU the question waits for the device, so it rides on the steps that do so anyway.
        if self.ranks.device.type == "cuda" and not logged:
            return False
        flag = torch.tensor(float(self.stop.seen), device=self.ranks.device)
        return bool(over_ranks(flag)[0] > 0)

    def _log(self, telemetry: dict[str, Tensor]) -> dict[str, float]:
        """Write a step's figures: means over the ranks, and the sum of flat maps."""
        totals = over_ranks(*telemetry.values())
        scalars = {
            name: float(total) / (1 if name == "flat" else self.ranks.world)
            for name, total in zip(telemetry, totals, strict=True)
        }
        if not scalars["loss"] < float("inf"):
            raise PcamxError(
                f"stage {self.number}: the loss is {scalars['loss']} at step {self.progress.done}; "
                f"lower stages.stage{self.number}.lr"
            )
        area = scalars.get("area")
        if area is not None and not _COLLAPSE[0] <= area <= _COLLAPSE[1]:
            self.display.warn(
                f"stage {self.number}: the mask has collapsed, its area left "
                f"{_COLLAPSE[0]:.0%} to {_COLLAPSE[1]:.0%} of the image; see area in metrics.jsonl"
            )
        lr = self.engine.get_lr()[0]
        self._write_line("train", scalars | {"lr": lr})
        return scalars

    def _end_epoch(self) -> None:
        progress = self.progress
        engine.average_buffers(self.engine.module)
        validation = self._validate()
        self._write_line("valid", validation)
        self.display.epoch_end(progress.epoch, validation)
        progress.epoch += 1
        progress.step = 0
        self._save()

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """AUROC and accuracy of the full-image branch on the validation split."""
        self.engine.eval()
        films = self.store.split("valid")
        share = films[self.ranks.rank :: self.ranks.world]
        scores: list[tuple[float, int]] = []
        for batch in eval_batches(
            self.store,
            share,
            self.config.data.canvas,
            batch_size=max(1, self.config.runtime.batch_size // self.ranks.world),
            device=self.ranks.device,
            threads=self.config.data.threads,
        ):
            logits_BC = self.engine.module.network(batch.image_B1HW)
            probability_B = logits_BC.float().softmax(1)[:, ABNORMAL]
            scores += zip(probability_B.tolist(), batch.label_B.tolist(), strict=True)
        shares: list[Any] = [None] * self.ranks.world
        dist.all_gather_object(shares, scores)
        score, label = map(torch.tensor, zip(*(pair for s in shares for pair in s), strict=True))
        found = {"auroc": auroc(score, label).value, "accuracy": accuracy(score, label).value}
        # AUROC is undefined where the split holds one class only.
        return {name: value for name, value in found.items() if value is not None}

    def _save(self) -> None:
        self.progress.seconds = time.monotonic() - self.started
        checkpoint.save(self.engine, self.folder, self.progress, self.ranks)

    def _finish(self) -> None:
        state = engine.whole_state(self.engine)
        if self.ranks.rank == 0:
            prefix = "network."
            weights = Weights(
                stage=self.number,
                layout=self.config.model.layout,
                canvas=self.config.data.canvas,
                accuracy=float(state["accuracy.value"]),
                seconds=self.progress.seconds,
                epochs=self.settings.epochs,
                world=self.ranks.world,
                device=_device_name(self.ranks.device),
                state={k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)},
            )
            checkpoint.save_weights(self.folder / "weights.pt", weights)
        dist.barrier()

    def _write_line(self, kind: str, values: dict[str, float]) -> None:
        if self.ranks.rank:
            return
        where = {
            "kind": kind,
            "stage": self.number,
            "epoch": self.progress.epoch + 1,
            "step": self.progress.done,
            "seconds": round(time.monotonic() - self.started, 3),
        }
        with (Path(self.config.run.folder) / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(where | values) + "\n")

    def _forget_lines_after_checkpoint(self) -> None:
        """A killed run wrote lines of steps that are now done again."""
        path = Path(self.config.run.folder) / "metrics.jsonl"
        if not path.is_file():
            return
        kept = [
            line
            for line in path.read_text(encoding="utf-8").splitlines()
            if (row := json.loads(line))["stage"] != self.number
            or row["step"] <= self.progress.done
        ]
        checkpoint.write_text(path, "".join(line + "\n" for line in kept))


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"

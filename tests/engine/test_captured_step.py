"""The whole update as a graph, with tests/lib/taped.py in the place of a GPU's: eager's bits.

Step sizes are powers of two here, which a float32 on the device holds exactly, unless the schedule
itself is what is looked at.
"""

import json
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
from taped import Taped
from torch import Tensor
from torch import distributed as dist
from torch.optim.lr_scheduler import LambdaLR

from pcamx import config as configs
from pcamx import engine
from pcamx.catalogue import StageId
from pcamx.config import Config
from pcamx.data.canvas.provider import Decoded
from pcamx.data.feed.batches import open_feed
from pcamx.data.store import read_store
from pcamx.engine import build, captured_step
from pcamx.engine.captured_step import WARM, CapturedStep
from pcamx.errors import PcamxError
from pcamx.run import checkpoints
from pcamx.run.checkpoints import Progress
from pcamx.training import preflight
from pcamx.training.stages import Stage
from pcamx.training.stages import build_stage
from pcamx.types import Batch

LR = 2.0**-9
STEPS = WARM + 4
ALL: dict[str, Any] = {"stages.segmenter": {"epochs": 1}}
REASONS = {"objective.reasons_weight": 0.5}
CASES = [(stage, zero, {}) for stage in (1, 2, 3, "segmenter") for zero in (0, 1)]
CASES += [(3, 1, REASONS)]

Step = Callable[[Batch], dict[str, Tensor]]


@pytest.fixture(scope="module")
def alone() -> Iterator[engine.Ranks]:
    """This process as the only rank."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DS_ACCELERATOR", "cpu")
        patch.setenv("MASTER_PORT", str(processes.free_port()))
        patch.setenv("WORLD_SIZE", "1")
        for name in ("RANK", "LOCAL_RANK"):
            patch.setenv(name, "0")
        yield engine.start()
        engine.stop()


def _halving(optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
    """Another power of two at each of five steps, then from the first on."""
    return LambdaLR(optimizer, lambda step: 2.0 ** -(step % 5))


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "one_cycle", _halving)


def _config(path: Path, changes: dict[str, Any], write_config: Any) -> Config:
    return configs.load(write_config(path, ALL | {"runtime.precision": "fp32"} | changes))


class Trained:
    """A stage on its engine, and what its steps told."""

    def __init__(
        self,
        config: Config,
        stage: StageId,
        ranks: engine.Ranks,
        folder: Path,
        *,
        captured: bool,
        universal: bool = False,
    ) -> None:
        self.config, self.captured = config, captured
        decoded = Decoded(config.data, read_store(Path(config.data.store)), ranks.device)
        self.feed = open_feed(config, decoded, stage=stage, rank=ranks.rank, world=ranks.world)
        torch.manual_seed(0)
        made = build_stage(stage, config, self.feed.images)
        self.engine = engine.initialize(
            made, config, LR, 100, folder=folder, universal=universal, backbone_lr=1.0
        )
        self.told: list[dict[str, float]] = []
        self.taped = Taped()

    def batches(self, first: int = 0) -> Iterator[Batch]:
        """Of epoch after epoch, from the ``first`` on."""
        epochs = chain.from_iterable(self.feed.epoch(epoch) for epoch in range(9))
        return islice(epochs, first, None)

    def train(self, batches: Iterator[Batch]) -> "Trained":
        step: Step = engine.stepper(self.engine, self.config)
        if self.captured:
            clipping = self.config.runtime.gradient_clipping
            step = CapturedStep(self.engine, self.taped, clipping=clipping)
        for batch in batches:
            self.told.append({name: float(value) for name, value in step(batch).items()})
        return self

    def counters(self) -> dict[str, Any]:
        """All that DeepSpeed and the schedule count; Python's own numbers, as in a checkpoint."""
        groups = self.engine.basic_optimizer.param_groups
        names = ("global_steps", "micro_steps", "global_samples", "skipped_steps")
        kinds = {type(group["lr"]) for group in groups} | {group["capturable"] for group in groups}
        schedule = {k: v for k, v in vars(self.engine.lr_scheduler).items() if k != "optimizer"}
        return {name: getattr(self.engine, name) for name in names} | {
            "lr": [group["lr"] for group in groups],
            "kinds": kinds,
            "last": schedule["_last_lr"],
            "count": schedule["_step_count"],
        }

    def tensors(self) -> dict[str, Tensor]:
        """Weights, statistics and P, and Adam's state."""
        found = engine.whole_state(self.engine)
        for i, state in enumerate(self.engine.basic_optimizer.state.values()):
            found |= {f"adam {i} {k}": v.clone() for k, v in state.items() if torch.is_tensor(v)}
        return found


def _unlike(ours: Trained, theirs: Trained) -> list[str]:
    """Names of tensors that differ in any bit."""
    one, other = ours.tensors(), theirs.tensors()
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(("stage", "zero", "more"), CASES)
def test_bits_and_counters_are_eagers(
    alone: engine.Ranks,
    tmp_path: Path,
    write_config: Any,
    stage: StageId,
    zero: int,
    more: dict[str, Any],
) -> None:
    changes = {"runtime.zero_stage": zero, "deepspeed.csv_monitor.enabled": True} | more
    config = _config(tmp_path, changes, write_config)
    runs = []
    for captured in (False, True):
        run = Trained(config, stage, alone, tmp_path / str(captured), captured=captured)
        runs.append(run.train(islice(run.batches(), STEPS)))
    eager, ours = runs
    assert (ours.taped.warmed, ours.taped.recorded, ours.taped.played) == (WARM, 1, STEPS - WARM)
    assert ours.told == eager.told and len({told["loss"] for told in ours.told}) == STEPS
    assert _unlike(ours, eager) == []
    assert ours.counters() == eager.counters()
    assert ours.counters()["kinds"] == {float, False}
    assert ours.counters()["global_steps"] == ours.counters()["micro_steps"] == STEPS
    logs = [sorted((tmp_path / str(c)).rglob("*.csv")) for c in (False, True)]
    assert [p.name for p in logs[0]] == [p.name for p in logs[1]] and logs[0]
    for one, other in zip(*logs, strict=True):
        assert one.read_text() == other.read_text()

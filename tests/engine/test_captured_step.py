"""The whole update as a graph, with tests/lib/taped.py in the place of a GPU's: eager's bits.

Step sizes are powers of two here, which a float32 on the device holds exactly, unless the schedule
itself is what is looked at.
"""

import gc
import itertools
import json
import os
import weakref
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
from run_files import losses_of
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
from pcamx.training import preflight, trainer
from pcamx.training.stages import Stage1, build_stage
from pcamx.types import Batch

LR = 2.0**-9
STEPS, GPU_STEPS = WARM + 4, WARM + 7
ALL: dict[str, Any] = {"stages.segmenter": {"epochs": 1}}
REASONS = {"objective.reasons_weight": 0.5}
CASES = [(stage, zero, {}) for stage in (1, 2, 3, "segmenter") for zero in (0, 1)]
CASES += [(3, 1, REASONS)]
TWO: list[tuple[StageId, int]] = [(1, 0), (3, 1)]
"""Stages and ZeRO on two ranks, where an update takes several times as long."""

Step = Callable[[Batch], dict[str, Tensor]]


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
        lr: float = LR,
    ) -> None:
        self.config, self.captured = config, captured
        decoded = Decoded(config.data, read_store(Path(config.data.store)), ranks.device)
        self.feed = open_feed(config, decoded, stage=stage, rank=ranks.rank, world=ranks.world)
        torch.manual_seed(0)
        made = build_stage(stage, config, self.feed.images).to(ranks.device)
        self.engine = engine.initialize(
            made, config, configs.Stage(epochs=1, lr=lr), 100, folder=folder, universal=universal
        )
        self.told: list[dict[str, float]] = []
        self.taped = Taped()

    def batches(self, first: int = 0) -> Iterator[Batch]:
        """Of epoch after epoch, from the ``first`` on."""
        epochs = chain.from_iterable(self.feed.epoch(epoch) for epoch in range(9))
        return islice(epochs, first, None)

    def train(self, batches: Iterator[Batch]) -> "Trained":
        """By what the config asks for, or ``captured``, which needs no GPU."""
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
        kinds = {(type(group["lr"]).__name__, group["capturable"]) for group in groups}
        schedule = self.engine.lr_scheduler
        return {name: getattr(self.engine, name) for name in names} | {
            "lr": [group["lr"] for group in groups],
            "kinds": sorted(kinds),
            "next": schedule.get_last_lr(),
            "schedule": schedule.last_epoch,
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
@pytest.mark.filterwarnings("error:.*optimizer.step")  # the schedule's, of one it does not know
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
    assert ours.counters()["kinds"] == [("float", False)]
    assert ours.counters()["global_steps"] == ours.counters()["micro_steps"] == STEPS
    logs = [sorted((tmp_path / str(c)).rglob("*.csv")) for c in (False, True)]
    assert [p.name for p in logs[0]] == [p.name for p in logs[1]] and logs[0]
    for one, other in zip(*logs, strict=True):
        assert one.read_text() == other.read_text()


def _through_a_checkpoint(
    config: Config,
    ranks: engine.Ranks,
    folder: Path,
    captured: tuple[bool, bool],
    *,
    universal: bool = False,
) -> Trained:
    """Stage 2, five steps before a checkpoint and five after it, captured or not."""
    first = Trained(config, 2, ranks, folder, captured=captured[0])
    first.train(islice(first.batches(), 5))
    checkpoints.save(first.engine, folder, Progress(step=5, done=5), ranks, "")
    tag = "step00000005"
    if universal:
        tag = engine.to_universal(folder / "checkpoints", tag)
    then = Trained(config, 2, ranks, folder, captured=captured[1], universal=universal)
    checkpoints.restore(then.engine, folder, tag, ranks)
    return then.train(islice(then.batches(5), 5))


def _kept(counters: dict[str, Any]) -> dict[str, Any]:
    """Those that a checkpoint keeps; DeepSpeed's of micro-steps begins anew."""
    return {name: value for name, value in counters.items() if name != "micro_steps"}


@pytest.mark.parametrize(("zero", "universal"), [(0, False), (1, False), (1, True)])
def test_a_resumed_run_gives_the_same_bits(
    alone: engine.Ranks, tmp_path: Path, write_config: Any, zero: int, universal: bool
) -> None:
    """By the schedule itself: the steps before a new recording round its step size as a graph's."""
    config = _config(tmp_path, {"runtime.zero_stage": zero}, write_config)
    straight = Trained(config, 2, alone, tmp_path / "a", captured=True)
    straight.train(islice(straight.batches(), 10))
    resumed = _through_a_checkpoint(
        config, alone, tmp_path / "b", (True, True), universal=universal
    )
    assert resumed.taped.played and resumed.told == straight.told[5:]
    assert _unlike(resumed, straight) == []
    assert _kept(resumed.counters()) == _kept(straight.counters())


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("zero", [0, 1])
@pytest.mark.parametrize("captured", [(True, False), (False, True)])
def test_a_checkpoint_serves_with_and_without_a_graph(
    alone: engine.Ranks,
    tmp_path: Path,
    write_config: Any,
    captured: tuple[bool, bool],
    zero: int,
) -> None:
    config = _config(tmp_path, {"runtime.zero_stage": zero}, write_config)
    eager = Trained(config, 2, alone, tmp_path / "a", captured=False)
    eager.train(islice(eager.batches(), 10))
    changed = _through_a_checkpoint(config, alone, tmp_path / "b", captured)
    assert changed.told == eager.told[5:] and _unlike(changed, eager) == []
    assert _kept(changed.counters()) == _kept(eager.counters())


def test_the_schedule_is_eagers_but_for_a_rounding(
    alone: engine.Ranks, tmp_path: Path, write_config: Any
) -> None:
    """The step size is a float32 on the device: a rounding, which Adam enlarges."""
    config = _config(tmp_path, {}, write_config)
    runs = []
    for captured in (False, True):
        run = Trained(config, 2, alone, tmp_path, captured=captured, lr=1e-4)
        runs.append(run.train(islice(run.batches(), STEPS)))
    eager, ours = runs
    assert ours.counters() == eager.counters() and _unlike(ours, eager)
    for told, expected in zip(ours.told, eager.told, strict=True):
        assert told == pytest.approx(expected, rel=1e-3)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("zero", [0, 1])
def test_a_batch_of_another_shape_is_trained_on_too(
    alone: engine.Ranks, tmp_path: Path, write_config: Any, zero: int
) -> None:
    config = _config(tmp_path, {"runtime.zero_stage": zero}, write_config)
    runs = []
    for captured in (False, True):
        run = Trained(config, 3, alone, tmp_path, captured=captured)
        batches = list(islice(run.batches(), STEPS))
        batches[WARM + 1] = Batch(*(part[:5] for part in batches[WARM + 1]))
        runs.append(run.train(iter(batches)))
    eager, ours = runs
    assert (ours.taped.warmed, ours.taped.played) == (WARM + 1, STEPS - WARM - 1)
    assert ours.told == eager.told and _unlike(ours, eager) == []
    assert ours.counters() == eager.counters()


@pytest.mark.usefixtures("exact")
def test_telemetry_is_each_steps_own(
    alone: engine.Ranks, tmp_path: Path, write_config: Any
) -> None:
    """Looked at after the next step, which writes where the graph did; batches are only read."""
    config = _config(tmp_path, {}, write_config)
    run = Trained(config, 1, alone, tmp_path, captured=True)
    step = CapturedStep(run.engine, run.taped, clipping=1.0)
    batches = list(islice(run.batches(), STEPS))
    first = batches[0].image_B1HW.clone()
    told = [step(batch)["loss"] for batch in batches]
    assert len({float(loss) for loss in told}) == STEPS
    assert torch.equal(batches[0].image_B1HW, first)


def test_a_graph_goes_with_its_step(alone: engine.Ranks, tmp_path: Path, write_config: Any) -> None:
    """At once, not when garbage is collected: NCCL, when it is left, waits for its graphs."""
    run = Trained(_config(tmp_path, {}, write_config), 1, alone, tmp_path, captured=True)
    step = CapturedStep(run.engine, run.taped, clipping=1.0)
    for batch in islice(run.batches(), STEPS):
        step(batch)
    graph = weakref.ref(step._play)
    assert graph() is not None
    gc.disable()
    del step
    left = graph()
    gc.enable()
    assert left is None


@pytest.mark.usefixtures("exact")
def test_a_run_trains_by_it(
    alone: engine.Ranks, tmp_path: Path, write_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pcamx train does, but for the check that there is a GPU."""
    tapes: list[Taped] = []
    monkeypatch.setattr(captured_step, "CudaGraph", lambda: tapes.append(Taped()) or tapes[-1])
    monkeypatch.setattr(engine, "stop", lambda: None)  # others of this file go on
    losses = []
    for how in ("off", "whole-step"):
        run = tmp_path / how / "run"
        changes = {"runtime.compile": how, "run.folder": str(run), "stages.stage1.lr": LR}
        config = _config(tmp_path / how, changes, write_config)
        store = read_store(Path(config.data.store))
        with engine.Watch(config.runtime.timeout) as watch:
            trainer._train(config, store, [1], alone, watch, resume=False)
        losses.append(losses_of(run, 1))
    assert [tape.played for tape in tapes] == [len(losses[0]) - WARM] != [0]
    assert losses[1] == losses[0]


def test_what_cannot_be_captured_is_said_in_a_line(
    alone: engine.Ranks, tmp_path: Path, write_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Stage1.forward
    monkeypatch.setattr(Stage1, "forward", lambda self, batch: _asking(forward(self, batch)))
    run = Trained(_config(tmp_path, {}, write_config), 1, alone, tmp_path, captured=True)
    with pytest.raises(
        PcamxError, match="whole-step cannot be captured .*asks for a value.*to off"
    ):
        run.train(islice(run.batches(), STEPS))
    assert len(run.told) == WARM


def _asking(output: Any) -> Any:
    assert output.loss.item() > 0
    return output


@pytest.mark.parametrize("zero", [2, 3])
def test_other_zero_is_refused(tmp_path: Path, write_config: Any, zero: int) -> None:
    changes = {"runtime.compile": "whole-step", "runtime.zero_stage": zero}
    with pytest.raises(configs.ConfigError, match=f"ZeRO-{zero}.*set runtime.zero_stage to 0 or 1"):
        _config(tmp_path, changes, write_config)


def test_the_profiler_is_refused(tmp_path: Path, write_config: Any) -> None:
    changes = {"runtime.compile": "whole-step", "deepspeed.flops_profiler.enabled": True}
    with pytest.raises(configs.ConfigError, match="flops_profiler.enabled: .*compile to off"):
        _config(tmp_path, changes, write_config)


def test_a_cpu_is_refused(tmp_path: Path, write_config: Any) -> None:
    config = _config(tmp_path, {"runtime.compile": "whole-step"}, write_config)
    store = read_store(Path(config.data.store))
    with pytest.raises(PcamxError, match="runtime.compile: whole-step needs an NVIDIA GPU"):
        preflight.check(config, store, [1], world=1, resume=False)


def _two(rank: int, config: Config, port: int, out: str) -> None:
    """Against eager on two ranks, whose sums are recorded too; batch norm by all ranks' films."""
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    given = {name: str(value) for name, value in environment.items()}
    os.environ |= processes.environment(MASTER_ADDR="127.0.0.1", **given)
    torch.set_num_threads(1)
    ranks = engine.start()
    build.one_cycle = _halving
    found = {}
    for stage, zero in TWO:
        changed = configs.changed(config, {"runtime.zero_stage": zero})
        eager, ours = (
            Trained(changed, stage, ranks, Path(out), captured=captured)
            for captured in (False, True)
        )
        for run in (eager, ours):
            run.train(islice(run.batches(), STEPS))
        alike = ours.told == eager.told and ours.counters() == eager.counters()
        found[f"{stage} {zero}"] = [alike, _unlike(ours, eager), ours.taped.played]
    (Path(out) / f"rank{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    engine.stop()


def test_two_ranks_give_eagers_bits(tmp_path: Path, write_config: Any) -> None:
    config = _config(tmp_path, {"runtime.sync_batch_norm": True}, write_config)
    processes.on_ranks(_two, config, processes.free_port(), str(tmp_path))
    for rank in range(2):
        found = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert found == {f"{stage} {zero}": [True, [], STEPS - WARM] for stage, zero in TWO}


def _gpu(rank: int, config: Config, port: int, out: str) -> None:
    """Losses, and how far weights are from eager's, by the way that eager's have gone."""
    os.environ |= processes.environment(MASTER_PORT=str(port))
    ranks = engine.start()
    found: dict[str, Any] = {}
    for stage, zero in itertools.product((1, 2, 3), (0, 1)):
        runs = []
        for how in ("off", "whole-step"):
            changes = {"runtime.zero_stage": zero, "runtime.compile": how}
            changed = configs.changed(config, changes)
            run = Trained(changed, stage, ranks, Path(out), captured=False, lr=1e-5)
            start = _flat(run)
            runs.append(run.train(islice(run.batches(), GPU_STEPS)))
        eager, ours = runs
        way = (_flat(eager) - start).norm()
        found[f"{stage} {zero}"] = {
            "losses": [[told["loss"] for told in run.told] for run in runs],
            "apart": float((_flat(ours) - _flat(eager)).norm() / way),
            "counters": [str(run.counters()) for run in runs],
            "adam": [[float(s["step"]) for s in _states(run)] for run in runs],
        }
    (Path(out) / "found.json").write_text(json.dumps(found))
    engine.stop()


def _states(run: Trained) -> list[dict[str, Tensor]]:
    return list(run.engine.basic_optimizer.state.values())


def _flat(run: Trained) -> Tensor:
    parameters = [p.detach().double().flatten() for p in run.engine.module.parameters()]
    return torch.cat(parameters)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpus_graph_trains_as_eager_does(
    tmp_path: Path, write_config: Any, precision: str
) -> None:
    """Written where no GPU was at hand. Steps so small keep what sums in another order do small: a
    batch that was not copied is seen in the losses, a step size in the way that weights have gone.
    """
    config = _config(tmp_path, {"runtime.precision": precision}, write_config)
    processes.on_ranks(_gpu, config, processes.free_port(), str(tmp_path), world=1)
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found) == 6
    for case, told in found.items():
        print(case, told["apart"], *told["losses"])
        eager, ours = told["losses"]
        assert len(set(ours)) == GPU_STEPS, case
        assert ours == pytest.approx(eager, rel=1e-3 if precision == "fp32" else 1e-2), case
        assert told["apart"] < 0.05, case
        assert told["counters"][0] == told["counters"][1], case
        assert set(told["adam"][0]) == set(told["adam"][1]) == {float(GPU_STEPS)}, case

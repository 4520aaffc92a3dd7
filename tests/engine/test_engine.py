"""ZeRO 0 to 3 on two gloo ranks: the same training, and state that is really shared out."""

import dataclasses
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
from conftest import EQ_4_KEYS
from torch import Tensor, nn
from torch import distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from pcamx import config as configs
from pcamx import engine
from pcamx.config import Config
from pcamx.data.canvas.provider import Decoded
from pcamx.data.feed.batches import Feed, open_feed
from pcamx.data.store import read_store
from pcamx.engine import build
from pcamx.engine.clip import clip
from pcamx.errors import PcamxError
from pcamx.training.stages import build_stage

STEPS = 3
STAGES = (0, 1, 2, 3)
CASES = [(zero, precision) for precision in ("fp32", "bf16") for zero in STAGES]


def _with_runtime(config: Config, **changes: Any) -> Config:
    return dataclasses.replace(config, runtime=dataclasses.replace(config.runtime, **changes))


def _open(config: Config, ranks: engine.Ranks, folder: Path) -> tuple[Feed, Any]:
    """The feed and the engine of stage 3, which has every part of the network."""
    decoded = Decoded(config.data, read_store(Path(config.data.store)), ranks.device)
    feed = open_feed(config, decoded, stage=3, rank=ranks.rank, world=ranks.world)
    torch.manual_seed(0)
    stage = build_stage(3, config, feed.images).to(ranks.device)
    return feed, engine.initialize(
        stage, config, configs.Stage(epochs=1, lr=1e-3), 100, folder=folder, universal=False
    )


class _Waits(TorchDispatchMode):
    """Counts how often a value is fetched from the device: item(), bool(), tolist()."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@contextmanager
def _waits() -> Iterator[_Waits]:
    """Within: counts those, and DeepSpeed's waiting for the device, which no CPU does."""
    from deepspeed.accelerator import get_accelerator

    counted, kind = _Waits(), type(get_accelerator())
    before = kind.synchronize

    def synchronize(self: Any, *_: Any) -> None:
        counted.count += 1

    kind.synchronize = synchronize
    try:
        with counted:
            yield counted
    finally:
        kind.synchronize = before


@contextmanager
def _layouts(model: nn.Module) -> Iterator[set[bool]]:
    """Within: whether what convolutions and norms put out, and its gradient, is channels_last."""
    found: set[bool] = set()

    def look(maps: Tensor) -> None:
        found.add(maps.is_contiguous(memory_format=torch.channels_last))

    def note(_: nn.Module, __: Any, output: Tensor) -> None:
        look(output)
        output.register_hook(look)

    kinds = (nn.Conv2d, nn.BatchNorm2d)
    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, kinds)]
    yield found
    for hook in hooks:
        hook.remove()


def _norm(model: Any) -> float:
    """Of the averaged gradient; sharded, as DeepSpeed takes it."""
    if model.zero_optimization_stage():
        return float(model.optimizer.scaled_global_norm())
    gradients = [p.grad.flatten() for p in model.module.parameters()]
    return float(torch.cat(gradients).double().norm())


def _train(config: Config, ranks: engine.Ranks, folder: Path) -> dict[str, Any]:
    """A few steps of stage 3; what this rank then holds."""
    feed, model = _open(config, ranks, folder)
    clipping = config.runtime.gradient_clipping
    parameters = sum(getattr(p, "ds_numel", p.numel()) for p in model.module.parameters())
    losses = []
    with _layouts(model.module.network.encoder) as layouts:
        for _, batch in zip(range(STEPS), feed.epoch(0), strict=False):
            told = engine.train_step(model, batch, clipping=clipping)
            losses.append(told["loss"].item())
    states = model.basic_optimizer.state.values()
    steps = {float(s["step"]) for s in states if "step" in s}
    kinds = {str(v.dtype) for k, v in engine.whole_state(model).items() if v.is_floating_point()}
    held = sum(t.numel() for s in states for t in s.values() if torch.is_tensor(t) and t.ndim)
    with _waits() as waits:
        for _ in range(2):
            engine.train_step(model, batch, clipping=clipping)
    norms = []
    if config.runtime.zero_stage < 3:
        model.backward(model(batch).loss)
        norms.append(_norm(model))
        clip(model, norms[0] / 2)
        norms.append(_norm(model))
    return {
        "losses": losses,
        "norms": norms,
        "elements": held,
        "parameters": parameters,
        "adam_steps": sorted(steps),
        "dtypes": sorted(kinds),
        "p": float(model.module.accuracy.value),
        "layouts": sorted(layouts),
        "waits": waits.count,
    }


def _worker(rank: int, config: Config, port: int, out: str) -> None:
    import os

    os.environ |= processes.environment(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        TORCH_EXTENSIONS_DIR=f"{out}/extensions",
    )
    torch.set_num_threads(1)
    joined = engine.start()
    found = {}
    for zero, precision in CASES:
        changed = _with_runtime(config, zero_stage=zero, precision=precision)
        found[f"{zero} {precision}"] = _train(changed, joined, Path(out))
    for zero in STAGES:
        free = {"precision": "fp32", "gradient_clipping": 0.0}
        changed = _with_runtime(config, zero_stage=zero, **free)
        found[f"{zero} unclipped"] = _train(changed, joined, Path(out))
    (Path(out) / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    engine.stop()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, write_config: Any) -> list[dict[str, Any]]:
    """By rank, then by "<ZeRO stage> <precision>": what `_train` returned."""
    out = tmp_path_factory.mktemp("zero")
    config = configs.load(write_config(out, EQ_4_KEYS))
    processes.on_ranks(_worker, config, processes.free_port(), str(out))
    assert not (out / "extensions").exists(), "a C++ extension was built"
    return [json.loads((out / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize(("zero", "precision"), CASES)
def test_optimizer_state_is_shared_out(
    found: list[dict[str, Any]], zero: int, precision: str
) -> None:
    held = [rank[f"{zero} {precision}"]["elements"] for rank in found]
    everything = 2 * found[0][f"{zero} {precision}"]["parameters"]  # Adam keeps two moments
    print(f"ZeRO-{zero} {precision}: {held} of {everything} elements on ranks 0 and 1")
    if zero == 0:
        assert held == [everything, everything]
        return
    # Two ranks, two parameter groups, two moments: each group is padded to an even length.
    assert held[0] == held[1]
    assert everything <= sum(held) <= everything + 4


def test_every_zero_stage_trains_alike(found: list[dict[str, Any]]) -> None:
    for rank in found:
        losses = [rank[f"{zero} unclipped"]["losses"] for zero in STAGES]
        assert losses[0] == losses[1] == losses[2]
        assert losses[3] == pytest.approx(losses[0], rel=2e-5)
        for zero in STAGES[1:]:
            # The factor is rounded otherwise, which later steps over few films enlarge.
            clipped = rank[f"{zero} fp32"]["losses"]
            assert clipped[:2] == pytest.approx(rank["0 fp32"]["losses"][:2], rel=1e-5)


def test_every_zero_stage_trains_alike_in_bf16(found: list[dict[str, Any]]) -> None:
    # All sum gradients in float32. The factor of clipping is rounded otherwise, which later steps
    # over few films enlarge: a weight that rounds to another bf16 moves a loss.
    for rank in found:
        plain = rank["0 bf16"]["losses"]
        for zero in STAGES[1:]:
            losses = rank[f"{zero} bf16"]["losses"]
            assert losses[0] == pytest.approx(plain[0], rel=1e-6)
            assert losses[1] == pytest.approx(plain[1], rel=0.02)
            assert all(map(math.isfinite, losses))


@pytest.mark.parametrize(("zero", "precision"), CASES)
def test_parameters_and_batch_norm_stay_float32(
    found: list[dict[str, Any]], zero: int, precision: str
) -> None:
    for rank in found:
        # P is the one float64.
        assert rank[f"{zero} {precision}"]["dtypes"] == ["torch.float32", "torch.float64"]


@pytest.mark.parametrize("zero", STAGES)
def test_bf16_computes_in_bf16(found: list[dict[str, Any]], zero: int) -> None:
    a, b = (found[0][f"{zero} {p}"]["losses"] for p in ("fp32", "bf16"))
    assert a != b
    assert a[0] == pytest.approx(b[0], rel=0.05)


@pytest.mark.parametrize(("zero", "precision"), CASES)
def test_adam_steps_once_a_step(found: list[dict[str, Any]], zero: int, precision: str) -> None:
    for rank in found:
        one = rank[f"{zero} {precision}"]
        assert one["adam_steps"] == [float(len(one["losses"]))]


def test_the_host_does_not_wait_for_the_device(found: list[dict[str, Any]]) -> None:
    for rank in found:
        for case, told in rank.items():
            # ZeRO-3 does, which shows that the count can be other than 0.
            assert (told["waits"] > 0) == case.startswith("3"), case


def test_maps_stay_channels_last(found: list[dict[str, Any]]) -> None:
    """Forward and backward, whatever ZeRO does to the weights."""
    for rank in found:
        assert [case["layouts"] for case in rank.values()] == [[True]] * len(rank)


@pytest.mark.parametrize("zero", [0, 1, 2])
def test_clipping_scales_the_gradient_of_all_ranks(found: list[dict[str, Any]], zero: int) -> None:
    for kind in ("fp32", "bf16"):
        (before, after), theirs = (rank[f"{zero} {kind}"]["norms"] for rank in found)
        assert [before, after] == pytest.approx(theirs, rel=1e-5)
        assert before > 0 and after == pytest.approx(before / 2, rel=1e-4)


def test_p_is_the_same_on_all_ranks(found: list[dict[str, Any]]) -> None:
    for case in found[0]:
        assert found[0][case]["p"] == found[1][case]["p"]
        assert found[0][case]["p"] != 0.5


def test_batch_that_the_ranks_cannot_share(tmp_path: Path, write_config: Any) -> None:
    config = configs.load(write_config(tmp_path))
    with pytest.raises(PcamxError, match="runtime.batch_size: 8 cannot be split over 3 ranks"):
        engine.deepspeed_config(config, 3)


@pytest.mark.parametrize("steps", [1, 2, 3, 9, 10, 11, 200])
def test_the_schedule_holds_for_any_number_of_steps(steps: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    schedule = build.one_cycle(optimizer, steps)
    rates = []
    for _ in range(steps):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.05) and max(rates) <= 0.5
    if steps == 200:
        assert rates.index(max(rates)) == 19 and rates[-1] < 1e-3


def test_a_backbone_has_its_share_of_the_step_size() -> None:
    """And goes through the same schedule; what is frozen is left out."""
    stage = torch.nn.Module()
    stage.network = torch.nn.Module()
    stage.network.encoder = torch.nn.Module()
    stage.network.encoder.backbone = torch.nn.Sequential(
        torch.nn.Linear(2, 2).requires_grad_(False), torch.nn.Linear(2, 3)
    )
    stage.network.encoder.lateral = torch.nn.Linear(3, 4)
    groups = build.parameter_groups(stage, 0.01, configs.Stage(epochs=1, lr=1e-3, backbone_lr=0.1))
    shapes = [[tuple(p.shape) for p in group["params"]] for group in groups]
    assert shapes == [[(4, 3)], [(4,)], [(3, 2)], [(3,)]]
    assert [group["weight_decay"] for group in groups] == [0.01, 0, 0.01, 0]
    optimizer = torch.optim.AdamW(groups)
    schedule = build.one_cycle(optimizer, 20)
    peak = [0.0] * 4
    for _ in range(20):
        peak = [max(a, b) for a, b in zip(peak, schedule.get_last_lr(), strict=True)]
        optimizer.step()
        schedule.step()
    assert peak == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])
    plain = build.parameter_groups(stage, 0.01, configs.Stage(epochs=1, lr=1e-3))
    assert [len(group["params"]) for group in plain] == [2, 2]


def _gpu_worker(rank: int, config: Config, port: int, out: str) -> None:
    import os

    os.environ |= processes.environment(MASTER_PORT=str(port))
    joined = engine.start()
    for zero in (0, 1, 2):
        changed = _with_runtime(config, zero_stage=zero)
        feed, model = _open(changed, joined, Path(out))
        batches = [batch for _, batch in zip(range(4), feed.epoch(0), strict=False)]
        for batch in batches:
            engine.train_step(model, batch, clipping=1.0)
        torch.cuda.set_sync_debug_mode("error")
        for batch in batches:
            engine.train_step(model, batch, clipping=1.0)
        torch.cuda.set_sync_debug_mode("default")
        (Path(out) / f"zero{zero}").touch()
    engine.stop()


@pytest.mark.gpu
def test_no_step_waits_for_the_gpu(tmp_path: Path, write_config: Any) -> None:
    config = configs.load(write_config(tmp_path))
    processes.on_ranks(_gpu_worker, config, processes.free_port(), str(tmp_path), world=1)
    assert {path.name for path in tmp_path.glob("zero*")} == {"zero0", "zero1", "zero2"}

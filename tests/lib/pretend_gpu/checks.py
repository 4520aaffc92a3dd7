"""`python tests/lib/pretend_gpu/checks.py CONFIG OUT.json`: all that is asked of the pretended GPU.

One process for everything, for starting takes longest. The environment names the driver.
"""

import ctypes
import dataclasses
import json
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

ctypes.CDLL(os.environ["PRETEND_GPU_DRIVER"], mode=ctypes.RTLD_GLOBAL)  # before torch

import torch
from torch import Tensor, nn

from pretend_gpu import cuda
from pretend_gpu.device import OnDevice, counts, values

torch.set_num_threads(1)

from pcamx import config as configs
from pcamx import engine
from pcamx.cam.positive_cam import PositiveCAM
from pcamx.catalogue import StageId
from pcamx.config import Config
from pcamx.data.canvas.provider import Decoded
from pcamx.data.feed.batches import open_feed
from pcamx.data.store import read_store
from pcamx.engine.captured_step import WARM as WARM_UP
from pcamx.engine.captured_step import CapturedStep, CudaGraph
from pcamx.evaluation import example_films
from pcamx.evaluation.evaluate import evaluate
from pcamx.explain.folder import explain
from pcamx.export import export
from pcamx.kernels import fused, reference
from pcamx.run import checkpoints
from pcamx.run.checkpoints import Progress
from pcamx.training import trainer
from pcamx.training.stages import build_stage

WARM, STEPS = 2, 1


def _with(config: Config, **runtime: Any) -> Config:
    return dataclasses.replace(config, runtime=dataclasses.replace(config.runtime, **runtime))


def _open(
    config: Config,
    stage: StageId,
    ranks: engine.Ranks,
    folder: Path,
    *,
    universal: bool = False,
) -> tuple[Any, Any]:
    decoded = Decoded(config.data, read_store(Path(config.data.store)), ranks.device)
    feed = open_feed(config, decoded, stage=stage, rank=ranks.rank, world=ranks.world)
    torch.manual_seed(0)
    made = build_stage(stage, config, feed.images).to(ranks.device)
    return feed, engine.initialize(
        made, config, configs.Stage(epochs=1, lr=1e-3), 100, folder=folder, universal=universal
    )


def addresses(model: Any) -> dict[str, int]:
    """Of parameters, buffers and the optimizer's state, what a captured graph would hold on to."""
    found = {name: values(t).data_ptr() for name, t in model.module.named_parameters()}
    found |= {name: values(t).data_ptr() for name, t in model.module.named_buffers()}
    for i, state in enumerate(model.basic_optimizer.state.values()):
        tensors = {k: t for k, t in state.items() if isinstance(t, Tensor)}
        found |= {f"state {i} {key}": values(t).data_ptr() for key, t in tensors.items()}
    return found


def steps(config: Config, stage: StageId, ranks: engine.Ranks, folder: Path) -> dict[str, Any]:
    """What some steps count, after others that made what stays, batches included."""
    feed, model = _open(config, stage, ranks, folder)
    batches = feed.epoch(0)
    for _ in range(WARM):
        engine.train_step(model, next(batches), clipping=1.0)
    counts.clear()
    before, launched = addresses(model), 0
    for _ in range(STEPS):
        batch = next(batches)
        made = counts.kernels.total()
        engine.train_step(model, batch, clipping=1.0)
        launched += counts.kernels.total() - made
    after = addresses(model)
    return {
        "waits": dict(counts.waits),
        "unpinned": dict(counts.unpinned),
        "operators": launched / STEPS,
        "kinds": dict(counts.kernels.most_common(30)),
        "held": len(before),
        "moved": [name for name in before if before[name] != after.get(name)],
        "elsewhere": [
            n for n, t in model.module.state_dict().items() if not isinstance(t, OnDevice)
        ],
    }


class Played(CudaGraph):
    """A recording that is none: the update is made anew, and what it launches counted by itself."""

    within = Counter[str]()

    def record(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def play() -> Tensor:
            before = counts.kernels.copy()
            told = work()
            self.within = counts.kernels - before
            return told

        return play


def captured(config: Config, stage: StageId, ranks: engine.Ranks, folder: Path) -> dict[str, Any]:
    """What a step counts within the graph that it would replay, and outside."""
    feed, model = _open(config, stage, ranks, folder)
    batches, played = chain(feed.epoch(0), feed.epoch(1)), Played()
    step = CapturedStep(model, played, clipping=1.0)

    def held() -> dict[str, int]:
        groups = model.basic_optimizer.param_groups
        weights = [p for group in groups for p in group["params"]]
        more = {"batch": step._batch, "step size": step._rates, "weights": weights}
        return addresses(model) | {
            f"{name} {i}": values(t).data_ptr()
            for name, tensors in more.items()
            for i, t in enumerate(tensors or [])
        }

    for _ in range(WARM_UP + 1):
        step(next(batches))
    before, batch = held(), next(batches)
    kept = step._batch  # so that nothing new can lie there
    counts.clear()
    step(batch)
    after = held()
    del kept
    return {
        "waits": dict(counts.waits),
        "unpinned": dict(counts.unpinned),
        "within": dict(played.within),
        "outside": dict(counts.kernels - played.within),
        "held": len(before),
        "moved": [name for name in before if before[name] != after.get(name)],
    }


def refusals(device: torch.device) -> dict[str, str]:
    """What is said of tensors of both devices: by an operator, and by AdamW's one kernel."""
    parameter = torch.ones(2, device=device, requires_grad=True)
    parameter.grad = torch.ones(2, device=device)
    optimizer = torch.optim.AdamW([parameter], fused=True)
    optimizer.step()
    optimizer.state[parameter]["step"] = torch.tensor(1.0)
    works = {"add": lambda: parameter + torch.ones(2), "AdamW": optimizer.step}
    said = dict.fromkeys(works, "")
    for name, work in works.items():
        try:
            work()
        except RuntimeError as error:
            said[name] = str(error)
    return said


def compiled(config: Config, ranks: engine.Ranks, folder: Path) -> dict[str, Any]:
    """What torch.compile is told for each value of runtime.compile."""
    told: dict[str, Any] = {}
    original = nn.Module.compile
    for how in ("on", "reduce-overhead"):
        nn.Module.compile = lambda self, how=how, **options: told.__setitem__(how, options)
        _open(_with(config, compile=how), 1, ranks, folder)
    nn.Module.compile = original
    return told


def universal(config: Config, ranks: engine.Ranks, folder: Path) -> dict[str, Any]:
    """A step after a checkpoint of other ranks, whose random state is a CPU's alone."""
    feed, model = _open(config, 1, ranks, folder)
    batches = feed.epoch(0)
    engine.train_step(model, next(batches), clipping=1.0)
    checkpoints.save(model, folder, Progress(step=1, done=1), ranks, "")
    root, tag = folder / "checkpoints", "step00000001"
    state = torch.load(root / tag / "rank_0.pt", weights_only=True)
    del state["cuda_rng"]
    torch.save(state, root / tag / "rank_0.pt")
    tag = engine.to_universal(root, tag)
    _, model = _open(config, 1, ranks, folder, universal=True)
    checkpoints.restore(model, folder, tag, ranks)
    engine.train_step(model, next(batches), clipping=1.0)
    counted = [float(state["step"]) for state in model.basic_optimizer.state.values()]
    return {"steps": counted}


def commands(config: Config, ranks: engine.Ranks) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each command on the run that the first trains, of stage 3, which has all parts."""
    run, store = Path(config.run.folder), read_store(Path(config.data.store))

    def train() -> None:
        with engine.Watch(config.runtime.timeout) as watch:
            trainer._train(config, store, [3], ranks, watch, resume=False)

    yield "train", train
    for name in ("attend", "class_activation", "gather_affine_normalise"):
        # What is measured has to be there, so PyTorch computes what the kernels do not.
        setattr(fused, name, getattr(reference, name))
    example_films._FILMS = 1
    yield "evaluate", lambda: evaluate(run)
    films = [store.root / film.path for film in store.split("valid")[:2]]
    yield "explain", lambda: explain(run, films)
    yield "export", lambda: export(run, run / "export")

    def positive_cam() -> None:
        model = Plain().to(ranks.device).eval()
        with PositiveCAM(model) as cam:
            cam(torch.rand(2, 1, 32, 32, device=ranks.device), class_idx=[0, 1])

    yield "PositiveCAM", positive_cam


class Plain(nn.Sequential):
    """Somebody's classifier."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def main(config: Config, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every check's findings, by its name."""
    ranks = engine.start()
    yield "start", {"device": str(ranks.device), "tf32": torch.backends.cudnn.allow_tf32}
    yield "refusals", refusals(ranks.device)
    yield "compile", compiled(config, ranks, folder)
    for stage, zero in [(3, 0), (3, 1), (3, 2), (1, 1), (2, 1), ("segmenter", 1), (3, 3)]:
        yield f"{stage} {zero}", steps(_with(config, zero_stage=zero), stage, ranks, folder)
    for stage, zero in [(1, 1), (2, 1), (3, 1), (3, 0), ("segmenter", 1)]:
        changed = _with(config, zero_stage=zero)
        yield f"captured {stage} {zero}", captured(changed, stage, ranks, folder)
    yield "universal", universal(config, ranks, folder)
    for name, work in commands(config, ranks):
        work()
        yield name, {}


def findings(config: Config, folder: Path) -> dict[str, Any]:
    """Those of `main`, and under "failed" what one has raised, after which there are no more."""
    found: dict[str, Any] = {"failed": ""}
    try:
        for name, told in main(config, folder):
            found[name] = told
            print(f"{name}: {time.process_time():.1f} s", flush=True)
    except Exception:
        found["failed"] = traceback.format_exc()
        print(found["failed"], flush=True)
    return found


if __name__ == "__main__":
    with cuda.switch_on():
        read = configs.load(sys.argv[1])
        out = Path(sys.argv[2])
        out.write_text(json.dumps(findings(read, out.parent), indent=1))

"""`python tests/pretend_gpu/checks.py CONFIG OUT.json`: all that is asked of the pretended GPU.

One process for everything, for starting takes longest. The environment names the driver.
"""

import ctypes
import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

ctypes.CDLL(os.environ["PRETEND_GPU_DRIVER"], mode=ctypes.RTLD_GLOBAL)  # before torch

import torch
from torch import Tensor

from pretend_gpu import cuda
from pretend_gpu.device import OnDevice, counts, values

torch.set_num_threads(1)

from pcamx import config as configs
from pcamx import engine
from pcamx.catalogue import StageId
from pcamx.config import Config
from pcamx.data.canvas.provider import Decoded
from pcamx.data.feed.batches import open_feed
from pcamx.data.store import read_store
from pcamx.training.stages import build_stage

WARM, STEPS = 2, 1


def _open(config: Config, stage: StageId, ranks: engine.Ranks, folder: Path) -> tuple[Any, Any]:
    decoded = Decoded(config.data, read_store(Path(config.data.store)), ranks.device)
    feed = open_feed(config, decoded, stage=stage, rank=ranks.rank, world=ranks.world)
    torch.manual_seed(0)
    made = build_stage(stage, config, feed.images).to(ranks.device)
    return feed, engine.initialize(made, config, 1e-3, 100, folder=folder, universal=False)


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


def main(config: Config, folder: Path) -> dict[str, Any]:
    """Every check's findings, by its name."""
    ranks = engine.start()
    found: dict[str, Any] = {"device": str(ranks.device)}
    for stage, zero in [(3, 0), (3, 1), (3, 2), (3, 3), (1, 1), (2, 1), ("segmenter", 1)]:
        runtime = dataclasses.replace(config.runtime, zero_stage=zero)
        changed = dataclasses.replace(config, runtime=runtime)
        found[f"{stage} {zero}"] = steps(changed, stage, ranks, folder)
        print(stage, zero, time.process_time(), flush=True)
    return found


if __name__ == "__main__":
    with cuda.switch_on():
        read = configs.load(sys.argv[1])
        out = Path(sys.argv[2])
        out.write_text(json.dumps(main(read, out.parent), indent=1))

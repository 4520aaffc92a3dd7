"""On one rank no gradient goes round, and the training is the same to the bit."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
from torch import Tensor

from pcamx import config as configs
from pcamx import engine
from pcamx.config import Config
from pcamx.data.canvas.provider import Decoded
from pcamx.data.feed.batches import open_feed
from pcamx.data.store import read_store
from pcamx.engine import build
from pcamx.training.stages import build_stage
from pcamx.training.validation import validate

STEPS = 4


def _config(path: Path, **runtime: Any) -> Config:
    config = configs.load(path)
    return dataclasses.replace(config, runtime=dataclasses.replace(config.runtime, **runtime))


def _train(
    config: Config, ranks: engine.Ranks, folder: Path, patch: pytest.MonkeyPatch
) -> tuple[dict[str, Tensor], int]:
    """Weights after a few steps of stage 3, and how often DeepSpeed reduced something meanwhile."""
    from deepspeed import comm

    decoded = Decoded(config.data, read_store(Path(config.data.store)), ranks.device)
    feed = open_feed(config, decoded, stage=3)
    torch.manual_seed(0)
    stage = build_stage(3, config, feed.images)
    model = engine.initialize(
        stage, config, configs.Stage(epochs=1, lr=1e-3), 100, folder=folder, universal=False
    )
    reduced, all_reduce = [0], comm.all_reduce

    def count(*args: Any, **kwargs: Any) -> Any:
        reduced[0] += 1
        return all_reduce(*args, **kwargs)

    patch.setattr(comm, "all_reduce", count)
    for _, batch in zip(range(STEPS), feed.epoch(0), strict=False):
        engine.train_step(model, batch, clipping=config.runtime.gradient_clipping)
    patch.undo()
    return engine.whole_state(model), reduced[0]


@pytest.mark.parametrize("zero", [0, 1, 2])
def test_nothing_is_reduced_and_nothing_is_changed(
    alone: engine.Ranks, tmp_path: Path, write_config: Any, zero: int
) -> None:
    config = _config(write_config(tmp_path), zero_stage=zero, precision="fp32")
    with pytest.MonkeyPatch.context() as patch:
        spared, none = _train(config, alone, tmp_path, patch)
        patch.setattr(build, "_spare_reduction", lambda _: None)
        reduced, some = _train(config, alone, tmp_path, patch)
    assert none == 0 and some >= STEPS
    assert all(torch.equal(value, reduced[name]) for name, value in spared.items())


def _twice(rank: int, config: Config, port: int, folder: Path) -> None:
    os.environ |= processes.environment(MASTER_PORT=str(port), DS_ACCELERATOR="cpu")
    for _ in range(2):
        engine.start()
        stage = build_stage(1, config, 8)
        engine.initialize(
            stage, config, configs.Stage(epochs=1, lr=1e-3), 100, folder=folder, universal=False
        )
        engine.stop()
    (folder / "done").touch()


def test_a_second_training_of_a_process_has_groups_of_its_own(
    tmp_path: Path, write_config: Any
) -> None:
    config = configs.load(write_config(tmp_path))
    processes.on_ranks(_twice, config, processes.free_port(), tmp_path, world=1)
    assert (tmp_path / "done").exists()


def test_a_start_does_not_load_the_compiler(tmp_path: Path) -> None:
    """In a new Python: that of the other tests has it."""
    program = (
        "import os, sys, torch\n"
        "from pcamx.engine.ranks import import_deepspeed, import_muon\n"
        "import_deepspeed(); import_muon()\n"
        "assert 'deepspeed.runtime.zero.muon.original_muon' in sys.modules\n"
        "assert 'torch._inductor.compile_fx' not in sys.modules\n"
        "assert 'TORCHDYNAMO_DISABLE' not in os.environ\n"
        "torch.compile(lambda x: x)\n"  # what is asked for still comes
        "assert 'torch._inductor.compile_fx' in sys.modules\n"
    )
    ended = processes.command(sys.executable, "-c", program, cwd=tmp_path, DS_ACCELERATOR="cpu")
    assert ended.code == 0, ended.text


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_validation_computes_as_training_does(
    alone: engine.Ranks, tmp_path: Path, write_config: Any, precision: str, dtype: torch.dtype
) -> None:
    config = _config(write_config(tmp_path), precision=precision)
    store = read_store(Path(config.data.store))
    stage = build_stage(1, config, 32).eval()
    found = set()
    for module in stage.network.encoder.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda _, __, output: found.add(output.dtype))
    valid = Decoded(config.data, store, alone.device).split("valid")
    scores = validate(stage.network, config, store, valid, alone)
    assert found == {dtype}
    assert scores.keys() == {"auroc", "accuracy"}

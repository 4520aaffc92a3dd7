"""A timm backbone, part of it frozen, whose training goes on: on as many ranks and on fewer.

Its kernels look at a corner, so that its maps lie elsewhere than fresh weights' would.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import processes
import pytest
import small_stages
import torch
import torch.distributed as dist
import toy_timm

from pcamx import config as configs
from pcamx import engine
from pcamx.config import Config
from pcamx.engine import Ranks, settings
from pcamx.errors import PcamxError
from pcamx.run import checkpoints
from pcamx.run.backbone import load_backbone
from pcamx.run.checkpoints import Progress
from pcamx.training.stages import Stage, build_stage
from pcamx.types import Batch

ZEROS = (1, 3)
TAG = "step00000001"
LR = configs.Stage(epochs=1, lr=1e-3)


def _config(folder: Path, zero: int) -> Config:
    model = configs.Model(
        encoder="timm:same_32", weights=str(folder / "corner.safetensors"), frozen=8
    )
    runtime = configs.Runtime(batch_size=8, zero_stage=zero, precision="fp32")
    return dataclasses.replace(small_stages.settings(), model=model, runtime=runtime)


def _join(rank: int, world: int, port: int) -> Ranks:
    os.environ |= processes.environment(
        MASTER_PORT=str(port), DS_ACCELERATOR="cpu", RANK=str(rank), WORLD_SIZE=str(world)
    ) | {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1"}
    sys.modules["timm"] = toy_timm.stand_in()
    settings._SHARD_ABOVE = 100  # some of these few parameters are divided, some are not
    torch.set_num_threads(1)
    return engine.start()


def _open(config: Config, folder: Path, *, seed: int, universal: bool) -> tuple[Stage, Any]:
    torch.manual_seed(seed)
    stage = build_stage(1, config, 40)
    if seed == 0:
        encoder: Any = stage.network.encoder
        load_backbone(encoder, config.model.weights, config.model.encoder)
        if dist.get_rank():  # as a processor that rounds otherwise may measure
            encoder.lean += 16
            encoder._place()
    made = engine.initialize(stage, config, LR, 20, folder=folder, universal=universal)
    made.train()
    return stage, made


def _facts(stage: Stage, made: Any) -> dict[str, Any]:
    encoder: Any = stage.network.encoder
    state = {name: value.tolist() for name, value in engine.whole_state(made).items()}
    return {"state": state, "placed": [list(encoder._centres.values()), encoder._moved]}


def _save(rank: int, folder: Path, port: int) -> None:
    ranks = _join(rank, 2, port)
    for zero in ZEROS:
        config, place = _config(folder, zero), folder / f"zero{zero}"
        stage, made = _open(config, place, seed=0, universal=False)
        films = Batch(*(part[rank::2] for part in small_stages.films(8, 32)))
        engine.train_step(made, films, clipping=0.0)
        engine.average_buffers(made.module)
        checkpoints.save(made, place, Progress(done=1, step=1), ranks, "")
        before = _facts(stage, made)
        engine.train_step(made, films, clipping=0.0)  # saving has left nothing behind
        again, resumed = _open(config, place, seed=99, universal=False)
        checkpoints.restore(resumed, place, TAG, ranks)
        found = {"before": before, "as many": _facts(again, resumed)}
        engine.train_step(resumed, films, clipping=0.0)
        (place / f"rank{rank}.json").write_text(json.dumps(found))
    engine.stop()


def _go_on(rank: int, folder: Path, port: int) -> None:
    ranks = _join(rank, 1, port)
    for zero in ZEROS:
        config, place = _config(folder, zero), folder / f"zero{zero}"
        tag = checkpoints.for_any_ranks(place, TAG)
        stage, made = _open(config, place, seed=99, universal=True)
        checkpoints.restore(made, place, tag, ranks)
        found = _facts(stage, made)
        engine.train_step(made, small_stages.films(8, 32), clipping=0.0)
        (place / "alone.json").write_text(json.dumps(found))
    (place / "checkpoints" / TAG / "frozen.pt").unlink(
        missing_ok=True
    )  # as an earlier pcamx left it
    tag = checkpoints.for_any_ranks(place, TAG)
    _, made = _open(config, place, seed=99, universal=True)
    said = "taken"
    try:
        checkpoints.restore(made, place, tag, ranks)
    except PcamxError as error:
        said = str(error)
    (folder / "said").write_text(said)
    engine.stop()


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other_ranks")
    toy_timm.corner_weights(folder / "corner.safetensors", "same_32")
    processes.on_ranks(_save, folder, processes.free_port())
    processes.on_ranks(_go_on, folder, processes.free_port(), world=1)
    return folder


@pytest.mark.parametrize("zero", ZEROS)
def test_all_of_a_backbone_comes_back(folder: Path, zero: int) -> None:
    first, second, alone = (
        json.loads((folder / f"zero{zero}" / f"{name}.json").read_text())
        for name in ("rank0", "rank1", "alone")
    )
    before = first["before"]
    for after in (first["as many"], second["as many"], alone):
        assert not [
            name for name, value in before["state"].items() if after["state"][name] != value
        ]
        assert after["placed"] == before["placed"] == [[0, 0, 0, 0], -8]
    # Where the maps lie is rank 0's to say.
    assert second["before"]["placed"] == before["placed"]


def test_a_checkpoint_without_the_frozen_parameters_is_refused(folder: Path) -> None:
    said = (folder / "said").read_text()
    assert f"{TAG}: an earlier pcamx kept no frozen parameters" in said
    assert said.endswith("resume it on 2, as it was written") and "\n" not in said

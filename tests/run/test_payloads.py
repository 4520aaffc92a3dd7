"""No file that pcamx reads can run code: a real payload in each kind, with digests that fit."""

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import random_runs
import torch
from payloads import Trap

from pcamx import config as configs
from pcamx import engine
from pcamx.config import Config
from pcamx.data.contents import sha256_of
from pcamx.errors import PcamxError
from pcamx.export.samples import _read_expected
from pcamx.run import checkpoints
from pcamx.run.backbone import load_backbone
from pcamx.run.checkpoints import Progress
from pcamx.run.pretrained import from_pretrained, save_pretrained
from pcamx.run.weights import load_start, load_weights
from pcamx.seals import SEAL, sealed, unsealed
from pcamx.training.stages import build_stage


def _sign(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a sealed file and seal it anew."""
    facts = unsealed(json.loads(path.read_text()))
    change(facts)
    path.write_text(json.dumps(sealed(facts)))
    assert SEAL in path.read_text()


def _safetensors(path: Path, config: Config) -> None:
    run = random_runs.random_run(path.parent / "run", path.parent / "run.yaml", (1,))
    export = path.parent / "export"
    export.mkdir()
    save_pretrained(from_pretrained(run, device="cpu"), export)
    shutil.copy(path, export / "model.safetensors")
    _sign(export / "config.json", lambda facts: facts.update(sha256=sha256_of(path)))
    from_pretrained(export, device="cpu")


def _expected(path: Path, config: Config) -> None:
    path.rename(path.with_name("expected.npz"))
    _read_expected(path.parent)


READERS: dict[str, Callable[[Path, Config], object]] = {
    "weights.pt": lambda path, config: load_weights(path, 1),
    "init_from.pt": lambda path, config: load_start(path, config, 2),
    "timm.pth": lambda path, config: load_backbone(None, str(path), "timm:x"),  # type: ignore[arg-type]
    "timm.safetensors": lambda path, config: load_backbone(None, str(path), "timm:x"),  # type: ignore[arg-type]
    "model.safetensors": _safetensors,
    "expected.npz": _expected,
}


@pytest.mark.parametrize("form", ["torch", "pickle", "numpy"])
@pytest.mark.parametrize("name", READERS)
def test_a_payload_is_not_run(tmp_path: Path, write_config: Any, name: str, form: str) -> None:
    config, mark = configs.load(write_config(tmp_path)), tmp_path / "executed"
    path = tmp_path / name
    with path.open("wb") as file:
        if form == "torch":
            torch.save({"state": Trap(mark)}, file)
        elif form == "pickle":
            pickle.dump({"state": Trap(mark)}, file, protocol=2)
        else:
            np.savez(file, logits=np.array([Trap(mark)], object))
    if form == "numpy":
        with np.load(path, allow_pickle=True) as loaded:
            assert loaded["logits"].shape == (1,)
    else:
        with path.open("rb") as file:
            torch.load(file, weights_only=False) if form == "torch" else pickle.load(file)
    assert mark.exists()  # it is a real one
    mark.unlink()
    with pytest.raises(PcamxError) as caught:
        READERS[name](path, config)
    _one_clear_line(str(caught.value), name)
    assert not mark.exists()


def _one_clear_line(said: str, name: str) -> None:
    assert name in said and said.isprintable() and "Weights only load failed" not in said


@pytest.fixture(scope="module")
def checkpoint(
    alone: engine.Ranks, tmp_path_factory: pytest.TempPathFactory, write_config: Any
) -> tuple[Any, Path]:
    """An engine of stage 1, and the stage's folder with its first checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoint")
    config = configs.load(write_config(folder))
    model = engine.initialize(
        build_stage(1, config, 8), config, config.stage(1), 8, folder=folder, universal=False
    )
    checkpoints.save(model, folder / "stage1", Progress(done=1), alone, "")
    return model, folder / "stage1"


@pytest.mark.parametrize("pattern", ["rank_0.pt", "*model_states.pt", "*optim_states.pt"])
def test_a_payload_in_a_checkpoint_is_not_run(
    checkpoint: tuple[Any, Path], alone: engine.Ranks, tmp_path: Path, pattern: str
) -> None:
    model, folder = checkpoint
    stage, mark = tmp_path / "stage1", tmp_path / "executed"
    shutil.copytree(folder, stage)
    tag, _, _ = checkpoints.latest(stage, "") or pytest.fail("not found")
    checkpoints.restore(model, stage, tag, alone)
    (path,) = (stage / "checkpoints" / tag).glob(pattern)
    content = torch.load(path, map_location="cpu", weights_only=False)
    torch.save(content | {"more": Trap(mark)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    _sign(path.with_name("progress.json"), lambda facts: facts["files"].update({path.name: digest}))
    assert checkpoints.latest(stage, "")
    with pytest.raises(PcamxError, match="holds more than tensors and plain values") as caught:
        checkpoints.restore(model, stage, tag, alone)
    _one_clear_line(str(caught.value), tag)
    assert not mark.exists()

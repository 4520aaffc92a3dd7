"""Weights are used with the settings, stage and run that they were trained in, or refused."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import random_runs
import torch

from pcamx import config as configs
from pcamx import from_pretrained
from pcamx.errors import PcamxError
from pcamx.evaluation.measured_run import open_run
from pcamx.progress import silent
from pcamx.run.folder import RunFolder
from pcamx.run.weights import load_weights, save_weights
from pcamx.training.start_weights import read_start


def _run(folder: Path, config: Path) -> RunFolder:
    """A run whose weights know it and its settings, as training writes them."""
    run = RunFolder(random_runs.random_run(folder, config))
    settings = run.read_config()
    run.write_origin(Path(settings.data.store))
    for key in run.finished():
        weights = load_weights(run.weights(key))
        known = {"run": run.id(), "config": configs.as_tree(settings)}
        save_weights(run.weights(key), dataclasses.replace(weights, **known))
    return run


@pytest.fixture(name="made", scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory, write_config: Any) -> Path:
    folder = tmp_path_factory.mktemp("made")
    return _run(folder / "run", write_config(folder)).path


@pytest.fixture(name="run")
def _one(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.chdir(tmp_path)
    return RunFolder(Path(shutil.copytree(made, tmp_path / "run")))


def _change(run: RunFolder, changes: dict[str, Any]) -> None:
    run.config_file.write_text(configs.dump(configs.changed(run.read_config(), changes)))


def _measured(run: RunFolder) -> object:
    return open_run(run.path, None, "valid", silent, print)


READERS = {"explain and export": lambda run: from_pretrained(run.path), "evaluate": _measured}


def _read(run: RunFolder) -> list[object]:
    """Hold what readers get against the weights' files themselves; return the stages measured."""
    state = load_weights(run.weights(3)).state
    explained = from_pretrained(run.path, device="cpu").network.state_dict()
    assert all(torch.equal(explained[name], value) for name, value in state.items())
    measured = open_run(run.path, None, "valid", silent, print).weights
    assert all(torch.equal(measured[-1].state[name], value) for name, value in state.items())
    return [weights.stage for weights in measured]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.canvas", 48),
        ("run.seed", 5),
        ("data.marked", 5),
        ("attention.omega", 9.0),
        ("stages.stage3.epochs", 3),
        ("runtime.precision", "fp32"),
    ],
)
def test_a_changed_setting_is_named(run: RunFolder, reader: str, key: str, value: Any) -> None:
    READERS[reader](run)
    _change(run, {key: value})
    said = (
        rf"config\.yaml: changed since stage \d was trained \({key}: {value!r} here, .*; put back"
    )
    with pytest.raises(PcamxError, match=said):
        READERS[reader](run)


@pytest.mark.parametrize(
    "changes",
    [
        {"data.threads": 2, "data.cache": "elsewhere", "data.feed": "stream", "data.watched": 3},
        {"runtime.timeout": 300.0, "runtime.log_every": 5, "runtime.save_every": 9},
        {"run.folder": "moved", "runtime.impl": "reference"},
        {"stages.segmenter": {"epochs": 3}},
        {"model.mirrored": True},
        {"deepspeed.tensorboard.enabled": True},
    ],
)
def test_what_may_change_within_a_run_may(run: RunFolder, changes: dict[str, Any]) -> None:
    _change(run, changes)
    assert _read(run) == [1, 2, 3]


def test_a_later_stage_may_have_other_settings_than_an_earlier_one_knew(run: RunFolder) -> None:
    _change(run, {"stages.stage3.epochs": 9})
    assert run.load_weights(1).stage == 1 and run.load_weights(2).stage == 2


def test_the_store_may_move(run: RunFolder, store_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(store_folder, tmp_path / "moved")
    _change(run, {"data.store": str(tmp_path / "moved")})
    assert _read(run) == [1, 2, 3]
    assert open_run(run.path, None, "valid", silent, print).store.folder == tmp_path / "moved"


def test_settings_of_an_earlier_version_are_read(run: RunFolder) -> None:
    """A key that has another place since: in the weights as in config.yaml."""
    for key in run.finished():
        weights = load_weights(run.weights(key))
        tree = weights.config
        assert tree is not None
        tree["model"]["layout"] = tree["model"].pop("encoder")
        del tree["runtime"]["timeout"]
        save_weights(run.weights(key), weights)
    assert run.load_weights(3).stage == 3


def test_settings_of_a_later_version_are_said_to_be(run: RunFolder) -> None:
    weights = load_weights(run.weights(3))
    save_weights(run.weights(3), dataclasses.replace(weights, config={"optics": {"lens": 5}}))
    with pytest.raises(PcamxError, match=r"weights\.pt: settings of another version .*key optics"):
        run.load_weights(3)


@pytest.mark.parametrize("reader", READERS)
def test_without_its_origin_nobody_knows_whose_weights_they_are(
    run: RunFolder, reader: str
) -> None:
    run.origin_file.unlink()
    with pytest.raises(
        PcamxError, match=r"origin\.json: not there, so nothing says whether .*rest"
    ):
        READERS[reader](run)


def test_a_stage_starts_from_its_own_runs_weights(
    run: RunFolder, tmp_path: Path, write_config: Any
) -> None:
    config = configs.changed(run.read_config(), {"run.folder": str(run.path)})
    start = run.weights(1)
    assert read_start(start, config, 2).stage == 1
    own = start.read_bytes()
    shutil.copy(run.weights(2), start)
    with pytest.raises(PcamxError, match=r"stage1/weights\.pt: weights of 2, not of 1; restore"):
        read_start(start, config, 2)
    other = _run(tmp_path / "other", write_config(tmp_path / "two"))
    shutil.copy(other.weights(1), start)
    with pytest.raises(PcamxError, match=r"stage1/weights\.pt: weights of another run; restore"):
        read_start(start, config, 2)
    start.write_bytes(own)
    elsewhere = {"stages.stage2.init_from": str(other.weights(1))}  # on purpose
    assert read_start(other.weights(1), configs.changed(config, elsewhere), 2).run == other.id()

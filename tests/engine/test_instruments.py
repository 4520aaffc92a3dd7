"""DeepSpeed's own instruments, set from the config: what they write, and that nothing else changes.

One run of stage 2 with all of them on and one without: an epoch is 4 steps.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import processes
import pytest
import torch

from pcamx import config as configs
from pcamx.data.store import read_store
from pcamx.errors import PcamxError
from pcamx.run.bound import FREE
from pcamx.run.weights import load_weights
from pcamx.training import preflight

ON = {
    "deepspeed.flops_profiler": {"enabled": True, "profile_step": 2, "module_depth": 2},
    "deepspeed.csv_monitor.enabled": True,
    "deepspeed.tensorboard.enabled": True,
    "deepspeed.wandb": {"enabled": True, "project": "films"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, write_config: Any) -> Path:
    """The folder of a run with all instruments, and of one without beside it."""
    folder = tmp_path_factory.mktemp("instruments")
    scratch = {"stages.stage2.init_from": "scratch", "runtime.log_every": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        processes.train(1, write_config(folder / "with", scratch | ON), 2).ok()
    processes.train(1, write_config(folder / "without", scratch), 2).ok()
    return folder / "with/run"


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_csv_monitor_has_the_figures_of_the_log(run: Path) -> None:
    logged = [line for line in lines_of(run) if line["kind"] == "train"]
    assert [line["step"] for line in logged] == [2, 3, 4, 6, 8]  # 3 and 6 are checkpoints
    for name in ("l1", "l2", "lam", "p", "area"):
        with (run / f"stage2/csv_monitor/train_{name}.csv").open(newline="") as file:
            rows = list(csv.reader(file))
        assert rows[0] == ["step", name]
        found = [(int(seen), float(value)) for seen, value in rows[1:]]
        assert found == [(8 * line["step"], line[name]) for line in logged]
    assert (run / "stage2/csv_monitor/valid_auroc.csv").is_file()


def test_tensorboard_has_them_too(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "stage2/tensorboard")).Reload()
    logged = [line for line in lines_of(run) if line["kind"] == "train"]
    values = [event.value for event in events.Scalars("train/l1")]
    assert values == pytest.approx([line["l1"] for line in logged], rel=1e-6)
    assert len(events.Scalars("Train/Samples/lr")) == 8


def test_weights_and_biases_has_them_too(run: Path) -> None:
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    assert not (run.parent / "wandb").exists()
    found: dict[str, list[float]] = {}
    for data in _wandb_records(file.read_bytes()):
        record = Record.FromString(data)
        if record.HasField("run"):
            assert (record.run.project, record.run.run_group) == ("films", "run")
        for item in record.history.item:
            found.setdefault(item.key or "/".join(item.nested_key), []).append(
                json.loads(item.value_json)
            )
    logged = [line for line in lines_of(run) if line["kind"] == "train"]
    assert found["train/l1"] == pytest.approx([line["l1"] for line in logged], rel=1e-6)
    assert len(found["Train/Samples/lr"]) == 8


def _wandb_records(data: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log: blocks of 32 kB, a head of 7 bytes before each piece."""
    place, whole = 7, b""  # of the file's own head
    while place + 7 <= len(data):
        if 2**15 - place % 2**15 < 7:
            place += 2**15 - place % 2**15
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last of several
            yield whole
            whole = b""


def test_flops_profiler_counts_both_passes(run: Path) -> None:
    text = (run / "stage2/flops.txt").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("fwd MACs per GPU"))
    # Stem and projections of a 32 px film by hand: 49 x 32 at 16 x 16, and so on down; 8 films.
    # The second pass takes the stem by phases, with 64 taps for 49.
    macs = (49 + 64) / 2 * 32 * 256
    sizes = [(32, 32, 64, 64, 1), (32, 32, 64, 64, 0), (32, 64, 64, 16, 1), (64, 64, 16, 16, 0)]
    sizes += [(64, 128, 16, 4, 1), (128, 128, 4, 4, 0), (128, 128, 4, 4, 0)]
    for inputs, outputs, before, after, projected in sizes:
        projected = projected and inputs != outputs
        macs += inputs * outputs * (before + projected * after)
        macs += outputs * outputs * (9 * after + after)
    macs += 2 * 128
    counted = float(line.split()[-2]) * {"MMACs": 1e6, "GMACs": 1e9}[line.split()[-1]]
    assert counted == pytest.approx(2 * 8 * macs, rel=0.01)


def test_training_is_the_same_with_them(run: Path) -> None:
    ours, theirs = (
        load_weights(folder / "stage2/weights.pt")
        for folder in (run, run.parents[1] / "without/run")
    )
    assert all(torch.equal(value, theirs.state[name]) for name, value in ours.state.items())


def test_they_may_change_within_a_run(run: Path) -> None:
    config = configs.load(run.parents[1] / "without/run.yaml")
    changed = configs.differences(configs.load(run / "config.yaml"), config)
    assert any(line.startswith("deepspeed.") for line in changed)
    assert all(line.startswith(FREE) for line in changed)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("zero_optimization", {"stage": 0}, "unknown key deepspeed.zero_optimization; known: "),
        ("train_batch_size", 4, "unknown key deepspeed.train_batch_size; known: flops_profiler"),
        ("autotuning.enabled", True, "unknown key deepspeed.autotuning; known: flops_profiler"),
        ("csv_monitr.enabled", True, "did you mean deepspeed.csv_monitor"),
        ("csv_monitor.enabled", "yes", "deepspeed.csv_monitor.enabled: 'yes' is not true or false"),
        ("csv_monitor.output_path", "/tmp", "unknown key deepspeed.csv_monitor.output_path"),
        ("flops_profiler.profile_step", 0, "deepspeed.flops_profiler.profile_step: 0 is outside"),
    ],
)
def test_nothing_else_of_deepspeed_is_reached(
    tmp_path: Path, write_config: Any, key: str, value: Any, said: str
) -> None:
    with pytest.raises(configs.ConfigError) as caught:
        configs.load(write_config(tmp_path, {f"deepspeed.{key}": value}))
    assert said in str(caught.value)


def test_profiler_of_a_compiled_stage(tmp_path: Path, write_config: Any) -> None:
    changes = {"deepspeed.flops_profiler.enabled": True, "runtime.compile": True}
    with pytest.raises(
        configs.ConfigError, match="flops_profiler.enabled: .* or runtime.compile to off"
    ):
        configs.load(write_config(tmp_path, changes))


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_monitor_that_is_missing(
    tmp_path: Path, write_config: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = configs.load(write_config(tmp_path, {f"deepspeed.{name}.enabled": True}))
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PcamxError, match=f"package {name} is missing; pip install 'pcamx.{name}"):
        preflight.check(config, read_store(Path(config.data.store)), [1], world=1, resume=False)


def test_weights_and_biases_without_a_key(
    tmp_path: Path, write_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configs.load(write_config(tmp_path, {"deepspeed.wandb.enabled": True}))
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(PcamxError, match="knows no key here; run wandb login, or set WANDB_MODE"):
        preflight.check(config, read_store(Path(config.data.store)), [1], world=1, resume=False)

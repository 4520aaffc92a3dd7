"""A stopped or killed run goes on to the same bits, and a damaged checkpoint says so.

One epoch is 4 steps (stage 3: 5), two epochs are trained, a checkpoint is due every 3 steps.
"""

import dataclasses
import hashlib
import json
import os
import pickle
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import processes
import pytest
import torch
from payloads import Trap
from run_files import assert_same_bits, losses_of, steps_of

from pcamx import config as configs
from pcamx.engine import Ranks
from pcamx.errors import PcamxError
from pcamx.model.network import Network
from pcamx.output import write_text
from pcamx.run import checkpoints
from pcamx.run.checkpoints import Progress
from pcamx.run.weights import Weights, fill, load_start, load_weights
from pcamx.seals import SEAL, sealed, unsealed
from pcamx.training import preflight


def weights_of(run: Path, stage: int) -> Weights:
    return load_weights(run / f"stage{stage}/weights.pt")


class Case(NamedTuple):
    """One kind of run, trained through, and the same run stopped after 2 of its 8 steps."""

    stage: int
    straight: Path
    stopped: Path
    said: str


KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "stage 1, ZeRO-1, resident": (1, {"runtime.zero_stage": 1}),
    "stage 3, ZeRO-2, stream": (
        3,
        {"runtime.zero_stage": 2, "data.feed": "stream", "stages.stage3.init_from": "scratch"},
    ),
}


@pytest.fixture(scope="module", params=KINDS)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, write_config: Any
) -> Case:
    stage, changes = KINDS[request.param]
    folder = tmp_path_factory.mktemp("case")
    straight = write_config(folder / "straight", changes)
    processes.train(2, straight, stage).ok()
    stopped = write_config(folder / "stopped", changes)
    # Rank 1 alone is told: all must stop at the same step.
    ended = processes.train(2, stopped, stage, stop="1 0 1 SIGTERM")
    assert ended.codes == (130, 130), ended.text
    return Case(stage, straight.parent / "run", stopped.parent, ended.text)


@pytest.fixture
def stopped(case: Case, tmp_path: Path) -> Path:
    """The config of a copy of the stopped run."""
    shutil.copytree(case.stopped, tmp_path / "copy")
    return tmp_path / "copy/run.yaml"


def test_sigterm_saves_and_says_how_to_go_on(case: Case) -> None:
    said = [line for line in case.said.splitlines() if line.startswith("pcamx:")]
    assert len(said) == 1
    assert "epoch 1, after step 2; checkpoint saved; continue with: " in said[0]
    assert said[0].endswith(f"--stage {case.stage} --config run.yaml --resume")
    assert (
        case.stopped / f"run/stage{case.stage}/checkpoints/latest"
    ).read_text() == "step00000002"
    assert "Traceback" not in case.said


def test_resume_after_sigterm_gives_the_same_bits(case: Case, stopped: Path) -> None:
    ended = processes.train(2, stopped, case.stage, "--resume").ok()
    run = stopped.parent / "run"
    assert "continues in epoch 1 after step 2" in ended.text
    assert_same_bits(weights_of(run, case.stage), weights_of(case.straight, case.stage))
    assert steps_of(run, case.stage) == steps_of(case.straight, case.stage)
    assert steps_of(run, case.stage) == list(range(1, len(steps_of(run, case.stage)) + 1))


def test_resume_after_kill_gives_the_same_bits(case: Case, stopped: Path) -> None:
    # Killed at the eighth step; step 6 is the newest checkpoint, and step 7 is logged already.
    epoch, step = (1, 3) if case.stage == 1 else (1, 2)
    killed = processes.train(2, stopped, case.stage, "--resume", stop=f"1 {epoch} {step} SIGKILL")
    assert killed.codes[1] == -9
    assert (
        "error: another rank has ended; see what it said, then continue with --resume"
        in killed.text
    )
    assert "Traceback" not in killed.text
    run = stopped.parent / "run"
    assert max(steps_of(run, case.stage)) == 7
    ended = processes.train(2, stopped, case.stage, "--resume").ok()
    assert "continues in epoch 2 after step" in ended.text
    assert_same_bits(weights_of(run, case.stage), weights_of(case.straight, case.stage))
    assert steps_of(run, case.stage) == steps_of(case.straight, case.stage)


def test_fewer_ranks_go_on_through_a_universal_checkpoint(case: Case, stopped: Path) -> None:
    run = stopped.parent / "run"
    # What a kill may leave: a half-written checkpoint of a later step.
    leftover = run / f"stage{case.stage}/checkpoints/step99999999"
    leftover.mkdir()
    ended = processes.train(1, stopped, case.stage, "--resume").ok()
    assert not leftover.exists()
    named = (leftover.parent / "latest").read_text()
    assert (leftover.parent / named / "progress.json").is_file()
    assert "after step 2, now on 1 ranks instead of 2" in ended.text
    assert steps_of(run, case.stage) == steps_of(case.straight, case.stage)
    assert weights_of(run, case.stage).world == 1
    assert all(loss < 6 for loss in losses_of(run, case.stage))
    assert not list((run / f"stage{case.stage}/checkpoints").glob("*universal*"))
    # Every step of this run counts batches, and P began at 1/2: a reset would show in both.
    state = weights_of(run, case.stage).state
    counted = [
        int(v) for k, v in state.items() if k.endswith("encoder.stem.0.1.num_batches_tracked")
    ]
    assert counted == [len(steps_of(run, case.stage))]


def test_another_number_of_ranks_without_zero(tmp_path: Path, write_config: Any) -> None:
    path = write_config(tmp_path, {"runtime.zero_stage": 0})
    assert processes.train(1, path, 1, stop="0 0 1 SIGINT").code == 130
    ended = processes.train(2, path, 1, "--resume").ok()
    assert "after step 2, now on 2 ranks instead of 1" in ended.text
    assert steps_of(tmp_path / "run", 1) == list(range(1, 9))


def test_resume_runs_no_code_of_a_checkpoint(stopped: Path, case: Case) -> None:
    root = stopped.parent / f"run/stage{case.stage}/checkpoints" / TAG
    mark = stopped.parent / "executed"
    (target,) = root.glob("*_0_*optim*")
    torch.save(Trap(mark), target)
    # Whoever plants code writes the digest to match.
    facts = json.loads((root / "progress.json").read_text())
    facts["files"][target.name] = hashlib.sha256(target.read_bytes()).hexdigest()
    (root / "progress.json").write_text(
        json.dumps(sealed({k: v for k, v in facts.items() if k != SEAL}))
    )
    # Alone, the checkpoint of two ranks is converted; case by case that is where it is read.
    world = 1 if case.stage == 1 else 2
    ended = processes.train(world, stopped, case.stage, "--resume")
    assert ended.code == 2, ended.text
    assert "Traceback" not in ended.text and f"pcamx: error: run/stage{case.stage}" in ended.text
    assert not mark.exists()


def test_checkpoint_of_another_layout(tmp_path: Path, write_config: Any, case: Case) -> None:
    if case.stage == 3:
        return
    shutil.copytree(case.stopped / "run", tmp_path / "run")
    (tmp_path / "run/config.yaml").unlink()
    ended = processes.train(2, write_config(tmp_path, {"model.encoder": "basic"}), 1, "--resume")
    assert ended.code == 2, ended.text
    assert "step00000002: it is of another config" in ended.text and "Traceback" not in ended.text


# What follows needs no process: a folder as `save` leaves it.


@pytest.fixture
def saved(case: Case, tmp_path: Path) -> Path:
    """A stage's folder with one whole checkpoint of two ranks."""
    shutil.copytree(case.stopped / "run", tmp_path / "run")
    return tmp_path / f"run/stage{case.stage}"


def latest(saved: Path) -> tuple[str, Progress, int] | None:
    """The checkpoint that its run's own settings ask for."""
    config, stage = configs.load(saved.parent / "config.yaml"), int(saved.name[-1])
    return checkpoints.latest(saved, preflight.binding_digest(config, stage))


TAG = "step00000002"


def test_whole_checkpoint(saved: Path) -> None:
    tag, progress, world = latest(saved) or pytest.fail("not found")
    assert (tag, world) == (TAG, 2)
    assert (progress.epoch, progress.step, progress.done) == (0, 2, 2)
    assert progress.seconds > 0


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert checkpoints.latest(tmp_path, "") is None


@pytest.mark.parametrize("pattern", ["rank_1.pt", "mp_rank_00_model_states.pt", "*_1_*optim*"])
def test_missing_file_is_named(saved: Path, pattern: str) -> None:
    (lost,) = (saved / "checkpoints" / TAG).glob(pattern)
    lost.unlink()
    with pytest.raises(PcamxError, match=f"{TAG}: {lost.name} is missing; remove .*checkpoints"):
        latest(saved)


@pytest.mark.parametrize("pattern", ["rank_1.pt", "mp_rank_00_model_states.pt", "*_1_*optim*"])
def test_one_changed_byte_is_found(saved: Path, pattern: str) -> None:
    (hurt,) = (saved / "checkpoints" / TAG).glob(pattern)
    content = bytearray(hurt.read_bytes())
    content[len(content) // 2] ^= 1
    hurt.write_bytes(content)
    with pytest.raises(PcamxError, match=f"{TAG}: {hurt.name} is damaged"):
        latest(saved)


def test_latest_that_points_nowhere_names_another(saved: Path) -> None:
    (saved / "checkpoints/latest").write_text("step00000009")
    with pytest.raises(PcamxError, match=f"step00000009: .* cannot be read; write {TAG} into"):
        latest(saved)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{}", b"[1]", b'{"world": 2, "files": 3}'])
def test_damaged_progress(saved: Path, content: bytes) -> None:
    (saved / "checkpoints" / TAG / "progress.json").write_bytes(content)
    with pytest.raises(PcamxError, match=f"{TAG}: its progress.json cannot be read"):
        latest(saved)


def test_one_changed_bit_of_progress_is_found(saved: Path) -> None:
    path = saved / "checkpoints" / TAG / "progress.json"
    content = path.read_bytes()
    for place in range(0, len(content), 29):
        hurt = bytearray(content)
        hurt[place] ^= 1 << place % 7
        path.write_bytes(hurt)
        try:
            same = json.loads(hurt) == json.loads(content)  # a blank between two keys
        except ValueError:
            same = False
        if not same:
            with pytest.raises(PcamxError, match="progress.json cannot be read"):
                latest(saved)
    path.write_bytes(content)
    assert latest(saved)


def test_checkpoint_of_another_stage_run_or_config(saved: Path) -> None:
    other = saved.with_name("stage2")
    shutil.copytree(saved, other)
    with pytest.raises(PcamxError, match=f"{TAG}: it is of another stage"):
        latest(other)
    config = saved.parent / "config.yaml"
    before = config.read_text()
    config.write_text(before.replace("weight_decay: 0.01", "weight_decay: 0.02"))
    with pytest.raises(PcamxError, match=f"{TAG}: it is of another config"):
        latest(saved)
    config.write_text(before.replace("log_every: 1", "log_every: 2"))  # which changes no figure
    assert latest(saved)
    origin = saved.parent / "origin.json"
    facts = unsealed(json.loads(origin.read_text())) | {"run": "0" * 32}
    origin.write_text(json.dumps(sealed(facts)))
    with pytest.raises(PcamxError, match=f"{TAG}: it is of another run"):
        latest(saved)
    origin.write_text(json.dumps(facts | {"self_sha256": "0"}))
    with pytest.raises(PcamxError, match="origin.json: damaged"):
        latest(saved)


@pytest.mark.parametrize("earlier", [False, True])
def test_checkpoint_of_a_run_whose_store_has_moved(saved: Path, earlier: bool) -> None:
    config, stage = configs.load(saved.parent / "config.yaml"), int(saved.name[-1])
    path = saved / "checkpoints" / TAG / "progress.json"
    if earlier:  # to which the store's name was a setting
        digest = preflight.binding_digest(config, stage, store=config.data.store)
        facts = unsealed(json.loads(path.read_text())) | {"config": digest}
        path.write_text(json.dumps(sealed(facts)))
    moved = {"data.store": "elsewhere", "run.folder": str(saved.parent)}
    assert preflight.last_checkpoint(configs.changed(config, moved), stage)
    other = configs.changed(config, moved | {"runtime.weight_decay": 0.02})
    with pytest.raises(PcamxError, match="it is of another config"):
        preflight.last_checkpoint(other, stage)


def test_the_digest_of_an_earlier_pcamx() -> None:
    """As commit 1aa60e5 computed it."""
    config = configs.Config(
        run=configs.Run(folder="run"),
        data=configs.Data(store="store"),
        stages={f"stage{n}": configs.Stage(epochs=1) for n in (1, 2, 3)},
        runtime=configs.Runtime(batch_size=8),
    )
    before = "eea99b9c772306163d665074b69a9af04562142036d646f945d51b0ce1d2e542"
    assert preflight.binding_digest(config, 1, store="store") == before
    assert preflight.binding_digest(config, 1) != before


def test_an_old_checkpoint_that_cannot_go_costs_no_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Engine:
        module = torch.nn.BatchNorm2d(1)

        def save_checkpoint(self, root: str, tag: str, save_latest: bool) -> None:
            Path(root, tag).mkdir(parents=True)

        def zero_optimization_stage(self) -> int:
            return 0

    real = shutil.rmtree

    def rmtree(path: Path, ignore_errors: bool = False) -> None:
        if path.name != "step00000001":
            real(path, ignore_errors=ignore_errors)
        elif not ignore_errors:
            raise OSError(39, "Directory not empty")

    monkeypatch.setattr(checkpoints.dist, "barrier", lambda: None)
    monkeypatch.setattr(checkpoints.shutil, "rmtree", rmtree)
    folder = tmp_path / "stage1"
    for done in (1, 2, 3):
        progress = Progress(done=done)
        checkpoints.save(Engine(), folder, progress, Ranks(0, 1, torch.device("cpu")), "")
    assert checkpoints.latest(folder, "") == ("step00000003", progress, 1)


def test_what_a_killed_writer_left_goes_with_the_next_try(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    dead = subprocess.Popen(["true"])
    dead.wait()
    here = f".weights.pt.{socket.gethostname()}"
    (tmp_path / f"{here}.{dead.pid}.tmp").write_bytes(b"half")
    (tmp_path / f"{here}.{os.getppid()}.tmp").write_bytes(b"of one that lives")
    write_text(path, "whole")
    assert {p.name for p in tmp_path.iterdir()} == {path.name, f"{here}.{os.getppid()}.tmp"}


def test_weights_with_code_are_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    torch.save(Trap(mark), tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Trap(mark), protocol=2))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(PcamxError, match=f"{name}: not a stage's weights"):
            load_weights(tmp_path / name)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"text", {"state": 1}, [1], torch.zeros(3)])
def test_weights_that_are_something_else(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(PcamxError, match="not a stage's weights .*; expected a weights.pt"):
        load_weights(path)


def test_weights_of_another_encoder(finished_run: Path, write_config: Any, tmp_path: Path) -> None:
    config = configs.load(write_config(tmp_path, {"model.encoder": "basic"}))
    path = finished_run / "stage1/weights.pt"
    with pytest.raises(PcamxError, match="weights of the encoder bottleneck, .* set model.encoder"):
        load_start(path, config, 2)
    with pytest.raises(PcamxError, match="weights of the encoder bottleneck, .* set model.encoder"):
        network = Network(config, decoder=False)
        fill(network, load_weights(path), path, encoder="basic")


def test_weights_of_another_pooling(finished_run: Path, write_config: Any, tmp_path: Path) -> None:
    """Its head answers to other features, and P would be that of another classifier."""
    config = configs.load(write_config(tmp_path, {"model.pooling": "top"}))
    with pytest.raises(PcamxError, match="weights of the pooling mean, the config says top; set"):
        load_start(finished_run / "stage1/weights.pt", config, 2)


def test_weights_whose_shapes_differ(finished_run: Path, write_config: Any, tmp_path: Path) -> None:
    config = configs.load(write_config(tmp_path))
    path = finished_run / "stage1/weights.pt"
    weights = load_weights(path)
    name = next(iter(weights.state))
    changed = dataclasses.replace(weights, state=weights.state | {name: torch.zeros(2)})
    with pytest.raises(PcamxError, match="weights of another model"):
        fill(Network(config, decoder=False), changed, path, encoder="bottleneck")


def test_write_text_leaves_the_old_file_when_it_cannot(tmp_path: Path) -> None:
    path = tmp_path / "latest"
    write_text(path, "old")
    (tmp_path / f".latest.{socket.gethostname()}.{os.getpid()}.tmp").mkdir()
    with pytest.raises(PcamxError, match="cannot write .*latest: Is a directory"):
        write_text(path, "new")
    assert path.read_text() == "old"


def test_progress_starts_at_nothing() -> None:
    assert dataclasses.astuple(Progress()) == (0, 0, 0, 0.0)

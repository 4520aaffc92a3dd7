"""The launchers a person uses: deepspeed, torchrun and plain python."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import processes
import pytest
import stores
import torch

from pcamx.config import load
from pcamx.run.weights import load_weights
from pcamx.training.command import train_command


def test_deepspeed_trains_all_stages(finished_run: Path) -> None:
    """On two ranks, from another working directory, with paths relative to that."""
    folder = finished_run.parent
    said = folder.with_suffix(".txt").read_text()
    assert "stage 3" in said and "Traceback" not in said and "Warning" not in said
    for stage in (1, 2, 3):
        weights = load_weights(folder / f"run/stage{stage}/weights.pt")
        assert (weights.stage, weights.world) == (stage, 2)
        assert weights.seconds > 0
    weights = load_weights(folder / "run/segmenter/weights.pt")
    assert (weights.stage, weights.world, weights.accuracy) == ("segmenter", 2, None)
    assert {name.partition(".")[0] for name in weights.state} == {"encoder", "decoder"}
    assert sorted(p.name for p in folder.iterdir()) == ["run", "run.yaml"]


def test_p_is_carried_into_the_next_stage(finished_run: Path) -> None:
    run = finished_run
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = {n: [x for x in lines if (x["kind"], x["stage"]) == ("train", n)] for n in (1, 2, 3)}
    for stage in (1, 2, 3):
        # Nothing after the last step, validation least of all, has changed P.
        weights = load_weights(run / f"stage{stage}/weights.pt")
        assert weights.accuracy == steps[stage][-1]["p"]
    for stage in (2, 3):
        # A batch of 8 of the 32 films moves P by a quarter of the way to the batch's accuracy.
        before = load_weights(run / f"stage{stage - 1}/weights.pt").accuracy
        right = (steps[stage][0]["p"] - 0.75 * before) / 0.25 * 8
        assert abs(right - round(right)) < 1e-9
        assert 0 <= round(right) <= 8
        # Lambda of the first step comes from that P: (e^q - 1) / (e - 1), q = 2 P - 1.
        q = min(max(2 * before - 1, 0), 1)
        assert abs(steps[stage][0]["lam"] - (2.718281828459045**q - 1) / 1.718281828459045) < 1e-6


def test_ctrl_c_under_deepspeed(tmp_path: Path, write_config: Any) -> None:
    stop = {"PCAMX_TEST_STOP": "0 0 2 SIGINT group"}
    ended = processes.deepspeed(2, processes.DRIVE, "all", write_config(tmp_path), **stop)
    assert ended.code != 0
    assert (tmp_path / "run/stage1/checkpoints/latest").read_text() == "step00000003"
    said = [line for line in ended.text.splitlines() if line.startswith("pcamx:")]
    assert said == [
        "pcamx: stopped in stage 1, epoch 1, after step 3; checkpoint saved; continue with: "
        f"deepspeed --num_gpus 2 {processes.TRAIN} --stage all --config run.yaml --resume"
    ]


def test_plain_python_alone_resumes_and_ends(tmp_path: Path, write_config: Any) -> None:
    """No launcher, no MPI; stopped at the end of an epoch, then continued, then nothing to do."""
    write_config(tmp_path)
    words = ("--stage", 1, "--config", "run.yaml")
    env = {"PCAMX_TEST_STOP": "0 0 3 SIGINT"}
    stopped = processes.python(processes.DRIVE, *words, cwd=tmp_path, **env)
    assert stopped.code == 130
    assert f"continue with: python {processes.TRAIN} --stage 1 --config" in stopped.text
    assert "stage 1, epoch 1, after validation; checkpoint saved" in stopped.text
    again = (processes.TRAIN, *words, "--resume")
    processes.python(*again, cwd=tmp_path).ok()
    lines = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines if x["kind"] == "train"] == list(range(1, 9))
    assert [(x["epoch"], x["step"]) for x in lines if x["kind"] == "valid"] == [(1, 4), (2, 8)]
    # One-cycle: a tenth of the peak at the first step, the peak after a fifth of the eight.
    assert abs(lines[0]["lr"] - 1e-4) < 1e-12
    done = processes.python(*again, cwd=tmp_path).ok()
    assert "stage 1 is finished" in done.text


@pytest.mark.parametrize("stop", ["raise KeyboardInterrupt", "os.kill(os.getpid(), 15)"])
def test_ctrl_c_before_training_began(tmp_path: Path, write_config: Any, stop: str) -> None:
    write_config(tmp_path)
    code = (
        "import os, runpy, sys, pcamx.training.stage_run as t\n"
        f"def stop(*a, **k): {stop}\n"
        "t.open_feed = stop\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    words = ("-c", code, processes.TRAIN, "--stage", 1, "--config", "run.yaml")
    ended = processes.python(*words, cwd=tmp_path)
    assert ended.code == 130
    assert ended.text.splitlines()[-1] == "pcamx: stopped before training began"
    assert "Traceback" not in ended.text
    assert not (tmp_path / "run").exists()


def test_a_stop_between_two_stages_says_how_to_go_on(
    write_config: Any, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    config = load(write_config(tmp_path, {"run.folder": str(tmp_path / "run")}))

    def stop(*_: object, **__: object) -> None:
        (tmp_path / "run/stage1").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr("pcamx.training.trainer._train", stop)
    monkeypatch.setattr("pcamx.training.trainer.joined", lambda *_: nullcontext((None, None)))
    assert train_command(lambda: config, "all", resume=False, again="so") == 130
    assert capsys.readouterr().err == "pcamx: stopped; continue with: so\n"


def test_a_mistake_under_deepspeed_is_one_line(tmp_path: Path, write_config: Any) -> None:
    """The launcher ends the rank that waits while rank 0 speaks for both."""
    config = write_config(tmp_path, {"runtime.batchsize": 8})
    ended = processes.deepspeed(2, processes.TRAIN, 1, config)
    said = [line for line in ended.text.splitlines() if line.startswith("pcamx:")]
    assert ended.code == 2 and "Traceback" not in ended.text, ended.text
    assert len(said) == 1 and "batchsize" in said[0]


@pytest.mark.parametrize("words", [("--stage", "1", "--config", "no.yaml"), ("--stage", "9")])
def test_a_rank_that_waits_is_ended_without_a_word(words: tuple[str, ...], tmp_path: Path) -> None:
    code = (
        "import runpy, sys, time\n"
        "def stop(_): raise KeyboardInterrupt\n"
        "time.sleep = stop\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    ended = processes.python("-c", code, processes.TRAIN, *words, cwd=tmp_path, RANK="1")
    assert (ended.code, ended.text) == (2, "")


def test_a_missing_package_is_one_line(capsys: Any) -> None:
    def read() -> Any:
        raise ModuleNotFoundError("No module named 'deepspeed'", name="deepspeed")

    assert train_command(read, "1", resume=False, again="") == 2
    assert "this needs deepspeed, which is missing: pip install" in capsys.readouterr().err


def test_help_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import runpy, sys\n"
        "sys.modules['torch'] = None\n"
        "sys.argv = [sys.argv[1], '--help']\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(processes.TRAIN)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert "--stage" in done.stdout


def test_zero_3_validates_where_the_ranks_have_unequal_shares(
    tmp_path: Path, write_config: Any, store_folder: Path
) -> None:
    shutil.copytree(store_folder, tmp_path / "store")
    kept = iter(range(1000))
    stores.change(
        tmp_path / "store",
        lambda row: None if row["split"] == "valid" and next(kept) >= 9 else row,
    )
    # 5 and 4 films in batches of 4: two batches on one rank, one on the other.
    changes = {"data.store": str(tmp_path / "store"), "runtime.zero_stage": 3}
    processes.train(2, write_config(tmp_path, changes | {"stages.stage1.epochs": 1}), 1).ok()
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["kind"] == "valid" and 0 <= json.loads(lines[-1])["accuracy"] <= 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_triton_without_a_gpu_is_said_before_stage_1(tmp_path: Path, write_config: Any) -> None:
    ended = processes.train(1, write_config(tmp_path, {"runtime.impl": "triton"}), "all")
    assert ended.code == 2 and not (tmp_path / "run").exists()
    assert "pcamx: error: runtime.impl: triton needs an NVIDIA GPU" in ended.text

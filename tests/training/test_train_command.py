"""`pcamx train`: the same training as launch/train.py, from an installed package."""

import argparse
import json
import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import processes
import pytest
import stores

from pcamx import cli
from pcamx.cli import train
from pcamx.config import load
from pcamx.engine import watch
from pcamx.errors import PcamxError


def test_one_process_trains_stops_and_resumes(tmp_path: Path, write_config: Any) -> None:
    """From another folder than the project, with changed keys, which the run's config has."""
    write_config(tmp_path)
    words = ("train", "run.yaml", "--stage", "1", "--gpus", 1)
    words += ("--set", "stages.stage1.epochs=1", "stages.stage1.lr=2e-3")
    processes.python("-m", "pcamx", *words, cwd=tmp_path).ok()
    lines = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines if x["kind"] == "train"] == [1, 2, 3, 4]
    config = load(tmp_path / "run/config.yaml")
    assert (config.stage(1).epochs, config.stage(1).lr) == (1, 2e-3)
    again = processes.python("-m", "pcamx", *words, cwd=tmp_path)
    assert again.code == 2
    said = [line for line in again.text.splitlines() if line.startswith("pcamx: error:")]
    assert len(said) == 1 and "already holds stage 1: add --resume" in said[0]
    done = processes.python("-m", "pcamx", *words, "--resume", cwd=tmp_path).ok()
    assert "stage 1 is finished" in done.text


def test_two_processes_under_deepspeed(tmp_path: Path, write_config: Any) -> None:
    write_config(tmp_path)
    words = ("train", "run.yaml", "--stage", "1", "--gpus", 2, "--set", "stages.stage1.epochs=1")
    ended = processes.command(
        *(sys.executable, "-m", "pcamx", *words), cwd=tmp_path, PYTHONPATH=str(processes.PROJECT)
    ).ok()
    assert "Traceback" not in ended.text
    lines = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert len([x for x in lines if x["kind"] == "train"]) == 4
    from pcamx.run.weights import load_weights

    assert load_weights(tmp_path / "run/stage1/weights.pt").world == 2


def test_all_of_a_store_without_marks_and_its_report(
    tmp_path: Path, write_config: Any, store_folder: Path
) -> None:
    """What learns from marks waits, and the last of three commands has written the report."""
    shutil.copytree(store_folder, tmp_path / "store")
    stores.change(tmp_path / "store", lambda row: row | {"mark": ""})
    write_config(tmp_path, {"data.store": "store", "stages.segmenter": {"epochs": 1}})
    words = ["-m", "pcamx", "train", "run.yaml", "--stage", "all"]
    words += ["--set", "stages.stage1.epochs=1", "stages.stage2.epochs=1"]
    said = processes.python(*words, cwd=tmp_path).ok().text
    assert "no training film of store is marked, so stage 3 and segmenter must wait" in said
    assert (tmp_path / "run/report.html").is_file()
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert (list(report["stages"]), report["unfinished"]) == (["1", "2"], [])
    assert not {"stage3", "segmenter"} & {path.name for path in (tmp_path / "run").iterdir()}


@pytest.mark.parametrize(
    ("stage", "rank", "code", "expected"),
    [
        ("all", "0", 0, [Path("run")]),
        ("all", "1", 0, []),
        ("2", "0", 0, []),
        ("all", "0", 130, []),
    ],
)
def test_the_first_process_measures_what_is_trained(
    tmp_path: Path,
    write_config: Any,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    rank: str,
    code: int,
    expected: list[Path],
) -> None:
    measured: list[Path] = []
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(train, "train_command", lambda *_, **__: code)
    monkeypatch.setattr(train, "leave", sys.exit)
    monkeypatch.setattr(train, "measure", measured.append)
    words = ["pcamx", "train", str(write_config(tmp_path)), "--stage", stage]
    monkeypatch.setattr(sys, "argv", words)
    with suppress(SystemExit):
        cli.main()
    assert measured == expected


def test_a_rank_that_waits_is_ended_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the launcher's SIGTERM, while rank 0 says the mistake for all."""

    def terminate(_: float) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("pcamx.training.command.time.sleep", terminate)
    monkeypatch.setattr(train, "leave", sys.exit)
    monkeypatch.setattr(sys, "argv", ["pcamx", "train", str(tmp_path / "no"), "--stage", "1"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert capsys.readouterr().err == ""


def test_the_watch_knows_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is killed, whom it started has another parent, and the ranks are to end."""
    words: list[str] = []
    monkeypatch.setattr("os.execv", lambda _, given: words.extend(given))
    options = argparse.Namespace(config="a.yaml", stage="1", set=[], resume=False)
    train._launch(2, options)
    monkeypatch.setenv("CROSS_SIZE", "1")
    monkeypatch.setattr(watch, "_parent", lambda _: 7)
    commands = [words, ["python", "/opt/bin/deepspeed", "a.py"], ["bash", "-c", "deepspeed a.py"]]
    commands.append(["python", "-m", "deepspeed.launcher.runner", "a.py"])
    found = []
    for command in commands:
        text = "\0".join(command).encode()
        monkeypatch.setattr(Path, "read_bytes", lambda _, text=text: text)
        found.append(watch._launchers() == [os.getppid(), 7])
    assert found == [True, True, False, True]


LAUNCHER = """
import os, signal, subprocess, sys
from deepspeed.launcher import runner
from pcamx.engine import launcher

CHILD = "import signal, sys; signal.signal(signal.SIGINT, lambda *_: sys.exit('written'));" \\
    "print('ready', flush=True); signal.pause()"

def main():
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE)
    child.stdout.readline()
    os.kill(os.getpid(), signal.SIGINT)
    sys.exit(child.wait())

runner.main = main
launcher.main()
"""


def test_ctrl_c_waits_for_the_ranks_without_a_traceback(tmp_path: Path) -> None:
    """Sent to the launcher alone; from a terminal its ranks get it as well."""
    ended = processes.command(
        sys.executable,
        "-c",
        LAUNCHER,
        cwd=tmp_path,
        PYTHONPATH=str(processes.PROJECT),
        DS_ACCELERATOR="cpu",
    )
    assert ended.code == 130 and ended.text == "written\n"


def test_how_many_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert (train._count(None), train._count(2)) == (1, 2)
    assert capsys.readouterr().out == "--gpus 2: no GPU is here, 2 processes share the CPU\n"
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert (train._count(None), train._count(2), train._count(4)) == (4, 2, 4)
    with pytest.raises(PcamxError, match="--gpus is 5: this machine has 4"):
        train._count(5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--set", "runtime.batchsize=4"),
            "--set unknown key runtime.batchsize; did you mean runtime.batch_size?",
        ),
        (("--set", "runtime.batch_size=four"), "runtime.batch_size: 'four' is not a whole number"),
        (("--set", "runtime.batch_size"), "write KEY=VALUE"),
        (("--gpus", "0"), "--gpus is 0: it must be 1 or more"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, write_config: Any, words: tuple[str, ...], message: str
) -> None:
    write_config(tmp_path)
    ended = processes.python(
        "-m", "pcamx", "train", "run.yaml", "--stage", "all", *words, cwd=tmp_path
    )
    assert ended.code == 2 and not (tmp_path / "run").exists()
    [line] = ended.text.splitlines()
    assert line.startswith("pcamx: error: ") and message in line

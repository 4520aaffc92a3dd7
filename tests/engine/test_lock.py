"""One process works in a run's folder; a port that is taken is said in a line."""

import errno
import fcntl
import importlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import processes
import pytest
import torch.distributed as dist

from pcamx.errors import PcamxError
from pcamx.evaluation.evaluate import evaluate
from pcamx.run.lock import NAME, FolderLock, Lock
from pcamx.training import process_group

HOLD = """
import pathlib, subprocess, sys
from pcamx.run.lock import FolderLock
with FolderLock(pathlib.Path(sys.argv[1])) as lock:
    if len(sys.argv) > 2:  # a rank that outlives whoever started it
        child = subprocess.Popen(["sleep", "60"], pass_fds=[lock.file], stdout=subprocess.DEVNULL)
        print(child.pid, flush=True)
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Another process that holds the folder's lock, and what it said before it did."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), *words],
        env=processes.environment(PYTHONPATH=str(processes.PROJECT)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        said = []
        while (line := process.stdout.readline().strip()) not in ("held", ""):
            said.append(line)
        try:
            yield process, said
        finally:
            process.kill()


def test_the_second_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with FolderLock(run):
        assert os.listdir(run) == [NAME]
        with pytest.raises(PcamxError) as caught, FolderLock(run):
            pass
        said = str(caught.value)
        assert said.startswith(f"{run} is in use by process {os.getpid()} on ") and "\n" not in said
        assert os.listdir(run) == [NAME]  # the refused one took nothing away
    assert not run.exists()
    with FolderLock(run):
        (run / "config.yaml").write_text("")
    assert os.listdir(run) == ["config.yaml"]


def test_a_killed_holder_blocks_nobody(tmp_path: Path) -> None:
    with held(tmp_path) as (process, _):
        with pytest.raises(PcamxError, match=f"in use by process {process.pid} on"):
            FolderLock(tmp_path).__enter__()
        process.kill()
        process.wait()
        assert (tmp_path / NAME).exists()
        with FolderLock(tmp_path):
            pass
    assert not tmp_path.exists()


def test_what_a_killed_process_started_keeps_the_lock(tmp_path: Path) -> None:
    with held(tmp_path, "child") as (process, (child,)):
        process.kill()
        process.wait()
        try:
            with pytest.raises(PcamxError, match="is in use by process"):
                FolderLock(tmp_path).__enter__()
        finally:
            os.kill(int(child), signal.SIGKILL)


def test_a_lock_on_a_file_that_was_removed_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder ends, and removes it, between another's opening and locking."""
    path, real, times = tmp_path / "lock", fcntl.flock, []

    def flock(file: int, how: int) -> None:
        if not times:
            path.unlink()
        times.append(file)
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with Lock(path) as lock:
        assert len(times) == 2 and lock.holder is None
        with Lock(path) as second:
            assert second.holder is not None and second.holder.startswith(f"{os.getpid()} on ")


def test_file_systems_without_locks_and_without_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(number: int) -> None:
        def flock(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)

    refuse(errno.ENOLCK)
    with FolderLock(tmp_path / "run"):
        pass
    refuse(errno.EIO)
    with pytest.raises(PcamxError, match=r"cannot lock .*run: Input/output error; make it"):
        FolderLock(tmp_path / "run").__enter__()
    (tmp_path / "file").write_text("")
    with pytest.raises(PcamxError, match=r"cannot lock .*file: "):
        FolderLock(tmp_path / "file").__enter__()


def test_a_full_disk_is_left_without_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(PcamxError, match="^cannot lock .*run: No space left on device"):
        FolderLock(tmp_path / "run").__enter__()
    assert not os.listdir(tmp_path)


def test_a_holder_that_is_not_utf_8(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        (tmp_path / NAME).write_bytes(b"7 on host\xff\n")
        with pytest.raises(PcamxError, match="in use by process 7 on host\ufffd, which"):
            FolderLock(tmp_path).__enter__()


def test_training_is_refused_on_every_rank_while_another_works_there(
    tmp_path: Path, write_config: Any
) -> None:
    config = write_config(tmp_path)
    with held(tmp_path / "run") as (process, _):
        ended = processes.train(2, config, 1)
    errors = [line for line in ended.text.splitlines() if line.startswith("pcamx: error: ")]
    assert ended.code == 2 and "Traceback" not in ended.text
    assert len(errors) == 1 and f"is in use by process {process.pid} on" in errors[0]
    assert os.listdir(tmp_path / "run") == [NAME]


def test_evaluation_is_refused_while_another_works_there(
    finished_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    before = sorted(run.rglob("*"))
    with held(run), pytest.raises(PcamxError, match="is in use by process"):
        evaluate(run)
    assert sorted(set(run.rglob("*")) - {run / NAME}) == before


@pytest.mark.parametrize("port", ["taken", "not a number"])
def test_a_port_that_cannot_be_had_is_one_line(
    tmp_path: Path, write_config: Any, port: str
) -> None:
    config = write_config(tmp_path)
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        number = str(taken.getsockname()[1]) if port == "taken" else "x"
        words = ("--stage", 1, "--config", config.name)
        ended = processes.ranks(1, *words, cwd=tmp_path, MASTER_PORT=number)
    assert ended.code == 2 and "Traceback" not in ended.text
    (line,) = [line for line in ended.text.splitlines() if line.startswith("pcamx: error: ")]
    what = f"port {number} on 127.0.0.1 is taken" if port == "taken" else "MASTER_PORT x"
    assert what in line and "--master_port" in line
    assert not (tmp_path / "run").exists()


def _meets(rank: int, port: int, folder: Path, where: str) -> None:
    """Rank 0 joins the group and ends, as if it were killed there; rank 1 says so in a line."""
    launched = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= launched | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if rank == 0 and where == "the store":
        dist.TCPStore("127.0.0.1", port, 2, is_master=True)  # returns once the other is there
        os._exit(0)
    if rank == 0:
        importlib.import_module(where).HostRanks = lambda: os._exit(0)
    with pytest.raises(PcamxError, match="another rank has ended before the training began[;,]"):
        with process_group.joined(folder, 60.0):
            pass
    (folder / "said").touch()


@pytest.mark.parametrize(
    "where", ["the store", "pcamx.training.process_group", "pcamx.engine.watch"]
)
def test_a_rank_that_ends_while_they_meet(tmp_path: Path, where: str) -> None:
    """Found by killing ranks at random."""
    processes.on_ranks(_meets, processes.free_port(), tmp_path, where)
    assert (tmp_path / "said").exists()

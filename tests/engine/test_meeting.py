"""Ranks that are missing, stopped or misdirected while all meet are named within the time-out."""

import os
import socket
from pathlib import Path
from typing import Any

import processes
import pytest

HASTY = """
import os, runpy, signal, sys
from pcamx.engine import meeting, watch
from pcamx.training import process_group
meeting._LEAST, meeting.PATIENCE = 1.0, 2.5
stopped = lambda *_: os.kill(os.getpid(), signal.SIGSTOP)
if (room := os.environ.get("STOP_IN")) == "engine":
    process_group.engine.start = stopped
elif room:
    sys.modules[room].HostRanks = stopped
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def meet(folder: Path, *ranks: dict[str, str], world: int = 2) -> processes.Ended:
    """Train on ``ranks``, each with an environment of its own, and two seconds to meet."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(processes.free_port())}
    shared["WORLD_SIZE"] = str(world)
    each = [
        processes.environment(RANK=str(rank), LOCAL_RANK=str(rank)) | shared | own
        for rank, own in enumerate(ranks)
    ]
    words = ("-c", HASTY, processes.TRAIN, "--stage", 1, "--config", "run.yaml")
    return processes.side_by_side(words, folder, each)


def error(ended: processes.Ended) -> str:
    """The one line that is said."""
    (line,) = [line for line in ended.text.splitlines() if line.startswith("pcamx: error:")]
    assert 2 in ended.codes and "Traceback" not in ended.text
    return line


@pytest.fixture
def folder(tmp_path: Path, write_config: Any) -> Path:
    write_config(tmp_path, {"runtime.timeout": 2})
    return tmp_path


def test_a_rank_that_was_not_started(folder: Path) -> None:
    said = error(meet(folder, {}, {}, world=4))
    assert "have not met at MASTER_ADDR 127.0.0.1, MASTER_PORT " in said
    assert "within 2 s: no sign of rank 2, rank 3 (not started" in said
    assert not (folder / "run").exists() or os.listdir(folder / "run") == [".lock"]


@pytest.mark.parametrize("wrong", ["port", "name"])
def test_a_rank_that_is_misdirected(wrong: str, folder: Path) -> None:
    """Another program has its port, and says nothing; nobody knows its host."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        own = {"MASTER_PORT": port} if wrong == "port" else {"MASTER_ADDR": "no.such.invalid"}
        # Rank 0 would say it for all; here it does not, and who is misdirected does.
        said = error(meet(folder, {"STOP_IN": "engine"}, own))
    reason = "another program has the port" if wrong == "port" else "that name is not known here"
    assert f"{own.popitem()[1]}" in said and reason in said


@pytest.mark.parametrize(
    ("rank", "room"),
    [(0, "pcamx.training.process_group"), (1, "pcamx.engine.watch")],
)
def test_a_rank_that_is_stopped(rank: int, room: str, folder: Path) -> None:
    ranks: list[dict[str, str]] = [{}, {}]
    ranks[rank] = {"STOP_IN": room}
    ended = meet(folder, *ranks)
    said = error(ended)
    if rank == 0:  # who keeps the address is not there to be asked
        assert (
            "rank 1 got no answer at MASTER_ADDR 127.0.0.1" in said and "rank 0 is stopped" in said
        )
    else:
        assert f"no sign of rank 1 on {os.uname().nodename} (process " in said
    assert ended.codes[1 - rank] == 2 and ended.codes[rank] == -9

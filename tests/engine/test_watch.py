"""A rank that stops, hangs or lies behind a cut cable is named, and all end; so does an orphan."""

import os
import time
from pathlib import Path
from typing import Any

import processes
import pytest

from pcamx import config as configs
from pcamx.engine import watch
from pcamx.engine.watch import LONG, Pulse, fault
from pcamx.run import checkpoints
from pcamx.training import preflight


def pulses(**changes: dict[str, Any]) -> dict[int, Pulse]:
    """Three ranks in step, heard at 90 s of our clock; ``r1={"heard": 1.0}`` changes rank 1."""
    found = {}
    for rank in range(3):
        facts: dict[str, Any] = {"doing": f"step {rank}", "heard": 90.0, "patience": 30.0}
        found[rank] = Pulse(f"host{rank}", 100 + rank, **(facts | changes.get(f"r{rank}", {})))
    return found


@pytest.mark.parametrize("meeting", ["127.0.0.1", "localhost"])
def test_one_host_listens_on_its_loopback_alone(
    monkeypatch: pytest.MonkeyPatch, meeting: str
) -> None:
    monkeypatch.setenv("MASTER_ADDR", meeting)
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert watch._interface() in {"127.0.0.1", "::1"}
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    assert watch._interface() == ""


def test_all_is_well() -> None:
    assert fault(pulses(), 0, 100.0, 30.0) == ("", set())


def test_who_does_not_answer_is_named_with_what_it_last_did() -> None:
    said, silent = fault(pulses(r2={"heard": 69.9}), 0, 100.0, 30.0)
    assert silent == {2}
    assert "no answer for 30 s" in said
    assert "rank 2 on host2 (process 102), last: step 2" in said and "rank 1" not in said


def test_behind_a_cut_all_of_the_other_side_are_named() -> None:
    said, silent = fault(pulses(r0={"heard": 1.0}, r1={"heard": 2.0}), 2, 100.0, 30.0)
    assert silent == {0, 1} and "rank 0 on host0" in said and "rank 1 on host1" in said


def test_who_was_never_heard_is_not_judged() -> None:
    """Datagrams may be blocked where training works."""
    assert fault(pulses(r2={"heard": None}), 0, 1e6, 2e6) == ("", set())


@pytest.mark.parametrize("timeout", [120.0, 3600.0])
def test_all_have_ended_by_half_of_the_time_out(timeout: float) -> None:
    """Even where the last pulse came late, is judged late, and the others wait to be ended."""
    late = 2 * watch._period(timeout) + watch.PATIENCE
    assert watch.silence_of(timeout) + late <= timeout / 2 - watch.PATIENCE  # the launcher's


def test_however_short_the_time_out_a_few_pulses_may_be_lost() -> None:
    for timeout in (1.0, 6.0, 60.0, 120.0, 1e6):
        assert watch.silence_of(timeout) > 10 * watch._period(timeout)


def test_nothing_gets_on() -> None:
    """Who has noted the least is waited for."""
    late = {"notes": 4, "idle": 31.0}
    waiting = {"notes": 5, "idle": 32.0}
    said, silent = fault(pulses(r0=waiting, r1=late, r2=waiting), 0, 100.0, 30.0)
    assert silent == set() and "nothing has got on for 31 s" in said
    assert "rank 1 on host1 (process 101), in: step 1" in said and "rank 0" not in said


@pytest.mark.parametrize("other", [{"idle": 1.0}, {"idle": 31.0, "patience": LONG}])
def test_one_that_gets_on_is_waited_for(other: dict[str, Any]) -> None:
    """One rank decodes, the others wait for it, however long."""
    waiting = {"idle": 1000.0}
    assert fault(pulses(r0=waiting, r1=other, r2=waiting), 0, 100.0, 30.0) == ("", set())


@pytest.fixture(scope="module")
def hasty(write_config: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config that waits for six seconds, or two."""
    path: Path = write_config(
        tmp_path_factory.mktemp("hasty"), {"runtime.timeout": 6, "runtime.save_every": 1}
    )
    return path


def errors(ended: processes.Ended) -> list[str]:
    return [line for line in ended.text.splitlines() if line.startswith("pcamx: error:")]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_stopped_rank_ends_all(rank: int, hasty: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(hasty.read_text())
    ended = processes.train(2, config, 1, stop=f"{rank} 0 2 SIGSTOP")
    (line,) = errors(ended)
    assert (
        f"no answer for 2.2 s (by runtime.timeout) from rank {rank} on {os.uname().nodename}"
        in line
    )
    assert "last: stage 1, " in line
    # The other kills it: a launcher's SIGTERM does not reach a stopped process.
    assert ended.codes[rank] == -9 and ended.codes[1 - rank] == 2
    assert "Traceback" not in ended.text
    digest = preflight.binding_digest(configs.load(config), 1)
    found = checkpoints.latest(tmp_path / "run/stage1", digest)
    assert found is not None and found[1].done >= 1


def test_a_rank_that_hangs_is_named(hasty: Path, tmp_path: Path) -> None:
    """All answer, and nothing gets on: as on a file system that has gone."""
    config = tmp_path / "run.yaml"
    config.write_text(hasty.read_text())
    ended = processes.train(2, config, 1, stop="1 0 2 HANG")
    (line,) = errors(ended)
    assert "nothing has got on for " in line and "rank 1 on " in line and "rank 0" not in line
    assert "in: stage 1, batch of step 3" in line and "Traceback" not in ended.text
    assert ended.code == 2


def test_a_killed_launcher_ends_its_ranks_with_a_checkpoint(hasty: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(hasty.read_text().replace("epochs: 2", "epochs: 100000"))
    begun = time.monotonic()
    processes.command(
        processes.BIN / "torchrun",
        *("--nproc_per_node", 2, "--master_port", processes.free_port()),
        *(processes.DRIVE, "--stage", 1, "--config", "run.yaml"),
        cwd=tmp_path,
        PCAMX_TEST_STOP="0 0 1 SIGKILL launcher",
    )  # returns when nobody holds its output any more
    assert time.monotonic() - begun < processes.LIMIT
    digest = preflight.binding_digest(configs.load(tmp_path / "run.yaml"), 1)
    assert checkpoints.latest(tmp_path / "run/stage1", digest) is not None

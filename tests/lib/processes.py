"""Start real processes as torchrun and deepspeed do, only faster, and wait for them.

Ranks are forked from a process that has imported everything (bench/lib/preload.py), one for each of
pytest's workers: a new Python takes longer to import than to train. `command` starts a new one.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from torch.multiprocessing.spawn import start_processes

from bench.lib import forked
from bench.lib.command import free_port
from bench.lib.forked import PROJECT

TRAIN = PROJECT / "launch/train.py"
DRIVE = PROJECT / "tests/lib/drive.py"
BIN = Path(sys.executable).parent
LIMIT = 240.0
GRACE = 1.5
"""Seconds between one rank's failure and the end of the others, about as launchers have it."""


@dataclass(frozen=True)
class Ended:
    """What became of the ranks of one run; ``code`` is the first failure's, else 0."""

    code: int
    codes: tuple[int, ...]
    text: str

    def ok(self) -> "Ended":
        assert self.code == 0, self.text
        return self


def environment(**more: str) -> dict[str, str]:
    """This process's, without what a launcher would have set, and with one thread a rank."""
    launched = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PYTHONPATH"}
    launched.add("TRITON_INTERPRET")  # set by conftest.py, for the tests' own process alone
    # CUDA_VISIBLE_DEVICES comes along, from conftest.py: "" unless the tests are about a GPU.
    kept = {k: v for k, v in os.environ.items() if k not in launched}
    # The launchers find python, and deepspeed its own parts, by the path.
    path = f"{BIN}:{os.environ.get('PATH', '')}"
    return kept | {"OMP_NUM_THREADS": "1", "PATH": path, "TERM": "dumb"} | more


def command(*words: object, cwd: Path, **env: str) -> Ended:
    """One command to its end."""
    done = subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        env=environment(**env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
        start_new_session=True,
    )
    return Ended(done.returncode, (done.returncode,), done.stdout)


def deepspeed(world: int, script: Path, stage: object, config: Path, **env: str) -> Ended:
    """``deepspeed script --stage stage`` on ``world`` ranks, in the folder of ``config``."""
    return command(
        BIN / "deepspeed",
        *("--num_gpus", world, "--master_port", free_port(), "--log_level", "error"),
        *(script, "--stage", stage, "--config", config.name),
        cwd=config.parent,
        **env,
    )


def side_by_side(
    words: Sequence[object], cwd: Path, environments: Sequence[dict[str, str]]
) -> Ended:
    """``python *words`` in each of ``environments`` side by side."""
    with tempfile.NamedTemporaryFile("r") as log:
        given, place = list(map(str, words)), Path(log.name)
        started = [forked.start(given, cwd, env, place) for env in environments]
        code = _wait(started)
        return Ended(code, tuple(process.exitcode for process in started), log.read())


def python(*words: object, cwd: Path, **env: str) -> Ended:
    """``python *words`` to its end, with a script, ``-m`` or ``-c``."""
    return side_by_side(words, cwd, [environment(**env)])


def ranks(world: int, *words: object, cwd: Path, stop: str = "", **env: str) -> Ended:
    """``python launch/train.py *words`` on ``world`` ranks; ``stop`` as drive.py takes it."""
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shared["PCAMX_TEST_STOP"] = stop
    each = [environment(RANK=str(r), LOCAL_RANK=str(r)) | shared | env for r in range(world)]
    return side_by_side([DRIVE if stop else TRAIN, *words], cwd, each)


def on_ranks(work: Callable[..., None], *given: object, world: int = 2) -> None:
    """``work(rank, *given)``, a function of a test file, on each of ``world`` ranks."""
    method = forked.context(environment()).get_start_method()
    start_processes(work, given, world, start_method=method)  # type: ignore[no-untyped-call]


def _wait(started: list[BaseProcess]) -> int:
    end, code = time.monotonic() + LIMIT, 0
    while any(p.exitcode is None for p in started):
        for process in started:
            process.join(timeout=0.05)
            if process.exitcode and not code:
                code, end = process.exitcode, time.monotonic() + GRACE
        if time.monotonic() > end:
            code = code or 124
            for process in started:
                process.kill()
    return code


def train(world: int, config: Path, stage: object, *words: str, stop: str = "") -> Ended:
    """Train ``stage`` of ``config``, a file in the working directory of the run."""
    return ranks(
        world, "--stage", stage, "--config", config.name, *words, cwd=config.parent, stop=stop
    )

"""Start real processes as torchrun and deepspeed do, only faster, and wait for them."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
TRAIN = PROJECT / "launch/train.py"
DRIVE = PROJECT / "tests/drive.py"
BIN = Path(sys.executable).parent
LIMIT = 240.0
GRACE = 3.0
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
    kept = {k: v for k, v in os.environ.items() if k not in launched}
    # The launchers find python, and deepspeed its own parts, by the path.
    path = f"{BIN}:{os.environ.get('PATH', '')}"
    return kept | {"OMP_NUM_THREADS": "1", "PATH": path, "TERM": "dumb"} | more


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


def ranks(world: int, *words: object, cwd: Path, stop: str = "", **env: str) -> Ended:
    """``python launch/train.py *words`` on ``world`` ranks; ``stop`` as tests/drive.py takes it."""
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    program = [sys.executable, str(DRIVE if stop else TRAIN), *map(str, words)]
    with tempfile.TemporaryFile("w+") as log:
        started = [
            subprocess.Popen(
                program,
                cwd=cwd,
                env=environment(RANK=str(r), LOCAL_RANK=str(r), PCAMX_TEST_STOP=stop)
                | shared
                | env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            for r in range(world)
        ]
        code = _wait(started)
        log.seek(0)
        return Ended(code, tuple(p.returncode for p in started), log.read())


def _wait(started: list[subprocess.Popen[bytes]]) -> int:
    end, code = time.monotonic() + LIMIT, 0
    while any(p.returncode is None for p in started):
        for process in started:
            try:
                process.wait(timeout=0.05)
            except subprocess.TimeoutExpired:
                continue
            if process.returncode and not code:
                code, end = process.returncode, time.monotonic() + GRACE
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

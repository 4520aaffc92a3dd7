"""One job to its end: its log, and a JSON that says what became of it."""

import json
import os
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.gpu.jobs import LIMIT, Job
from pcamx import provenance
from pcamx.output import write_text

PROJECT = Path(__file__).resolve().parents[2]
TAIL = 25  # lines of a failed job's log that the page shows


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a job; NAME.json beside NAME.log."""

    job: str
    command: list[str]
    commit: str | None
    code: int
    """The command's, or -1 where it took longer than `LIMIT`."""
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether it need not run again."""
        return self.code == 0


def done(job: Job, out: Path) -> Result | None:
    """Return what an earlier call left of the job, if it passed with this very command and code."""
    found, this = read(job.name, out), (job.command, provenance.commit())
    return found if found and found.passed and (found.command, found.commit) == this else None


def read(name: str, out: Path) -> Result | None:
    """Return a job's result; None where there is none that can be read."""
    try:
        return Result(**json.loads((out / f"{name}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def do(job: Job, out: Path, limit: float = LIMIT) -> Result:
    """Run the job and write its log and result; what it printed goes to the log alone."""
    start = time.monotonic()
    environment = os.environ | {"PYTHONUNBUFFERED": "1"} | job.environment
    with (out / f"{job.name}.log").open("wb") as log:
        process = subprocess.Popen(
            job.command, cwd=PROJECT, env=environment, stdout=log, stderr=log, process_group=0
        )
        try:
            code = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            _end(process)
    seconds = round(time.monotonic() - start, 1)
    result = Result(job.name, job.command, provenance.commit(), code, seconds)
    write_text(out / f"{job.name}.json", json.dumps(asdict(result), indent=1))
    return result


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the command with all that it has started."""
    try:
        os.killpg(process.pid, 9)
    except ProcessLookupError:
        return
    process.wait()


def tail(name: str, out: Path) -> list[str]:
    """Return the end of a job's log."""
    text = (out / f"{name}.log").read_text(encoding="utf-8", errors="replace")
    return text.splitlines()[-TAIL:]

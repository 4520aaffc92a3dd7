"""The runs of an ablation, one after the other: trained, resumed and evaluated by the commands.

Several runners may share one folder. A run in work is locked by the kernel (flock), and the
training process holds the lock as well: it goes when the last of the two has ended, however that
came about, so no lock is left behind by a killed runner and none is broken while its training
still writes.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from bench.ablation.grid import Job, starts_missing
from bench.lib.command import free_port
from pcamx import config as configs
from pcamx.catalogue import StageId, trainable
from pcamx.data.store import fingerprint
from pcamx.errors import PcamxError
from pcamx.output import write_text
from pcamx.progress import Say
from pcamx.report.numbers import duration
from pcamx.run.folder import RunFolder
from pcamx.run.lock import Lock
from pcamx.run.report import read_report

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
_WAIT = 2.0  # seconds between two looks at runs in work elsewhere


def finished(job: Job) -> bool:
    """Tell whether everything is trained and report.json measures it, on the twins asked for."""
    trained = all(_weights(job, stage).is_file() for stage in job.cell.train)
    run = RunFolder(job.folder)
    try:
        report = read_report(run)
    except PcamxError:
        return False
    measured = {*report["stages"], *report["baselines"]}
    twins = job.twins is None or report["data"].get("twins") == fingerprint(job.twins)
    return (
        trained and twins and run.films_file.is_file() and measured >= set(map(str, job.cell.train))
    )


def _weights(job: Job, stage: StageId) -> Path:
    return RunFolder(job.folder).weights(stage)


def run_jobs(jobs: Sequence[Job], ranks: int, say: Say) -> list[str]:
    """Bring every job to its end, in order; one line for each that failed.

    Each is tried once. Waits for jobs in work by another runner, which then count as done here.
    """
    pending, failed = [job for job in jobs if not finished(job)], list[str]()
    if done := len(jobs) - len(pending):
        say(f"{done} of {len(jobs)} runs are done")
    waited: set[str] = set()
    while pending:
        elsewhere = dict[str, str]()
        for job in pending:
            if starts_missing(job):
                continue
            with Lock(job.beside(".lock")) as lock:
                if lock.holder is not None:
                    elsewhere[job.name] = lock.holder
                    continue
                failed += [] if finished(job) else _bring_to_end(job, ranks, lock, say)
            pending.remove(job)
            break
        else:
            if not elsewhere:
                return failed + [_lacks_start(job) for job in pending]
            for name in elsewhere.keys() - waited:
                say(f"{name}: in work by process {elsewhere[name]}; waiting for it")
            waited |= elsewhere.keys()
            time.sleep(_WAIT)
    return failed


def _lacks_start(job: Job) -> str:
    return f"{job.name}: not begun, {starts_missing(job)[0]} is missing"


def _bring_to_end(job: Job, ranks: int, lock: Lock, say: Say) -> list[str]:
    """Train what is left and evaluate; the failure's line, if any."""
    write_text(job.beside(".yaml"), configs.dump(job.config))
    steps: list[tuple[str, Callable[[], list[object]]]] = [
        (trainable(stage).title, partial(_training, job, stage, ranks))
        for stage in job.cell.train
        if not _weights(job, stage).is_file()
    ]
    twins = [] if job.twins is None else ["--twins", job.twins]
    evaluate: list[object] = [sys.executable, "-m", "pcamx", "evaluate", job.folder, *twins]
    steps.append(("evaluation", lambda: evaluate))
    for what, words in steps:
        begun = time.monotonic()
        code = _call(words(), job.beside(".log"), ranks, lock)
        if code:
            log = job.beside(".log")
            line = f"{job.name}: {what} ended with exit code {code}: {_last_line(log)}; see {log}"
            say(line)
            return [line]
        say(f"{job.name}: {what} done in {duration(time.monotonic() - begun)}")
    return []


def _training(job: Job, stage: StageId, ranks: int) -> list[object]:
    launch: list[object] = [sys.executable]
    if ranks > 1:
        launch = [BIN / "deepspeed", "--num_gpus", ranks, "--master_port", free_port()]
        launch += ["--log_level", "error"]
    words = [*launch, ROOT / "launch/train.py", "--stage", stage, "--config", job.beside(".yaml")]
    # A stage that was begun asks for it, whether it has a checkpoint yet or not.
    return [*words, "--resume"] if _weights(job, stage).parent.is_dir() else words


def _call(words: Sequence[object], log: Path, ranks: int, lock: Lock) -> int:
    """Run a command to its end, its output in ``log``; the exit code.

    It gets a process group of its own, so that Ctrl-C reaches it once: from here.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // ranks)
    env = {"OMP_NUM_THREADS": str(threads)} | os.environ
    env |= {"PATH": f"{BIN}:{os.environ.get('PATH', '')}"}  # deepspeed finds its own parts there
    with log.open("a") as file:
        process = subprocess.Popen(
            list(map(str, words)),
            cwd=ROOT,  # whose pcamx runs; all paths of a job are absolute
            env=env,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[lock.file],
        )
        try:
            return process.wait()
        except KeyboardInterrupt:
            _stop(process)
            raise


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C for the command's group; a second one while it saves its checkpoint kills it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait()
    except KeyboardInterrupt:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def _last_line(log: Path) -> str:
    """The error's own line, else the last that says anything."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines[-50:] if line.startswith("pcamx: error: ")]
    return (errors or lines or ["no output"])[-1].removeprefix("pcamx: error: ")

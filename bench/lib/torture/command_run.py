"""One command of its own session, run to its end or struck by the signal of a plan."""

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.lib import forked
from bench.lib.torture.command_cases import Case

STRUCK = Path(__file__).with_name("struck.py")
LONG = 300.0
"""Seconds after which a command counts as hanging."""
_GRACE = 20.0
"""Seconds that processes of a killed command may take to see that it has gone."""
TEMPORARY = "tmp"
"""Folder that is TMPDIR."""
KILL = "SIGKILL"


@dataclass
class Ended:
    """What became of a command."""

    code: int
    said: str
    session: int
    seconds: float


def run(
    folder: Path,
    words: Sequence[str],
    case: Case,
    plan: Mapping[str, Any] | None = None,
    wait: float = LONG,
) -> Ended:
    """Run a command; the plan's signal comes at an operation, or after ``wait`` seconds."""
    log, trial = folder / "log", folder / "trial"
    log.write_bytes(b"")
    (trial / TEMPORARY).mkdir(exist_ok=True)
    whole = {"at": None, "signal": KILL, "group": True, "disk": "", **(plan or {})}
    whole |= {
        "folder": str(trial),
        "processors": case.processors,
        "operations": str(folder / "operations"),
    }
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(forked.PROJECT), "TERM": "dumb"}
    forked.context(env)  # whose own temporary files are not the command's
    env |= {"TMPDIR": str(trial / TEMPORARY), "PYTHONDONTWRITEBYTECODE": "1"}
    (folder / "operations").unlink(missing_ok=True)
    process = forked.start([str(STRUCK), json.dumps(whole), *words], folder, env, log)
    while process.exitcode is None and not (folder / "operations").exists():
        time.sleep(0.01)  # before it has imported the command line, Python itself answers a stop
    begun = time.monotonic()
    process.join(wait)
    if process.exitcode is None:
        with suppress(ProcessLookupError):
            send = os.killpg if whole["group"] else os.kill
            send(process.pid or 0, signal.Signals[whole["signal"]])
        process.join(LONG)
    hangs = process.exitcode is None
    if hangs:
        process.kill()
        process.join()
    seconds = time.monotonic() - begun
    code = -signal.SIGALRM if hangs else process.exitcode or 0
    said = log.read_text(errors="replace")
    return Ended(code, said, process.pid or 0, seconds)


def running(session: int) -> list[str]:
    """Return the command lines of a session's processes, once those that are ending have ended."""
    end = time.monotonic() + _GRACE
    while (found := list(_of_session(session))) and time.monotonic() < end:
        time.sleep(0.1)
    for process, _ in found:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return [words for _, words in found]


def _of_session(session: int) -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, _, found = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(found) == session and state != "Z":
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                yield int(folder.name), words.decode(errors="replace")

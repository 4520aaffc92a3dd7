"""`pcamx`, struck at one of its file operations: a program whose first word is a plan in JSON.

The plan says at which operation ("at", from 0; null for none) which "signal" comes, to the whole
process group or to this process alone ("group"), or what becomes of the "disk" that "folder" is on;
on how many "processors" the command may count, and the file of "operations": made when the command
begins, at its end a list of them. What it writes does not depend on the day.
"""

import ctypes
import datetime
import importlib
import json
import os
import runpy
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

_CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


READ_ONLY, FULL = "read-only", "full"
_REMOUNT, _NO_WRITES = 32, 1  # MS_REMOUNT, MS_RDONLY
_LIBC = ctypes.CDLL(None)


class _Fixed(datetime.datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> "_Fixed":
        return cls(2026, 1, 1, tzinfo=tz)


def _strike(plan: dict[str, Any], done: list[str]) -> None:
    """Note every operation that changes files, and strike before that of the plan."""
    starved = False

    def hear(event: str, given: tuple[Any, ...]) -> None:
        nonlocal starved
        if event not in _CHANGES and not (event == "open" and given[2] & _WRITES):
            return
        done.append(event)
        if plan["disk"]:  # which is busy while a file is open for writing
            late = len(done) > plan["at"] and not starved
            starved = starved or (late and _starve(plan["folder"], plan["disk"]))
        elif len(done) - 1 == plan["at"]:
            number = signal.Signals[plan["signal"]]
            os.killpg(0, number) if plan["group"] else os.kill(os.getpid(), number)

    sys.addaudithook(hear)


def _starve(folder: str, how: str) -> bool:
    """Have a tmpfs take no more than it holds, or nothing at all; False where it is busy."""
    found = os.statvfs(folder)
    size = f"size={(found.f_blocks - found.f_bfree) * found.f_frsize}".encode()
    flags = _REMOUNT | (_NO_WRITES if how == READ_ONLY else 0)
    where = os.fsencode(folder)
    return bool(_LIBC.mount(b"tmpfs", where, b"tmpfs", flags, size if how == FULL else None) == 0)


def main() -> None:
    """Run the command."""
    plan, done = json.loads(sys.argv[1]), list[str]()
    importlib.import_module("pcamx.cli")
    Path(plan["operations"]).touch()
    datetime.datetime = _Fixed  # type: ignore[misc]
    os.sched_getaffinity = lambda _: set(range(plan["processors"]))
    tempfile.tempdir = os.environ["TMPDIR"]  # Python would try it by a file, which a kill leaves
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell has it ignored
    sys.argv = ["pcamx", *sys.argv[2:]]
    _strike(plan, done)
    try:
        runpy.run_module("pcamx", run_name="__main__", alter_sys=True)
    finally:
        Path(plan["operations"]).write_text(json.dumps(done))


if __name__ == "__main__":
    main()

"""The commands that write, on a disk that fills up or takes no more writes at a file operation."""

import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.lib.torture.command_cases import CASES
from bench.lib.torture.command_run import run
from bench.lib.torture.commands import (
    and_again,
    fault_of,
    in_between,
    some_operation,
    undisturbed,
    words_of,
)
from bench.lib.torture.struck import FULL, READ_ONLY

_ROOM = "rw,size=1g"


def full(folder: Path, seed: str) -> dict[str, str]:
    """Have a command's disk fill up, then run it again with room: the same files, one line."""
    return _some(folder, seed, FULL)


def read_only(folder: Path, seed: str) -> dict[str, str]:
    """Do so with a disk that takes no more writes, as after an error of it."""
    return _some(folder, seed, READ_ONLY)


def _some(folder: Path, seed: str, how: str) -> dict[str, str]:
    rng = random.Random(seed)
    names = [name for name, case in CASES.items() for _ in range(case.often)]
    return starve(folder.resolve(), rng.choice(names), how, rng)


def starve(folder: Path, name: str, how: str, rng: random.Random) -> dict[str, str]:
    """Do so to the case ``name``; not run without the right to mount."""
    case, sound, trial = CASES[name], undisturbed(folder, name), folder / "trial"
    at, when = some_operation(sound, rng)
    what = f"{name}: a disk that is {how} {when}"
    shutil.rmtree(trial, ignore_errors=True)
    trial.mkdir()
    with _mounted(trial) as mounted:
        if not mounted:
            return {"came": "not run", "what": "mounting needs root", "said": ""}
        shutil.copytree(sound.before, trial, dirs_exist_ok=True)
        first = run(folder, words_of(folder, case.words), case, {"at": at, "disk": how})
        subprocess.run(["mount", "-o", f"remount,{_ROOM}", str(trial)], check=True)
        fault = in_between(trial, case, sound, first, how)
        return fault_of(first, what, fault) or and_again(folder, name, first, what)


@contextmanager
def _mounted(folder: Path) -> Iterator[bool]:
    """A file system in memory; whether it could be had."""
    words = ["mount", "-t", "tmpfs", "-o", _ROOM, "tmpfs", str(folder)]
    mounted = not subprocess.run(words, capture_output=True).returncode
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)

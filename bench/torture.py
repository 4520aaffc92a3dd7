"""`python -m bench.torture`: files damaged, inputs fuzzed, trainings killed, stopped, starved
and cut in two, other commands killed, stopped and starved.

Trial n of a seed does the same each time. FOLDER/trials_SEED.jsonl has a line a trial; those in it
are not repeated, so it may be stopped and gone on with. A fault is a traceback, a signal, a hang,
other bits after a resume, or a damaged file that is used without a word.
"""

import argparse
import collections
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.lib import command
from bench.lib.torture import commands, disks
from bench.lib.torture.files import Damage, in_a_worker, make
from bench.lib.torture.hosts import cut
from bench.lib.torture.runs import disk, kill, stop
from pcamx.errors import PcamxError

RUNS = {
    **{"kill": kill, "stop": stop, "disk": disk, "cut": cut, "command": commands.command},
    **{"full": disks.full, "read-only": disks.read_only},
}
KINDS = ("flip", "fuzz", *RUNS)
_RARE = 50
"""Every so many trials is one of a training, which takes as long as all the others together."""
_TOGETHER = 500
"""Trials of files that one worker does; it takes as long to start as for some hundred of them."""


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m bench.torture", description=__doc__)
    made.add_argument("--folder", type=Path, default=Path("runs/torture"), metavar="FOLDER")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--trials", type=int, default=20_000, help="how many in all (%(default)s)")
    made.add_argument("--minutes", type=float, default=60.0, help="then stop (%(default)s)")
    made.add_argument("--kinds", default=",".join(KINDS), help="of them (%(default)s)")
    return made


def kind_of(number: int, kinds: Sequence[str]) -> str:
    """Say what trial ``number`` does: files, and every now and then a training."""
    files, runs = ([k for k in kinds if (k in RUNS) is long] for long in (False, True))
    if runs and (number % _RARE == 0 or not files):
        return runs[(number // _RARE if files else number) % len(runs)]
    return files[number % len(files)]


def run(options: argparse.Namespace) -> None:
    """Do the trials that are left, and print what came of all."""
    kinds = [kind for kind in options.kinds.split(",") if kind]
    if unknown := set(kinds) - set(KINDS):
        raise PcamxError(f"--kinds: {min(unknown)} is not one of {', '.join(KINDS)}")
    log = options.folder / f"trials_{options.seed}.jsonl"
    damage = make(options.folder)
    done = {(line["trial"], line["kind"]) for line in _lines(log)}
    end = time.monotonic() + 60 * options.minutes
    if log.is_file() and not log.read_bytes().endswith(b"\n"):  # cut off by a kill
        with log.open("a", encoding="utf-8") as file:
            file.write("\n")
    with log.open("a", encoding="utf-8") as file:
        for trial, kind, came in _trials(damage, options.seed, options.trials, kinds, done):
            file.write(json.dumps({"trial": trial, "kind": kind} | came) + "\n")
            file.flush()
            if came["came"] == "fault":
                print(f"trial {trial}, {kind}: {came['what']}: {came['said'][-500:]}")
            if time.monotonic() > end:
                break
    _summary(list(_lines(log)))


def _trials(
    damage: Damage, seed: int, count: int, kinds: Sequence[str], done: set[tuple[int, str]]
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Every trial that is left, and what came of it; those of files go to a worker together."""
    waiting: list[tuple[int, str]] = []
    for trial in range(count):
        kind = kind_of(trial, kinds)
        if (trial, kind) in done:
            continue
        if kind in RUNS:
            yield trial, kind, RUNS[kind](damage.folder, f"{seed} {trial}")
            continue
        waiting.append((trial, kind))
        if len(waiting) == _TOGETHER:
            yield from in_a_worker(damage, seed, waiting)
            waiting = []
    yield from in_a_worker(damage, seed, waiting)


def _lines(log: Path) -> Iterator[dict[str, Any]]:
    if log.is_file():
        for line in log.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except ValueError:  # cut off by a kill
                continue


def _summary(lines: Sequence[dict[str, Any]]) -> None:
    counts = collections.Counter((line["kind"], line["came"]) for line in lines)
    for (kind, came), count in sorted(counts.items()):
        print(f"{kind}: {came} {count}")


if __name__ == "__main__":
    sys.exit(command.main(_parser(), run))

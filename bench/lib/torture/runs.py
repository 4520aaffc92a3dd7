"""A training killed, stopped or short of disk at a random moment, then gone on with to its end."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from bench.lib import forked
from bench.lib.command import free_port
from pcamx.catalogue import STAGE_1, STAGE_2, STAGE_3
from pcamx.data.phantom import draw_phantoms
from pcamx.data.prepare.store_builder import prepare
from pcamx.errors import PcamxError
from pcamx.evaluation.evaluate import evaluate
from pcamx.run.folder import RunFolder
from pcamx.run.lock import NAME
from pcamx.run.weights import load_weights

TRAIN = forked.PROJECT / "launch/train.py"
WORLD = 2
TIMEOUT = 20.0
_LONG = 600.0  # seconds after which a training counts as hanging
_CONFIG = """\
run: {{folder: {run}}}
data: {{store: {store}, canvas: 32, threads: 1, marked: 6}}
stages:
  {first}: {{epochs: 3, lr: 1.0e-3}}
  {second}: {{epochs: 1, lr: 1.0e-3, init_from: {first}}}
  {third}: {{epochs: 1, lr: 1.0e-3, init_from: {second}}}
runtime: {{batch_size: 8, zero_stage: 1, log_every: 1, save_every: 2, timeout: {timeout}}}
objective: {{marked_per_batch: 2}}
"""


@dataclass
class Ended:
    """What became of the ranks."""

    codes: list[int]
    said: str
    seconds: float

    @property
    def fault(self) -> str:
        """What no run may end in."""
        if "Traceback" in self.said:
            return "traceback"
        return "hangs" if self.seconds > _LONG else ""


def materials(folder: Path) -> None:
    """Draw and prepare films, and train stage 1 straight through, checkpoints kept."""
    folder.mkdir(parents=True)
    films = folder / "films"
    draw_phantoms(films, train=24, valid=8, size=48, seed=1, twins=True, workers=1)
    prepare(films / "MURA-v1.1", folder / "store", table=None, marks=films / "marks")
    prepare(films / "MURA-v1.1", folder / "unmarked", table=None)
    prepare(films / "twins", folder / "twins", table=None, marks=films / "twins/marks")
    # So that a copy of all this has films of its own.
    head = json.loads((folder / "store/store.json").read_text())
    head["root"] = "../films/MURA-v1.1"
    (folder / "store/store.json").write_text(json.dumps(head))
    folder = folder.resolve()
    for run in ("run", "again"):  # the first waits for the imports as well
        ended = train(folder, folder / run, folder / "store")
        if any(ended.codes):
            raise PcamxError(f"{folder}: a training fails without torture:\n{ended.said}")
    if bits(_weights(folder / "run")) != bits(_weights(folder / "again")):
        raise PcamxError(f"{folder}: two trainings gave other bits without torture")
    shutil.rmtree(folder / "again")
    (folder / "seconds").write_text(str(ended.seconds))
    evaluate(folder / "run")


def train(
    folder: Path,
    run: Path,
    store: Path,
    *,
    resume: bool = False,
    act: Callable[[list[int]], None] | None = None,
    address: str = "127.0.0.1",
    hosts: Sequence[Sequence[str]] = ((), ()),
) -> Ended:
    """Train on two ranks, with ``act`` done to their process numbers, as a launcher would.

    They meet at ``address``; words of ``hosts`` before each one's command take it elsewhere, and
    then it is a new Python, else a fork that has imported everything.
    """
    config = folder / "run.yaml"
    first, second, third = (entry.section for entry in (STAGE_1, STAGE_2, STAGE_3))
    told = {"first": first, "second": second, "third": third, "timeout": TIMEOUT}
    config.write_text(_CONFIG.format(run=run, store=store, **told))
    env = {**os.environ, "WORLD_SIZE": str(WORLD), "MASTER_ADDR": address, "OMP_NUM_THREADS": "1"}
    env["MASTER_PORT"] = str(free_port())
    words = [str(TRAIN), "--stage", str(STAGE_1.key), "--config", str(config)]
    words += ["--resume"] * resume
    log = folder / "log"
    log.write_bytes(b"")
    begun = time.monotonic()
    ranks = [
        _start(hosts[r], words, folder, env | {"RANK": str(r), "LOCAL_RANK": str(r)})
        for r in range(WORLD)
    ]
    try:
        if act is not None:
            act([rank.pid or 0 for rank in ranks])
        _wait(ranks, begun)
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait() if isinstance(rank, subprocess.Popen) else rank.join()
    said = log.read_text(errors="replace")
    return Ended([_code(rank) or 0 for rank in ranks], said, time.monotonic() - begun)


Rank = subprocess.Popen[bytes] | BaseProcess


def _start(host: Sequence[str], words: Sequence[str], folder: Path, env: Mapping[str, str]) -> Rank:
    if not host:
        return forked.start([*words], folder, env, folder / "log")
    with (folder / "log").open("ab") as log:
        command = [*host, sys.executable, *words]
        return subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=folder)


def _code(rank: Rank) -> int | None:
    return rank.poll() if isinstance(rank, subprocess.Popen) else rank.exitcode


def _wait(ranks: Sequence[Rank], begun: float) -> None:
    """Until all have ended, or a launcher would end those that are left."""
    failed = None
    while any(_code(rank) is None for rank in ranks) and time.monotonic() - begun < _LONG + 1:
        if failed is None and any(map(_code, ranks)):
            failed = time.monotonic()
        if failed is not None and time.monotonic() - failed > 10:
            return
        time.sleep(0.1)


def _weights(run: Path) -> Path:
    return RunFolder(run).weights(STAGE_1.key)


def _begun(run: Path) -> bool:
    return RunFolder(run).stage(STAGE_1.key).is_dir()


def bits(weights: Path) -> str:
    """Return a digest of the network of a file of weights."""
    digest = hashlib.sha256()
    for name, value in sorted(load_weights(weights).state.items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


Place = tuple[Path, Path, Path]


def fresh(folder: Path) -> Place:
    """Make the folder of a trial; return it, its run, and the sound store."""
    trial = folder.resolve() / "trial"
    shutil.rmtree(trial, ignore_errors=True)
    trial.mkdir()
    return trial, trial / "run", (folder / "sound/store").resolve()


def finish(folder: Path, place: Place, what: str) -> dict[str, str]:
    """Go on with an interrupted run; a fault unless it ends in the straight run's bits."""
    trial, run, _ = place
    sound = folder / "sound/run"
    if not _weights(run).is_file():
        ended = train(*place, resume=_begun(run))
        if any(ended.codes) or ended.fault:
            return {"came": "fault", "what": f"{what}; cannot go on", "said": ended.said}
    if bits(_weights(run)) != bits(_weights(sound)):
        return {"came": "fault", "what": f"{what}; other bits", "said": ""}
    left = [p.name for p in run.rglob(".*") if p.name != NAME]
    if left:
        return {"came": "fault", "what": f"{what}; left {left}", "said": ""}
    return {"came": "same bits", "what": what, "said": ""}


def kill(folder: Path, seed: str) -> dict[str, str]:
    """Kill one rank, or both, at a random moment, up to twice; then go on."""
    rng, place = random.Random(seed), fresh(folder)
    whole = float((folder / "sound/seconds").read_text())
    what, hurt = [], False
    for _ in range(rng.choice((1, 2))):
        wait, victims = rng.uniform(0, whole), rng.choice(([0], [1], [0, 1]))

        def act(ranks: list[int], wait: float = wait, victims: list[int] = victims) -> None:
            time.sleep(wait)
            for victim in victims:
                with suppress(ProcessLookupError):
                    os.kill(ranks[victim], signal.SIGKILL)

        ended = train(*place, resume=_begun(place[1]), act=act)
        what.append(f"ranks {victims} after {wait:.1f} s")
        hurt = hurt or any(ended.codes)
        if ended.fault:
            return {
                "came": "fault",
                "what": "; ".join(what) + f"; {ended.fault}",
                "said": ended.said,
            }
    came = finish(folder, place, "killed: " + ", ".join(what))
    return came if hurt or came["came"] == "fault" else came | {"came": "ended before"}


def until_it_trains(place: Place) -> None:
    """Return once the first step is logged."""
    end = time.monotonic() + _LONG
    while not RunFolder(place[1]).history_file.is_file() and time.monotonic() < end:
        time.sleep(0.05)


def stop(folder: Path, seed: str) -> dict[str, str]:
    """Stop a rank (SIGSTOP) once training has begun: it is named, and all end, in time."""
    rng, place = random.Random(seed), fresh(folder)
    victim, wait = rng.randrange(WORLD), rng.uniform(0, 3)
    stopped = [0.0]

    def act(ranks: list[int]) -> None:
        until_it_trains(place)
        time.sleep(wait)
        with suppress(ProcessLookupError):
            os.kill(ranks[victim], signal.SIGSTOP)
        stopped[0] = time.monotonic()

    ended = train(*place, act=act)
    late = time.monotonic() - stopped[0]
    what = f"rank {victim} stopped after {wait:.1f} s, all ended {late:.0f} s later"
    if ended.codes == [0, 0]:
        return finish(folder, place, what)
    named = f"from rank {victim} on" in ended.said and "no answer" in ended.said
    if ended.fault or not named or late > TIMEOUT + 30:
        return {"came": "fault", "what": what, "said": ended.said}
    return finish(folder, place, what)


def disk(folder: Path, seed: str) -> dict[str, str]:
    """Fill a file system up: one line; with room, the same bits."""
    rng, place = random.Random(seed), fresh(folder)
    kilobytes = rng.randrange(16, 30_000)
    place[1].mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place[1])]
    if subprocess.run(mount, capture_output=True).returncode:
        return {"came": "not run", "what": "mounting needs root", "said": ""}
    try:
        ended = train(*place)
        lines = [x for x in ended.said.splitlines() if x.startswith("pcamx: error:")]
        what = f"{kilobytes} kB of disk: {lines[:1]}"
        if ended.fault or (any(ended.codes) and not lines):
            return {"came": "fault", "what": what, "said": ended.said}
        subprocess.run(["mount", "-o", "remount,size=200m", str(place[1])], check=True)
        return finish(folder, place, what)
    finally:
        subprocess.run(["umount", "-l", str(place[1])], check=False)

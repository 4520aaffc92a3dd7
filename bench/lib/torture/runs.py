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
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.lib.command import free_port
from pcamx.data.phantom import draw_phantoms
from pcamx.data.prepare.store_builder import prepare
from pcamx.errors import PcamxError
from pcamx.evaluation.evaluate import evaluate
from pcamx.run.weights import load_weights

TRAIN = Path(__file__).resolve().parents[3] / "launch/train.py"
WORLD = 2
TIMEOUT = 20.0
_LONG = 600.0  # seconds after which a training counts as hanging
_CONFIG = """\
run: {{folder: {run}}}
data: {{store: {store}, canvas: 32, threads: 1, marked: 6}}
stages:
  stage1: {{epochs: 3, lr: 1.0e-3}}
  stage2: {{epochs: 1, lr: 1.0e-3, init_from: stage1}}
  stage3: {{epochs: 1, lr: 1.0e-3, init_from: stage2}}
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
    draw_phantoms(folder / "films", train=24, valid=8, size=48, seed=1, workers=1)
    films = folder / "films"
    prepare(films / "MURA-v1.1", folder / "store", table=None, marks=films / "marks")
    # So that a copy of all this has films of its own.
    head = json.loads((folder / "store/store.json").read_text())
    head["root"] = "../films/MURA-v1.1"
    (folder / "store/store.json").write_text(json.dumps(head))
    folder = folder.resolve()
    ended = train(folder, folder / "run", folder / "store")
    if any(ended.codes):
        raise PcamxError(f"{folder}: a training fails without torture:\n{ended.said}")
    (folder / "seconds").write_text(str(ended.seconds))
    evaluate(folder / "run")


def train(
    folder: Path,
    run: Path,
    store: Path,
    *,
    resume: bool = False,
    act: Callable[[list[subprocess.Popen[bytes]]], None] | None = None,
    address: str = "127.0.0.1",
    hosts: Sequence[Sequence[str]] = ((), ()),
) -> Ended:
    """Train on two ranks, with ``act`` done to them meanwhile, as a launcher would.

    They meet at ``address``; words of ``hosts`` before each one's command take it elsewhere.
    """
    config = folder / "run.yaml"
    config.write_text(_CONFIG.format(run=run, store=store, timeout=TIMEOUT))
    shared = {"WORLD_SIZE": str(WORLD), "MASTER_ADDR": address, "OMP_NUM_THREADS": "1"}
    shared["MASTER_PORT"] = str(free_port())
    words = [sys.executable, str(TRAIN), "--stage", "1", "--config", str(config)]
    words += ["--resume"] * resume
    begun = time.monotonic()
    with (folder / "log").open("w+b") as log:
        ranks = [
            subprocess.Popen(
                [*hosts[r], *words],
                env=os.environ | shared | {"RANK": str(r), "LOCAL_RANK": str(r)},
                stdout=log,
                stderr=log,
                cwd=folder,
            )
            for r in range(WORLD)
        ]
        try:
            if act is not None:
                act(ranks)
            _wait(ranks, begun)
        finally:
            for rank in ranks:
                with suppress(ProcessLookupError):
                    rank.kill()
                rank.wait()
        log.seek(0)
        said = log.read().decode(errors="replace")
    return Ended([rank.returncode for rank in ranks], said, time.monotonic() - begun)


def _wait(ranks: list[subprocess.Popen[bytes]], begun: float) -> None:
    """Until all have ended, or a launcher would end those that are left."""
    failed = None
    while any(rank.poll() is None for rank in ranks) and time.monotonic() - begun < _LONG + 1:
        if failed is None and any(rank.returncode for rank in ranks):
            failed = time.monotonic()
        if failed is not None and time.monotonic() - failed > 10:
            return
        time.sleep(0.1)


def _bits(run: Path) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(load_weights(run / "stage1/weights.pt").state.items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


Place = tuple[Path, Path, Path]


def fresh(folder: Path) -> Place:
    """Make the folder of a trial; return it, its run, and the sound store."""
    trial = folder / "trial"
    shutil.rmtree(trial, ignore_errors=True)
    trial.mkdir()
    return trial, trial / "run", (folder / "sound/store").resolve()


def finish(folder: Path, place: Place, what: str) -> dict[str, str]:
    """Go on with an interrupted run; a fault unless it ends in the straight run's bits."""
    trial, run, _ = place
    sound = folder / "sound/run"
    if not (run / "stage1/weights.pt").is_file():
        begun = (run / "stage1").is_dir()
        ended = train(*place, resume=begun)
        if any(ended.codes) or ended.fault:
            return {"came": "fault", "what": f"{what}; cannot go on", "said": ended.said}
    if _bits(run) != _bits(sound):
        return {"came": "fault", "what": f"{what}; other bits", "said": ""}
    left = [p.name for p in run.rglob(".*") if p.name != ".lock"]
    if left:
        return {"came": "fault", "what": f"{what}; left {left}", "said": ""}
    return {"came": "same bits", "what": what, "said": ""}


def kill(folder: Path, seed: str) -> dict[str, str]:
    """Kill one rank, or both, at a random moment, up to twice; then go on."""
    rng, place = random.Random(seed), fresh(folder)
    whole = float((folder / "sound/seconds").read_text())
    what = []
    for _ in range(rng.choice((1, 2))):
        wait, victims = rng.uniform(0, whole), rng.choice(([0], [1], [0, 1]))

        def act(
            ranks: list[subprocess.Popen[bytes]], wait: float = wait, victims: list[int] = victims
        ) -> None:
            time.sleep(wait)
            for victim in victims:
                with suppress(ProcessLookupError):
                    ranks[victim].kill()

        ended = train(*place, resume=(place[1] / "stage1").is_dir(), act=act)
        what.append(f"ranks {victims} after {wait:.1f} s")
        if ended.fault:
            return {
                "came": "fault",
                "what": "; ".join(what) + f"; {ended.fault}",
                "said": ended.said,
            }
    return finish(folder, place, "killed: " + ", ".join(what))


def until_it_trains(place: Place) -> None:
    """Return once the first step is logged."""
    end = time.monotonic() + _LONG
    while not (place[1] / "metrics.jsonl").is_file() and time.monotonic() < end:
        time.sleep(0.05)


def stop(folder: Path, seed: str) -> dict[str, str]:
    """Stop a rank (SIGSTOP) once training has begun: it is named, and all end, in time."""
    rng, place = random.Random(seed), fresh(folder)
    victim, wait = rng.randrange(WORLD), rng.uniform(0, 3)
    stopped = [0.0]

    def act(ranks: list[subprocess.Popen[bytes]]) -> None:
        until_it_trains(place)
        time.sleep(wait)
        with suppress(ProcessLookupError):
            ranks[victim].send_signal(signal.SIGSTOP)
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

"""`python -m bench.mura`: a set of MURA's size through every command of a run, by the clock.

Drawn films of MURA-v1.1's numbers and layout: prepare, first decode, the three stages by the
DeepSpeed launcher, evaluate; and what was learned.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from bench.lib import command, record
from bench.lib.mura_plan import plan_mura
from bench.lib.mura_rows import learning_rows, stage_rows, time_rows
from pcamx import config as configs
from pcamx.catalogue import classifiers
from pcamx.config import Config
from pcamx.data.canvas.provider import Decoded
from pcamx.data.phantom.write import draw_plans
from pcamx.data.store import read_store
from pcamx.errors import PcamxError
from pcamx.output import write_text
from pcamx.report.console import say, track
from pcamx.run.folder import RunFolder
from pcamx.run.report import read_report

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
BASE = ROOT / "configs/mura.yaml"
CORES = len(os.sched_getaffinity(0))
BATCH = {"cuda": 256, "cpu": 32}
PRECISION: dict[str, Literal["bf16", "fp32"]] = {"cuda": "bf16", "cpu": "fp32"}
PLAN = "plan.json"
NOTES = """\
Drawn films with MURA-v1.1's numbers of films, studies and patients, times --share; how they \
divide by part and label is assumed (bench/lib/mura_plan.py). Their lesions and noise are not \
MURA's, so what is learned here says nothing of MURA.
prepare, training and evaluate are the commands themselves, start and imports included; first \
decode fills the cache of both splits, which the training then maps.
A stage's time is the one in report.json: its epochs with their validation and checkpoints. Its \
images/s are the places in its batches, marked films included, over that time. three stages is \
their sum.
Settings are those of configs/mura.yaml but for the sizes above; marked films a batch: a \
sixteenth of it. low and high are 95 % bootstrap intervals over patients.
"""


@dataclass(frozen=True)
class Folder:
    """Where the bench keeps what it makes."""

    path: Path

    @property
    def films(self) -> Path:
        return self.path / "phantom"

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def store(self) -> Path:
        return self.path / "store"

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    def open(self, plan: Mapping[str, float]) -> None:
        """Make it, or clear it of the last run but for its films.

        Raises PcamxError if it holds something else, or films of another plan.
        """
        held = self.path / PLAN
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not any(self.path.iterdir()):
                write_text(held, json.dumps(plan) + "\n")
            known = json.loads(held.read_text()) if held.is_file() else None
            if known != plan:
                what = f"films of {known}" if known else "something else"
                raise PcamxError(f"{self.path}: holds {what}; name another folder with --folder")
            for made in (self.run, self.store, self.path / "cache"):
                shutil.rmtree(made, ignore_errors=True)
        except OSError as error:
            raise PcamxError(f"{self.path}: {error.strerror}; name another with --folder") from None

    def call(self, step: str, words: Sequence[object], threads: int) -> None:
        """Run a command of the project to its end; PcamxError that names its log if it fails."""
        log = self.path / f"{step}.log"
        print(f"{step}: its output goes to {log}", flush=True)
        path = f"{BIN}:{os.environ.get('PATH', '')}"  # deepspeed finds its own parts there
        env = os.environ | {"PATH": path, "OMP_NUM_THREADS": str(threads)}
        with log.open("w") as file:
            done = subprocess.run(
                list(map(str, words)), cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT
            )
        if done.returncode:
            raise PcamxError(f"{step} ended with exit code {done.returncode}; see {log}")


def timed(work: Callable[[], object]) -> float:
    """Measure the seconds that ``work`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def config_of(options: argparse.Namespace, folder: Folder, kind: str, threads: int) -> Config:
    """Return configs/mura.yaml at the sizes asked for; ``kind`` of device is cuda or cpu."""
    base = configs.load(BASE)
    batch = options.batch or BATCH[kind]
    stages: dict[str, configs.Stage | None] = {
        entry.section: replace(base.stage(entry.key), epochs=options.epochs)
        for entry in classifiers()
    }
    data = replace(
        base.data,
        store=str(folder.store),
        cache=str(folder.path / "cache"),
        canvas=options.canvas,
        threads=threads,
    )
    return replace(
        base,
        run=replace(base.run, folder=str(folder.run)),
        data=data,
        stages=stages,
        runtime=replace(
            base.runtime, batch_size=batch, precision=options.precision or PRECISION[kind]
        ),
        objective=replace(base.objective, marked_per_batch=max(1, batch // 16)),
    )


def first_decode(config: Config, device: torch.device) -> None:
    """Decode both splits into the cache, and let go of them."""
    store = read_store(Path(config.data.store))
    decoded = Decoded(config.data, store, device, track, say)
    for split in ("train", "valid"):
        decoded.split(split)
    del decoded
    if device.type == "cuda":
        torch.cuda.empty_cache()  # the training's ranks need the room


def run(options: argparse.Namespace) -> None:
    """Take every step, then write the JSON and the tables; after a failure neither."""
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    found = record.begin("mura", device)
    path = record.outputs("mura", found, options.markdown, options.json)
    if not 0 < options.share <= 1:
        raise PcamxError(f"--share {options.share}: expected more than 0 and at most 1")
    ranks = torch.cuda.device_count() or min(2, CORES)
    folder = Folder(options.folder.absolute())
    config = config_of(options, folder, device.type, threads=max(1, CORES // ranks))
    folder.open({"share": options.share, "size": options.size})
    seconds = dict[str, float]()
    if not folder.films.exists():
        plans = plan_mura(options.share)
        draw = partial(draw_plans, folder.films, plans, size=options.size, track=track)
        seconds["draw"] = timed(draw)
    seconds |= take_steps(folder, config, device, ranks)
    report = read_report(RunFolder(folder.run))
    films = sum(split["films"] for split in report["data"]["splits"].values())
    case = (
        f"{films:,} films of {options.size} px > {options.canvas} px, epochs a stage "
        f"{options.epochs}, batches of {config.runtime.batch_size}, ranks {ranks}, "
        f"{config.runtime.precision}"
    )
    found.rows.extend(time_rows(case, seconds, films))
    found.rows.extend(stage_rows(case, report, config))
    found.rows.extend(learning_rows(f"learned from {case}", report))
    if options.json:
        record.write_json(found, options.json)
    record.write_markdown(found, path, "A set of MURA's size", NOTES.splitlines())
    print(f"{path}: {len(found.rows)} figures; {RunFolder(folder.run).page_file} shows the run")


def take_steps(
    folder: Folder, config: Config, device: torch.device, ranks: int
) -> dict[str, float]:
    """Time each step behind the drawing, in seconds; the last leaves the run's report.json."""
    root, marks = folder.films / "MURA-v1.1", folder.films / "marks"
    pcamx = [sys.executable, "-m", "pcamx"]
    prepare = [*pcamx, "prepare", root, "--marks", marks, "--out", folder.store]
    train = [BIN / "deepspeed", "--num_gpus", ranks, "--master_port", command.free_port()]
    train += ["--log_level", "error", ROOT / "launch/train.py", "--stage", "all"]
    train += ["--config", folder.config]
    evaluate = [*pcamx, "evaluate", folder.run]
    all_cores = replace(config, data=replace(config.data, threads=CORES))
    write_text(folder.config, configs.dump(config))
    steps = {
        "prepare": lambda: folder.call("prepare", prepare, threads=1),
        "first decode": lambda: first_decode(all_cores, device),
        "training": lambda: folder.call("training", train, threads=config.data.threads),
        "evaluate": lambda: folder.call("evaluate", evaluate, threads=CORES),
    }
    return {step: timed(work) for step, work in steps.items()}


if __name__ == "__main__":
    made = command.parser(
        "mura",
        "A drawn set of MURA's size through prepare, decode, all three stages and evaluate.",
        "python -m bench.mura --share 0.01 --size 128 --canvas 128 --epochs 1",
    )
    made.add_argument(
        "--folder",
        type=Path,
        default=Path("runs/bench_mura"),
        help="keeps films, store and run; films found there are used (%(default)s)",
    )
    made.add_argument("--share", type=float, default=1.0, help="of MURA's films (%(default)s)")
    made.add_argument("--size", type=int, default=512, help="long side of a film (%(default)s px)")
    made.add_argument("--canvas", type=int, default=320, help="side in pixels (%(default)s)")
    made.add_argument("--epochs", type=int, default=10, help="of each stage (%(default)s)")
    made.add_argument("--batch", type=int, help="of all ranks (default: 256; on a CPU 32)")
    made.add_argument("--precision", choices=["bf16", "fp32"], help="default: bf16; on a CPU fp32")
    sys.exit(command.main(made, run))

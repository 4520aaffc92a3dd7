"""`pcamx train`: train the stages of a config, on one GPU or several."""

import argparse
import os
import shlex
import socket
import sys
from functools import partial
from pathlib import Path
from typing import NoReturn

from pcamx import config as configs
from pcamx.cli.command import Commands, command
from pcamx.cli.evaluate import measure
from pcamx.cli.options import add_gpus, add_set, told
from pcamx.errors import PcamxError
from pcamx.training.command import ALL, STAGES, command_again, launched, leave, train_command


def add(commands: Commands) -> None:
    """Add the command and its options."""
    sub = command(
        commands,
        "train",
        run,
        "train the stages of a config, which pcamx init writes; with --stage all, measure them too",
        "pcamx train films.yaml --stage all --set runtime.batch_size=64",
    )
    sub.add_argument("config", type=Path, metavar="CONFIG", help="a YAML file")
    sub.add_argument(
        "--stage",
        required=True,
        choices=STAGES,
        help="all: one after the other, those that learn from marks where films are marked; then "
        "the first process measures the run as pcamx evaluate does",
    )
    add_gpus(sub)
    sub.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    add_set(sub, "runtime.batch_size=64")


def run(options: argparse.Namespace) -> None:
    read = partial(_config, options.config, options.set)
    if not launched():
        read()  # before anything starts
        if (count := _count(options.gpus)) > 1:
            _launch(count, options)
    code = train_command(read, options.stage, resume=options.resume, again=_again(options))
    if code:
        leave(code)
    if options.stage == ALL:
        _measure(Path(read().run.folder))


def _measure(folder: Path) -> None:
    from pcamx import engine

    if engine.is_first():
        print(f"{folder} is trained; what follows is pcamx evaluate {folder}", flush=True)
        measure(folder)


def _config(path: Path, words: list[str]) -> configs.Config:
    """The config of ``path`` with what ``--set`` changes."""
    config = configs.load(path)
    try:
        return configs.changed(config, configs.settings(words))
    except configs.ConfigError as error:
        raise told(error) from None


def _count(asked: int | None) -> int:
    """How many processes train."""
    if asked is not None and asked < 1:
        raise PcamxError(f"--gpus is {asked}: it must be 1 or more")
    from torch import cuda

    found = cuda.device_count()
    if asked is None:
        return max(1, found)
    if asked > found > 0:
        raise PcamxError(f"--gpus is {asked}: this machine has {found}")
    if asked > 1 and not found:
        print(f"--gpus {asked}: no GPU is here, {asked} processes share the CPU")
    return asked


def _words(options: argparse.Namespace) -> list[str]:
    """The command without the number of processes, which a rank is told by its launcher."""
    words = ["train", str(options.config), "--stage", options.stage]
    return words + (["--set", *options.set] if options.set else [])


def _launch(count: int, options: argparse.Namespace) -> NoReturn:
    """Become DeepSpeed's launcher of ``count`` processes on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = [sys.executable, "-m", "pcamx.engine.launcher", "--num_gpus", str(count)]
    launcher += ["--master_port", str(port), "--log_level", "error", "--no_local_rank"]
    resume = ["--resume"] if options.resume else []
    sys.stdout.flush()
    os.execv(sys.executable, [*launcher, "--module", "pcamx", *_words(options), *resume])  # noqa: S606


def _again(options: argparse.Namespace) -> str:
    """The command that continues this run, as a person types it."""
    words = _words(options)
    world = os.environ.get("WORLD_SIZE", "1")
    ours = "CROSS_SIZE" in os.environ and os.environ.get("LOCAL_SIZE") == world
    if launched() and not ours:
        return command_again(["-m", "pcamx", *words])
    count = world if ours else options.gpus
    return shlex.join(["pcamx", *words, *(["--gpus", str(count)] if count else []), "--resume"])

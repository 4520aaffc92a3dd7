"""What a training command does with its config: one line for a mistake, and how to go on.

`launch/train.py` and `pcamx train` are doors to this; every rank comes through one of them.
"""

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from pcamx.catalogue import TRAINABLES, StageId, key_of
from pcamx.config import Config
from pcamx.errors import mendable
from pcamx.output import printable

ALL = "all"
STAGES = (*(str(entry.key) for entry in TRAINABLES), ALL)
"""What ``--stage`` may name."""
_PATIENCE = 5.0
"""Seconds; a launcher ends the other ranks within one or two of the first failure."""


def train_command(read: Callable[[], Config], stage: str, *, resume: bool, again: str) -> int:
    """Train ``stage`` of the config that ``read`` returns, on this rank of the run.

    Returns the exit code: 0; 2 after one line on stderr for a mistake; 130 after Ctrl-C or SIGTERM,
    with ``again``, the command that continues the run.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # as Ctrl-C, from the beginning
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        config = read()
        from pcamx.training.stopping import Interrupted
        from pcamx.training.trainer import train

        try:
            train(config, _named(stage), resume=resume)
        except Interrupted as stopped:
            return _stopped(f"{stopped}; continue with: {again}")
    except KeyboardInterrupt:
        return _stopped("stopped before training began")
    except Exception as error:
        if (reason := mendable(error)) is None:
            raise
        return _failed(printable(reason))
    return 0


def _named(asked: str) -> list[StageId] | None:
    """What ``--stage`` names; None of "all"."""
    return None if asked == ALL else [key_of(asked)]


def _failed(message: str) -> int:
    if after_rank_0():
        print(f"pcamx: error: {message}", file=sys.stderr)
    return 2


def _stopped(message: str) -> int:
    if _rank() == 0:
        print(f"pcamx: {message}", file=sys.stderr)
    return 130


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def launched() -> bool:
    """Return whether a launcher started this process as a rank of a run."""
    return "RANK" in os.environ


def after_rank_0() -> bool:
    """Tell whether this rank says why it ends: rank 0 at once, which speaks for all.

    The launcher then ends the others. Whom nobody has ended by then has failed alone, and speaks
    for itself.
    """
    try:
        if _rank():
            time.sleep(_PATIENCE)
    except KeyboardInterrupt:  # the launcher's SIGTERM, too
        return False
    return True


def command_again(words: Sequence[str]) -> str:
    """Return the command that continues the run of ``python``'s ``words``, as a person types it."""
    command = shlex.join(words if "--resume" in words else [*words, "--resume"])
    world = os.environ.get("WORLD_SIZE", "1")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        here, launcher = os.environ.get("LOCAL_WORLD_SIZE"), "torchrun --nproc_per_node"
    elif "CROSS_SIZE" in os.environ:
        here, launcher = os.environ.get("LOCAL_SIZE"), "deepspeed --num_gpus"
    else:
        # Slurm's srun, for one, leaves no name of its own.
        return f"python {command}" if world == "1" else f"your launcher and {command}"
    return f"{launcher} {world} {command}" if here == world else f"your launcher and {command}"


def leave(code: int) -> NoReturn:
    """Exit with ``code``.

    After an error gloo's and DALI's threads still run, and taking them down as usual sometimes ends
    in std::terminate (signal 6) instead of ``code``.
    """
    if code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(0)

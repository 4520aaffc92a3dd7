"""Train the paper's stages: deepspeed launch/train.py --stage 1 --config configs/demo.yaml"""

import argparse
import os
import shlex
import sys
import time
from pathlib import Path
from typing import NoReturn

# `deepspeed` and `torchrun` put launch/ on the path, not the project.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pcamx import config as configs
from pcamx.catalogue import TRAINABLES, StageId
from pcamx.errors import PcamxError

_KEYS = [entry.key for entry in TRAINABLES]
_ALL = "all"
_PATIENCE = 5.0
"""Seconds; a launcher ends the other ranks within one or two of the first failure."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _after_rank_0()
        super().error(message)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = _Parser(description=__doc__, epilog="Everything else is set in the config file.")
    parser.add_argument("--stage", required=True, choices=[*map(str, _KEYS), _ALL])
    parser.add_argument("--config", required=True, metavar="YAML", help="e.g. configs/demo.yaml")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)  # DeepSpeed's launcher passes it
    return parser.parse_args(arguments)


def main() -> int:
    again = _command_again()
    options = parse()
    try:
        config = configs.load(options.config)
        from pcamx.training.stopping import Interrupted
        from pcamx.training.trainer import train

        try:
            train(config, _stages(options.stage, config), resume=options.resume)
        except Interrupted as stopped:
            return _stopped(f"{stopped}; continue with: {again}")
    except PcamxError as error:
        return _failed(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        return _failed(f"{error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        return _stopped("stopped before training began")
    return 0


def _stages(asked: str, config: configs.Config) -> list[StageId]:
    """What ``--stage`` names; "all" is what the config has settings for."""
    return config.trained() if asked == _ALL else [stage for stage in _KEYS if str(stage) == asked]


def _failed(message: str) -> int:
    _after_rank_0()
    print(f"pcamx: error: {message}", file=sys.stderr)
    return 2


def _stopped(message: str) -> int:
    if _rank() == 0:
        print(f"pcamx: {message}", file=sys.stderr)
    return 130


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _after_rank_0() -> None:
    """Let one rank speak for all: rank 0 at once, after which the launcher ends the others.

    Whom nobody has ended by then has failed alone, and speaks for itself.
    """
    if _rank():
        time.sleep(_PATIENCE)


def _command_again() -> str:
    """The command that continues this run, as a person types it."""
    # DeepSpeed's launcher puts --local_rank=<n> there.
    words = [word for word in sys.argv if not word.startswith("--local_rank")]
    command = shlex.join(words if "--resume" in words else [*words, "--resume"])
    world = os.environ.get("WORLD_SIZE", "1")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        here, launcher = os.environ.get("LOCAL_WORLD_SIZE"), "torchrun --nproc_per_node"
    elif "CROSS_SIZE" in os.environ:
        here, launcher = os.environ.get("LOCAL_SIZE"), "deepspeed --num_gpus"
    else:
        return f"python {command}"
    return f"{launcher} {world} {command}" if here == world else f"your launcher and {command}"


def _leave(code: int) -> None:
    """Exit with ``code``.

    After an error gloo's and DALI's threads still run, and taking them down as usual sometimes ends
    in std::terminate (signal 6) instead of ``code``.
    """
    if code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(0)


if __name__ == "__main__":
    _leave(main())

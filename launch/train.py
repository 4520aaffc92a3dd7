"""Train the paper's stages: deepspeed launch/train.py --stage 1 --config configs/demo.yaml"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import NoReturn

# `deepspeed` and `torchrun` put launch/ on the path, not the project.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pcamx import config as configs
from pcamx.training.command import STAGES, after_rank_0, command_again, leave, train_command


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        if after_rank_0():
            super().error(message)
        leave(2)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = _Parser(description=__doc__, epilog="Everything else is set in the config file.")
    parser.add_argument("--stage", required=True, choices=STAGES)
    parser.add_argument("--config", required=True, metavar="YAML", help="e.g. configs/demo.yaml")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)  # DeepSpeed's launcher passes it
    return parser.parse_args(arguments)


def main() -> int:
    # DeepSpeed's launcher puts --local_rank=<n> there.
    again = command_again([word for word in sys.argv if not word.startswith("--local_rank")])
    options = parse()
    read = partial(configs.load, options.config)
    return train_command(read, options.stage, resume=options.resume, again=again)


if __name__ == "__main__":
    leave(main())

"""Train the paper's stages: deepspeed launch/train.py --stage 1 --config configs/demo.yaml"""

import argparse
import os
import sys
import time
from pathlib import Path

# `deepspeed` and `torchrun` put launch/ on the path, not the project.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pcamx import config as configs
from pcamx.errors import PcamxError


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="Everything else is set in the config file."
    )
    parser.add_argument("--stage", required=True, choices=["1", "2", "3", "all"])
    parser.add_argument("--config", required=True, metavar="YAML", help="e.g. configs/demo.yaml")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)  # DeepSpeed's launcher passes it
    return parser.parse_args(arguments)


def main() -> int:
    options = parse()
    try:
        config = configs.load(options.config)
        from pcamx.trainer import Interrupted, train

        stages = [1, 2, 3] if options.stage == "all" else [int(options.stage)]
        try:
            train(config, stages, resume=options.resume)
        except Interrupted as stopped:
            if stopped.rank == 0:
                again = " ".join([*sys.argv, "--resume"] if not options.resume else sys.argv)
                print(f"pcamx: {stopped}; continue with: {again}", file=sys.stderr)
            return 130
    except PcamxError as error:
        if os.environ.get("RANK", "0") != "0":
            # Rank 0 says it. The launcher ends all ranks once one has left: give it the time.
            time.sleep(10)
        else:
            print(f"pcamx: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the commands that train say alike: on how many GPUs, and with which keys changed."""

import argparse

from pcamx import config as configs


def add_gpus(sub: argparse.ArgumentParser) -> None:
    """Add ``--gpus``, the number of processes."""
    sub.add_argument(
        "--gpus",
        type=int,
        metavar="N",
        help="one process each (all that are here; the CPU where there is none)",
    )


def add_set(sub: argparse.ArgumentParser, example: str) -> None:
    """Add ``--set``, keys of the config that this run has otherwise."""
    sub.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help=f"a key of the config that this run has otherwise, such as {example}",
    )


def told(error: configs.ConfigError) -> configs.ConfigError:
    """Return ``error``, of what ``--set`` changes, with the option's name in front."""
    return error if str(error).startswith("--set") else configs.ConfigError(f"--set {error}")

"""What the command lines of all benches share: where results go, and how a mistake is told."""

import argparse
import os
import shlex
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from pcamx.errors import PcamxError

RESULTS = Path(__file__).resolve().parents[1] / "results"


def parser(bench: str, text: str, example: str) -> argparse.ArgumentParser:
    """Return the parser of `python -m bench.<bench>` with the options --json and --markdown."""
    made = argparse.ArgumentParser(
        prog=f"python -m bench.{bench}", description=text, epilog=f"example: {example}"
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write the record as JSON, too")
    made.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help=f"write the tables there (default: bench/results/<device>_<yyyy-mm>_{bench}.md)",
    )
    return made


def command_line(bench: str) -> str:
    """Return the command as the user gave it, without the interpreter's path.

    With the threads that were asked for, and with torchrun where there are several ranks.
    """
    threads, ranks = os.environ.get("OMP_NUM_THREADS"), int(os.environ.get("WORLD_SIZE", 1))
    start = ["torchrun", "--nproc_per_node", str(ranks)] if ranks > 1 else ["python"]
    words = shlex.join([*start, "-m", f"bench.{bench}", *sys.argv[1:]])
    return f"OMP_NUM_THREADS={threads} {words}" if threads else words


def free_port() -> int:
    """Return a TCP port of this host that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(made: argparse.ArgumentParser, run: Callable[[argparse.Namespace], None]) -> int:
    """Run a bench; 0, or 2 with one line for a mistake, or 130 after Ctrl-C."""
    options = made.parse_args()
    try:
        run(options)
    except PcamxError as error:
        print(f"{made.prog}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{made.prog}: stopped; nothing was written", file=sys.stderr)
        return 130
    return 0

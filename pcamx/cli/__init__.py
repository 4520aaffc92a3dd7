"""The `pcamx` command: prepare, train, evaluate, explain and more."""

import argparse
import signal
import sys

from pcamx import __version__
from pcamx.cli import (
    compare,
    continue_run,
    evaluate,
    explain,
    export,
    figure,
    init,
    marks,
    phantom,
    prepare,
    train,
)
from pcamx.cli.command import Parser
from pcamx.errors import PcamxError, missing_package


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="pcamx", description="Bone X-ray classification whose decision rests on the lesion."
    )
    parser.add_argument("--version", action="version", version=f"pcamx {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    measuring = (evaluate, figure, compare)
    for part in (phantom, prepare, init, marks, train, *measuring, continue_run, explain, export):
        part.add(commands)
    return parser


def main() -> int:
    """Run the command; 0, or 130 after Ctrl-C or SIGTERM.

    With one line 2 for a mistake, and 1 where what was checked is not what it should be.
    """
    options = _parser().parse_args()
    # So that it clears up as after Ctrl-C.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        options.command(options)
    except PcamxError as error:
        print(f"pcamx: error: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        reason = missing_package(error)
        if reason is None:
            raise
        print(f"pcamx: error: {reason}", file=sys.stderr)
        return reason.exit_code
    except OSError as error:
        if error.filename is None:
            raise
        # Of any file or folder: a name too long, one that may not be read or listed.
        print(f"pcamx: error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pcamx: stopped; nothing was written", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0

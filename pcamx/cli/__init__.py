"""The `pcamx` command: one file a subcommand, which holds its options and calls one function.

What somebody typed comes in, an exit code goes out; a mistake is one line (`command`). `options`
holds what several commands share. `pcamx.__main__` and the installed script call it.
"""

import argparse
import os
import signal
import sys
import threading
from types import FrameType

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
from pcamx.errors import mendable
from pcamx.output import printable, written


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
    """Run the command; 0, 130 after Ctrl-C or SIGTERM, or 141 where nobody reads what it says.

    With one line 2 for a mistake, and 1 where what was checked is not what it should be.
    """
    options = _parser().parse_args()
    written.clear()
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        raise KeyboardInterrupt

    # It clears up after SIGTERM as after Ctrl-C, which a shell has its background jobs ignore.
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    told = (signal.SIGTERM,) if ignored else (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, stop) for number in told}
    unraisable = sys.unraisablehook

    def once_more(lost: "sys.UnraisableHookArgs") -> None:
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            unraisable(lost)
            return
        # The stop came within a destructor, which raises nothing: once more, when that is over.
        main = threading.get_ident()
        threading.Timer(0.05, signal.pthread_kill, [main, signal.SIGTERM]).start()

    sys.unraisablehook = once_more
    try:
        options.command(options)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        # A library in C may swallow the stop, and raise an error of its own for it.
        if stopped or isinstance(error, KeyboardInterrupt):
            what = printable(next((path for path in reversed(written) if path.exists()), "nothing"))
            print(f"pcamx: stopped; {what} was written", file=sys.stderr)
            return 130
        if (reason := mendable(error)) is None:
            raise
        _drop_output()
        if isinstance(error, BrokenPipeError):  # whoever read has gone, as head does
            return 128 + signal.SIGPIPE
        print(f"pcamx: error: {printable(reason)}", file=sys.stderr)
        return reason.exit_code
    finally:
        sys.unraisablehook = unraisable
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _drop_output() -> None:
    """Send nowhere what stdout holds and cannot take: Python would try once more as it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

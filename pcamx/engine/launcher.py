"""`python -m pcamx.engine.launcher ...`: DeepSpeed's launcher, which Ctrl-C ends in order.

By itself it ends in a traceback a quarter of a second after Ctrl-C, while ranks still write.
"""

import os
import signal
import sys
from types import FrameType

import torch

from pcamx.engine.ranks import import_deepspeed


def main() -> None:
    """Start the ranks that the command line asks for and wait for their end; 130 after Ctrl-C."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # which it would otherwise warn of
    import_deepspeed()
    import psutil  # type: ignore[import-untyped]  # DeepSpeed's launcher is built on it
    from deepspeed.launcher import runner

    stopped = False

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        for child in psutil.Process().children():  # a terminal has told them, kill -INT has not
            child.send_signal(signal.SIGINT)

    signal.signal(signal.SIGINT, pass_on)
    try:
        runner.main()
    except SystemExit:
        if not stopped:
            raise
    if stopped:
        sys.exit(130)


if __name__ == "__main__":
    main()

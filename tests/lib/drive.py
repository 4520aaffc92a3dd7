"""launch/train.py, but the rank named in PCAMX_TEST_STOP gets a signal just before a step.

PCAMX_TEST_STOP="rank epoch step SIGNAL [group|launcher]": epoch and step count from 0; "group"
signals the whole process group, as a terminal's Ctrl-C does, "launcher" who started the rank, and
SIGNAL "HANG" waits for ever instead. torch.compile stops before its code generation,
which takes a minute on a CPU.
"""

import os
import runpy
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

import torch  # noqa: E402
from torch import nn  # noqa: E402

from pcamx.data.feed.batches import Feed  # noqa: E402
from pcamx.types import Batch  # noqa: E402

rank, at_epoch, at_step, name, *whom = os.environ["PCAMX_TEST_STOP"].split()
original = Feed.epoch


def _stop() -> None:
    if name == "HANG":
        threading.Event().wait()
    number = signal.Signals[name]
    if whom == ["group"]:
        os.killpg(0, number)
    else:
        os.kill(os.getppid() if whom == ["launcher"] else os.getpid(), number)


def epoch(self: Feed, epoch: int, start_step: int = 0) -> Iterator[Batch]:
    for step, batch in enumerate(original(self, epoch, start_step), start_step):
        if os.environ.get("RANK", "0") == rank and (epoch, step) == (int(at_epoch), int(at_step)):
            _stop()
        yield batch


Feed.epoch = epoch  # type: ignore[method-assign]


def compile(self: nn.Module, **_: object) -> None:
    self._compiled_call_impl = torch.compile(self._call_impl, backend="aot_eager")


nn.Module.compile = compile  # type: ignore[method-assign,assignment]
sys.argv[0] = str(PROJECT / "launch/train.py")
runpy.run_path(sys.argv[0], run_name="__main__")

"""Stopping early and in order: Ctrl-C, or a launcher's or batch system's SIGTERM."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):  # noqa: N818 - it is no error
    """Training stopped on Ctrl-C or SIGTERM and can be resumed."""


class StopSignal:
    """Remembers SIGINT and SIGTERM until the loop asks; DeepSpeed's launcher sends both."""

    def __init__(self) -> None:
        self.seen = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.seen = True

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note the two signals inside, and let nothing else happen."""
        before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

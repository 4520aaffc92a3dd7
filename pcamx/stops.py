"""Ctrl-C and SIGTERM, put off while something must not be left by half."""

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

STOPS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off Ctrl-C and SIGTERM to the end of the block; a second one is heeded at once.

    For what must not be left by half: a folder that takes another's place; every word to a pool,
    a lock of which would stay taken, and the pool's shutdown wait for ever.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers run in the main thread alone
        return
    before = {number: signal.getsignal(number) for number in STOPS}
    came: list[int] = []

    def put_off(number: int, frame: FrameType | None) -> None:
        handler = before[signal.Signals(number)]
        if came and callable(handler):
            handler(number, frame)
        came.append(number)

    try:
        with ExitStack() as stack:
            for number, handler in before.items():
                if callable(handler):  # else it is passed over, or ends the process at once
                    stack.callback(signal.signal, number, handler)
                    signal.signal(number, put_off)
            yield
    finally:
        if came:
            signal.raise_signal(came[0])

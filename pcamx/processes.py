"""Work on many films by several processes; they also keep a codec's crash off us."""

import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from pcamx.errors import PcamxError
from pcamx.stops import STOPS, uninterrupted

T = TypeVar("T")
R = TypeVar("R")
MEMORY = 3 << 29
"""Bytes of its own that a reading process may take; a film of 64 megapixels needs two thirds."""


def in_processes(
    work: Callable[[T], R], items: Sequence[T], films: Sequence[Path], workers: int | None
) -> Iterator[R]:
    """Yield ``work`` of every item, in order, by ``workers`` processes, all cores by default.

    ``films`` are the files that the items are about. Raises PcamxError near the film on which a
    process died, and what ``work`` raises.
    """
    workers = workers or len(os.sched_getaffinity(0))
    done = 0
    pool = started(min(workers, len(items)), begin)
    try:
        with uninterrupted():
            results = pool.map(work, items, chunksize=16)
        for done in range(len(items)):  # noqa: B007  the film that an error is near
            with uninterrupted():
                result = next(results)
            yield result
    except BrokenProcessPool:
        raise PcamxError(
            f"{films[done]}: a process died on this film or one soon after it; look at "
            "them, or close other programs if memory ran out"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def started(workers: int, initializer: Callable[[], None]) -> ProcessPoolExecutor:
    """Start a pool whose processes are all launched; ``initializer`` calls `begin`.

    Ctrl-C and SIGTERM wait for that: a process launched by half complains with a traceback.
    """
    # Fresh processes: a fork of one with threads (torch, DALI) may hang. They import the module
    # of their work alone, so they start fast.
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=initializer
    )
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        with uninterrupted():  # another thread may take the signal for this one
            for _ in range(workers):
                pool.submit(int)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pool


def begin() -> None:
    """Begin a process: send its stderr nowhere, bound its memory, have it end with its parent.

    Codecs complain on stderr without a file name; a killed parent's processes would wait for ever.
    """
    with suppress(ValueError, OSError):  # where the system has set a lower bound already
        resource.setrlimit(
            resource.RLIMIT_DATA, (MEMORY, resource.getrlimit(resource.RLIMIT_DATA)[1])
        )
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # blocked while it was launched


_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def bounded() -> Iterator[None]:
    """Let this process take MEMORY more than it has; what wants more raises MemoryError.

    For work on a film that is not worth a process of its own. One thread at a time.
    """
    with _ONE_AT_A_TIME:
        before = resource.getrlimit(resource.RLIMIT_DATA)
        with suppress(ValueError, OSError):  # a lower bound already, or a system without /proc
            resource.setrlimit(resource.RLIMIT_DATA, (_data() + MEMORY, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, before)


def _data() -> int:
    """Bytes that count against RLIMIT_DATA."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmData:"))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

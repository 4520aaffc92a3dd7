"""Processes that read and draw while this one runs the network, a bounded number of films ahead."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from pcamx.errors import PcamxError
from pcamx.processes import begin, bounded, started
from pcamx.stops import uninterrupted

T = TypeVar("T")
R = TypeVar("R")
FILMS_EACH = 8  # fewer films are not worth another process


class Here(Executor):
    """Runs each call at once, in this process, within the memory that one of its own would have."""

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        """Return the call's result, as a future that is done."""
        done: Future[object] = Future()
        with bounded():
            done.set_result(fn(*args, **kwargs))
        return done


@contextmanager
def executor(films: int, workers: int | None = None) -> Iterator[Executor]:
    """Return processes for so many ``films``, at most one a core; none for a few films.

    Raises PcamxError where one of them dies. Leaving the block waits for what they have begun.
    """
    workers = workers or min(len(os.sched_getaffinity(0)), films // FILMS_EACH)
    if workers < 1:
        yield Here()
        return
    pool = started(workers, _begin)
    try:
        yield pool
    except BrokenProcessPool:
        raise PcamxError(
            "a reading or drawing process died; close other programs if memory ran out, and "
            "explain the films in smaller groups to find the one it may have died on"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    begin()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to answer


def ahead(pool: Executor, work: Callable[[T], R], items: Iterable[T], depth: int) -> Iterator[R]:
    """Yield ``work`` of every item, in order, with at most ``depth`` under way or waiting."""
    waiting: deque[Future[R]] = deque()
    for item in items:
        with uninterrupted():
            waiting.append(pool.submit(work, item))
        if len(waiting) >= depth:
            yield _result(waiting)
    while waiting:
        yield _result(waiting)


def _result(waiting: deque[Future[R]]) -> R:
    with uninterrupted():
        return waiting.popleft().result()

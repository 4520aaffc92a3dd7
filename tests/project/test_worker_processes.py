"""Ctrl-C and SIGTERM while work goes to other processes and comes back."""

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from pcamx.explain.workers import ahead
from pcamx.processes import begin, in_processes, started
from pcamx.stops import uninterrupted


@pytest.fixture
def interrupting() -> Iterator[list[int]]:
    """Have SIGTERM raise KeyboardInterrupt, as on the command line; what it was told."""
    told: list[int] = []

    def stop(number: int, _: object) -> None:
        told.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    yield told
    assert signal.getsignal(signal.SIGTERM) is stop  # put back
    signal.signal(signal.SIGTERM, before)


def test_a_signal_waits_for_the_end_of_the_block(interrupting: list[int]) -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGTERM)
        done.append(1)
    assert done == [1] and interrupting == [signal.SIGTERM]


def test_a_second_signal_does_not_wait(interrupting: list[int]) -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        done.append(1)
    assert done == [] and interrupting == [signal.SIGTERM] * 2


def test_a_signal_is_not_lost_where_the_block_fails(interrupting: list[int]) -> None:
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGTERM)
        raise ValueError


def test_another_thread_is_left_alone(interrupting: list[int]) -> None:
    found: list[Any] = []

    def work() -> None:
        with uninterrupted():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]


class Interrupted(Executor):
    """Is told to stop in the middle of taking work, or of giving a result."""

    def __init__(self, at: str) -> None:
        self.at, self.done = at, list[str]()

    def stop(self, at: str) -> None:
        if at == self.at:
            signal.raise_signal(signal.SIGTERM)
        self.done.append(at)

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.stop("submit")
        future: Future[Any] = Future()
        future.set_result(fn(*args))
        result = future.result

        def stopped(timeout: float | None = None) -> Any:
            self.stop("result")
            return result(timeout)

        future.result = stopped  # type: ignore[method-assign]
        return future


@pytest.mark.parametrize("at", ["submit", "result"])
def test_neither_submit_nor_result_is_left_halfway(interrupting: list[int], at: str) -> None:
    """Where a lock of the pool may be held, which its shutdown then waits for."""
    pool = Interrupted(at)
    with pytest.raises(KeyboardInterrupt):
        list(ahead(pool, abs, [-1, -2], 1))
    assert pool.done[-1] == at


def test_a_real_pool_ends_after_a_signal_within_its_lock(
    interrupting: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = started(1, begin)
    queue = pool._work_ids  # type: ignore[attr-defined]
    put = queue.put

    def put_late(item: object) -> None:
        queue.mutex.acquire()  # as in the first line of put, before anything would give it back
        signal.raise_signal(signal.SIGTERM)
        queue.mutex.release()
        put(item)

    monkeypatch.setattr(queue, "put", put_late)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(ahead(pool, abs, [-1, -2], 1))
        assert not queue.mutex.locked()
    finally:
        if queue.mutex.locked():
            queue.mutex.release()
        pool.shutdown(cancel_futures=True)


def test_results_in_order_by_real_processes() -> None:
    assert list(in_processes(abs, [-3, 2, -1], [], 2)) == [3, 2, 1]

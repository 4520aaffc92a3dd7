"""Ranks that do not meet are named: a clock for the time before there is a process group.

`Watch` begins when all have met. Until then a rank that is stopped, was not started or knocks at
another's door keeps the others waiting, in calls of PyTorch that have no end of their own. So each
rank writes into the store of MASTER_ADDR and MASTER_PORT that it is there, again and again.
"""

import json
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple, Self

import torch.distributed as dist

from pcamx.engine.watch import PATIENCE, end_stopped

_LEAST = 30.0
"""Seconds that ranks have to meet, however short the time-out: processes start one by one."""
_LAST = 4
"""How many periods before the end ranks begin to read of the others; earlier, rank 0 is spared."""


class _Sign(NamedTuple):
    """What a rank has last written of itself, and when that was read, by our own clock."""

    host: str
    process: int
    times: int
    heard: float


class Meeting:
    """Ends this process with one line where the ranks have not met after ``timeout`` seconds.

    A context manager around joining the process group and its first collectives. The seconds are
    of this process's life: of a stop by Ctrl-Z it notices nothing.
    """

    def __init__(self, timeout: float) -> None:
        self.rank, self.world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.timeout = max(timeout, _LEAST)
        self.period = min(self.timeout / 20, 5.0)
        self._signs: dict[int, _Sign] = {}
        self._lived, self._answered = 0.0, -self.timeout
        self._over = threading.Event()

    def __enter__(self) -> Self:
        if self.world > 1:
            for work in (self._count, self._show):
                threading.Thread(target=work, name="meeting", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _count(self) -> None:
        last = time.monotonic()
        while not self._over.wait(self.period):
            now = time.monotonic()
            self._lived += min(now - last, 2 * self.period)
            last = now
            if self._lived > self.timeout:
                self._end()

    def _show(self) -> None:
        """Write that this rank is there, and read of the others, until all have met.

        In a thread of its own: a store may never answer.
        """
        # What cannot be reached, or breaks, is told by PyTorch itself, or by the clock.
        with suppress(RuntimeError, ValueError, OSError):
            store = _store(self.rank, self.world, self.timeout)
            count = 0
            while not self._over.wait(self.period if count else 0):
                count += 1
                ours = [socket.gethostname(), os.getpid(), count]
                store.set(_key(self.rank), json.dumps(ours))
                if self._lived > self.timeout - _LAST * self.period:
                    for rank in range(self.world):
                        self._read(store, rank)
                    self._answered = self._lived

    def _read(self, store: Any, rank: int) -> None:
        if not store.check([_key(rank)]):
            return
        host, process, count = json.loads(store.get(_key(rank)))
        known = self._signs.get(rank)
        if known is None or known.times != count:
            # What is read for the first time may be old.
            heard = self._lived if known else -self.timeout
            self._signs[rank] = _Sign(host, process, count, heard)

    def _end(self) -> None:
        """Say who is missing once, end whom only a kill ends, and leave: the main thread waits."""
        place = f"MASTER_ADDR {os.environ['MASTER_ADDR']}, MASTER_PORT {os.environ['MASTER_PORT']}"
        recent = self._lived - (_LAST - 1) * self.period
        there = {rank for rank, sign in self._signs.items() if sign.heard >= recent} | {self.rank}
        missing = sorted(set(range(self.world)) - there)
        if self._answered < recent:  # nothing is known of the others
            why = f"rank {self.rank} got no answer at {place} within {self.timeout:g} s"
            why += f" ({_obstacle()}); see that all ranks run and are told this address"
            # Rank 0 has to speak for all; then one rank a host.
            wait = PATIENCE * max(1, int(os.environ["LOCAL_RANK"])) if self.rank else 0.0
        elif missing:
            names = ", ".join(self._name(rank) for rank in missing[:4])
            names += f" and {len(missing) - 4} more" if len(missing) > 4 else ""
            why = f"the ranks have not met at {place} within {self.timeout:g} s: no sign of {names}"
            why += " (not started, stopped, or told another address); see what became of it"
            wait = 0.0 if self.rank == min(there) else PATIENCE
        else:
            why = f"the ranks have not met within {self.timeout:g} s, though all have come to"
            why += f" {place}; see that their hosts reach each other on every port"
            wait = 0.0 if self.rank == 0 else PATIENCE
        if self._over.wait(wait):  # at the last moment
            return
        why += ", or raise runtime.timeout where they start at different times"
        sys.stderr.write(f"pcamx: error: {why}\n")
        sys.stderr.flush()
        for rank in missing:
            if rank in self._signs:
                end_stopped(self._signs[rank].host, self._signs[rank].process)
        os._exit(2)

    def _name(self, rank: int) -> str:
        sign = self._signs.get(rank)
        return f"rank {rank}" + (f" on {sign.host} (process {sign.process})" if sign else "")


def _key(rank: int) -> str:
    return f"pcamx/rank {rank}"


def _store(rank: int, world: int, timeout: float) -> Any:
    """Return the store at which PyTorch's ranks meet, without waiting for the others there."""
    # torchrun keeps it itself; else rank 0 does, once for all who ask for it in one process.
    keeps = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    return dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        world,
        is_master=keeps,
        timeout=timedelta(seconds=timeout),
        wait_for_workers=False,
        multi_tenant=True,
    )


def _obstacle() -> str:
    """Say why nobody answers where the ranks meet."""
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    try:
        with socket.create_connection((address, int(port)), timeout=PATIENCE):
            return "rank 0 is stopped, or another program has the port"
    except socket.gaierror:
        return "that name is not known here"
    except OSError as error:
        return f"{error.strerror or error}: rank 0 does not run, or is behind a firewall"

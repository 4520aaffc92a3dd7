"""Whoever stops answering is named, and no rank waits for it: a pulse between the ranks.

Collectives notice a process that has died at once, but wait half an hour, or for ever, for one that
is stopped, hangs or lies behind a cut cable. So a thread of each rank sends all others a small
datagram: what it was last doing, and for how long. It reads theirs, and the launcher's life.
"""

import json
import os
import re
import secrets
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

import torch.distributed as dist

from pcamx.distributed import HostRanks

LONG = 1800.0
"""Seconds without progress that are borne outside plain steps: a compiler, a slow disk."""
_SLOWER = 10
"""How many times longer than the slowest so far a step may take."""
PATIENCE = 5.0
"""Seconds that one rank has to speak for all, after which a launcher has ended the others."""
_LARGEST = 2000  # bytes of a datagram
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(slots=True)
class Pulse:
    """What is known of one rank."""

    host: str
    process: int
    doing: str = "starting"
    notes: int = 0
    """How often it said what it does; ranks in step have said so equally often."""
    idle: float = 0.0
    """Seconds since it last got on, when it last answered."""
    patience: float = LONG
    heard: float | None = None
    """When it last answered, by our own clock; None before the first time."""


def fault(pulses: dict[int, Pulse], own: int, now: float, silence: float) -> tuple[str, set[int]]:
    """Say why training cannot go on, "" if it can, and the ranks silent for ``silence`` seconds.

    A rank that was never heard is not judged: datagrams may be blocked where training works.
    """
    silent = {
        rank
        for rank, pulse in pulses.items()
        if rank != own and pulse.heard is not None and now - pulse.heard > silence
    }
    if silent:
        names = "; ".join(f"{_name(rank, pulses)}, last: {pulses[rank].doing}" for rank in silent)
        why = f"no answer for {silence:g} s (by runtime.timeout) from {names}"
        return f"{why} (stopped, or its network cut)", silent
    known = {rank: p for rank, p in pulses.items() if rank == own or p.heard is not None}
    if all(pulse.idle > pulse.patience for pulse in known.values()):
        least = min(pulse.notes for pulse in known.values())
        late = [rank for rank, pulse in known.items() if pulse.notes == least]
        names = "; ".join(f"{_name(rank, pulses)}, in: {pulses[rank].doing}" for rank in late[:4])
        longest = min(pulse.idle for pulse in known.values())
        return f"nothing has got on for {longest:.0f} s (runtime.timeout): {names}", set()
    return "", set()


def _name(rank: int, pulses: dict[int, Pulse]) -> str:
    return f"rank {rank} on {pulses[rank].host} (process {pulses[rank].process})"


class Watch:
    """Ends this process when a rank does not answer, nothing gets on, or the launcher is gone.

    A context manager; every rank makes one at the same point, inside a process group. ``timeout``
    is in seconds of this process's life: of a stop by Ctrl-Z it notices nothing. Half of it after
    a rank has stopped answering all have ended (`silence_of`).
    """

    def __init__(self, timeout: float) -> None:
        self.timeout, self.period = timeout, _period(timeout)
        self.rank, world = dist.get_rank(), dist.get_world_size()
        self._socket = socket.socket(_family(), socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind((_interface(), 0))
        ours = [_address(), self._socket.getsockname()[1], os.getpid(), secrets.token_hex(8)]
        hosts, found = HostRanks().gather(socket.gethostname()), HostRanks().gather(ours)
        self._peers = {rank: tuple(found[rank][:2]) for rank in range(world) if rank != self.rank}
        self._token = found[0][3]
        self.pulses = {rank: Pulse(hosts[rank], found[rank][2]) for rank in range(world)}
        self._launchers = _launchers()
        self._since, self._slowest, self._lived = time.monotonic(), 0.0, 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        # From here on this says who is late, not gloo's or NCCL's own clock, which does not know
        # that one host may decode for hours while another waits.
        dist.distributed_c10d._set_pg_timeout(timedelta(days=7))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    def doing(self, what: str, *, long: bool = False) -> None:
        """Note what this rank begins; every rank notes the same things in the same order.

        It may take ``timeout``, or 10 times as long as the slowest so far; ``long`` half an hour.
        """
        own, now = self.pulses[self.rank], time.monotonic()
        if own.patience != LONG:
            self._slowest = max(self._slowest, now - self._since)
        own.doing, own.notes = what, own.notes + 1
        own.patience = LONG if long else max(self.timeout, _SLOWER * self._slowest)
        self._since, own.idle = now, 0.0

    def got_on(self) -> None:
        """Note that what this rank does goes on."""
        self.pulses[self.rank].idle = 0.0

    def _run(self) -> None:
        last = time.monotonic()
        while not self._over.wait(self.period):
            # As this process has lived it: stopped and continued, it has not waited for anybody.
            now = time.monotonic()
            lived, last = min(now - last, 2 * self.period), now
            self._lived += lived
            self.pulses[self.rank].idle += lived
            self._send()
            self._receive()
            why, silent = fault(self.pulses, self.rank, self._lived, silence_of(self.timeout))
            if why:
                self._end(why, silent)
            if self._launchers and self._launchers != _launchers():
                self._launchers = []
                # The loop takes it as a batch system's wish to stop, and saves a checkpoint.
                os.kill(os.getpid(), signal.SIGTERM)

    def _send(self) -> None:
        own = self.pulses[self.rank]
        facts = [self._token, self.rank, own.doing[:200], own.notes, own.idle, own.patience]
        message = json.dumps(facts).encode()[:_LARGEST]
        for address in self._peers.values():
            # A cut network refuses; that nothing comes back is what counts.
            with suppress(OSError):
                self._socket.sendto(message, address)

    def _receive(self) -> None:
        while True:
            try:
                message, source = self._socket.recvfrom(_LARGEST)
            except OSError:  # no more of them, or word that an earlier one did not arrive
                return
            # Anybody can send to a port: what is not a pulse of this run is dropped.
            with suppress(ValueError, KeyError, TypeError, RecursionError):
                token, rank, *facts = json.loads(message)
                if token == self._token and rank in self._peers:
                    self._take(rank, *facts)
                    # A host whose name means its loopback to itself has told us a wrong one.
                    self._peers[rank] = source[:2]

    def _take(self, rank: int, doing: str, notes: int, idle: float, patience: float) -> None:
        pulse = self.pulses[rank]
        pulse.doing, pulse.notes, pulse.idle = str(doing), int(notes), float(idle)
        pulse.patience, pulse.heard = float(patience), self._lived

    def _end(self, why: str, silent: set[int]) -> None:
        """Say it once, end whom only a kill ends, and leave: the main thread waits for ever."""
        if self.rank != min(self.pulses.keys() - silent):
            time.sleep(PATIENCE)
        sys.stderr.write(f"pcamx: error: {why}; mend that, then continue with --resume\n")
        sys.stderr.flush()
        for rank in silent:
            end_stopped(self.pulses[rank].host, self.pulses[rank].process)
        os._exit(2)


def end_stopped(host: str, process: int) -> None:
    """Kill a rank of this one's launcher, whose SIGTERM does not reach a stopped process."""
    if host == socket.gethostname() and _parent(process) == os.getppid():
        with suppress(OSError):
            os.kill(process, signal.SIGKILL)


def _period(timeout: float) -> float:
    """Return the seconds between two pulses."""
    return min(timeout / 40, 5.0)


def silence_of(timeout: float) -> float:
    """Return how long a rank may be silent, so that all have ended half of ``timeout`` later.

    A pulse that it sent just before is read a period later, and judged by another; then one rank
    speaks for all, and a launcher needs about as long once more.
    """
    return timeout / 2 - 2 * _period(timeout) - min(2 * PATIENCE, timeout / 12)


def _family() -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in _address() else socket.AF_INET


def _interface() -> str:
    """Where pulses are taken: the loopback alone where the ranks meet there, else every one."""
    return _address() if os.environ["MASTER_ADDR"] in _LOOPBACK else ""


def _address() -> str:
    """This host's, as seen from where the ranks meet."""
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]) or 9
    family, kind, _, _, there = socket.getaddrinfo(*place, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(there)  # of datagrams: nothing is sent
        return str(probe.getsockname()[0])


def _parent(process: int) -> int:
    """The process that started another, 0 where that cannot be told."""
    try:
        # Behind the name, which may hold anything.
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _launchers() -> list[int]:
    """The launcher's processes as they are now; none where whoever started us may leave."""
    if not {"TORCHELASTIC_RUN_ID", "CROSS_SIZE"} & os.environ.keys():
        return []
    parent = os.getppid()
    above = _parent(parent)
    words: list[str] = []
    with suppress(OSError):
        words = os.fsdecode(Path(f"/proc/{above}/cmdline").read_bytes()).split("\0")
    # Both start a launcher of their own on each host.
    return [parent, above] if any(map(_STARTS_LAUNCHER.search, words)) else [parent]


_STARTS_LAUNCHER = re.compile(
    r"/(deepspeed|ds)$|^(pcamx\.engine\.launcher|deepspeed\.launcher\.runner)$"
)
"""How a word of a command begins or ends that is `deepspeed`, or the launcher of `pcamx train`."""

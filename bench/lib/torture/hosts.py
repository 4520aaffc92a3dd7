"""A training on two hosts, network namespaces of this machine, whose cable is cut."""

import os
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.lib.torture.runs import TIMEOUT, Place, finish, fresh, train, until_it_trains

_SLACK = 30.0
"""Seconds that a busy machine may take on top."""
_ADDRESSES = ("10.213.77.1", "10.213.77.2")


@contextmanager
def _hosts() -> Iterator[list[str]]:
    """Two named namespaces with a cable between them; raises OSError or CalledProcessError."""
    names = [f"pcamx{os.getpid() % 10**6}{side}" for side in "ab"]
    try:
        for name in names:
            _ip("netns", "add", name)
        here, there = ([name, "netns", name] for name in names)
        _ip("link", "add", *here, "type", "veth", "peer", "name", *there)
        for name, address in zip(names, _ADDRESSES, strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", name)
            for link in ("lo", name):
                _ip("-n", name, "link", "set", link, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _on(name: str) -> Sequence[str]:
    """What makes a command run on that host; it becomes the command, under the same number."""
    inside = 'hostname "$1" && shift && exec "$@"'
    by_cable = ["env", f"GLOO_SOCKET_IFNAME={name}"]
    return [
        "ip",
        "netns",
        "exec",
        name,
        "unshare",
        "--uts",
        *by_cable,
        "sh",
        "-c",
        inside,
        "",
        name,
    ]


def cut(folder: Path, seed: str) -> dict[str, str]:
    """Cut the cable once training has begun: each side names the other and ends, in time."""
    try:
        with _hosts() as names:
            return _cut(fresh(folder), folder, seed, names)
    except (OSError, subprocess.CalledProcessError):
        return {"came": "not run", "what": "network namespaces need root and ip", "said": ""}


def _cut(place: Place, folder: Path, seed: str, names: Sequence[str]) -> dict[str, str]:
    wait, began = random.Random(seed).uniform(0, 3), [0.0]

    def act(_: list[int]) -> None:
        until_it_trains(place)
        time.sleep(wait)
        _ip("-n", names[0], "link", "set", names[0], "down")
        began[0] = time.monotonic()

    ended = train(*place, act=act, address=_ADDRESSES[0], hosts=[_on(name) for name in names])
    late = time.monotonic() - began[0]
    what = f"cable cut after {wait:.1f} s, both sides ended {late:.0f} s later"
    if ended.codes == [0, 0]:
        return finish(folder, place, what)
    named = [f"rank {rank} on {name} (process " in ended.said for rank, name in enumerate(names)]
    if ended.fault or not all(named) or ended.codes != [2, 2] or late > TIMEOUT + _SLACK:
        return {"came": "fault", "what": f"{what}; codes {ended.codes}", "said": ended.said}
    return finish(folder, place, what)

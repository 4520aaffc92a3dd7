"""Freed memory that stays with the process, by the page faults that it spares."""

import sys

import processes
import pytest
from processes import PROJECT

STEPS = """
import ctypes, resource, sys, torch
from pcamx.engine.host_memory import keep_freed_memory

# Every tensor in pages of its own: left to itself, glibc gives back now and then.
assert ctypes.CDLL(None).mallopt(-3, 2**16)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "kept":
    assert keep_freed_memory()
def step():  # a forward's maps of 4 MB each and one of 80, all freed at its end
    return [torch.ones(2**20) for _ in range(20)] + [torch.ones(20 * 2**20)]
for _ in range(3):
    step()
before = faults()
for _ in range(10):
    step()
print("faults:", faults() - before)
"""
PAGES = 10 * 40 * 2**22 // 2**12
"""Of 4 KB, in ten steps."""


@pytest.mark.parametrize(("kept", "spared"), [("kept", True), ("given back", False)])
def test_a_step_takes_the_memory_of_the_one_before(kept: str, spared: bool) -> None:
    ended = processes.command(
        sys.executable, "-c", STEPS, kept, cwd=PROJECT, PYTHONPATH=str(PROJECT)
    ).ok()
    faults = int(ended.text.split("faults:")[1])
    assert (faults < 0.05 * PAGES) == spared, faults

"""What an hour of a GPU is spent on, in the order of what is most worth knowing.

A part is a letter, its jobs are commands of under nine minutes each. Where no GPU is found the same
commands run at toy size, which shows that they work, and measures nothing.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pcamx.catalogue import STAGE_1, classifiers

LIMIT = 530.0
"""Seconds of a job."""
PARTS = {
    "A": "Device, versions, copy bandwidth; the kernels' tests (torch, Triton and pytest suffice)",
    "B": "The kernels beside their rivals",
    "C": "A training step beside plain PyTorch's",
    "D": "Everything else that only a GPU can test",
    "E": "A drawn set through every command",
    "F": "Profile of a step; compute-sanitizer",
}
KERNEL_TESTS = ["tests/kernels/test_kernels.py", "tests/kernels/test_gather_affine_normalise.py"]
SANITIZER_TOOLS = ("memcheck", "racecheck", "synccheck")


class Job(NamedTuple):
    """A command; those of a bench write their tables beside the job's result."""

    name: str
    """Part, then what it does: C-stage-2-films-32."""
    command: list[str]
    environment: dict[str, str] = {}

    @property
    def part(self) -> str:
        """Letter of `PARTS`."""
        return self.name[0]


def _bench(out: Path, name: str, module: str, *words: object) -> Job:
    files = ["--json", str(out / f"{name}.rows.json"), "--markdown", str(out / f"{name}.md")]
    return Job(name, [sys.executable, "-m", f"bench.{module}", *map(str, words), *files])


def _tests(name: str, *words: str) -> Job:
    return Job(name, [sys.executable, "-m", "pytest", *words])


def on_gpu(out: Path) -> Iterator[Job]:
    """Return jobs for a GPU; ``out`` is where benches leave their tables."""
    yield _bench(out, "A-device", "gpu.device")
    yield from (_tests(f"A-{Path(f).stem}", "-m", "gpu", f) for f in KERNEL_TESTS)
    for name, sizes in (("256", [256]), ("16-64", [16, 64]), ("others", [1, 1024, "16@1024"])):
        yield _bench(out, f"B-films-{name}", "kernels", "--sizes", *sizes)
    for entry in classifiers():
        for films in (256, 32, 64):
            name = f"C-stage-{entry.key}-films-{films}"
            what = ("--stages", entry.key, "--sizes", films)
            yield _bench(out, name, "step", *what, "--zero", 0, 1)
    yield _tests("D-tests", "-m", "gpu", *(f"--ignore={file}" for file in KERNEL_TESTS))
    yield _bench(out, "D-loader", "loader")
    share = ("--share", 0.1, "--epochs", 2)
    yield _bench(out, "E-mura", "mura", "--folder", out / "mura", *share)
    for entry in classifiers():
        name = f"F-profile-stage-{entry.key}"
        yield _bench(out, name, "gpu.profile", "--stage", entry.key, "--films", 256)
    if shutil.which("compute-sanitizer"):
        yield from map(_sanitized, SANITIZER_TOOLS)


def _sanitized(tool: str) -> Job:
    """The kernels' tests under a tool; those left out run 100 times or take 30 GB."""
    tests = _tests("", "-m", "gpu", *KERNEL_TESTS, "-k", "not hundred and not int32").command
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "1", *tests]
    # Without PyTorch's cache every tensor is an allocation of its own, so that its end is seen.
    return Job(f"F-{tool}", command, {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})


def on_cpu(out: Path) -> Iterator[Job]:
    """Return the same commands at toy size."""
    yield _bench(out, "A-device", "gpu.device")
    yield _tests("A-test_kernels", KERNEL_TESTS[0], "-k", "flat")
    yield _bench(out, "B-films-2", "kernels", "--sizes", "2@32")
    words = ("--stages", STAGE_1.key, "--sizes", "2@32", "--zero", 1, "--eager")
    yield _bench(out, f"C-stage-{STAGE_1.key}-films-2", "step", *words)
    yield _tests("D-tests", "tests/data/feed/test_order.py")
    share = ("--share", 0.001, "--size", 64, "--canvas", 32, "--epochs", 1, "--batch", 8)
    yield _bench(out, "E-mura", "mura", "--folder", out / "mura", *share)
    small = ("--stage", STAGE_1.key, "--films", 2, "--pixels", 32)
    yield _bench(out, f"F-profile-stage-{STAGE_1.key}", "gpu.profile", *small)

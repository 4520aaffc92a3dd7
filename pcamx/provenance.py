"""What stands beside every figure: the device, the versions and the commit it was measured with."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import torch

from pcamx import __version__

PACKAGES = {
    "torch": "torch",
    "deepspeed": "deepspeed",
    "dali": "nvidia-dali-cuda130",
    "numpy": "numpy",
    "triton": "triton",
}
"""Short name and distribution of what the results depend on."""


def versions(extra: dict[str, str] | None = None) -> dict[str, str]:
    """Return the versions of pcamx, Python and `PACKAGES`, or "not installed"; imports nothing.

    ``extra`` adds to the packages: short name to distribution.
    """
    found = {"pcamx": __version__, "python": platform.python_version()}
    for name, package in (PACKAGES | (extra or {})).items():
        try:
            found[name] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def commit() -> str | None:
    """Return the project's commit, with "+changes" where the working tree differs; None outside
    git.
    """
    project = Path(__file__).resolve().parents[1]

    def git(*words: str) -> str:
        command = ["git", "-C", str(project), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603

    try:
        if Path(git("rev-parse", "--show-toplevel")) != project:
            return None
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or model and cores of the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu()


def driver() -> str | None:
    """Return the version of the NVIDIA driver, None where nvidia-smi does not tell."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(names) or '?'} cores"

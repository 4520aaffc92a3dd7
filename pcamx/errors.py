"""The errors that a user can mend."""

import sys


class PcamxError(Exception):
    """A mistake in a file, a key or a command.

    The message is one line: it names the file, key or row and says what to do. The command
    line prints it without a traceback and exits with ``exit_code``.
    """

    exit_code = 2


class MismatchError(PcamxError):
    """What was checked is not what it should be; the command line exits with 1."""

    exit_code = 1


TRAIN = {
    "cv2": "opencv-python-headless",
    "deepspeed": "deepspeed",
    "jinja2": "jinja2",
    "matplotlib": "matplotlib",
    "nvidia": "nvidia-dali-cuda130",
    "rich": "rich",
    "torchmetrics": "torchmetrics",
    "triton": "triton",
}
"""Packages of `pcamx[train]` by the module that they bring."""


def mendable(error: Exception) -> PcamxError | None:
    """Say in one line what a user can mend of an error; None for a fault of pcamx."""
    if isinstance(error, PcamxError):
        return error
    if isinstance(error, ModuleNotFoundError):
        return missing_package(error)
    if isinstance(error, OSError):
        # Of any file or folder: a name too long, one that may not be read or listed.
        where = "" if error.filename is None else f"{error.filename}: "
        return PcamxError(f"{where}{error.strerror or error}")
    return None


def missing_package(error: ModuleNotFoundError) -> PcamxError | None:
    """Say what to install, where a package of `pcamx[train]` is missing; None for any other."""
    package = TRAIN.get((error.name or "").partition(".")[0])
    if package is None:
        return None
    if not sys.platform.startswith("linux"):
        return PcamxError(
            f"this needs {package}, and so Linux; pcamx.PositiveCAM and predict work here"
        )
    return PcamxError(f"this needs {package}, which is missing: pip install 'pcamx[train]'")

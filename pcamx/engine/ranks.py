"""The process group: joining it, leaving it, and DeepSpeed's import, which must come before."""

import logging
import os
import stat
import tempfile
import warnings
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from pcamx.devices import whole_float32
from pcamx.engine.host_memory import keep_freed_memory
from pcamx.errors import PcamxError


class Ranks(NamedTuple):
    """This process among all."""

    rank: int
    world: int
    device: torch.device


def prepare() -> Any:
    """Import DeepSpeed and set what it reads as it starts: all that takes long before `start`."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        keep_freed_memory()
    # Without these DeepSpeed looks for MPI.
    for name, value in _ALONE.items():
        os.environ.setdefault(name, value)
    return import_deepspeed()


def start(timeout: float = 600.0) -> Ranks:
    """Join the process group of `deepspeed`, `torchrun` or, alone, of plain `python`.

    Raises PcamxError where the ranks cannot meet; after ``timeout`` seconds in any case but a few,
    for which there is `Meeting`.
    """
    deepspeed, gpu = prepare(), torch.cuda.is_available()
    local = int(os.environ["LOCAL_RANK"])
    if gpu and local >= torch.cuda.device_count():
        raise PcamxError(
            f"rank {local} has no GPU of its own: {torch.cuda.device_count()} found; "
            "lower --num_gpus"
        )
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
        whole_float32()
        if int(os.environ["WORLD_SIZE"]) > 1:
            os.environ.setdefault("TRITON_CACHE_DIR", str(_kernel_cache(local)))
    try:
        deepspeed.init_distributed(
            dist_backend="nccl" if gpu else "gloo",
            verbose=False,
            timeout=timedelta(seconds=timeout),
        )
    except (dist.DistError, ValueError, OSError) as error:
        raise PcamxError(_no_meeting(error)) from None
    return Ranks(dist.get_rank(), dist.get_world_size(), device)


def _kernel_cache(local: int) -> Path:
    """Return the folder for this rank's compiled kernels, on a disk of its host.

    Ranks that compile into one folder race, most of all on a network disk. Kept for the next run
    where it is ours alone: what lies there is run.
    """
    folder = Path(tempfile.gettempdir()) / f"pcamx-kernels-{os.getuid()}-{local}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
        return folder
    return Path(tempfile.mkdtemp(prefix="pcamx-kernels-"))


def _no_meeting(error: Exception) -> str:
    """Why the ranks cannot meet, in a line that says what to do."""
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    why = str(error).splitlines()[0] if str(error) else type(error).__name__
    what = f"MASTER_ADDR {address}, MASTER_PORT {port}: the ranks cannot meet there ({why})"
    for sign in ("EADDRINUSE", "EACCES"):
        if sign in str(error):
            taken = "taken by another program" if sign == "EADDRINUSE" else "not for you to use"
            what = f"port {port} on {address} is {taken}"
    if any(sign in str(error) for sign in _HUNG_UP):
        return (
            "another rank has ended before the training began, or another program answers at "
            f"MASTER_ADDR {address}, MASTER_PORT {port} ({why}); see what it said, then start again"
        )
    return f"{what}; choose a free one with the launcher's --master_port, or MASTER_PORT"


_HUNG_UP = ("Connection reset", "Broken pipe", "onnection was likely closed")
"""In what PyTorch says where somebody was there, and has gone."""
_ALONE = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "0",
}


def import_deepspeed() -> Any:
    """Import DeepSpeed, made quiet and kept from compiling what training does not use."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    warnings.filterwarnings("ignore", category=FutureWarning, module="deepspeed")
    import deepspeed
    import deepspeed.ops

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # No C++ extension is used, so none is looked for: with a GPU and no CUDA compiler that prints
    # seven warnings a rank, and on CPUs init_distributed would compile one, for minutes, with a
    # lock that hangs the next run if it is killed. A private table, hence the pinned version.
    deepspeed.ops.__compatible_ops__ = {}
    return deepspeed


_UNCOMPILED = "TORCHDYNAMO_DISABLE"
"""What torch.compile heeds when it is called; a function it met meanwhile stays as it is."""


def import_muon() -> None:
    """Import DeepSpeed's Muon, which training does not use, uncompiled.

    Under ZeRO `deepspeed.initialize` imports it to compare our optimizer with it, and its decorator
    loads the whole of torch's compiler, for nothing where `runtime.compile` is off.
    """
    before = os.environ.get(_UNCOMPILED)
    os.environ[_UNCOMPILED] = "1"
    try:
        import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401
    finally:
        if before is None:
            del os.environ[_UNCOMPILED]
        else:
            os.environ[_UNCOMPILED] = before


def is_first() -> bool:
    """Tell whether this process is rank 0, known before the ranks have met."""
    return os.environ.get("RANK", "0") == "0"


def world_size() -> int:
    """Count how many ranks were launched, known before they have met."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def lost_rank(error: RuntimeError) -> bool:
    """Tell whether ``error`` says that another rank has gone in the midst of working together."""
    # Gloo has no exception of its own, only its source file's path in the message.
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)


def stop() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        # DeepSpeed's: it forgets the groups, which the next training of this process would use.
        import_deepspeed().comm.destroy_process_group()

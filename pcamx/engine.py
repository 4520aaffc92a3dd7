"""DeepSpeed around a stage: process group, ZeRO, mixed precision, sharded optimizer.

The only module that imports deepspeed. What its 0.19.8 needs on CPUs and with batch norm is
explained where it is done.
"""

import io
import logging
import os
import shutil
import warnings
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from pcamx.config import Config
from pcamx.errors import PcamxError

# Default buckets hold 5e8 elements and are allocated anew in each backward: gigabytes for a model
# of 0.7 M parameters.
_BUCKET = 2_000_000
# Below this many elements ZeRO-3 keeps a parameter whole on each rank.
_SHARD_ABOVE = 10_000


class Ranks(NamedTuple):
    """This process among all."""

    rank: int
    world: int
    device: torch.device


def start() -> Ranks:
    """Join the process group of `deepspeed`, `torchrun` or, alone, of plain `python`."""
    gpu = torch.cuda.is_available()
    if not gpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # Without these DeepSpeed looks for MPI.
    for name, value in _ALONE.items():
        os.environ.setdefault(name, value)
    deepspeed = _import_deepspeed()
    local = int(os.environ["LOCAL_RANK"])
    if gpu and local >= torch.cuda.device_count():
        raise PcamxError(
            f"rank {local} has no GPU of its own: {torch.cuda.device_count()} found; "
            "lower --num_gpus"
        )
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    deepspeed.init_distributed(dist_backend="nccl" if gpu else "gloo", verbose=False)
    return Ranks(dist.get_rank(), dist.get_world_size(), device)


_ALONE = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "0",
}


def _import_deepspeed() -> Any:
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    warnings.filterwarnings("ignore", category=FutureWarning, module="deepspeed")
    import deepspeed
    import deepspeed.ops

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # On CPUs init_distributed would compile a C++ extension that only inference uses: minutes, and
    # a lock that hangs the next run if it is killed. A private switch, hence the pinned version.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def world_size() -> int:
    """How many ranks were launched, known before they have met."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def lost_rank(error: RuntimeError) -> bool:
    """Whether ``error`` says that another rank has gone in the midst of working together."""
    # Gloo has no exception of its own, only its source file's path in the message.
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)


def stop() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def deepspeed_config(config: Config, world: int) -> dict[str, Any]:
    """The runtime section as DeepSpeed's own configuration.

    Raises PcamxError where the batch cannot be split over the ranks.
    """
    runtime = config.runtime
    if runtime.batch_size % world:
        raise PcamxError(
            f"runtime.batch_size: {runtime.batch_size} cannot be split over {world} ranks"
        )
    settings: dict[str, Any] = {
        "train_batch_size": runtime.batch_size,
        "train_micro_batch_size_per_gpu": runtime.batch_size // world,
        "gradient_accumulation_steps": 1,
        "zero_optimization": {
            "stage": runtime.zero_stage,
            "reduce_bucket_size": _BUCKET,
            "allgather_bucket_size": _BUCKET,
            "stage3_prefetch_bucket_size": _BUCKET,
            "stage3_param_persistence_threshold": _SHARD_ABOVE,
            "overlap_comm": False,
        },
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }
    if runtime.precision == "bf16":
        # Not "bf16": that casts batch norm as well, and with ZeRO-0 it makes a dummy Adam step.
        settings["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    return settings


def initialize(stage: nn.Module, config: Config, lr: float, steps: int, *, universal: bool) -> Any:
    """Wrap ``stage`` into a DeepSpeed engine with AdamW and a one-cycle schedule of ``steps``.

    ``universal`` prepares it to load a checkpoint that another number of ranks wrote.
    """
    deepspeed = _import_deepspeed()
    world = dist.get_world_size()
    settings = deepspeed_config(config, world)
    if universal:
        settings["checkpoint"] = {"load_universal": True}
    # torch's AdamW: DeepSpeed's own would be compiled first.
    optimizer = torch.optim.AdamW(
        _parameter_groups(stage, config.runtime.weight_decay),
        lr=lr,
        fused=True,
    )
    engine, *_ = deepspeed.initialize(
        model=stage,
        optimizer=optimizer,
        config=settings,
        lr_scheduler=lambda inner: _one_cycle(inner, lr, steps),
        dist_init_required=False,
    )
    return engine


def _one_cycle(optimizer: torch.optim.Optimizer, lr: float, steps: int) -> OneCycleLR:
    """A tenth of the steps up to ``lr``, the others down to almost nothing."""
    # OneCycleLR divides by zero where either way has fewer than two steps.
    steps = max(steps, 3)
    up = max(0.1, 2 / steps)
    return OneCycleLR(
        optimizer, max_lr=lr, total_steps=steps, pct_start=up, div_factor=10, cycle_momentum=False
    )


def _parameter_groups(stage: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weight decay on convolutions and the classifier, none on batch norm and biases."""
    parameters = list(stage.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def average_buffers(module: nn.Module) -> None:
    """Give every rank the mean of the ranks' batch-norm statistics."""
    if dist.get_world_size() == 1:
        return
    for buffer in module.buffers():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer /= dist.get_world_size()


def whole_state(engine: Any) -> dict[str, Tensor]:
    """State dict of the stage on the CPU, gathered from the ranks under ZeRO-3.

    Every rank must call it.
    """
    deepspeed = _import_deepspeed()
    parameters = list(engine.module.parameters())
    sharded = engine.zero_optimization_stage() == 3
    with deepspeed.zero.GatheredParameters(parameters, enabled=sharded):
        return {k: v.detach().cpu().clone() for k, v in engine.module.state_dict().items()}


def optimizer_elements(engine: Any) -> int:
    """How many elements of optimizer state this rank holds (moments; step counters left out)."""
    states = engine.basic_optimizer.state.values()
    return sum(t.numel() for s in states for t in s.values() if torch.is_tensor(t) and t.ndim)


@contextmanager
def _data_only() -> Iterator[None]:
    """Inside, no file that DeepSpeed loads can run code, whoever wrote it.

    DeepSpeed asks torch.load for the whole of pickle. The variable has the last word; beyond
    tensors and plain values it then takes the classes named here.
    """
    _import_deepspeed()
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
            yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def load(engine: Any, checkpoints: Path, tag: str) -> bool:
    """Load a checkpoint that DeepSpeed wrote; False if it found none. Every rank must call it."""
    with _data_only():
        found, _ = engine.load_checkpoint(str(checkpoints), tag=tag)
    return found is not None


def to_universal(checkpoints: Path, tag: str) -> str:
    """Turn a checkpoint of another number of ranks into one that any number loads.

    Rank 0 converts, with DeepSpeed's own tool; returns the new tag on every rank.
    """
    universal = f"{tag}_universal"
    if dist.get_rank() == 0:
        for left_over in (checkpoints / universal, checkpoints / f"{universal}.tmp"):
            shutil.rmtree(left_over, ignore_errors=True)
        try:
            _convert(checkpoints / tag, checkpoints / f"{universal}.tmp")
            (checkpoints / f"{universal}.tmp").rename(checkpoints / universal)
        except Exception as error:
            # Whatever a tool of that size may raise.
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise PcamxError(
                f"{checkpoints / tag}: cannot be converted for another number of ranks ({reason})"
            ) from None
        (checkpoints / "latest_universal").unlink(missing_ok=True)
    dist.barrier()
    return universal


def _convert(source: Path, target: Path) -> None:
    from deepspeed.checkpoint import ds_to_universal

    options = Namespace(
        input_folder=str(source),
        output_folder=str(target),
        # One worker is this process, where `_data_only` holds.
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    # It prints its steps and draws bars.
    with _data_only(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        ds_to_universal.main(options)

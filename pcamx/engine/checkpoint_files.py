"""Checkpoints that DeepSpeed writes: loading them, and turning them to another number of ranks."""

import io
import os
import pickle
import shutil
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pcamx.engine.ranks import import_deepspeed
from pcamx.errors import PcamxError


@contextmanager
def _data_only() -> Iterator[None]:
    """Inside, no file that DeepSpeed loads can run code, whoever wrote it.

    DeepSpeed asks torch.load for the whole of pickle. The variable has the last word; beyond
    tensors and plain values it then takes the classes named here.
    """
    import_deepspeed()
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


_OWN = ("weight_decay", "initial_lr", "max_lr", "min_lr")
"""Settings in which the groups of `pcamx.engine.build.parameter_groups` differ."""


def load(engine: Any, checkpoints: Path, tag: str) -> bool:
    """Load a checkpoint that DeepSpeed wrote; False if it found none. Every rank must call it."""
    groups = engine.basic_optimizer.param_groups
    own = [{key: group[key] for key in _OWN if key in group} for group in groups]
    with _data_only():
        found, _ = engine.load_checkpoint(str(checkpoints), tag=tag)
    if engine.zero_optimization_stage() == 3:
        _tell_apart(engine.basic_optimizer, own, engine.lr_scheduler.get_last_lr())
    _place_steps(engine.basic_optimizer)
    return found is not None


def _tell_apart(
    optimizer: torch.optim.Optimizer, own: Sequence[dict[str, Any]], rates: Sequence[float]
) -> None:
    """Give each group its own settings again: DeepSpeed's ZeRO-3 gives all the first one's when it
    reads a universal checkpoint."""
    for group, settings, rate in zip(optimizer.param_groups, own, rates, strict=True):
        group.update(settings, lr=rate)


def _place_steps(optimizer: torch.optim.Optimizer) -> None:
    """Give each parameter a step count of its own, beside it, as fused AdamW takes it on a GPU.

    A universal checkpoint leaves one on the CPU for all of them, which each group would advance.
    """
    for parameter, state in optimizer.state.items():
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].to(parameter.device, copy=True)


def load_failure(error: Exception) -> str:
    """Say in one line why a file of a checkpoint could not be loaded."""
    if isinstance(error, pickle.UnpicklingError):
        return "a file of it holds more than tensors and plain values, nothing of it was run"
    return (str(error).splitlines() or [type(error).__name__])[0]


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
            raise PcamxError(
                f"{checkpoints / tag}: cannot be converted for another number of ranks "
                f"({load_failure(error)})"
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

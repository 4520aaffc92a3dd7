"""DeepSpeed around a stage: process group, ZeRO, mixed precision, sharded optimizer.

The only package that imports deepspeed. What its 0.19.8 needs on CPUs and with batch norm, and
what its own defaults would cost, is explained where it is done. A stage and its config come in, an
engine that takes batches goes out; `pcamx.training` calls it, and `pcamx.run.checkpoints`.
"""

from pcamx.engine.build import (
    compiler_failure,
    finish,
    initialize,
    report,
    show,
    train_step,
    whole_state,
)
from pcamx.engine.captured_step import stepper
from pcamx.engine.checkpoint_files import load, load_failure, to_universal
from pcamx.engine.meeting import Meeting
from pcamx.engine.ranks import Ranks, is_first, lost_rank, prepare, start, stop, world_size
from pcamx.engine.settings import deepspeed_config
from pcamx.engine.unoptimised import average_buffers, frozen_state, load_unoptimised
from pcamx.engine.watch import Watch

__all__ = [
    "Meeting",
    "Ranks",
    "Watch",
    "average_buffers",
    "compiler_failure",
    "deepspeed_config",
    "finish",
    "frozen_state",
    "initialize",
    "is_first",
    "load",
    "load_failure",
    "load_unoptimised",
    "lost_rank",
    "prepare",
    "report",
    "show",
    "start",
    "stepper",
    "stop",
    "to_universal",
    "train_step",
    "whole_state",
    "world_size",
]

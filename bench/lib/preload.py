"""Import what ranks and commands import, once: `bench.lib.forked` forks its processes from here.

Nine tenths of a small training are imports.
"""

import gc
import os

# The ranks that are forked set it themselves, but by then DeepSpeed is imported.
os.environ["DS_ACCELERATOR"] = "cpu"

import torch

import pcamx.evaluation.evaluate
import pcamx.marking.package
import pcamx.training.trainer
from pcamx.engine.ranks import import_deepspeed

import_deepspeed()
torch.compile(pcamx.training.trainer.train)  # the compiler itself, for runs that compile
gc.freeze()
assert len(os.listdir("/proc/self/task")) == 1, "a fork would lose the other threads"

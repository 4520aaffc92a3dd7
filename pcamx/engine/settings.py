"""The config as DeepSpeed's own configuration."""

from pathlib import Path
from typing import Any

from pcamx.config import Config
from pcamx.errors import PcamxError

# Default buckets hold 5e8 elements, gigabytes for a model of 0.7 M parameters. One bucket of this
# size holds all gradients of the paper's layouts, so they are reduced once; a larger timm backbone
# takes several.
_BUCKET = 2_000_000
# Below this many elements ZeRO-3 keeps a parameter whole on each rank.
_SHARD_ABOVE = 10_000


def deepspeed_config(config: Config, world: int) -> dict[str, Any]:
    """Return the runtime section as DeepSpeed takes it: what is sharded, at the least cost.

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
        # DeepSpeed's default is 1; below ZeRO-3 `clip` does it.
        "gradient_clipping": runtime.gradient_clipping if runtime.zero_stage == 3 else 0.0,
        "zero_optimization": _zero(runtime.zero_stage),
        "zero_allow_untested_optimizer": True,
        # It waits for the device twice a step.
        "timers": {"throughput": {"enabled": False}},
        "steps_per_print": 10**9,
    }
    if runtime.precision == "bf16":
        # Not "bf16": that casts batch norm as well, and with ZeRO-0 it makes a dummy Adam step.
        # No "safe" modules: their gradients would be sent and summed as bf16, which saves 1.4 MB a
        # step and errs by 2e-3; the convolutions compute in bf16 all the same.
        settings["torch_autocast"] = {
            "enabled": True,
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],
        }
    return settings


def _zero(stage: int) -> dict[str, Any]:
    zero: dict[str, Any] = {
        "stage": stage,
        "reduce_bucket_size": _BUCKET,
        "allgather_bucket_size": _BUCKET,
        "overlap_comm": False,
    }
    if stage in (1, 2):
        # Else each gradient is copied into a bucket and on into the rank's part, and the host waits
        # for the norm in each step.
        zero |= {"contiguous_gradients": False, "compute_grad_norm": False}
    if stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": _BUCKET,
            "stage3_param_persistence_threshold": _SHARD_ABOVE,
        }
    return zero


def instruments(config: Config, folder: Path) -> dict[str, Any]:
    """Return the deepspeed section as DeepSpeed takes it; what it writes goes below ``folder``."""
    chosen = config.deepspeed
    profiler = chosen.flops_profiler
    return {
        "flops_profiler": {
            "enabled": profiler.enabled,
            "profile_step": profiler.profile_step,
            "module_depth": profiler.module_depth,
            "top_modules": profiler.top_modules,
            "detailed": profiler.detailed,
            "output_file": str(folder / "flops.txt"),
        },
        "wandb": {
            "enabled": chosen.wandb.enabled,
            "project": chosen.wandb.project,
            "group": chosen.wandb.group or folder.resolve().parent.name,
            "team": chosen.wandb.team or None,
        },
    } | {
        name: {"enabled": enabled, "output_path": str(folder), "job_name": name}
        for name, enabled in (
            ("csv_monitor", chosen.csv_monitor.enabled),
            ("tensorboard", chosen.tensorboard.enabled),
        )
    }

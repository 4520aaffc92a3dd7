"""DeepSpeed's own instruments: its profiler and monitors, each off unless asked for."""

from dataclasses import dataclass

from pcamx.config.checks import in_range


@dataclass(frozen=True, kw_only=True, slots=True)
class FlopsProfiler:
    """DeepSpeed's flops profiler: flops, parameters and latency by module, into flops.txt."""

    enabled: bool = False
    profile_step: int = 1
    """Which step is profiled; this and all later ones wait for the device."""
    module_depth: int = -1
    """Down to which depth modules are summed up; -1 is the innermost."""
    top_modules: int = 1
    """How many modules of each depth the summary names."""
    detailed: bool = True
    """Whether the whole model is printed with the figures of each module."""

    def __post_init__(self) -> None:
        in_range("deepspeed.flops_profiler.profile_step", self.profile_step, 1, 10**9)
        in_range("deepspeed.flops_profiler.module_depth", self.module_depth, -1, 100)
        in_range("deepspeed.flops_profiler.top_modules", self.top_modules, 1, 10**4)


@dataclass(frozen=True, kw_only=True, slots=True)
class Monitor:
    """A DeepSpeed monitor: the figures of metrics.jsonl by films seen, and the learning rate."""

    enabled: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class WandB:
    """DeepSpeed's monitor for Weights & Biases: a W&B run for each stage, files in RUN/wandb."""

    enabled: bool = False
    """Whether figures are sent there, or kept on the disk where WANDB_MODE is offline."""
    project: str = "pcamx"
    group: str = ""
    """What joins the stages; the run's folder if empty."""
    team: str = ""
    """W&B's entity; your own if empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepSpeed:
    """DeepSpeed's own instruments, under its own names; they write into the stage's folder."""

    flops_profiler: FlopsProfiler = FlopsProfiler()
    csv_monitor: Monitor = Monitor()
    """One csv file a figure, in csv_monitor/."""
    tensorboard: Monitor = Monitor()
    """Event files in tensorboard/; needs the package tensorboard."""
    wandb: WandB = WandB()
    """Needs the package wandb."""

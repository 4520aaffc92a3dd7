"""The engine around a stage, and what is asked of it while it trains."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from pcamx.config import Config, Stage
from pcamx.engine.clip import clip
from pcamx.engine.ranks import import_deepspeed, import_muon
from pcamx.engine.settings import deepspeed_config, instruments
from pcamx.engine.unoptimised import share_buffers
from pcamx.errors import PcamxError
from pcamx.types import Batch, StageOutput

BACKBONE = ".encoder.backbone."
"""In the name of every parameter of a timm backbone."""


def initialize(
    stage: nn.Module,
    config: Config,
    settings: Stage,
    steps: int,
    *,
    folder: Path,
    universal: bool,
) -> Any:
    """Wrap ``stage`` into a DeepSpeed engine with AdamW and a one-cycle schedule of ``steps``.

    ``settings`` are the stage's in the config: the peak, and a timm backbone's share of it.
    ``folder`` is the stage's, where DeepSpeed's instruments write. ``universal`` prepares the
    engine to load a checkpoint that another number of ranks wrote.
    Raises PcamxError where an instrument cannot write.
    """
    deepspeed = import_deepspeed()
    asked = deepspeed_config(config, dist.get_world_size()) | instruments(config, folder)
    if config.deepspeed.wandb.enabled:
        os.environ.setdefault("WANDB_DIR", str(folder.parent))  # else in the working directory
    if universal:
        asked["checkpoint"] = {"load_universal": True}
    # torch's AdamW: DeepSpeed's own would be compiled first.
    optimizer = torch.optim.AdamW(
        parameter_groups(stage, config.runtime.weight_decay, settings),
        lr=settings.lr,
        fused=True,
    )
    if config.runtime.zero_stage:
        import_muon()
    try:
        engine, *_ = deepspeed.initialize(
            model=stage,
            optimizer=optimizer,
            config=asked,
            lr_scheduler=lambda inner: one_cycle(inner, steps),
            dist_init_required=False,
        )
    except OSError as error:
        raise PcamxError(f"run.folder: cannot write {error.filename}: {error.strerror}") from None
    if dist.get_world_size() == 1:
        _spare_reduction(engine)
    share_buffers(engine.module)
    if config.runtime.compile in _COMPILE:
        engine.compile(compile_kwargs=_COMPILE[config.runtime.compile])
    return engine


_COMPILE: dict[str, dict[str, Any]] = {"on": {}, "reduce-overhead": {"mode": "reduce-overhead"}}
"""What torch.compile is told; of whole-step nothing."""


def _spare_reduction(engine: Any) -> None:
    """One rank has nothing to reduce: DeepSpeed would flatten, send and copy back each gradient.

    ZeRO-3 gathers weights all the same.
    """
    stage = engine.zero_optimization_stage()
    if stage == 0:
        engine.enable_backward_allreduce = False
    elif stage < 3:
        # Private, as what `clip` reads; its version is pinned.
        engine.optimizer.allreduce_and_copy = lambda *_, **__: None


def train_step(engine: Any, batch: Batch, *, clipping: float) -> dict[str, Tensor]:
    """Make one update, then let the stage take note of it; return the telemetry.

    ``clipping`` is the config's gradient_clipping. Nothing here waits for the device, but for what
    ZeRO-3 does to gather weights and to clip.
    """
    output = gradients(engine, batch, clipping=clipping)
    engine.step()
    # After the backward: torch.compile may compute the forward anew there, from what has changed.
    engine.module.after_step(output, batch)
    return output.telemetry


def gradients(engine: Any, batch: Batch, *, clipping: float) -> StageOutput:
    """Compute what ``engine.step()`` takes: averaged, and clipped as `clip` does below ZeRO-3."""
    output: StageOutput = engine(batch)
    engine.backward(output.loss)
    clip(engine, clipping)
    return output


def compiler_failure(error: RuntimeError) -> str | None:
    """Say in a line what stopped torch.compile; None where ``error`` is something else."""
    if not isinstance(error, torch._dynamo.exc.TorchDynamoException):
        return None
    return str(error).strip().splitlines()[0]


def one_cycle(optimizer: torch.optim.Optimizer, steps: int) -> OneCycleLR:
    """Schedule a tenth of the steps up to each group's ``lr``, then down to almost nothing."""
    # OneCycleLR divides by zero where either way has fewer than two steps.
    steps = max(steps, 3)
    up = max(0.1, 2 / steps)
    peaks = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(
        optimizer,
        max_lr=peaks,
        total_steps=steps,
        pct_start=up,
        div_factor=10,
        cycle_momentum=False,
    )


def parameter_groups(stage: nn.Module, decay: float, settings: Stage) -> list[dict[str, Any]]:
    """Return groups: weight decay on convolutions and the classifier, none on norms and biases.

    Where its ``backbone_lr`` is not 1, a timm backbone's have groups of their own, the last two,
    with that share of the step size. What is frozen is in none.
    """
    named = [(name, p) for name, p in stage.named_parameters() if p.requires_grad]
    slow = {name for name, _ in named if settings.backbone_lr != 1 and BACKBONE in name}
    groups = []
    rest = {name for name, _ in named} - slow
    for names, share in ((rest, 1.0), (slow, settings.backbone_lr)):
        parameters = [p for name, p in named if name in names]
        if parameters:
            groups += [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
                {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            ]
            for group in groups[-2:]:
                group["lr"] = settings.lr * share
    return groups


def whole_state(engine: Any) -> dict[str, Tensor]:
    """Return the state dict of the stage on the CPU, gathered from the ranks under ZeRO-3.

    Every rank must call it.
    """
    deepspeed = import_deepspeed()
    parameters = list(engine.module.parameters())
    sharded = engine.zero_optimization_stage() == 3
    with deepspeed.zero.GatheredParameters(parameters, enabled=sharded):
        return {k: v.detach().cpu().clone() for k, v in engine.module.state_dict().items()}


def report(engine: Any, kind: str, values: dict[str, float]) -> None:
    """Hand ``values`` to DeepSpeed's monitors, by the number of films seen so far."""
    if engine.monitor.enabled:
        seen = engine.global_samples
        engine.monitor.write_events([(f"{kind}/{k}", v, seen) for k, v in values.items()])


def show(engine: Any, kind: str, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
    """Hand ``pictures`` [H, W, 3] to DeepSpeed's TensorBoard monitor, where rank 0 has one."""
    if pictures and (monitor := engine.monitor.tb_monitor) is not None:
        for name, picture_HW3 in pictures.items():
            monitor.summary_writer.add_image(
                f"{kind}/{name}", picture_HW3, engine.global_samples, dataformats="HWC"
            )
        monitor.flush()


def finish(config: Config) -> None:
    """Stop a stage's run of Weights & Biases, so that the next has one of its own."""
    if config.deepspeed.wandb.enabled and dist.get_rank() == 0:
        import wandb

        wandb.finish()

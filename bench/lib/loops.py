"""The loops that bench.step times: ours on DeepSpeed, and plain PyTorch's as one would write it.

All train the same stage from the same weights on the same films, made from canvases on the device
anew in each step. Shapes: B batch (one rank's share), N canvases.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pcamx import config as configs
from pcamx import engine, ops
from pcamx.catalogue import LOSS, classifiers, trainable
from pcamx.config import Augment, Config
from pcamx.data.feed.augment import Warp, draw
from pcamx.data.feed.order import column_of
from pcamx.engine.build import one_cycle, parameter_groups
from pcamx.engine.ranks import import_deepspeed
from pcamx.model.encoder import Encoder
from pcamx.ops import Impl
from pcamx.training.stages import ClassifierStage, Stage, build_stage
from pcamx.types import Batch

LR, STEPS = 1e-3, 10**6
SETTINGS = configs.Stage(epochs=1, lr=LR)
MEAN, STD = 51.3, 47.7  # grey levels
TURNS = 8  # batches, over and over again
P = 0.8  # running accuracy to begin with: lambda is 0.48, so both losses count

Step = Callable[[], Tensor]
"""One update on the next batch; returns the loss, on the device."""


class Work(NamedTuple):
    """What is trained, on how much."""

    stage: int
    batch: int  # films of one rank
    pixels: int
    precision: str
    ranks: engine.Ranks

    def config(self, **runtime: Any) -> Config:
        """Return the config of a run, ``runtime`` beside batch and precision."""
        stage = configs.Stage(epochs=1)
        size = self.batch * self.ranks.world
        chosen: dict[str, Any] = {"batch_size": size, "precision": self.precision} | runtime
        return Config(
            run=configs.Run(folder="bench"),
            data=configs.Data(store="bench", canvas=self.pixels),
            stages={entry.section: stage for entry in classifiers()},
            runtime=configs.Runtime(**chosen),
            objective=configs.Objective(marked_per_batch=max(1, size // 4)),
        )

    def build(self, config: Config) -> ClassifierStage:
        """Build the stage on its device, with the same weights each time."""
        torch.manual_seed(0)
        stage = build_stage(self.stage, config, images=40 * config.runtime.batch_size)
        assert isinstance(stage, ClassifierStage)
        stage.accuracy.value.fill_(P)
        return stage.to(self.ranks.device).train()


class Films:
    """Endless batches out of noise on the device, a fourth of the films marked in stage 3."""

    def __init__(self, work: Work, impl: Impl) -> None:
        B, side, device = work.batch, work.pixels, work.ranks.device
        generator = torch.Generator().manual_seed(work.ranks.rank)
        shape = (2 * B, 1, side, side)
        grey = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
        lesion = torch.rand(shape, generator=generator) > 0.99
        self.canvas_N1HW, self.lesion_N1HW = grey.to(device), lesion.byte().to(device)
        self.row_SB = torch.randint(2 * B, (TURNS, B), generator=generator).to(device)
        self.label_B = (torch.arange(B) % 2).to(device)
        slots, before = B * work.ranks.world, B * work.ranks.rank
        marked = max(1, slots // 4)
        column_M = column_of(np.arange(marked), marked, slots) - before
        self.marked_B = torch.from_numpy(np.isin(np.arange(B), column_M)).to(device)
        self.warps = [Warp(*_warp(B, step)).on(device) for step in range(TURNS)]
        self.impl, self.lesions, self.step = impl, trainable(work.stage).learns_marks, 0

    def next(self) -> Batch:
        row_B, warp = self.row_SB[self.step], self.warps[self.step]
        self.step = (self.step + 1) % TURNS
        image, lesion = ops.gather_affine_normalise(
            self.canvas_N1HW,
            row_B,
            *warp,
            MEAN,
            STD,
            lesion_M1HW=self.lesion_N1HW if self.lesions else None,
            lesion_row_B=row_B if self.lesions else None,
            impl=self.impl,
        )
        if not self.lesions:
            return Batch(image, self.label_B, lesion, torch.zeros_like(self.marked_B))
        return Batch(
            image, self.label_B, lesion * self.marked_B[:, None, None, None], self.marked_B
        )


def _warp(batch: int, step: int) -> Warp:
    return draw(Augment(), batch, seed=0, epoch=0, step=step)


def ours(work: Work, zero_stage: int, *, compile: str = "off") -> Step:
    """Return the training loop's own step; ``compile`` as runtime.compile."""
    config = work.config(zero_stage=zero_stage, compile=compile)
    made = engine.initialize(
        work.build(config), config, SETTINGS, STEPS, folder=Path("bench"), universal=False
    )
    films, update = Films(work, "auto"), engine.stepper(made, config)
    return lambda: update(films.next())[LOSS.key]


def by_default(work: Work, zero_stage: int) -> Step:
    """Return our step with all that DeepSpeed has a default for left at it."""
    config = work.config(zero_stage=zero_stage)
    settings: dict[str, Any] = {
        "train_batch_size": config.runtime.batch_size,
        "zero_optimization": {"stage": zero_stage},
        "zero_allow_untested_optimizer": True,
    }
    if work.precision == "bf16":
        settings["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    stage = work.build(config)
    made, *_ = import_deepspeed().initialize(
        model=stage,
        optimizer=torch.optim.AdamW(parameter_groups(stage, 0.01, SETTINGS), lr=LR, fused=True),
        config=settings,
        lr_scheduler=lambda inner: one_cycle(inner, STEPS),
        dist_init_required=False,
    )
    films = Films(work, "auto")
    # It clips at norm 1, as ours does.
    return lambda: engine.train_step(made, films.next(), clipping=0)[LOSS.key]


def _channels_first(_: nn.Module, given: tuple[Tensor]) -> Tensor:
    """Undo the encoder's view of its image, whose strides all later maps follow."""
    return given[0].clone(memory_format=torch.contiguous_format)


def _stem_whole(stage: Stage) -> None:
    """Undo the phases that the stem takes an image by that needs a gradient."""
    conv = stage.get_submodule("network.encoder.stem.0.0")
    assert isinstance(conv, nn.Conv2d)
    conv.forward = partial(nn.Conv2d.forward, conv)  # type: ignore[method-assign]


def plain(
    work: Work,
    *,
    compiled: bool = False,
    channels_last: bool = True,
    fused: bool = True,
    phases: bool = True,
) -> Step:
    """Return PyTorch's step: channels_last, autocast, fused AdamW, clipping, DDP on many ranks."""
    config = work.config()
    runtime = dataclasses.replace(config.runtime, impl="reference")
    config = dataclasses.replace(config, runtime=runtime)
    stage = work.build(config)
    if channels_last:
        stage.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    else:
        assert isinstance(stage.network.encoder, Encoder)
        stage.network.encoder.stem.register_forward_pre_hook(_channels_first)
    if not phases:
        _stem_whole(stage)
    groups = parameter_groups(stage, config.runtime.weight_decay, SETTINGS)
    optimizer = torch.optim.AdamW(groups, lr=LR, fused=fused)
    schedule = one_cycle(optimizer, STEPS)
    if compiled:
        stage.compile()
    model = (
        DistributedDataParallel(stage, broadcast_buffers=False) if work.ranks.world > 1 else stage
    )
    films, kind = Films(work, "reference"), work.ranks.device.type

    def step() -> Tensor:
        batch = films.next()
        with torch.autocast(kind, torch.bfloat16, enabled=work.precision == "bf16"):
            output = model(batch)
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(stage.parameters(), config.runtime.gradient_clipping)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        stage.accuracy.take_in(output.logits_BC, batch.label_B)
        loss: Tensor = output.telemetry[LOSS.key]
        return loss

    return step

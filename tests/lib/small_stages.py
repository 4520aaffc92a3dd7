"""Stages and films so small that a test trains them."""

import dataclasses
from typing import Literal

import small_networks
import torch

from pcamx.config import Attention, Config, Objective
from pcamx.training.stages import Stage, build_stage
from pcamx.types import Batch


def settings(
    *,
    mask_class: Literal["abnormal", "predicted", "label"] = "abnormal",
    mask_grad: bool = True,
    layout: Literal["bottleneck", "basic"] = "bottleneck",
    objective: Objective | None = None,
) -> Config:
    return dataclasses.replace(
        small_networks.settings(layout),
        attention=Attention(mask_class=mask_class, mask_grad=mask_grad),
        objective=objective or Objective(),
    )


def make(number: int, config: Config | None = None, *, images: int = 40, p: float = 0.8) -> Stage:
    torch.manual_seed(0)
    stage = build_stage(number, config or settings(), images)
    # A head whose maps are far from flat, so that a mask shows.
    stage.network.head.weight.data.mul_(5)
    stage.accuracy.value.fill_(p)
    return stage.train()


def films(count: int = 6, size: int = 64, *, marked_every: int = 4) -> Batch:
    """Noise; the odd films have a bright square, and by default half of those are marked."""
    generator = torch.Generator().manual_seed(1)
    image = 0.3 * torch.randn(count, 1, size, size, generator=generator)
    label = torch.arange(count) % 2
    lesion = torch.zeros_like(image)
    for b in range(1, count, 2):
        y, x = torch.randint(0, size - size // 5, (2,), generator=generator).tolist()
        lesion[b, :, y : y + size // 5, x : x + size // 5] = 1
    image += 3 * lesion
    marked = torch.arange(count) % marked_every == 1
    return Batch(image, label, lesion * marked[:, None, None, None], marked)

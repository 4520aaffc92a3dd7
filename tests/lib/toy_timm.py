"""Backbones of timm's interface, small, whose padding is ours to choose: timm is an extra."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

WIDTHS = {2: 4, 4: 6, 8: 8, 16: 10, 32: 12}


class Step(nn.Module):
    """Convolution of stride 2, norm and relu; padded on both sides, or as TensorFlow does."""

    def __init__(self, inputs: int, outputs: int, same: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, 2, 0 if same else 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.same = same

    def forward(self, x: Tensor) -> Tensor:
        if self.same:  # to ceil(n / 2) cells, what is odd behind
            pads = [((-(-n // 2) - 1) * 2 + 3 - n) for n in reversed(x.shape[-2:])]
            x = F.pad(x, [side for pad in pads for side in (pad // 2, pad - pad // 2)])
        return F.relu(self.norm(self.conv(x)))


class Backbone(nn.Module):
    """What timm.create_model(name, features_only=True) returns, small; same_* pads as TF."""

    def __init__(self, name: str, in_chans: int, out_indices: list[int] | None) -> None:
        super().__init__()
        strides = [2, 4, 8, 16, 32] if name.endswith("32") else [2, 4, 8, 16]
        widths = [in_chans, *(WIDTHS[stride] for stride in strides)]
        same = name.startswith("same")
        pairs = zip(widths, widths[1:], strict=False)
        self.steps = nn.ModuleList(Step(a, b, same) for a, b in pairs)
        self.sides = {"fixed": 224, "coarse_cells": 32}.get(name.removesuffix("_32"), 0)
        self.odd = next((kind for kind in ("valid", "last") if kind in name), "")
        self.taken = list(range(len(strides))) if out_indices is None else list(out_indices)
        taken = [strides[i] for i in self.taken]
        self.feature_info = SimpleNamespace(
            reduction=lambda: taken, channels=lambda: [WIDTHS[stride] for stride in taken]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        # As timm's swin and hrnet do, which are of a fixed size or add maps of several strides.
        assert self.sides != 224 or x.shape[-1] == 224, "Input height doesn't match model (224)."
        if self.sides and x.shape[-1] % self.sides:
            raise RuntimeError("The size of tensor a (36) must match\nthe size of tensor b (40)")
        maps = []
        for step in self.steps:
            x = step(x)
            maps.append(x)
        if self.odd:
            maps = [x[..., 1:-1, 1:-1] if self.odd == "valid" else x.movedim(1, -1) for x in maps]
        return [maps[i] for i in self.taken]


def create_model(
    name: str,
    *,
    pretrained: bool,
    in_chans: int,
    features_only: bool = False,
    out_indices: list[int] | None = None,
) -> nn.Module:
    assert features_only and not pretrained
    if not name.startswith(("same", "even", "coarse", "fixed")):
        raise RuntimeError(f"Unknown model ({name})")
    if name == "coarse":
        return nn.Module()
    if name == "evenfolder":  # as of a name that begins with local-dir:
        raise FileNotFoundError("Config file not found: evenfolder/config.json")
    return Backbone(name, in_chans, out_indices)


def stand_in() -> Any:
    """What lies in sys.modules as timm; it knows weights of names with an underscore."""
    cfg = SimpleNamespace(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    models = SimpleNamespace(get_pretrained_cfg=lambda name: cfg if "_" in name else None)
    return SimpleNamespace(create_model=create_model, models=models)


def corner_weights(path: Path, name: str) -> Path:
    """Weights whose kernels have nothing but their upper left corner."""
    state = Backbone(name, 1, None).state_dict()
    for weight in state.values():
        if weight.ndim == 4:
            weight.zero_()[:, :, 0, 0] = 0.3
    save_file(state, path)
    return path

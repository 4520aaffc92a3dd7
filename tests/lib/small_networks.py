"""Networks of each layout, images of noise, and where a map's cell looks."""

import torch
from torch import Tensor, nn

from pcamx import config as configs
from pcamx.catalogue import classifiers
from pcamx.config import Config
from pcamx.model.encoder import Encoder, Layout


def settings(layout: Layout = "bottleneck") -> Config:
    stage = configs.Stage(epochs=1)
    return Config(
        run=configs.Run(folder="run"),
        data=configs.Data(store="store"),
        stages={entry.section: stage for entry in classifiers()},
        runtime=configs.Runtime(batch_size=8),
        model=configs.Model(encoder=layout),
    )


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gradient_field(encoder: Encoder, canvas: int) -> Tensor:
    """Which pixels the cell in the middle of the map sees, by the gradient: bool [H, W]."""
    # Positive weights let no path cancel; the mean instead of the maximum lets every path pass.
    pool = encoder.stem[2]
    assert isinstance(pool, nn.MaxPool2d)
    encoder.stem[2] = nn.AvgPool2d(pool.kernel_size, pool.stride, pool.padding)
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.fill_(1 / module.weight[0].numel())
    image = torch.ones(1, 1, canvas, canvas, dtype=torch.float64, requires_grad=True)
    map_hw = encoder.double()(image)[-1][0, 0]
    map_hw[len(map_hw) // 2, len(map_hw) // 2].backward()
    assert image.grad is not None
    return image.grad[0, 0] > 0

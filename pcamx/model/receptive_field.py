"""Where the cells of a timm backbone's maps lie: by its padding, and by its learned kernels.

Shapes: B batch, K channels, h w a map, H W the image.
"""

from functools import cache
from typing import Any

import torch
from torch import nn

from pcamx.config import TIMM
from pcamx.errors import PcamxError
from pcamx.model.timm_backbone import make_backbone, one_line

TAPS = (4, 8, 16, 32)
"""Strides of the backbone's maps that are used."""
PROBE = 128
"""Side of the image on which `centres` looks unless told, pixels; half as many cells are even."""
_NOISE = (8, 1, 384, 384)
"""Images on which `looked_at` measures: their cells see little of the edges."""


@cache
def centres(name: str, side: int = PROBE) -> tuple[float, ...]:
    """Return for each tap the pixel c at whose centre its cell 0 would look: cell i at s i + c.

    On an image of ``side`` pixels, a multiple of 16.
    Found by the gradient: where each convolution passes on the middle of what it sees, pools take
    the mean, norms are left out and the image is all but black, so that what is multiplied by the
    whole image's mean is no matter, the mean place of a cell's gradient is the centre of all that
    it would see, to halves of a pixel. Raises PcamxError where the backbone takes no such image, or
    its maps are of other sizes than their strides say, or nothing comes through.
    """
    known = name.removeprefix(TIMM)
    backbone = make_backbone(name).eval().double()
    image = torch.ones(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    for module in backbone.modules():
        _pass_the_middle(module)
    found = []
    try:
        maps = backbone(image * 1e-12)
    except (RuntimeError, AssertionError, ValueError) as error:
        # Of a fixed size, or made for sides of some multiple alone.
        raise PcamxError(
            f"model.encoder: {known} takes no image of {side} x {side} pixels ({one_line(error)}); "
            "name one that takes every multiple of 16, such as timm:resnet18"
        ) from None
    info = backbone.feature_info
    for map_BKhw, stride, channels in zip(maps, info.reduction(), info.channels(), strict=True):
        if stride not in TAPS:
            continue
        # Half a cell of stride 32 may be left out, or filled up.
        cells = {side // stride, -(-side // stride)}
        if map_BKhw.shape[1] != channels or not cells.issuperset(map_BKhw.shape[2:]):
            raise PcamxError(
                f"model.encoder: {known} gives a map of shape {list(map_BKhw.shape[1:])} at stride "
                f"{stride} of {side} x {side} pixels, where {channels} channels of "
                f"{side // stride} x {side // stride} are needed; name another, such as "
                "timm:resnet18"
            )
        cell = map_BKhw.shape[-1] // 2
        seen = map_BKhw[0, :, cell, cell].sum()
        (grad_11HW,) = torch.autograd.grad(seen, image, retain_graph=True)
        weight_W = grad_11HW.abs().sum((0, 1, 2))
        if not weight_W.sum() > 0:
            raise PcamxError(
                f"model.encoder: where the cells of {known} lie cannot be found; name another, "
                "such as timm:resnet18"
            )
        centre = float((weight_W * torch.arange(side)).sum() / weight_W.sum())
        found.append(round(2 * (centre - stride * cell)) / 2)
    return tuple(found)


def looked_at(backbone: Any) -> dict[int, float]:
    """Return for each tap the pixel c at which its cell 0 looks with the present weights.

    The mean place of the squared gradient of a cell to white noise, its effective receptive field
    (Luo et al. 2016), rows and columns taken together. NaN where nothing comes through. The
    backbone is in evaluation mode.
    """
    image = torch.randn(_NOISE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with torch.enable_grad():
        maps = backbone(image)
    at_W = torch.arange(image.shape[-1], dtype=torch.float64)
    found = {}
    for map_BKhw, stride in zip(maps, backbone.feature_info.reduction(), strict=True):
        if stride in TAPS:
            cell = map_BKhw.shape[-1] // 2
            seen = map_BKhw[:, :, cell, cell].sum()
            (grad_B1HW,) = torch.autograd.grad(seen, image, retain_graph=True)
            seen_HW = grad_B1HW.double().square().sum((0, 1))
            weight_W = seen_HW.sum(0) + seen_HW.sum(1)
            found[stride] = float((weight_W * at_W).sum() / weight_W.sum()) - stride * cell
    return found


def _looks_everywhere(module: nn.Module) -> bool:
    """Whether it adds what the whole image's mean makes, or may: global context, squeeze-excite.

    By the names of timm's classes. The gradient through that mean pulls to the image's middle.
    """
    name = type(module).__name__
    return any(word in name for word in ("GlobalContext", "Squeeze"))


def _pass_the_middle(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        rows, columns = (slice((n - 1) // 2, n // 2 + 1) for n in module.kernel_size)
        with torch.no_grad():
            module.weight.zero_()[:, :, rows, columns] = 1 / module.weight.shape[1]
            if module.bias is not None:
                module.bias.zero_()
    elif isinstance(module, nn.MaxPool2d):
        mean = nn.AvgPool2d(module.kernel_size, module.stride, module.padding, module.ceil_mode)
        module.register_forward_hook(lambda _, given, __: mean(given[0]))
    elif _looks_everywhere(module) or (
        "Norm" in type(module).__name__
        and not any(isinstance(inner, nn.Conv2d) for inner in module.modules())
    ):
        module.register_forward_hook(lambda _, given, __: given[0])

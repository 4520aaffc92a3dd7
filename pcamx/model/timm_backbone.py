"""timm's backbones: their networks, the scale of their inputs, their own weights."""

from typing import Any

import torch
from torch import Tensor, nn

from pcamx.config import TIMM
from pcamx.errors import PcamxError


def make_backbone(name: str) -> Any:
    """Return the backbone ``name``, such as timm:resnet18, with fresh weights and a grey channel.

    Raises PcamxError where timm is missing, has no such backbone, or it gives no maps of strides 4,
    8 and 16.
    """
    timm = _timm()
    known = name.removeprefix(TIMM)
    try:
        backbone = timm.create_model(known, features_only=True, in_chans=1, pretrained=False)
        found = list(backbone.feature_info.reduction())
    except Exception as error:
        # Of a name that leads to a folder or the hub timm raises whatever reading it does.
        raise PcamxError(f"model.encoder: timm cannot make {known}: {one_line(error)}") from None
    if not {4, 8, 16} <= set(found):
        raise PcamxError(
            f"model.encoder: {known} gives maps at strides {found}; one with 4, 8 and 16 is "
            "needed, such as timm:resnet18"
        )
    return backbone


def input_scale(name: str) -> tuple[float, float]:
    """Return mean and standard deviation, in grey levels of 0..255, that the weights expect."""
    known = name.removeprefix(TIMM)
    try:
        cfg = _timm().models.get_pretrained_cfg(known)
    except RuntimeError as error:  # a tag of other weights, such as resnet18.a1_in1k's
        raise PcamxError(f"model.encoder: timm knows no {known}: {one_line(error)}") from None
    if cfg is None:
        raise PcamxError(f"model.encoder: timm knows no {known}")
    return 255 * sum(cfg.mean) / len(cfg.mean), 255 * sum(cfg.std) / len(cfg.std)


def timm_state(name: str) -> dict[str, Tensor]:
    """Return the state dict of timm's own weights, of one grey channel; PcamxError if none."""
    timm = _timm()
    try:
        model = timm.create_model(name.removeprefix(TIMM), pretrained=True, in_chans=1)
    except Exception as error:
        # The hub's client raises whatever its transport does.
        raise PcamxError(
            f"model.weights: timm's own of {name} cannot be had ({type(error).__name__}); name a "
            "local file"
        ) from None
    state: dict[str, Tensor] = model.state_dict()
    return state


def modules_before(backbone: Any, stride: int) -> list[nn.Module]:
    """Return the innermost modules that the map of ``stride`` depends on, by the gradient."""
    image = torch.zeros(1, 1, 64, 64)
    backbone.eval()
    maps = backbone(image)
    inputs = [p for p in backbone.parameters() if p.requires_grad]
    place = backbone.feature_info.reduction().index(stride)
    grads = torch.autograd.grad(maps[place].sum(), inputs, allow_unused=True)
    reached = {id(p) for p, grad in zip(inputs, grads, strict=True) if grad is not None}
    backbone.train()
    return [
        module
        for module in backbone.modules()
        if any(id(p) in reached for p in module.parameters(recurse=False))
    ]


def _timm() -> Any:
    try:
        import timm
    except ImportError:
        raise PcamxError(
            "model.encoder: a timm backbone needs timm; pip install 'pcamx[encoders]'"
        ) from None
    except RuntimeError as error:
        # A torchvision of another torch: its operators are not there.
        raise PcamxError(
            f"model.encoder: timm cannot be imported ({one_line(error)}); install the "
            f"torchvision that belongs to torch {torch.__version__}"
        ) from None
    return timm


def one_line(error: Exception) -> str:
    """Return what ``error`` says as one line, or its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__

"""Grad-CAM and LayerCAM of anybody's model, whatever its head: from the class score's gradient.

Shapes: B batch, K channels, C classes, h w the map.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pcamx.cam.classes import logits_of
from pcamx.model.gradient_maps import gradcam, layercam

METHODS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "layer-cam": layercam,
    "grad-cam": gradcam,
}
INSTEAD = "; call with method='layer-cam' or 'grad-cam', which need no such head"
"""What a model without a pooled linear head is told."""


def map_by_gradient(
    method: str,
    forward: Callable[[Tensor], tuple[Tensor, Any]],
    x: Tensor,
    choose: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Return the maps [B, h, w], without a graph, and the class of each image, int64 [B].

    ``forward`` gives the target layer's maps and the model's output, in evaluation mode, where no
    image sees another, so that the gradient of the scores' sum is each image's own. ``choose``
    gives the class of each image from the logits [B, C]. Raises ValueError where there are no
    maps, or they do not bear on the score.
    """
    with torch.inference_mode(False), torch.enable_grad():
        # A leaf, so that a model whose weights are frozen has a graph as well.
        image = x.detach().clone()
        if image.is_floating_point():
            image.requires_grad_()
        maps, output = forward(image)
        logits_BC = logits_of(output).flatten(1)
        class_B = choose(logits_BC).to(logits_BC.device)
        if maps.ndim != 4:
            raise ValueError(f"target_layer gives {list(maps.shape)}, not maps; name another")
        score = logits_BC.gather(1, class_B[:, None]).sum()
        try:
            (grad,) = torch.autograd.grad(score, maps, allow_unused=True)
        except RuntimeError:  # cut off from all that learns
            grad = None
    if grad is None:
        raise ValueError("target_layer's maps do not bear on the logits; name another")
    last = _channels_last(tuple(maps.shape[1:]), tuple(x.shape[-2:]))
    features_BKhw, grad_BKhw = (_channels_first(one.detach(), last) for one in (maps, grad))
    return METHODS[method](features_BKhw, grad_BKhw), class_B


def _channels_last(map_shape: tuple[int, ...], image_hw: tuple[int, ...]) -> bool:
    """Whether maps [a, b, c] of an image are [h, w, K]: whose sides are more like the image's.

    Of a square image the equal ones; [K, h, w] where both are as like.
    """
    a, b, c = (math.log(side) for side in map_shape)
    image = math.log(image_hw[0] / image_hw[1])
    return abs(a - b - image) < abs(b - c - image)


def _channels_first(maps: Tensor, last: bool) -> Tensor:
    """As [B, K, h, w], in float32 or float64."""
    first = maps.permute(0, 3, 1, 2) if last else maps
    return first if first.dtype == torch.float64 else first.float()

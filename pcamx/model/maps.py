"""The maps of the abnormal class that one forward of a network gives, all at the film's size.

A map is a function of `Seen`; `pcamx.catalogue.MAPS` lists them.

Shapes: B batch, C classes, K channels, h w the map, H W the image.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from pcamx import ops
from pcamx.catalogue import MapKind, resolve
from pcamx.model.gradient_maps import gradcam as gradcam_of
from pcamx.model.gradient_maps import layercam as layercam_of
from pcamx.model.gradient_maps import to_image
from pcamx.model.network import Network, Segmenter
from pcamx.types import ABNORMAL

Answer = tuple[Tensor | None, dict[str, Tensor]]
"""Logits, if any, and maps by key."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One forward of a network in evaluation mode, without a graph."""

    network: Network | Segmenter
    features: list[Tensor]
    """The encoder's, [B, K, h, w] each, the deepest last."""
    logits_BC: Tensor | None
    """None where the network does not classify."""
    side: int
    """Of the square image, pixels."""
    grad_BKhw: Tensor | None
    """Gradient of the abnormal logit to ``features[-2]``, where a map needs it."""

    @property
    def classifier(self) -> Network:
        """The network, known to classify."""
        assert isinstance(self.network, Network)
        return self.network


@torch.no_grad()
def see(network: Network | Segmenter, image_B1HW: Tensor, *, gradients: bool = False) -> Seen:
    """Run ``network`` over the images once; with ``gradients`` back to the features before the
    deepest as well."""
    side = image_B1HW.shape[-1]
    if not isinstance(network, Network):
        return Seen(network, network.encoder(image_B1HW), None, side, None)
    if not gradients:
        features = network.encoder(image_B1HW)
        return Seen(network, features, network.head(features[-1])[0], side, None)
    features, source_BKhw = network.encoder.tracked(image_B1HW)
    # In evaluation mode no film sees another, so the sum's gradient is each film's own.
    with torch.enable_grad():
        logits_BC, _ = network.head(features[-1])
        (grad_BKhw,) = torch.autograd.grad(logits_BC[:, ABNORMAL].sum(), source_BKhw)
    features = [x_BKhw.detach() for x_BKhw in features]
    placed_BKhw = network.encoder.placed(grad_BKhw)
    return Seen(network, features, logits_BC.detach(), side, placed_BKhw)


@torch.no_grad()
def explain(network: Network | Segmenter, image_B1HW: Tensor, kinds: Iterable[MapKind]) -> Answer:
    """Return the logits [B, C], if any, and the maps of ``kinds`` by key, float32 [B, H, W].

    Whatever the film's label, as they are evaluated; in evaluation mode. Of a network that is
    ``mirrored`` both are the mean over the film and its mirror image, whose maps are turned back;
    maps by gradient too, each by the gradient of its own image's logit.
    """
    answer = partial(explain_once, network, kinds=list(kinds))
    return over_mirror_image(answer, image_B1HW) if network.mirrored else answer(image_B1HW)


def over_mirror_image(answer: Callable[[Tensor], Answer], image_B1HW: Tensor) -> Answer:
    """Return the mean answer to images and to their mirror images, whose maps are turned back."""
    logits_BC, maps = answer(image_B1HW)
    other_BC, others = answer(image_B1HW.flip(-1))
    if logits_BC is not None and other_BC is not None:
        logits_BC = (logits_BC + other_BC) / 2
    return logits_BC, {key: (maps[key] + others[key].flip(-1)) / 2 for key in maps}


@torch.no_grad()
def explain_once(
    network: Network | Segmenter, image_B1HW: Tensor, kinds: Sequence[MapKind]
) -> Answer:
    """Do as `explain` by the images alone, whether the network is ``mirrored`` or not."""
    seen = see(network, image_B1HW, gradients=any(kind.gradient for kind in kinds))
    return seen.logits_BC, {kind.key: resolve(kind.function)(seen) for kind in kinds}


def cam(seen: Seen) -> Tensor:
    """Return the plain class activation map, eq. (1), [B, H, W]."""
    return _class_activation(seen, positive=False)


def positive_cam(seen: Seen) -> Tensor:
    """Return the positive class activation map, eq. (2), [B, H, W]."""
    return _class_activation(seen, positive=True)


def _class_activation(seen: Seen, *, positive: bool) -> Tensor:
    features_BKhw, head = seen.features[-1], seen.classifier.head
    abnormal_B = torch.full((len(features_BKhw),), ABNORMAL, device=features_BKhw.device)
    map_Bhw = ops.class_activation(
        features_BKhw, head.weight, abnormal_B, positive=positive, impl=head.impl
    )
    size = (seen.side, seen.side)
    map_B1HW = F.interpolate(map_Bhw[:, None], size=size, mode="bilinear", align_corners=False)
    return map_B1HW[:, 0]


def gradcam(seen: Seen) -> Tensor:
    """Return Grad-CAM of the features before the deepest, at stride 8, [B, H, W].

    Not of the deepest, A_k: there the gradient of the linear head pooled by the mean is w_k / hw in
    every cell, so Grad-CAM is relu(CAM) / hw and LayerCAM is positive CAM / hw. Pooled otherwise
    it is w_k times a share of the cell's own, which LayerCAM's map has besides.
    """
    assert seen.grad_BKhw is not None
    return _at_image(seen, gradcam_of(seen.features[-2].float(), seen.grad_BKhw.float()))


def layercam(seen: Seen) -> Tensor:
    """Return LayerCAM of the same features, [B, H, W]; see `gradcam`."""
    assert seen.grad_BKhw is not None
    return _at_image(seen, layercam_of(seen.features[-2].float(), seen.grad_BKhw.float()))


def _at_image(seen: Seen, map_Bhw: Tensor) -> Tensor:
    return to_image(map_Bhw, seen.side, seen.network.encoder.shallow_centred)


def decoder(seen: Seen) -> Tensor:
    """Return the decoder's probability of a lesion, [B, H, W]."""
    assert seen.network.decoder is not None
    logit_B1HW: Tensor = seen.network.decoder(seen.features, (seen.side, seen.side))
    return torch.sigmoid(logit_B1HW)[:, 0]

"""Positive CAM on anybody's classifier: `from pcamx import PositiveCAM`.

Shapes: B batch, K channels, C classes, h w the map.
"""

import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import torch.nn.functional as F
from torch import Tensor, nn
from torch.jit import ScriptModule

from pcamx import ops
from pcamx.cam.by_gradient import METHODS, map_by_gradient
from pcamx.cam.classes import ClassOf, class_of_each, known_names, logits_of
from pcamx.cam.forward import evaluating, watching
from pcamx.cam.overlay import overlay
from pcamx.cam.pooled_head import (
    PooledHead,
    channels_first,
    last_maps,
    named_layer,
    pooled_head,
    weight_matrix,
)
from pcamx.cam.pooled_norm import fold


class PositiveCAM:
    """Class activation maps of a classifier that ends in average pooling and a linear layer.

        with PositiveCAM(model) as cam:
            maps = cam(x)                           # of the predicted class
            maps = cam(x, class_idx=[3, 0, 7, 7])   # a class per image
            maps = cam(x, method="layer-cam", upsample=True)  # of any head, at the image's size
            cam.overlay(image, maps[0]).save("seen.png")

    Positive CAM is eq. (2) of Lu & Tong, AAAI-19: sum_k max(0, w_ck) h_k, without bias; with
    ``positive=False`` the plain CAM of Zhou et al., CVPR 2016. Maps are raw: neither rectified,
    normalised nor upsampled. They are differentiable to the model and to the linear layer's
    weight, so they can stand in a loss; under torch.no_grad they carry no graph.

    ``target_layer``: the layer whose maps are averaged, a module or its dotted name.
    ``fc_layer``: the linear layer (or 1x1 convolution) that the average feeds. What is left out
    is found on the first call, by one more forward of one image; both given are taken at your
    word. So is found a BatchNorm, LayerNorm (ConvNeXt) or RMSNorm between average and linear
    layer, which is a part of the weights w_ck: the average of the plain CAM is the logit, up to a
    constant of the class.
    ``classes``: the classes' names in the order of the logits, by which they may then be asked
    for; those of a Hugging Face model are known.

    A head of several layers, GeM or max pooling has no such map and is refused; ``method``
    "layer-cam" (Jiang et al. 2021) and "grad-cam" (Selvaraju et al. 2017) give maps of any model
    with feature maps, from the gradient of the class's logit to ``target_layer``, or to the last
    layer that gives maps. They carry no graph.

    The model runs in eval mode, and each layer's mode is restored after every call, also after
    an exception or Ctrl-C: batch norm's statistics stay as they are. Nothing hangs on the model
    between calls. Threads may call, also with one model: a call waits for another's forward. A
    thread that itself runs a model in training mode meanwhile finds it in eval mode.

    A model inside DataParallel, DistributedDataParallel, a DeepSpeed engine or torch.compile
    runs without that wrapper, on its input's device, eagerly, and its gradients are this
    process's own; in the loss of a wrapped model call `pcamx.ops.class_activation` in the
    model's own forward.

    Raises ValueError, one line, for a layer that is not there, for one that runs more than once
    in a forward, for a model without a pooled linear head (VGG, most vision transformers), and
    for what is no model or no batch of images.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: nn.Module | str | None = None,
        fc_layer: nn.Module | str | None = None,
        *,
        positive: bool = True,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.model = _unwrapped(model)
        self.positive = positive
        self.names = known_names(self.model, classes)
        self.target_layer = self._layer(target_layer, "target_layer")
        self.fc_layer = self._layer(fc_layer, "fc_layer")
        self._found: PooledHead | None = None
        self._last: Tensor | None = None
        self._own = threading.local()

    overlay = staticmethod(overlay)

    @property
    def class_idx(self) -> Tensor | None:
        """Whose maps this thread's last call gave, int64 [B]; the predicted where none was asked.

        In a thread that made no call, those of the last call of all; None before any.
        """
        found: Tensor | None = getattr(self._own, "class_idx", self._last)
        return found

    def _layer(self, layer: nn.Module | str | None, argument: str) -> nn.Module | None:
        return None if layer is None else named_layer(self.model, layer, argument)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to threads: a copy has made no call."""
        return {name: value for name, value in vars(self).items() if name != "_own"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what a copy, or what was pickled, holds."""
        vars(self).update(state)
        self._own = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing is left to undo: every call takes its hook and eval mode back itself."""

    def __call__(
        self, x: Tensor, class_idx: ClassOf = None, *, method: str = "cam", upsample: bool = False
    ) -> Tensor:
        """Maps [B, h, w] of the images ``x``, float32 (float64 for a float64 model), on its device.

        ``class_idx``: one class for all images, a list or tensor of one per image, by number or
        name, or None for the class of the largest logit. None needs logits: the model's output
        itself, its ``logits`` (Hugging Face), or the first of a tuple. ``method``: "cam", the
        positive or plain one, "layer-cam" or "grad-cam". With ``upsample`` [B, H, W], bilinear,
        each cell around the pixels that it would cover were the image cut into cells.

        Raises ValueError for classes that the model does not have or that do not fit the batch.
        """
        _check_images(x)
        if method in METHODS:
            map_Bhw, class_B = self._by_gradient(x, class_idx, method)
        elif method == "cam":
            map_Bhw, class_B = self._class_activation(x, class_idx)
        else:
            raise ValueError(f"method {method!r}: one of cam, {', '.join(METHODS)}")
        self._last = self._own.class_idx = class_B
        if not upsample:
            return map_Bhw
        size = x.shape[-2:]
        return F.interpolate(map_Bhw[:, None], size=size, mode="bilinear", align_corners=False)[
            :, 0
        ]

    def _by_gradient(self, x: Tensor, class_idx: ClassOf, method: str) -> tuple[Tensor, Tensor]:
        def choose(logits_BC: Tensor) -> Tensor:
            if class_idx is None:
                return logits_BC.argmax(1)
            return class_of_each(class_idx, len(x), logits_BC.shape[1], self.names)

        with evaluating(self.model):
            target = last_maps(self.model, x) if self.target_layer is None else self.target_layer
            layers = {"target_layer": target}
            return map_by_gradient(
                method, lambda image: _maps_of(self.model, layers, image), x, choose
            )

    def _class_activation(self, x: Tensor, class_idx: ClassOf) -> tuple[Tensor, Tensor]:
        with evaluating(self.model):
            head = self._head(x)
            layers = {"target_layer": head.target, "fc_layer": head.fc}
            maps, output = _maps_of(self.model, layers, x)
            # Here, in eval mode: a weight that is computed (spectral norm) learns in training mode.
            weight_CK = weight_matrix(head.fc)
        features_BKhw = channels_first(maps, weight_CK.shape[1])
        if features_BKhw is None:
            raise ValueError(
                f"target_layer gives {list(maps.shape)}, fc_layer takes {weight_CK.shape[1]} "
                "channels: not a pooled linear head"
            )
        if len(features_BKhw) != len(x):
            raise ValueError(
                f"target_layer gives maps of {len(features_BKhw)} images for the {len(x)} of x; "
                "pass a model that runs each image once"
            )
        if class_idx is None:
            class_B = _predicted(logits_of(output).flatten(1), len(weight_CK))
        else:
            class_B = class_of_each(class_idx, len(features_BKhw), len(weight_CK), self.names)
        class_B = class_B.to(features_BKhw.device)
        spread_B = None
        if head.norm is not None:
            weight_CK, spread_B = fold(head.norm, weight_CK, features_BKhw)
        map_Bhw = ops.class_activation(features_BKhw, weight_CK, class_B, positive=self.positive)
        return map_Bhw if spread_B is None else map_Bhw / spread_B[:, None, None], class_B

    def _head(self, x: Tensor) -> PooledHead:
        if self._found is None or self._found[:2] != (self.target_layer, self.fc_layer):
            self._found = pooled_head(self.model, x, self.target_layer, self.fc_layer)
            self.target_layer, self.fc_layer, _ = self._found
        if not {self._found.target, self._found.fc} <= set(self.model.modules()):
            raise ValueError("a layer was replaced since it was found; make a new PositiveCAM")
        return self._found


def _predicted(logits_BC: Tensor, classes: int) -> Tensor:
    """The class of the largest logit, where the logits are those that the linear layer gives."""
    if logits_BC.shape[1] != classes:
        raise ValueError(
            f"the model answers {logits_BC.shape[1]} numbers an image, fc_layer has {classes} "
            "classes, so which class is predicted is not known; pass class_idx"
        )
    return logits_BC.argmax(1)


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model inside torch's and DeepSpeed's wrappers, which would call it elsewhere or compiled.

    By the name of the class, so that none of them is imported.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model is a {type(model).__name__}; pass a torch.nn.Module")
    if isinstance(model, ScriptModule):
        raise ValueError(
            f"model is a {type(model).__name__}, whose layers TorchScript does not let be "
            "watched; pass the module that it was made of"
        )
    wrappers = {"DataParallel", "DistributedDataParallel", "DeepSpeedEngine"}
    while True:
        kinds = {kind.__name__ for kind in type(model).__mro__}
        if "OptimizedModule" in kinds:
            model = model._orig_mod  # type: ignore[assignment]
        elif kinds & wrappers:
            model = model.module  # type: ignore[assignment]
        else:
            return model


def _maps_of(model: nn.Module, layers: Mapping[str, nn.Module], x: Tensor) -> tuple[Tensor, Any]:
    """What the target gave in a forward of ``x``, as it is when that ends, and the output."""
    with watching(layers) as runs:
        output = model(x)
    for name, run in runs.items():
        if run.times > 1:
            raise ValueError(
                f"{name} runs {run.times} times in one forward, so there is no one map; "
                f"pass a {name} that runs once"
            )
    if "target_layer" not in runs:
        raise ValueError("target_layer gives nothing in the model's forward, not maps")
    maps = runs["target_layer"].output
    if not isinstance(maps, Tensor):
        what = type(maps).__name__
        raise ValueError(f"target_layer gives a {what} in the model's forward, not maps")
    return maps, output


def _check_images(x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise ValueError(f"x is a {type(x).__name__}; pass images as a tensor [B, channels, H, W]")
    if x.ndim == 5:
        raise ValueError(
            f"x is {list(x.shape)}; pass a batch of images, [B, channels, H, W], not volumes: "
            "slices of one, say"
        )
    if x.ndim != 4:
        raise ValueError(f"x is {list(x.shape)}; pass a batch of images, [B, channels, H, W]")

"""Positive CAM on anybody's classifier: `from pcamx import PositiveCAM`.

Shapes: B batch, K channels, C classes, h w the map.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from pcamx import ops
from pcamx.cam.pooled_head import (
    PooledHead,
    channels_first,
    named_layer,
    pooled_head,
    weight_matrix,
)


class PositiveCAM:
    """Class activation maps of a classifier that ends in average pooling and a linear layer.

        with PositiveCAM(model) as cam:
            maps = cam(x)                           # of the predicted class
            maps = cam(x, class_idx=[3, 0, 7, 7])   # a class per image

    Positive CAM is eq. (2) of Lu & Tong, AAAI-19: sum_k max(0, w_ck) h_k, without bias; with
    ``positive=False`` the plain CAM of Zhou et al., CVPR 2016. Maps are raw: neither rectified,
    normalised nor upsampled. They are differentiable to the model and to the linear layer's
    weight, so they can stand in a loss; under torch.no_grad they carry no graph.

    ``target_layer``: the layer whose maps are averaged, a module or its dotted name.
    ``fc_layer``: the linear layer (or 1x1 convolution) that the average feeds. What is left out
    is found on the first call, by one more forward of one image; both given are taken at your
    word. A normalisation between average and linear layer is looked through, not folded in.

    The model runs in eval mode, and each layer's mode is restored after every call, also after
    an exception: batch norm's statistics stay as they are. Nothing hangs on the model between
    calls. A model inside DataParallel, DistributedDataParallel, a DeepSpeed engine or
    torch.compile runs without that wrapper, on its input's device, eagerly, and its gradients
    are this process's own; in the loss of a wrapped model call `pcamx.ops.class_activation` in
    the model's own forward.

    Raises ValueError, one line, for a layer that is not there and for a model without a pooled
    linear head (VGG, most vision transformers).
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: nn.Module | str | None = None,
        fc_layer: nn.Module | str | None = None,
        *,
        positive: bool = True,
    ) -> None:
        self.model = _unwrapped(model)
        self.positive = positive
        self.target_layer = self._layer(target_layer, "target_layer")
        self.fc_layer = self._layer(fc_layer, "fc_layer")
        self.class_idx: Tensor | None = None
        """Whose maps the last call gave, int64 [B]: the predicted classes where none was asked."""

    def _layer(self, layer: nn.Module | str | None, argument: str) -> nn.Module | None:
        return None if layer is None else named_layer(self.model, layer, argument)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing is left to undo: every call takes its hook and eval mode back itself."""

    def __call__(self, x: Tensor, class_idx: int | Sequence[int] | Tensor | None = None) -> Tensor:
        """Maps [B, h, w] of the images ``x``, float32 (float64 for a float64 model), on its device.

        ``class_idx``: one class for all images, a list or tensor of one per image, or None for
        the class of the largest logit. None needs logits: the model's output itself, its
        ``logits`` (Hugging Face), or the first of a tuple.

        Raises ValueError for classes that the model does not have or that do not fit the batch.
        """
        with _evaluating(self.model):
            head = self._head(x)
            maps, output = _maps_of(self.model, head.target, x)
        weight_CK = weight_matrix(head.fc)
        features_BKhw = channels_first(maps, weight_CK.shape[1])
        if features_BKhw is None:
            raise ValueError(
                f"target_layer gives {list(maps.shape)}, fc_layer takes {weight_CK.shape[1]} "
                "channels: not a pooled linear head"
            )
        if class_idx is None:
            class_B = _logits(output).flatten(1).argmax(1)
        else:
            class_B = _classes(class_idx, len(features_BKhw), len(weight_CK))
        self.class_idx = class_B.to(features_BKhw.device)
        return ops.class_activation(
            features_BKhw, weight_CK, self.class_idx, positive=self.positive
        )

    def _head(self, x: Tensor) -> PooledHead:
        if self.target_layer is None or self.fc_layer is None:
            found = pooled_head(self.model, x, self.target_layer, self.fc_layer)
            self.target_layer, self.fc_layer = found
        return PooledHead(self.target_layer, self.fc_layer)


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model inside torch's and DeepSpeed's wrappers, which would call it elsewhere or compiled.

    By the name of the class, so that none of them is imported.
    """
    wrappers = {"DataParallel", "DistributedDataParallel", "DeepSpeedEngine"}
    while True:
        kinds = {kind.__name__ for kind in type(model).__mro__}
        if "OptimizedModule" in kinds:
            model = model._orig_mod  # type: ignore[assignment]
        elif kinds & wrappers:
            model = model.module  # type: ignore[assignment]
        else:
            return model


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode, and no compiled layer, for these would pass by the hooks; then as it was."""
    modes = [(layer, layer.training) for layer in model.modules()]
    # Nothing can have been compiled where this module was never imported, and it is slow to.
    compiled = "torch._dynamo" in sys.modules
    eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    try:
        model.eval()
        with eager:
            yield
    finally:
        for layer, training in modes:
            layer.training = training


def _maps_of(model: nn.Module, target: nn.Module, x: Tensor) -> tuple[Tensor, Any]:
    """What ``target`` gave in a forward of ``x``, as it is when that ends, and the output."""
    given: list[Any] = []
    handle = target.register_forward_hook(lambda _layer, _input, output: given.append(output))
    try:
        output = model(x)
    finally:
        handle.remove()
    if not given or not isinstance(given[-1], Tensor):
        what = "a " + type(given[-1]).__name__ if given else "nothing"
        raise ValueError(f"target_layer gives {what} in the model's forward, not maps")
    return given[-1], output


def _logits(output: Any) -> Tensor:
    if isinstance(output, Mapping):
        output = output.get("logits")
    elif isinstance(output, tuple) and output:
        output = output[0]
    output = getattr(output, "logits", output)
    if isinstance(output, Tensor) and output.ndim >= 2:
        return output
    raise ValueError("no logits in the model's output: pass class_idx")


def _classes(class_idx: int | Sequence[int] | Tensor, images: int, classes: int) -> Tensor:
    """Class of each image, int64 [B], checked; a tensor on a GPU is waited for."""
    found = torch.as_tensor(class_idx)
    if found.is_floating_point() or found.dtype == torch.bool or found.ndim > 1:
        raise ValueError("class_idx: expected None, a class or one class per image")
    if found.ndim == 0:
        found = found.expand(images)
    if len(found) != images:
        raise ValueError(f"class_idx: {len(found)} classes for {images} images")
    if images and not 0 <= int(found.min()) <= int(found.max()) < classes:
        raise ValueError(f"class_idx: outside 0 ... {classes - 1}")
    return found.long()

"""Class activation maps by the peers' libraries, called as their users call them.

Their hooks need a forward pass of the model, so each call holds one of the head: pooling and the
linear layer. They return the plain map min-max normalised, pytorch-grad-cam's cut off at 0 before.
Shapes: B batch, K channels, C classes, h w the map.
"""

import sys
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple
from unittest.mock import MagicMock, patch

import torch
from torch import Tensor, nn

from bench.lib.operations.case import Impl, Tensors
from bench.lib.timing import Call
from pcamx.kernels import reference

TORCH_CAM, GRAD_CAM = "torch-cam CAM", "pytorch-grad-cam GradCAM"
PACKAGES = {"torch-cam": "torchcam", "grad-cam": "grad-cam"}
"""Short name and distribution, for the versions of a record."""
_UNUSED = {
    "torchvision": ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"),
    "sklearn": ("sklearn", "sklearn.decomposition"),
}


class Peers(NamedTuple):
    """Those that run, each returning [B, h, w], and why the others cannot."""

    impls: dict[str, Impl]
    missing: dict[str, str]


class Head(nn.Module):
    """Global average pooling and a linear layer without bias over given features."""

    def __init__(self, weight_CK: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.features = nn.Identity()
        self.fc = nn.Linear(weight_CK.shape[1], weight_CK.shape[0], bias=False)
        self.fc.weight = nn.Parameter(weight_CK.detach().to(dtype))

    def forward(self, features_BKhw: Tensor) -> Tensor:
        logits_BC: Tensor = self.fc(self.features(features_BKhw).mean((2, 3)))
        return logits_BC


def peers(features_BKhw: Tensor, weight_CK: Tensor, class_index_B: Tensor) -> Peers:
    """Return the calls of the libraries that can be imported; their own errors are not hidden."""
    found = Peers({}, {})
    rivals = (TORCH_CAM, _torch_cam, _normalised), (GRAD_CAM, _grad_cam, _cut_and_normalised)
    for name, make, of_truth in rivals:
        try:
            call = make(features_BKhw, weight_CK, class_index_B.tolist())
            found.impls[name] = Impl(call, of_truth, captured=False)
        except ImportError as error:
            found.missing[name] = str(error)
    return found


@cache
def import_grad_cam() -> tuple[Any, Any, list[str]]:
    """Import GradCAM, ClassifierOutputTarget; return what had an empty stand-in meanwhile, too.

    The package imports torchvision and scikit-learn as a whole, for what GradCAM does not use; a
    torchvision built for another PyTorch cannot be imported at all.
    """
    absent = {name: parts for name, parts in _UNUSED.items() if not _imports(name)}
    stands_in = {part: MagicMock() for parts in absent.values() for part in parts}
    with patch.dict(sys.modules, stands_in):
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    return GradCAM, ClassifierOutputTarget, list(absent)


def _imports(name: str) -> bool:
    try:
        import_module(name)
    except (ImportError, RuntimeError):
        return False
    return True


def _torch_cam(features_BKhw: Tensor, weight_CK: Tensor, classes: list[int]) -> Call:
    from torchcam.methods import CAM

    model = Head(weight_CK, features_BKhw.dtype).eval()
    extractor = CAM(model, "features", "fc")

    def call() -> Tensor:
        with torch.inference_mode():
            model(features_BKhw)
        map_Bhw: Tensor = extractor(class_idx=classes)[0]
        return map_Bhw

    return call


def _grad_cam(features_BKhw: Tensor, weight_CK: Tensor, classes: list[int]) -> Call:
    GradCAM, ClassifierOutputTarget, _ = import_grad_cam()
    # It makes NumPy arrays on the way, which know no bfloat16.
    model = Head(weight_CK, torch.float32).eval()
    features_BKhw = features_BKhw.float().requires_grad_()
    extractor = GradCAM(model=model, target_layers=[model.features])
    targets = [ClassifierOutputTarget(c) for c in classes]
    return lambda: extractor(input_tensor=features_BKhw, targets=targets)


def _normalised(truth: Tensors) -> Tensors:
    return (reference.normalise(truth[0])[0],)


def _cut_and_normalised(truth: Tensors) -> Tensors:
    return (reference.normalise(truth[0].relu())[0],)

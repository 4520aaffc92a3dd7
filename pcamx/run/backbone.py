"""Pretrained weights of a timm backbone, from a local file or from timm."""

import torch
from safetensors.torch import load
from torch import Tensor

from pcamx.errors import PcamxError
from pcamx.model.timm_backbone import timm_state
from pcamx.model.timm_encoder import TimmEncoder


def load_backbone(encoder: TimmEncoder, weights: str, name: str) -> None:
    """Put pretrained weights into the backbone, and lay its maps where those look.

    Of a local file, or timm's own for ``timm``: a safetensors file, or a state dict that torch
    loads weights-only; a stem of three channels is summed to one. Raises PcamxError where the file
    is missing, something else, of another model, or holds other than finite real numbers.
    """
    state = timm_state(name) if weights == "timm" else _read(weights)
    known = encoder.backbone.state_dict()
    fitting = {}
    for key, tensor in known.items():
        # timm's wrapper of some models joins the names of nested modules by an underscore.
        given = state.get(key, state.get(_unwrapped(key)))
        if given is None and key.endswith("num_batches_tracked"):
            given = tensor
        if given is not None and given.ndim == 4 and given.shape[1] == 3 and tensor.shape[1] == 1:
            given = given.sum(1, keepdim=True)
        if given is None or given.shape != tensor.shape:
            what = "lacks" if given is None else "has another shape of"
            raise PcamxError(f"model.weights: {weights} {what} {key}; it is not of {name}")
        # As float32, which whole numbers of a quantised file or complex ones would become unasked.
        real = given.is_floating_point() and bool(given.float().isfinite().all())
        if tensor.is_floating_point() and not real:
            raise PcamxError(
                f"model.weights: {weights}: {key} is not made of finite real numbers; name another "
                "file"
            )
        fitting[key] = given
    encoder.backbone.load_state_dict(fitting)
    encoder.look()


def _unwrapped(key: str) -> str:
    """layer1_0.x to layer1.0.x, as FeatureListNet flattens some backbones."""
    head, _, rest = key.partition(".")
    return f"{head.replace('_', '.')}.{rest}"


def _read(path: str) -> dict[str, Tensor]:
    try:
        if path.endswith(".safetensors"):
            with open(path, "rb") as file:
                return load(file.read())
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise PcamxError(f"model.weights: {path}: {reason}") from None
    except Exception as error:
        # torch.load raises pickle, zip, runtime and key errors alike for a foreign file.
        kind = type(error).__name__
        raise PcamxError(
            f"model.weights: {path}: no safetensors file or state dict of tensors ({kind})"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise PcamxError(f"model.weights: {path}: expected a state dict of tensors")
    return state

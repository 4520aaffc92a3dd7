"""Find the pooled linear head of a classifier by watching one forward pass.

The head is found by what it computes, not by name: a linear layer is fed the average of some
layer's maps. So a layer whose output is changed in place later is recognised too, and what is
no such head (VGG, ViT) is refused.

Shapes: K channels, h w the map; the trial's batch is one.
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pcamx.cam.by_gradient import INSTEAD
from pcamx.cam.forward import Run, watching
from pcamx.cam.pooled_norm import NORMS


class PooledHead(NamedTuple):
    """The layer whose maps are averaged, and the linear layer that this average feeds."""

    target: nn.Module
    fc: nn.Module
    norm: nn.Module | None
    """What normalises the average on its way, if anything does."""


def named_layer(model: nn.Module, layer: nn.Module | str, argument: str) -> nn.Module:
    """Return the module of ``model`` that ``layer`` is or names; ValueError where there is none."""
    layers: dict[str, nn.Module] = dict(model.named_modules())
    if isinstance(layer, nn.Module):
        if all(layer is not other for other in layers.values()):
            raise ValueError(f"{argument} is not a layer of this model")
        return layer
    if layer not in layers:
        near = _words(difflib.get_close_matches(layer, layers)) or "see model.named_modules()"
        raise ValueError(f"{argument} {layer!r} is not in the model; near it: {near}")
    return layers[layer]


def weight_matrix(fc: nn.Module) -> Tensor:
    """Return the weight [C, K] of a linear layer or a 1x1 convolution; ValueError for anything
    else.
    """
    weight = getattr(fc, "weight", None)
    if isinstance(weight, Tensor) and weight.numel() == 0:
        raise ValueError("fc_layer's weight is not here (ZeRO-3?); gather it around the call")
    if isinstance(weight, Tensor) and weight.ndim >= 2 and weight.shape[2:].numel() == 1:
        return weight.flatten(1)
    raise ValueError(f"fc_layer is a {type(fc).__name__}, neither linear nor a 1x1 convolution")


def channels_first(maps: Tensor, channels: int) -> Tensor | None:
    """Return ``maps`` as [B, K, h, w] with K ``channels``, also out of [B, h, w, K]; None if
    neither.
    """
    if maps.ndim != 4:
        return None
    if maps.shape[1] == channels:
        return maps
    return maps.permute(0, 3, 1, 2) if maps.shape[3] == channels else None


def pooled_head(
    model: nn.Module, x: Tensor, target: nn.Module | None, fc: nn.Module | None
) -> PooledHead:
    """Find what is None of the two, and hold what is given against what the model computes.

    Both given are taken at their word, and only a normalisation in front of ``fc`` is looked for.

    Runs ``model``, which should be in eval mode, once on noise of one image's shape. Raises
    ValueError, one line that names the candidates, where the head is ambiguous or none.
    """
    layers = dict(model.named_modules())
    seen, output = _watch(layers, _trial_image(x))
    names = {layer: name for name, layer in layers.items()}
    fc_name = _find_fc(layers, seen, output) if fc is None else names[fc]
    norm_name = _norm_before(layers, seen, fc_name)
    norm = None if norm_name is None else layers[norm_name]
    if target is not None and fc is not None:
        return PooledHead(target, fc, norm)
    if fc_name not in seen:
        raise ValueError(f"fc_layer {fc_name!r} takes no part in the model's forward")
    fits = _feeding(layers, seen, fc_name)
    # A layer used over again has no one map; the block around it may.
    fits = [name for name in fits if seen[name].times == 1] or fits
    if not fits:
        raise ValueError(
            f"not a pooled linear head: {fc_name!r} is not fed the average of any layer's maps, as "
            f"with GeM or max pooling{INSTEAD}"
        )
    # Of equal maps the outermost layer: layer4 rather than layer4.1.relu.
    best = max(fits, key=lambda name: (seen[name].output.numel(), list(seen).index(name)))
    if target is not None and names[target] not in _feeding(layers, seen, fc_name):
        raise ValueError(
            f"{fc_name!r} averages the maps of {best!r}, not of target_layer {names[target]!r}"
        )
    return PooledHead(layers[best] if target is None else target, layers[fc_name], norm)


def last_maps(model: nn.Module, x: Tensor) -> nn.Module:
    """Find the layer that gives the last maps of more than one cell; of equal ones the outermost.

    Runs ``model``, which should be in eval mode, once on noise of one image's shape. Raises
    ValueError where no layer that runs once gives any.
    """
    layers = dict(model.named_modules())
    seen, _ = _watch(layers, _trial_image(x))
    found = [n for n, run in seen.items() if n and run.times == 1 and _is_map(run.output)]
    if not found:
        raise ValueError("no layer gives maps [B, channels, h, w]; pass target_layer")
    last: nn.Module = layers[found[-1]]
    return last


def _trial_image(x: Tensor) -> Tensor:
    """Noise has no zero features, in which every layer would look like every other."""
    if not x.is_floating_point():
        return x[:1]
    generator = torch.Generator(x.device).manual_seed(0)
    shape = (1, *x.shape[1:])
    return torch.randn(shape, generator=generator, dtype=x.dtype, device=x.device)


def _watch(layers: dict[str, nn.Module], image: Tensor) -> tuple[dict[str, Run], Any]:
    """The layers that give a tensor, in order of first use, and the model's output."""
    with watching(layers) as runs, torch.no_grad():
        output = layers[""](image)
    return {name: run for name, run in runs.items() if isinstance(run.output, Tensor)}, output


def _find_fc(layers: dict[str, nn.Module], seen: dict[str, Run], output: Any) -> str:
    order = list(seen)
    maps = [i for i, name in enumerate(order) if _is_map(seen[name].output)]
    behind = [
        name
        for name in order[max(maps, default=-1) + 1 :]
        if isinstance(layers[name], nn.Linear | nn.Conv2d)
    ]
    for name in behind:
        if isinstance(layer := layers[name], nn.Conv2d) and layer.kernel_size != (1, 1):
            raise ValueError(
                f"not a pooled linear head: the convolution {name!r} follows the last maps of "
                f"more than one cell (images too small?){INSTEAD}"
            )
    if len(behind) == 1:
        return behind[0]
    if not behind:
        return _find_convolution(layers, seen, output)
    if all(_feeding(layers, seen, name) for name in behind):
        raise ValueError(f"several heads: pass fc_layer, one of {_words(behind)}")
    raise ValueError(
        f"not a pooled linear head: {len(behind)} layers follow the last maps, {_words(behind)}"
        f"{INSTEAD}"
    )


def _find_convolution(layers: dict[str, nn.Module], seen: dict[str, Run], output: Any) -> str:
    """A 1x1 convolution whose maps, averaged, are the model's output (SqueezeNet)."""
    for name in reversed(seen):
        layer, maps = layers[name], seen[name].output
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and _is_map(maps):
            if isinstance(output, Tensor) and _is_mean(output, maps):
                return name
    raise ValueError(f"not a pooled linear head: no linear layer follows the last maps{INSTEAD}")


def _feeding(layers: dict[str, nn.Module], seen: dict[str, Run], fc_name: str) -> list[str]:
    """Names of the layers whose maps, or their average, are what ``fc_name`` is fed.

    A normalisation between the average and the layer is looked through.
    """
    fc_input = seen[fc_name].given
    if not isinstance(fc_input, Tensor):
        return []
    channels = weight_matrix(layers[fc_name]).shape[1]
    if _is_map(fc_input):
        same = ((name, channels_first(s.output, channels)) for name, s in seen.items())
        return [name for name, maps in same if maps is not None and _equal(maps, fc_input)]
    norm = _norm_before(layers, seen, fc_name)
    before = fc_input if norm is None else seen[norm].given
    vector = before if isinstance(before, Tensor) else fc_input
    found = ((n, channels_first(s.output, channels)) for n, s in seen.items() if _is_map(s.output))
    return [name for name, maps in found if maps is not None and _is_mean(vector, maps)]


def _norm_before(layers: dict[str, nn.Module], seen: dict[str, Run], fc_name: str) -> str | None:
    """The layer that normalised the average which ``fc_name`` is fed; None where none did."""
    vector = seen[fc_name].given if fc_name in seen else None
    if not isinstance(vector, Tensor) or _is_map(vector):
        return None
    for name, run in seen.items():
        if isinstance(layers[name], NORMS) and _equal(run.output.flatten(), vector.flatten()):
            return name
    return None


def _is_map(tensor: Tensor) -> bool:
    """Four axes, and more than one cell, whether channels come first or last."""
    return tensor.ndim == 4 and tensor[0].numel() > max(tensor.shape[1], tensor.shape[3])


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.equal(a, b))


def _is_mean(vector: Tensor, maps_1Khw: Tensor) -> bool:
    """Whether ``vector`` is the average of the maps, up to the rounding of its dtype."""
    if vector.numel() != maps_1Khw.shape[1]:
        return False
    maps = maps_1Khw.double()
    slack = 16 * torch.finfo(vector.dtype).eps * maps.abs().mean()
    return bool(((vector.flatten() - maps.mean((0, 2, 3))).abs() <= slack).all())


def _words(names: Iterable[str]) -> str:
    """'a', 'b' ... 'z': the first two and the last of many."""
    quoted = [repr(name) for name in names]
    shown: Sequence[str] = quoted if len(quoted) <= 4 else [*quoted[:2], "...", quoted[-1]]
    return ", ".join(shown)

"""Which class's map of each image: numbers or names in, numbers out."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ClassOf = int | str | Sequence[int | str] | Tensor | None
"""One class for all images or one per image, by number or name; None for the predicted."""
_EXPECTED = "class_idx: expected None, a class or one class per image"


def known_names(model: nn.Module, given: Sequence[str] | None) -> list[str]:
    """Return the classes' names in the logits' order: as given, else Hugging Face's; none is [].

    Raises ValueError where a name is given twice. Of the model's own, ImageNet's among them, one
    may be: only who asks for it is told.
    """
    if given is None:
        labels = getattr(getattr(model, "config", None), "id2label", None)
        return _in_order(labels) if isinstance(labels, Mapping) else []
    if len(set(given)) < len(given):
        raise ValueError("classes: a name is given twice")
    return list(given)


def _in_order(labels: Mapping[Any, Any]) -> list[str]:
    """The names by number, which JSON has made text; none where the keys are no numbers 0, 1 ..."""
    numbered = {int(key): str(name) for key, name in labels.items() if str(key).isdecimal()}
    return (
        [numbered[i] for i in range(len(labels))]
        if numbered.keys() == set(range(len(labels)))
        else []
    )


def class_of_each(
    class_idx: int | str | Sequence[int | str] | Tensor,
    images: int,
    classes: int,
    names: list[str],
) -> Tensor:
    """Return the class of each image, int64 [B], checked; a tensor on a GPU is waited for."""
    if isinstance(class_idx, np.ndarray):  # numpy's text is no text to a tensor
        class_idx = class_idx.tolist()
    asked = [class_idx] if isinstance(class_idx, str) else class_idx
    by_name = isinstance(asked, Sequence) and any(isinstance(one, str) for one in asked)
    if by_name and names and len(names) != classes:
        raise ValueError(f"classes: {len(names)} names for the {classes} classes of fc_layer")
    if isinstance(class_idx, str):
        class_idx = _number(class_idx, names)
    elif isinstance(class_idx, Sequence):
        class_idx = [_number(one, names) if isinstance(one, str) else one for one in class_idx]
        if any(isinstance(one, bool) for one in class_idx):  # of which torch would make 1 and 0
            raise ValueError(_EXPECTED)
    try:
        found = torch.as_tensor(class_idx)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(_EXPECTED) from None
    if found.is_floating_point() or found.dtype == torch.bool or found.ndim > 1:
        raise ValueError(_EXPECTED)
    if found.ndim == 0:
        found = found.expand(images)
    if len(found) != images:
        raise ValueError(f"class_idx: {len(found)} classes for {images} images")
    if images and not 0 <= int(found.min()) <= int(found.max()) < classes:
        raise ValueError(f"class_idx: outside 0 ... {classes - 1}")
    return found.long()


def _number(name: str, names: list[str]) -> int:
    if not names:
        raise ValueError(f"class_idx {name!r}: name the classes, PositiveCAM(model, classes=[...])")
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names[:8])}"
        raise ValueError(f"class_idx {name!r} is not among the classes; {hint}")
    if names.count(name) > 1:
        numbers = ", ".join(str(i) for i, one in enumerate(names) if one == name)
        raise ValueError(f"class_idx {name!r} is the name of the classes {numbers}; give a number")
    return names.index(name)


def logits_of(output: Any) -> Tensor:
    """Return the logits in a model's output: itself, its ``logits``, or the first of a tuple."""
    if isinstance(output, Mapping):
        output = output.get("logits")
    elif isinstance(output, tuple) and output:
        output = output[0]
    output = getattr(output, "logits", output)
    if isinstance(output, Tensor) and output.ndim >= 2:
        return output
    raise ValueError("no logits in the model's output: pass class_idx")

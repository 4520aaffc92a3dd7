"""From films to maps: the canvases that training sees, and the network's answer to them.

Shapes: B batch, H W the canvas.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcamx import metrics
from pcamx.catalogue import MapKind
from pcamx.data.canvas.without_dali import has_dali, lay_pixels
from pcamx.data.store import Film
from pcamx.errors import PcamxError
from pcamx.evaluation.explainers import abnormal_probability
from pcamx.explain.read_film import Reading
from pcamx.model.maps import explain
from pcamx.run.pretrained import Pretrained


class Answer(NamedTuple):
    """What the network says of one film."""

    probability: float
    """Of abnormal."""
    map_HW: NDArray[np.float32]
    """As it comes out of the network, of the abnormal class."""
    scaled_HW: NDArray[np.float64]
    """From 0 to 1 by its own minimum and maximum; all ones where it is flat."""


def identity(model: Pretrained) -> str:
    """Return the SHA-256 of the weights, the same for a run and for its export."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def answer(model: Pretrained, films: Sequence[Reading], kind: MapKind) -> list[Answer]:
    """Return probability and map of each film, as `pcamx evaluate` measures them.

    Raises PcamxError where a film cannot be decoded any more, or the network answers NaN.
    """
    return answers(model, films, [kind])[kind.key]


@torch.no_grad()
def answers(
    model: Pretrained, films: Sequence[Reading], kinds: Sequence[MapKind]
) -> dict[str, list[Answer]]:
    """Do as `answer` for several maps, out of one pass; by the map's key."""
    image_B1HW = model.standardise(canvases(model, films))
    logits_BC, maps = explain(model.network, image_B1HW, kinds)
    assert logits_BC is not None
    probability_B = abnormal_probability(logits_BC)
    return {key: _answers(model, probability_B, map_BHW.float()) for key, map_BHW in maps.items()}


def _answers(model: Pretrained, probability_B: Tensor, map_BHW: Tensor) -> list[Answer]:
    if not map_BHW.isfinite().all():
        raise PcamxError(f"{model.folder}: the network answers NaN; train it again")
    scaled_BHW = metrics.minmax(map_BHW)
    return [
        Answer(float(p), m.cpu().numpy(), s.cpu().numpy())
        for p, m, s in zip(probability_B, map_BHW, scaled_BHW, strict=True)
    ]


def canvases(model: Pretrained, films: Sequence[Reading]) -> Tensor:
    """Return uint8 [B, 1, H, W] on the model's device, by the graph that training uses.

    Of films whose pixels are kept, where DALI is not installed, by Pillow.
    """
    kinds: dict[tuple[bool, bool], list[int]] = {}
    for row, film in enumerate(films):
        kinds.setdefault((film.grey_HW is not None, film.white != 255), []).append(row)
    canvas_B1HW = torch.empty(
        (len(films), 1, model.canvas, model.canvas), dtype=torch.uint8, device=model.device
    )
    for (at_hand, _), rows in kinds.items():
        lay = _lay if at_hand else _decode
        canvas_B1HW[rows] = lay(model, [films[row] for row in rows])
    return canvas_B1HW


def _decode(model: Pretrained, films: Sequence[Reading]) -> Tensor:
    from pcamx.data.canvas.decode import decode_batches

    # Absolute: a film of a store that was named from the working directory is not below "/".
    where = [os.path.abspath(film.path) for film in films]
    listed = tuple(
        Film(path, 0, "", "", "", "test", film.width, film.height, film.white, "")
        for path, film in zip(where, films, strict=True)
    )
    every = [range(len(listed))]
    (canvas_B1HW,) = decode_batches(
        Path("/"), listed, every, model.canvas, device=model.device, threads=_threads()
    )
    return canvas_B1HW


def _lay(model: Pretrained, films: Sequence[Reading]) -> Tensor:
    pixels = [film.grey_HW for film in films if film.grey_HW is not None]
    whites = [film.white for film in films]
    if not has_dali():
        return lay_pixels(pixels, whites, model.canvas).to(model.device)
    from pcamx.data.canvas.decode_pixels import decode_pixels

    return decode_pixels(pixels, whites, model.canvas, device=model.device, threads=_threads())


def _threads() -> int:
    return len(os.sched_getaffinity(0))

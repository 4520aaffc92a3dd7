"""Canvases of films whose pixels are at hand, by the DALI graph that decodes files.

Shapes: B batch, H W the film.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from pcamx.data.canvas.graph import Input, build, canvas_graph, place, place_inputs, types


def decode_pixels(
    grey: Sequence[NDArray[Any]],
    whites: Sequence[int],
    canvas: int,
    *,
    device: torch.device,
    threads: int,
) -> Tensor:
    """Do as `decode_batches` for decoded films: return uint8 [B, 1, canvas, canvas] on ``device``.

    ``grey`` are upright films [H, W], at least one, uint8 all of them or uint16 all of them, and
    ``whites`` their grey levels of white. The canvas of a film that is stored losslessly is the
    same to the bit as the one that its file gives.
    """
    deep, gpu = grey[0].dtype == np.uint16, device.type == "cuda"
    sizes = [(film.shape[1], film.shape[0]) for film in grey]
    values = (
        [film[..., None] for film in grey],
        *place(sizes, whites if deep else None, canvas),
    )

    def source(batch: int) -> tuple[list[Any], ...]:
        if batch:
            raise StopIteration
        return values

    pixels = Input(types.UINT16 if deep else types.UINT8, "HWC")
    pipe = build(
        source,
        [pixels, *place_inputs(deep)],
        lambda film, *where: canvas_graph(film.gpu() if gpu else film, *where, side=canvas),
        batch_size=len(grey),
        threads=threads,
        device=device,
    )
    (output,) = pipe.run(torch.cuda.current_stream(device) if gpu else None)
    return from_dlpack(output.as_tensor()).view(-1, 1, canvas, canvas)

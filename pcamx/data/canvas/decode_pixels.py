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

from pcamx.data.canvas.decode import Pipeline, canvas_graph, fn, types
from pcamx.data.canvas.placement import fit


def lay_films(
    grey: Sequence[NDArray[Any]],
    whites: Sequence[int],
    canvas: int,
    *,
    device: torch.device,
    threads: int,
) -> Tensor:
    """`decode_batches` for decoded films: uint8 [B, 1, canvas, canvas] on ``device``.

    ``grey`` are upright films [H, W], at least one, uint8 all of them or uint16 all of them, and
    ``whites`` their grey levels of white. The canvas of a film that is stored losslessly is the
    same to the bit as the one that its file gives.
    """
    deep = grey[0].dtype == np.uint16
    gpu = device.type == "cuda"
    fits = [fit(film.shape[1], film.shape[0], canvas) for film in grey]
    inputs: list[tuple[Any, Any, str | None]] = [
        ([film[..., None] for film in grey], types.UINT16 if deep else types.UINT8, "HWC"),
        ([np.array([f.height, f.width], np.float32) for f in fits], types.FLOAT, None),
        ([np.array([-f.top, -f.left], np.int32) for f in fits], types.INT32, None),
    ]
    if deep:
        inputs.append(([np.float32(255 / white) for white in whites], types.FLOAT, None))
    pipe = Pipeline(len(grey), threads, device.index if gpu else None, exec_dynamic=True)
    with pipe:
        film, *place = (
            fn.external_source(source=[values], dtype=dtype, batch=True, layout=layout)
            for values, dtype, layout in inputs
        )
        pipe.set_outputs(canvas_graph(film.gpu() if gpu else film, *place, side=canvas))
    (output,) = pipe.run(torch.cuda.current_stream(device) if gpu else None)
    return from_dlpack(output.as_tensor()).view(-1, 1, canvas, canvas)

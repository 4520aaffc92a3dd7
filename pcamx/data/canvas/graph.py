"""The one DALI graph behind all canvases: films are reduced and centred on black.

Shapes: B batch.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from nvidia import dali

from pcamx.data.canvas.placement import fit

# DALI makes these at import, and its type stubs do not know them all.
fn: Any = dali.fn
types: Any = dali.types

GRAPH = 1
"""To be raised with any change of the graph that changes a canvas; cached ones are then dead."""
PREFETCH = 2


class Input(NamedTuple):
    """One of the things that a source gives for each film of a batch."""

    dtype: Any
    layout: str = ""


def build(
    source: Callable[[int], tuple[list[Any], ...]],
    inputs: Sequence[Input],
    make: Callable[..., Any],
    *,
    batch_size: int,
    threads: int,
    device: torch.device,
) -> Any:
    """Return a pipeline that gives what ``make`` makes of a source's inputs.

    ``source`` is asked for a batch by its number, and raises StopIteration after the last.
    """
    pipe = dali.pipeline.Pipeline(
        batch_size=batch_size,
        num_threads=threads,
        device_id=device.index if device.type == "cuda" else None,
        prefetch_queue_depth=PREFETCH,
        exec_dynamic=True,  # outputs own their memory, so PyTorch may take them without a copy
    )
    with pipe:
        given = fn.external_source(
            source=source,
            num_outputs=len(inputs),
            dtype=[one.dtype for one in inputs],
            layout=[one.layout for one in inputs],
            batch=True,
        )
        pipe.set_outputs(make(*given))
    return pipe


def place_inputs(deep: bool) -> list[Input]:
    """Return what `place` gives: size and start on the canvas and, of deeper films, the gain."""
    found = [Input(types.FLOAT), Input(types.INT32), Input(types.FLOAT)]
    return found if deep else found[:2]


def place(
    sizes: Sequence[tuple[int, int]], whites: Sequence[int] | None, canvas: int
) -> list[list[Any]]:
    """Return the inputs that put upright films of (width, height) on a canvas, as `fit` says.

    ``whites``: the films' grey levels of white where they are deeper than 8 bits.
    """
    fits = [fit(width, height, canvas) for width, height in sizes]
    found: list[list[Any]] = [
        [np.array([f.height, f.width], np.float32) for f in fits],
        [np.array([-f.top, -f.left], np.int32) for f in fits],
    ]
    return found if whites is None else [*found, [np.float32(255 / white) for white in whites]]


def canvas_graph(grey: Any, size: Any, start: Any, *gain: Any, side: int) -> Any:
    """Add what stands behind the decoder; with a gain it works on 16 bits until it is resized."""
    grey = fn.resize(
        grey,
        size=size,
        interp_type=types.INTERP_LINEAR,
        antialias=True,
        dtype=types.FLOAT if gain else types.UINT8,
    )
    if gain:
        grey = fn.brightness(grey, brightness=gain[0], dtype=types.UINT8)
    # A slice that begins before the film pads it.
    return fn.slice(
        grey,
        start=start,
        shape=[side, side],
        axes=[0, 1],
        out_of_bounds_policy="pad",
        fill_values=0,
    )

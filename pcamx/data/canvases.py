"""Where a feed's canvases come from: decoded once and kept, or decoded anew each epoch.

Shapes: N films, S steps, B batch (one rank's share of it), H W the canvas.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from pcamx.config import Data
from pcamx.data.augment import to_device
from pcamx.data.decode import decode_batches
from pcamx.data.order import IntArray
from pcamx.data.store import Film, Store
from pcamx.errors import PcamxError
from pcamx.progress import Track

Canvases = Callable[[IntArray], Iterator[tuple[Tensor, Tensor]]]
"""From film indices [S, B] to S pairs on the device: canvases, uint8 [N, 1, H, W], and the rows
[B] in them of the step's films."""

CHUNK = 64  # films that the resident feed decodes at a time


def stream(data: Data, store: Store, films: Sequence[Film], device: torch.device) -> Canvases:
    """Decode every batch when it is asked for."""

    def canvases(order_SB: IntArray) -> Iterator[tuple[Tensor, Tensor]]:
        row_B = torch.arange(order_SB.shape[1], device=device)
        decoded = decode_batches(
            store, films, order_SB.tolist(), data.canvas, device=device, threads=data.threads
        )
        return ((canvas_B1HW, row_B) for canvas_B1HW in decoded)

    return canvases


def resident(
    data: Data, store: Store, films: Sequence[Film], device: torch.device, track: Track
) -> Canvases:
    """Decode all films now and keep their canvases on the device, one byte a pixel.

    Where torch.distributed is initialised, each rank decodes every world-th film and all share
    what they have. Raises PcamxError, on every rank, if a film cannot be read or a device lacks
    the room.
    """
    together = dist.is_available() and dist.is_initialized()
    rank, world = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)
    each = -(-len(films) // world)
    shape = (each, 1, data.canvas, data.canvas)
    failure = ""
    try:
        # Rank r keeps film row * world + r in its row; the last row of some ranks stays empty.
        canvas_N1HW = torch.zeros(world * each, *shape[1:], dtype=torch.uint8, device=device)
        share_N1HW = canvas_N1HW if world == 1 else canvas_N1HW.new_zeros(shape)
        mine = range(rank, len(films), world)
        _decode_into(share_N1HW, data, store, films, mine, track)
    except PcamxError as error:
        failure = str(error)
    except torch.OutOfMemoryError:
        failure = (
            f"data.feed: resident needs {len(films) * data.canvas**2 / 1e9:.1f} GB on the device, "
            "more than is free; set data.feed to stream, or lower data.canvas"
        )
    _raise_together(failure, world)
    if world > 1:
        dist.all_gather_into_tensor(canvas_N1HW, share_N1HW)
    film_N = np.arange(len(films))
    row_N = film_N % world * each + film_N // world

    def canvases(order_SB: IntArray) -> Iterator[tuple[Tensor, Tensor]]:
        row_SB = to_device(torch.from_numpy(row_N[order_SB]), device)
        return ((canvas_N1HW, row_B) for row_B in row_SB)

    return canvases


def _decode_into(
    share_N1HW: Tensor,
    data: Data,
    store: Store,
    films: Sequence[Film],
    mine: Sequence[int],
    track: Track,
) -> None:
    chunks = [mine[i : i + CHUNK] for i in range(0, len(mine), CHUNK)]
    decoded = decode_batches(
        store, films, chunks, data.canvas, device=share_N1HW.device, threads=data.threads
    )
    row = 0
    for canvas_B1HW in track(decoded, f"decoding films, {CHUNK} at a time", len(chunks)):
        share_N1HW[row : row + len(canvas_B1HW)] = canvas_B1HW
        row += len(canvas_B1HW)


def _raise_together(failure: str, world: int) -> None:
    """Raise PcamxError on every rank if one has failed: the others would wait for it for ever."""
    failures = [failure]
    if world > 1:
        failures = [""] * world
        dist.all_gather_object(failures, failure)
    for message in filter(None, failures):
        raise PcamxError(message)

"""Films as tiles of a contact sheet. Shapes: B batch, H W the canvas."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pcamx.data.canvas.decode import decode_batches
from pcamx.data.store import Film, Store
from pcamx.progress import Track

BATCH = 32


def batches(
    store: Store, films: Sequence[Film], canvas: int, device: torch.device, track: Track, what: str
) -> Iterator[tuple[Sequence[Film], Tensor]]:
    """Yield the films in order with their uint8 canvases [B, 1, H, W], a batch at a time."""
    index = [range(i, min(i + BATCH, len(films))) for i in range(0, len(films), BATCH)]
    decoded = decode_batches(
        store.root, films, index, canvas, device=device, threads=2, contents=store.contents
    )
    shown = track(decoded, f"{what}, {BATCH} at a time", len(index))
    for rows, canvas_B1HW in zip(index, shown, strict=True):
        yield [films[i] for i in rows], canvas_B1HW

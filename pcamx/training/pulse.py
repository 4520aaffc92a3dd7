"""Work that is seen to get on, so that nobody takes a long one for a rank that hangs."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from torch import Tensor

from pcamx.data.canvas.provider import Canvases
from pcamx.engine import Watch
from pcamx.progress import Track
from pcamx.types import IntArray

T = TypeVar("T")


def watched(shown: Track, watch: Watch) -> Track:
    """Return ``shown`` whose every item is noted as getting on."""

    def track(work: Iterable[T], what: str, total: int) -> Iterator[T]:
        for item in shown(work, what, total):
            watch.got_on()
            yield item

    return track


def noted(canvases: Canvases, watch: Watch) -> Canvases:
    """Return ``canvases`` whose every batch is noted as getting on."""

    def found(batches: Sequence[IntArray]) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in canvases(batches):
            watch.got_on()
            yield batch

    return found

"""Run-length encoded masks: COCO's, CVAT's and Label Studio's.

Counts come from files, so they are added up before anything is allocated. That is why this is
not left to pycocotools 2.0.11: it returns unwritten memory where counts are too few, and its
process dies of a size of 10^9 x 10^9.

Shapes: H W the mask.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pcamx.data.marks.shapes import Bits
from pcamx.errors import PcamxError


def expand(counts: Sequence[int], width: int, height: int, *, columns: bool) -> Bits:
    """Expand runs of pixels, unset first, to bool [height, width]; ``columns``: down, not across.

    COCO runs down the columns, CVAT along the rows. Raises PcamxError unless they fill the mask.
    """
    if any(type(count) is not int or count < 0 for count in counts):
        raise PcamxError("a run length is not a whole number from 0 on; export the mask again")
    if sum(counts) != width * height:
        raise PcamxError(f"the run lengths do not fill {width} x {height} pixels; export it again")
    runs = np.repeat(np.arange(len(counts)) % 2 == 1, np.array(counts, np.int64))
    return runs.reshape(width, height).T if columns else runs.reshape(height, width)


def coco_counts(text: str) -> list[int]:
    """Return the counts in COCO's compressed text (pycocotools, maskApi.c, rleFrString).

    Each character holds five bits and whether the number goes on; from the fourth on a number is
    the difference to the one two before.
    """
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 60:
            raise PcamxError("the run lengths are no COCO text; export the mask again")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise PcamxError("the run lengths break off; export the mask again")
    return counts


class _Bits:
    """Whole numbers of any number of bits, one after the other, the highest bit first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, bits: int) -> int:
        first, last = self._at >> 3, (self._at + bits + 7) >> 3
        self._check(last)
        self._at += bits
        chunk = int.from_bytes(self._data[first:last], "big")
        return chunk >> (8 * last - self._at) & ((1 << bits) - 1)

    def take_many(self, count: int, bits: int) -> NDArray[np.int64]:
        first, last = self._at >> 3, (self._at + count * bits + 7) >> 3
        self._check(last)
        flat = np.unpackbits(np.frombuffer(self._data[first:last], np.uint8))
        offset = self._at - 8 * first
        self._at += count * bits
        words = flat[offset : offset + count * bits].reshape(count, bits).astype(np.int64)
        weight: NDArray[np.int64] = 1 << np.arange(bits - 1, -1, -1)
        return words @ weight

    def _check(self, last: int) -> None:
        if last > len(self._data):
            raise PcamxError("the brush mask breaks off; export it again")


def label_studio_brush(data: bytes, width: int, height: int) -> Bits:
    """Return Label Studio's brush mask, bool [height, width]: where its picture is not transparent.

    The picture is RGBA, packed as thi.ng's rle-pack does: 32 bits of length, 5 of word size, four
    times 4 of run sizes; then runs of one repeated word, or of as many words as it says. Source:
    label_studio_sdk.converter.brush. Raises PcamxError if it does not fill the mask.
    """
    bits = _Bits(data)
    length, word = bits.take(32), bits.take(5) + 1
    sizes = [bits.take(4) + 1 for _ in range(4)]
    if length != 4 * width * height:
        raise PcamxError(f"the brush mask does not fill {width} x {height} pixels; export it again")
    flat = np.zeros(length, np.bool_)
    at = 0
    while at < length:
        repeated = bits.take(1)
        count = bits.take(sizes[bits.take(2)]) + 1
        if count > length - at:
            raise PcamxError("the brush mask overflows; export it again")
        if repeated:
            flat[at : at + count] = bits.take(word) != 0
        else:
            flat[at : at + count] = bits.take_many(count, word) != 0
        at += count
    return flat.reshape(height, width, 4)[..., 3]

"""The stored values of a DICOM film: words as the file holds them, and where in them a value lies.

PS3.5, 8.1.1: a word of BitsAllocated bits holds a value of BitsStored bits, whose highest is
HighBit; what is left of the word may hold an overlay, or anything. A compressed stream has a
precision of its own, which may be that of the value or that of the word.

Shapes: H W the film.
"""

from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pcamx.data.files import codestream
from pcamx.data.files.dicom_attributes import whole
from pcamx.data.files.file_content import UnfitError, check_size
from pcamx.data.files.lookup import count_levels, look_up

if TYPE_CHECKING:
    from pydicom import Dataset


class Cell(NamedTuple):
    """Where in a word the value lies."""

    shift: int
    """Bits of the word below the value."""
    bits: int
    signed: bool
    """Two's complement."""

    @property
    def low(self) -> int:
        """The lowest value that there can be."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """The highest value that there can be."""
        return self.low + (1 << self.bits) - 1

    def values(self, words: NDArray[Any]) -> NDArray[np.int64]:
        """Take the values out of unsigned words, of any shape."""
        found = (words.astype(np.int64) >> self.shift) & ((1 << self.bits) - 1)
        return found - ((found > self.high).astype(np.int64) << self.bits)


def read_words(dataset: "Dataset") -> tuple[NDArray[Any], Cell]:
    """Decode a film's words [H, W], uint8 or uint16.

    Raises UnfitError where the header names no such film, or not the one that the pixels are.
    """
    height, width = whole(dataset, "Rows"), whole(dataset, "Columns")
    check_size(width, height)
    allocated = whole(dataset, "BitsAllocated")
    if allocated not in (8, 16):
        raise UnfitError(f"{allocated} bits a pixel; a film has 8 or 16")
    if dataset["PixelData"].is_undefined_length:
        words_HW, stream = _compressed(dataset, height, width)
    else:
        words_HW, stream = _plain(dataset, height, width, allocated), None
    return words_HW, _cell(dataset, words_HW, allocated, stream)


def _plain(dataset: "Dataset", height: int, width: int, allocated: int) -> NDArray[Any]:
    data: bytes = dataset.PixelData
    size = height * width * allocated // 8
    if len(data) < size:
        raise UnfitError(f"damaged DICOM: {len(data)} bytes of pixels, its header asks for {size}")
    if len(data) >= 2 * size:
        raise UnfitError(f"a DICOM of {len(data) // size} frames; a film has one")
    row, rest = size // height, data[size:]
    if len(rest) >= row and rest.strip(rest[-1:]):  # more than what fills up a file
        raise UnfitError(
            f"its pixels take {len(data)} bytes, {height} rows of {width} take {size}: its Rows or "
            "its Columns are not those of the film"
        )
    if dataset.original_encoding[1]:
        word = "<u2" if allocated == 16 else "u1"
        return np.frombuffer(data, word, height * width).reshape(height, width)
    # Bytes of a big-endian file lie in words, of which the second comes first (PS3.5, annex D).
    pairs = allocated == 8 and dataset["PixelData"].VR == "OW"
    swapped = np.frombuffer(data[: size + size % 2], ">u2" if pairs or allocated == 16 else "u1")
    native = swapped.astype(swapped.dtype.newbyteorder("="))
    found = native.astype("<u2").view(np.uint8) if pairs else native
    return found[: height * width].reshape(height, width)


def _compressed(
    dataset: "Dataset", height: int, width: int
) -> tuple[NDArray[Any], codestream.Stream | None]:
    """The words and the header of the stream that they came from; None of run lengths."""
    from pydicom.uid import RLELossless

    fragments = _fragments(dataset.PixelData)
    starts = (codestream.JPEG, codestream.CODESTREAM, codestream.JP2)
    run_lengths = dataset.file_meta.get("TransferSyntaxUID") == RLELossless
    frames = len(fragments) if run_lengths else sum(f.startswith(starts) for f in fragments)
    if frames > 1:
        raise UnfitError(f"a DICOM of {frames} frames; a film has one")
    data = b"".join(fragments)
    if run_lengths:
        return codestream.unpack_rle(data, height * width).reshape(height, width), None
    stream = codestream.read_header(data)
    if stream is None:
        raise UnfitError("damaged DICOM: its pixels are no JPEG, JPEG-LS or JPEG 2000")
    if (stream.width, stream.height) != (width, height):
        raise UnfitError(
            f"its {stream.kind} is of {stream.width} x {stream.height} pixels, its header says "
            f"{width} x {height}"
        )
    if stream.samples != 1 or stream.bits > 16:
        raise UnfitError(
            f"its {stream.kind} has {stream.samples} samples a pixel of {stream.bits} bits; a film "
            "has 1 of at most 16"
        )
    words_HW = codestream.decode(stream)
    if words_HW.shape != (height, width):
        raise UnfitError(f"damaged DICOM: its {stream.kind} decodes to another size")
    return words_HW.view(f"u{words_HW.dtype.itemsize}"), stream


def _fragments(data: bytes) -> list[bytes]:
    from pydicom.encaps import generate_fragments, parse_basic_offsets

    buffer = BytesIO(data)
    parse_basic_offsets(buffer)
    return list(generate_fragments(buffer))


def _cell(
    dataset: "Dataset", words_HW: NDArray[Any], allocated: int, stream: codestream.Stream | None
) -> Cell:
    stored = whole(dataset, "BitsStored", allocated)
    high = whole(dataset, "HighBit", stored - 1)
    signed = whole(dataset, "PixelRepresentation", 0) == 1
    if not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
        raise UnfitError(
            f"its BitsAllocated {allocated}, BitsStored {stored} and HighBit {high} do not fit"
        )
    held = stream.bits if stream else 8 * words_HW.dtype.itemsize
    if held < stored or stream and (held == stored or held > allocated):
        # A stream of values, not of words.
        return Cell(0, held, bool(stream and stream.signed) or (signed and held == stored))
    if high >= held:
        raise UnfitError(f"its HighBit {high} is not in its pixels, which have {held} bits")
    shift = high + 1 - stored
    lies_low = shift and not signed and not (words_HW >> stored).any()
    if lies_low and (words_HW & ((1 << shift) - 1)).any():
        raise UnfitError(f"its HighBit is {high}, its pixels lie in the lower {stored} bits")
    cell = Cell(shift, stored, signed or bool(stream and stream.signed))
    _check_above(words_HW, cell, held)
    return cell


def _check_above(words_HW: NDArray[Any], cell: Cell, held: int) -> None:
    """Raise UnfitError where bits above the value are of it too: a header that claims too few.

    The value alone would then wrap around, from white to black within a pixel, where with those
    bits the picture goes on. An overlay there makes edges instead of mending any.
    """
    words_n = np.flatnonzero(count_levels(words_HW))
    used = min(held, int(words_n[-1]).bit_length())
    widths = range(cell.bits + 1, used - cell.shift + 1)
    if not widths or (cell._replace(bits=widths[-1]).values(words_n) == cell.values(words_n)).all():
        return
    sums = {n: _variation(words_HW, cell._replace(bits=n)) for n in (cell.bits, *widths)}
    if (best := min(sums, key=lambda n: sums[n])) != cell.bits:
        raise UnfitError(f"its pixels use {best} bits, its BitsStored says {cell.bits}")


def _variation(words_HW: NDArray[Any], cell: Cell) -> int:
    """Sum the steps from each pixel to those right of and below it."""
    table = cell.values(np.arange(1 << (8 * words_HW.dtype.itemsize))).astype(np.int32)
    value_HW = look_up(table, words_HW)
    return sum(int(np.abs(np.diff(value_HW, axis=axis)).sum(dtype=np.int64)) for axis in (0, 1))

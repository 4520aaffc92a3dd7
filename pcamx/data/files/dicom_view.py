"""From the words of a DICOM film to the grey levels that a viewer shows.

The steps of PS3.4 N.2: modality LUT or rescale, then VOI LUT, else window, of the file's first
view; MONOCHROME1 is turned at last, so that white is always dense. A word has at most 16 bits, so
each step is taken once for each word that occurs, in float64, and looked up for the pixels.

- Pixel padding (the border around the collimated field) is black in either interpretation, and
  takes no part in any range.
- What a display shutter covers is black, and takes no part in any range either.
- A film without a view keeps its levels as they are, as a PNG of them would, from the lowest on
  that the header allows, where a rescale lifts that above 0. Levels below zero or fractions are
  stretched from darkest to brightest, and so is what has fewer than 8 bits, to all of the range.
- White is what the header says, where the pixels or the table's entries use the highest bit of it;
  else their own maximum, since headers claim more bits than there are.

Shapes: H W the film, n the words that occur.
"""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pcamx.data.files.dicom_attributes import (
    MOST_OF_A_TABLE,
    attribute,
    items,
    number,
    numbers,
    text,
    whole,
)
from pcamx.data.files.dicom_geometry import shuttered
from pcamx.data.files.dicom_pixels import Cell
from pcamx.data.files.file_content import UnfitError
from pcamx.data.files.lookup import count_levels, look_up

if TYPE_CHECKING:
    from pydicom import Dataset

_WHITE = 65535  # of a film with a view
_WRAP = 1 << 16  # between the two readings of an attribute that is US or SS
Floats = NDArray[np.float64]


class Levels(NamedTuple):
    """Levels after the modality LUT or rescale."""

    level_n: Floats
    low: float
    """The lowest that the header allows."""
    high: float


class Table(NamedTuple):
    """A modality or VOI LUT."""

    first: int
    """The level that the first entry is for."""
    entries: NDArray[np.uint16]
    white: int

    def __call__(self, level_n: Floats) -> Floats:
        """Look levels up; beyond its ends are its first and last entry."""
        at_n = np.clip(np.rint(level_n) - self.first, 0, len(self.entries) - 1)
        return np.asarray(self.entries[at_n.astype(np.int64)], np.float64)


def show(dataset: "Dataset", words_HW: NDArray[Any], cell: Cell) -> tuple[NDArray[Any], int]:
    """Turn words into grey levels [H, W] as a viewer shows them, 0 is black; uint8 or uint16.

    Also returns the number of pixels of padding or under a shutter. Raises UnfitError where
    attributes contradict themselves, or where a view shows nothing: all black, white or one grey.
    """
    covered_HW, covered = shuttered(dataset, *words_HW.shape), 0
    if covered_HW is None:
        count = count_levels(words_HW)
    else:
        covered = int(np.count_nonzero(covered_HW))
        count = count_levels(np.where(covered_HW, words_HW.dtype.type(0), words_HW))
        count[0] -= covered
    if not count.any():
        raise UnfitError("its shutter covers all of it; see ShutterShape")
    words_n = np.flatnonzero(count)
    padding_n = _padding(dataset, words_n, cell, 8 * words_HW.dtype.itemsize)
    if padding_n.all():
        raise UnfitError("every pixel is padding by its PixelPaddingValue")
    grey = np.zeros(len(count), np.int64)
    shown_n = words_n[~padding_n]
    grey[shown_n] = _grey(dataset, cell.values(shown_n), cell)
    deep = grey.max() > 255
    table = grey.astype(np.uint16 if deep else np.uint8)
    grey_HW = look_up(table, words_HW)
    if covered_HW is not None:
        grey_HW[covered_HW] = 0
    return grey_HW, int(count[words_n[padding_n]].sum()) + covered


def _grey(dataset: "Dataset", value_n: NDArray[np.int64], cell: Cell) -> NDArray[np.int64]:
    """Grey levels of stored values."""
    levels = _modality(dataset, value_n, cell)
    level_n, negative = levels.level_n, text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
    if not np.isfinite(level_n).all():
        raise UnfitError("its rescale gives levels that are no numbers")
    if len(np.unique(value_n)) > 1 and np.ptp(level_n) == 0:
        raise UnfitError("its rescale or modality LUT makes one level of all; see RescaleSlope")
    share_n = _viewed(dataset, levels)
    if share_n is None and level_n.min() >= 0 and level_n.max() <= _WHITE and _are_whole(level_n):
        black = max(math.floor(levels.low), 0)
        claimed = int(levels.high) - black
        level_n = level_n - black
        top = white_of(int(level_n.max()), claimed)
        grey_n = (top - level_n if negative else level_n).astype(np.int64)
        return grey_n if claimed == 255 else _in_full(grey_n)
    if share_n is None:
        share_n = (level_n - level_n.min()) / max(np.ptp(level_n), np.finfo(float).tiny)
    grey_n = np.rint(share_n * _WHITE).astype(np.int64)
    return _WHITE - grey_n if negative else grey_n


def _in_full(grey_n: NDArray[np.int64]) -> NDArray[np.int64]:
    """Stretch what has fewer than 8 bits, which would be dark beside white's 255."""
    white = (1 << int(grey_n.max()).bit_length()) - 1
    if not 0 < white < 255:
        return grey_n
    stretched_n: NDArray[np.int64] = np.rint(grey_n * (255 / white)).astype(np.int64)
    return stretched_n


def _are_whole(level_n: Floats) -> bool:
    return bool((level_n == np.rint(level_n)).all())


def white_of(brightest: int, claimed: int) -> int:
    """Return the white level: the one claimed, if the brightest there is uses its highest bit."""
    return claimed if brightest.bit_length() == claimed.bit_length() else max(brightest, 1)


def _modality(dataset: "Dataset", value_n: NDArray[np.int64], cell: Cell) -> Levels:
    """Levels of stored values (PS3.3, C.11.1)."""
    table = _table(dataset, "ModalityLUTSequence", cell.low, cell.high)
    if table is not None:
        return Levels(table(value_n.astype(np.float64)), 0, table.white)
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        ends = sorted(slope * end + intercept for end in (cell.low, cell.high))
        return Levels(value_n.astype(np.float64) * slope + intercept, *ends)


def _table(dataset: "Dataset", name: str, low: float, high: float) -> Table | None:
    """The first LUT of a sequence that is not empty, for levels between ``low`` and ``high``."""
    for item in items(dataset, name):
        descriptor, data = (
            numbers(item, "LUTDescriptor"),
            attribute(item, "LUTData", MOST_OF_A_TABLE),
        )
        if descriptor == [None] or data is None or isinstance(data, bytes | list) and not data:
            continue
        if len(descriptor) != 3 or None in descriptor:
            raise UnfitError(f"the LUTDescriptor in its {name} has not 3 values")
        count, first, bits = (int(one or 0) for one in descriptor)
        entries = _entries(data, count % _WRAP or _WRAP, bits, bool(dataset.original_encoding[1]))
        if entries is None:
            raise UnfitError(f"the LUTData in its {name} is shorter than its LUTDescriptor says")
        white = white_of(int(entries.max()), (1 << min(max(bits, 1), 16)) - 1)
        return Table(_nearest(first, low, high), entries, white)
    return None


def _entries(data: Any, count: int, bits: int, little: bool) -> NDArray[np.uint16] | None:
    """The entries of a LUT, bytes or words as they are stored; None where they are too few."""
    word = "<u2" if little or not isinstance(data, bytes) else ">u2"
    if not isinstance(data, bytes):  # pydicom has read words
        data = np.atleast_1d(np.asarray(data, np.int64)).astype(word).tobytes()
    if len(data) >= 2 * count:
        return np.frombuffer(data, word, count).astype(np.uint16)
    if bits <= 8 and len(data) >= count:
        return np.frombuffer(data, np.uint8, count).astype(np.uint16)
    return None


def _nearest(stored: int, low: float, high: float) -> int:
    """A number stored in 16 bits, signed or not: the reading nearest to where it must lie; of two
    that may both be, the signed one where levels may be below zero (PS3.3, C.11.2.1.1)."""
    below = low < 0

    def rank(n: int) -> tuple[float, bool]:
        return max(low - n, n - high, 0), below and not -_WRAP // 2 <= n < _WRAP // 2

    return min((stored, stored - _WRAP, stored + _WRAP), key=rank)


def _viewed(dataset: "Dataset", levels: Levels) -> Floats | None:
    """Share of white, 0..1, by the first VOI LUT, else by the first window; None without both."""
    table = _table(dataset, "VOILUTSequence", levels.low, levels.high)
    window = None if table is not None else _window(dataset)
    if table is not None:
        share_n, what = table(levels.level_n) / table.white, "VOI LUT"
    elif window is not None:
        share_n = _apply(text(dataset, "VOILUTFunction").upper() or "LINEAR", window, levels)
        what = f"window (center {window[0]:g}, width {window[1]:g})"
    else:
        return None
    grey_n = np.rint(share_n * _WHITE)
    if np.ptp(levels.level_n) > 0 and np.ptp(grey_n) == 0:
        negative = text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
        end = {0: "white" if negative else "black", _WHITE: "black" if negative else "white"}
        raise UnfitError(f"its {what} shows all of it {end.get(int(grey_n[0]), 'as one grey')}")
    return share_n


def _window(dataset: "Dataset") -> tuple[float, float] | None:
    """Center and width of the first window that has both."""
    centers, widths = numbers(dataset, "WindowCenter"), numbers(dataset, "WindowWidth")
    for center, width in zip(centers, widths, strict=False):
        if center is not None and width is not None:
            return center, width
    return None


def _apply(function: str, window: tuple[float, float], levels: Levels) -> Floats:
    """Share of white by a window (PS3.3, C.11.2.1.2 and C.11.2.1.3)."""
    center, width = window
    least = {"LINEAR": 1.0, "LINEAR_EXACT": 0.0, "SIGMOID": 0.0}
    if function not in least:
        raise UnfitError(f"its VOILUTFunction {function} is not one of {', '.join(least)}")
    if width < least[function] or width == 0:
        raise UnfitError(f"its WindowWidth {width:g} is too small for {function}")
    with np.errstate(over="ignore"):
        if function == "SIGMOID":
            return np.asarray(1 / (1 + np.exp(-4 * (levels.level_n - center) / width)))
        if function == "LINEAR":
            center, width = center - 0.5, width - 1
        if width == 0:
            return (levels.level_n > center).astype(np.float64)
        return np.clip((levels.level_n - center) / width + 0.5, 0, 1)


def _padding(
    dataset: "Dataset", words_n: NDArray[np.int64], cell: Cell, held: int
) -> NDArray[np.bool_]:
    """Which words, of ``held`` bits, fill a border (PS3.3, C.7.5.1.1.2), if the file says so."""
    if number(dataset, "PixelPaddingValue") is None:
        return np.zeros(len(words_n), bool)
    one = whole(dataset, "PixelPaddingValue")
    ends = [one, whole(dataset, "PixelPaddingRangeLimit", one)]
    near = [_nearest(end, cell.low, cell.high) for end in ends]
    value_n = cell.values(words_n)
    if not all(cell.low <= end <= cell.high for end in near):  # a value that only a word can have
        word = Cell(0, held, cell.signed)
        value_n, near = word.values(words_n), word.values(np.array(ends)).tolist()
    return np.asarray((value_n >= min(near)) & (value_n <= max(near)))

"""Grey levels counted and looked up a part of a film at a time.

numpy makes indices of 8 bytes of a whole film at once, which for the largest is half a GiB.

Shapes: H W the film.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PART = 1 << 20  # pixels


def _parts(height: int, width: int) -> Iterator[slice]:
    rows = max(1, _PART // width)
    return (slice(top, top + rows) for top in range(0, height, rows))


def count_levels(levels_HW: NDArray[Any]) -> NDArray[np.int64]:
    """Count the pixels of each level; an entry for each that the unsigned dtype can have."""
    count = np.zeros(1 << (8 * levels_HW.dtype.itemsize), np.int64)
    for rows in _parts(*levels_HW.shape):
        count += np.bincount(levels_HW[rows].ravel(), minlength=len(count))
    return count


def look_up(table: NDArray[Any], levels_HW: NDArray[Any]) -> NDArray[Any]:
    """Look every level of a film up in a table that has an entry for each; of the table's dtype."""
    found_HW = np.empty(levels_HW.shape, table.dtype)
    for rows in _parts(*levels_HW.shape):
        found_HW[rows] = table[levels_HW[rows]]
    return found_HW

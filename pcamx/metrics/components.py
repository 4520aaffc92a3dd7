"""The connected components of a grey image at every threshold, from one pass over its pixels.

Every pixel climbs to its highest neighbour until it reaches a peak; the pixels of one peak are a
basin. Above a level, a component is one basin or several that have met over pixels above that
level: so the extent of every basin at every level, and the meetings from the highest down, are all
that is needed. Labelling 255 thresholded images of one film gives the same boxes in a multiple of
the time. (A component tree or max-tree: Salembier et al., IEEE TIP 1998.)

Shapes: H W the image, P its pixels in reading order, M basins, X passes, L 256 grey levels. NumPy,
on the CPU: trees are no work for a GPU, and a film's levels are one byte a pixel.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.integer]
_LEVELS = 256
_NOWHERE = -32768
_STEPS = (np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])
_DIAGONALS = (np.s_[1:, 1:], np.s_[:-1, :-1]), (np.s_[1:, :-1], np.s_[:-1, 1:])


class _Passes(NamedTuple):
    """Ways from one basin to another, and the level at which each opens."""

    one_X: Array
    other_X: Array
    level_X: Array


class Components(NamedTuple):
    """At level l, ``alive_ML[m, l]`` says that m is a component of the pixels that reach l.

    Level 0, which every pixel reaches, is not worked out: nothing is alive there.
    """

    alive_ML: NDArray[np.bool_]
    box_M4L: NDArray[np.int16]  # -left, -top, right, bottom, its outermost pixels
    pixels_ML: NDArray[np.int64]


def components(level_HW: NDArray[np.uint8], *, diagonal: bool) -> Components:
    """Find all components at all levels; ``diagonal`` joins pixels that touch at a corner only."""
    basin_HW, peak_M = _basins(level_HW, diagonal)
    passes = _passes(level_HW, basin_HW, diagonal)
    basin_HW, peak_M, passes = _join_plateaus(basin_HW, peak_M, passes)
    box_M4L, pixels_ML = _extents(level_HW, basin_HW, len(peak_M))
    alive_ML = np.arange(_LEVELS) <= peak_M[:, None]
    alive_ML[:, 0] = False
    for gone, kept, level in _meetings(peak_M, passes):
        below = np.s_[: level + 1]
        box_4L = box_M4L[kept, :, below]
        np.maximum(box_4L, box_M4L[gone, :, below], out=box_4L)
        pixels_ML[kept, below] += pixels_ML[gone, below]
        alive_ML[gone, below] = False
    return Components(alive_ML, box_M4L, pixels_ML)


def _basins(level_HW: NDArray[np.uint8], diagonal: bool) -> tuple[Array, Array]:
    """Each pixel's basin, -1 at level 0, and the level of each basin's peak."""
    bits = (level_HW.size - 1).bit_length()
    # No two keys are equal, so a plateau has a way up too: to its last pixel in reading order.
    place_HW = np.arange(level_HW.size).reshape(level_HW.shape)
    key_HW = (level_HW.astype(np.int64) << bits) | place_HW
    best_HW = key_HW.copy()
    for axis in (0, 1):
        # Columns after rows: the best of the row above is the best of three neighbours there.
        from_HW = best_HW.copy() if diagonal else key_HW
        best, source = np.moveaxis(best_HW, axis, 0), np.moveaxis(from_HW, axis, 0)
        np.maximum(best[1:], source[:-1], out=best[1:])
        np.maximum(best[:-1], source[1:], out=best[:-1])
    up_P = (best_HW & ((1 << bits) - 1)).ravel()
    while not np.array_equal(further_P := up_P[up_P], up_P):
        up_P = further_P
    peaks = np.flatnonzero((up_P == place_HW.ravel()) & (level_HW.ravel() > 0))
    name_P = np.full(level_HW.size, -1)
    name_P[peaks] = np.arange(len(peaks))
    return name_P[up_P].reshape(level_HW.shape), level_HW.ravel()[peaks].astype(np.int64)


def _extents(
    level_HW: NDArray[np.uint8], basin_HW: Array, basins: int
) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """Box [M, 4, L] and pixels [M, L] of every basin above every level."""
    cell_HW = basin_HW * _LEVELS + level_HW  # below 0 outside all basins
    edge_4L = np.full((4, (basins + 1) * _LEVELS), _NOWHERE, np.int16)
    # Of several writes into a cell the last one stays: the pixel farthest along the way there.
    for axis in (0, 1):
        cell_P = np.moveaxis(cell_HW, axis, 0).ravel()
        at_P = np.repeat(np.arange(cell_HW.shape[axis], dtype=np.int16), cell_HW.shape[1 - axis])
        edge_4L[3 - axis, cell_P] = at_P
        edge_4L[1 - axis, cell_P[::-1]] = -at_P[::-1]
    edge_4ML = edge_4L.reshape(4, basins + 1, _LEVELS)[:, :basins]
    pixels_L = np.bincount(cell_HW[cell_HW >= 0], minlength=basins * _LEVELS)
    box_4ML = np.maximum.accumulate(edge_4ML[:, :, ::-1], axis=2)[:, :, ::-1]
    pixels_ML = pixels_L.reshape(basins, _LEVELS)[:, ::-1].cumsum(axis=1)[:, ::-1]
    return box_4ML.transpose(1, 0, 2).copy(), pixels_ML.copy()


def _passes(level_HW: NDArray[np.uint8], basin_HW: Array, diagonal: bool) -> _Passes:
    """Where two basins touch: pairs of neighbouring pixels, of which the lower one is the level."""
    found = []
    for a, b in (*_STEPS, *(_DIAGONALS if diagonal else ())):
        one, other = basin_HW[a].ravel(), basin_HW[b].ravel()
        at = np.flatnonzero(one != other)
        level = np.minimum(level_HW[a].ravel()[at], level_HW[b].ravel()[at])
        found.append(np.stack([one[at], other[at], level])[:, level > 0])
    return _Passes(*np.concatenate(found, axis=1))


def _join_plateaus(basin_HW: Array, peak_M: Array, passes: _Passes) -> tuple[Array, Array, _Passes]:
    """Basins that meet a higher one at their own peak were never components: join them to it.

    Flat parts have many of these. What is missed here, `_meetings` joins one by one.
    """
    rank_M = (peak_M << 32) | np.arange(len(peak_M))
    first = rank_M[passes.one_X] < rank_M[passes.other_X]
    lower = np.where(first, passes.one_X, passes.other_X)
    higher = np.where(first, passes.other_X, passes.one_X)
    ends = passes.level_X == peak_M[lower]
    up_M = np.arange(len(peak_M))
    up_M[lower[ends]] = higher[ends]
    while not np.array_equal(further_M := up_M[up_M], up_M):
        up_M = further_M
    stays_M = up_M == np.arange(len(peak_M))
    name_M = (np.cumsum(stays_M) - 1)[up_M]
    one, other = name_M[lower], name_M[higher]
    apart = one != other
    named_HW = np.append(name_M, -1)[basin_HW]
    left = _Passes(one[apart], other[apart], passes.level_X[apart])
    return named_HW, peak_M[stays_M], left


def _meetings(peak_M: Array, passes: _Passes) -> Iterator[tuple[int, int, int]]:
    """The component that ends, the one that it becomes part of, and the level where they meet."""
    basins = len(peak_M)
    low = np.minimum(passes.one_X, passes.other_X)
    high = np.maximum(passes.one_X, passes.other_X)
    code = np.sort((low * basins + high) * _LEVELS + passes.level_X)
    code = code[np.append(np.diff(code // _LEVELS) > 0, True)[: len(code)]]  # a pair's highest
    code = code[np.argsort(-(code % _LEVELS), kind="stable")]
    root = list(range(basins))
    peak = peak_M.tolist()

    def find(basin: int) -> int:
        while root[basin] != basin:
            root[basin] = basin = root[root[basin]]
        return basin

    for one_code in code.tolist():
        pair, level = divmod(one_code, _LEVELS)
        one, other = map(find, divmod(pair, basins))
        if one != other:
            gone, kept = (one, other) if peak[one] < peak[other] else (other, one)
            root[gone] = kept
            yield gone, kept, level

"""Films that are the same picture: flipped, turned, resized, brighter, a negative, saved anew.

Each film's *look* is its fine detail on 64 x 64 pixels: what a 5 x 5 mean takes away, clipped at
twice its mean magnitude, so that neither brightness nor the bright edge of a cassette decides.
Looks whose 16 x 16 lowest frequencies agree under one of the 8 flips and turns are candidates;
those whose looks correlate there, or do so with the other's negative, are copies, and those of
which one half does so closely: the end of a file is lost, or letters are laid over it.

Measured on the 826 upper-limb films of FracAtlas, by which the limits were chosen: 19 pairs
correlate by .83 or more (three with the end of the file lost were looked at and are one film twice;
the other 16 correlate by about 1); of the 340,706 other pairs the closest do by .72, two wrists
alike, 30 of them by .55 or more. Of phantoms of 48 to 256 pixels no two do by more than .65.

Of halves, on the 3,264 training and validation films of FracAtlas: two pairs of candidates below .8
agree in one by .957 and .998, were looked at and are one film twice, with letters and without its
lower tenth; the next, two forearms alike, by .914, of 340 phantoms by .82.

A film made smaller by two or three, brighter by 40 % and clipped, of gamma .6 or 1.6, or a JPEG of
quality 20 keeps .87. What is cropped by 2 % or turned by 2 degrees is not found, nor a film that
lost a quarter of itself (two of FracAtlas' training films).

Shapes: N films, P pairs, h w the look, u v its frequencies.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COPY = 0.8
"""Correlation of two looks from which on they are copies."""
HALF = 0.95
"""The same of one half of both, for a film that lost its end or has something laid over it."""
_CANDIDATE = 0.75
"""Cosine of their low frequencies from which on the correlation is taken."""
_LEAST = 0.2
"""Share of a look that its detail fills, (sum |d|)^2 / (n sum d^2); a film's is .27 or more."""
_SIDE = 64
_BOX = 5
_FREQUENCIES = 16
_ROWS = 512  # films that are held against all others at a time
_PAIRS = 2048  # candidates whose looks are in float at a time
_TURNS = range(8)
"""Bit 0: flipped left to right; bit 1: upside down; bit 2: rows and columns swapped before."""

_FIRST, _SECOND = slice(None, _SIDE // 2), slice(_SIDE // 2, None)
_HALVES = [np.s_[:, _FIRST], np.s_[:, _SECOND], np.s_[:, :, _FIRST], np.s_[:, :, _SECOND]]

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.intp]


class Pair(NamedTuple):
    """Two films, by number, the first the lower, and how much they are one."""

    one: int
    other: int
    correlation: float
    """1 where the files are the same to the byte; of a negative without its sign; of the
    halves that agree where the whole does not."""
    same_file: bool


def look(grey_HW: NDArray[Any]) -> bytes:
    """Return a film's fine detail, int8 [64, 64] in -127 ... 127.

    Zeros where there is too little to tell films apart: a flat film, or an edge or two.
    """
    film = Image.fromarray(np.asarray(grey_HW, np.float32))
    small_hw = np.asarray(film.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR))
    edge = _BOX // 2
    padded = np.pad(small_hw, edge, mode="symmetric")
    around = np.lib.stride_tricks.sliding_window_view(padded, (_BOX, _BOX)).mean((2, 3))
    detail_hw = small_hw - around
    most = 2 * np.abs(detail_hw).mean()
    if most < 1e-3:  # of a grey step: the rounding of the resizing
        return bytes(_SIDE * _SIDE)
    clipped_hw = np.clip(detail_hw / most, -1, 1)
    share = np.abs(clipped_hw).mean() ** 2 / (clipped_hw**2).mean()
    if share < _LEAST:
        return bytes(_SIDE * _SIDE)
    detail: NDArray[np.int8] = np.rint(clipped_hw * 127).astype(np.int8)
    return detail.tobytes()


def find_copies(looks: Sequence[bytes], digests: Sequence[str]) -> list[Pair]:
    """Find pairs of films that are copies, by their numbers; ``digests`` are those of their files.

    Compares all with all, in blocks of matrix products. Of films whose files are the same, every
    one stands in a pair with the first.
    """
    if not looks:
        return []
    pairs = _same_files(digests)
    look_Nhw = np.frombuffer(b"".join(looks), np.int8).reshape(-1, _SIDE, _SIDE)
    for turn, one_P, other_P in _candidates(look_Nhw):
        correlation_P = _correlations(look_Nhw, one_P, other_P, turn)
        for k in np.flatnonzero(correlation_P >= COPY):
            key = int(one_P[k]), int(other_P[k])
            before = pairs.get(key)
            if not before or not before.same_file and before.correlation < correlation_P[k]:
                pairs[key] = Pair(*key, float(correlation_P[k]), same_file=False)
    return [pairs[key] for key in sorted(pairs)]


def _same_files(digests: Sequence[str]) -> dict[tuple[int, int], Pair]:
    first: dict[str, int] = {}
    pairs = {}
    for number, digest in enumerate(digests):
        one = first.setdefault(digest, number)
        if one != number:
            pairs[one, number] = Pair(one, number, 1.0, same_file=True)
    return pairs


def _turned(image_Nhw: NDArray[Any], turn: int) -> NDArray[Any]:
    if turn & 4:
        image_Nhw = image_Nhw.swapaxes(1, 2)
    return image_Nhw[:, :: -1 if turn & 2 else 1, :: -1 if turn & 1 else 1]


def _candidates(look_Nhw: NDArray[np.int8]) -> Iterator[tuple[int, IntArray, IntArray]]:
    """A turn, and the films P that may be copies of others P that are turned so."""
    frequency_Nuv = _low_frequencies(look_Nhw)
    sign_v = np.where(np.arange(_FREQUENCIES) % 2, -1, 1).astype(np.float32)
    for turn in _TURNS:
        # What a flip is to an image, a change of every other sign is to its cosine transform.
        turned_Nuv = frequency_Nuv.swapaxes(1, 2) if turn & 4 else frequency_Nuv
        turned_Nuv = turned_Nuv * (sign_v if turn & 1 else 1)
        turned_Nuv = turned_Nuv * (sign_v[:, None] if turn & 2 else 1)
        flat_NF, turned_NF = (a.reshape(len(a), -1) for a in (frequency_Nuv, turned_Nuv))
        for start in range(0, len(flat_NF), _ROWS):
            cosine = flat_NF[start : start + _ROWS] @ turned_NF[start:].T
            row, column = np.nonzero(np.abs(cosine) >= _CANDIDATE)
            later = column > row
            yield turn, row[later] + start, column[later] + start


def _low_frequencies(look_Nhw: NDArray[np.int8]) -> FloatArray:
    """The lowest of the cosine transform, without the mean, of length 1; zeros of a flat film."""
    u, x = np.mgrid[0:_FREQUENCIES, 0:_SIDE]
    basis_uh = np.cos(math.pi / _SIDE * u * (x + 0.5)).astype(np.float32)
    basis_uh[0] *= math.sqrt(0.5)
    found = np.empty((len(look_Nhw), _FREQUENCIES, _FREQUENCIES), np.float32)
    for start in range(0, len(look_Nhw), _ROWS):
        rows = slice(start, start + _ROWS)
        found[rows] = basis_uh @ look_Nhw[rows].astype(np.float32) @ basis_uh.T
    found[:, 0, 0] = 0
    length_N11 = np.linalg.norm(found, axis=(1, 2), keepdims=True)
    found /= np.maximum(length_N11, 1e-6)
    return found


def _correlations(
    look_Nhw: NDArray[np.int8], one_P: IntArray, other_P: IntArray, turn: int
) -> FloatArray:
    """Pearson's without its sign, of each pair's looks, the other's turned; 0 where one is flat.

    Of their halves that agree best where the whole does not by `COPY`, but these do by `HALF`.
    """
    found = np.empty(len(one_P), np.float32)
    for start in range(0, len(one_P), _PAIRS):
        part = slice(start, start + _PAIRS)
        ones, others = look_Nhw[one_P[part]], _turned(look_Nhw[other_P[part]], turn)
        whole_P = _agreement(ones, others)
        half_P = np.max([_agreement(ones[half], others[half]) for half in _HALVES], axis=0)
        found[part] = np.where((whole_P < COPY) & (half_P >= HALF), half_P, whole_P)
    return found


def _agreement(one_Phw: NDArray[np.int8], other_Phw: NDArray[np.int8]) -> FloatArray:
    found: FloatArray = np.abs(
        np.einsum("pk,pk->p", _standardised(one_Phw), _standardised(other_Phw))
    )
    return found


def _standardised(look_Phw: NDArray[np.int8]) -> FloatArray:
    flat_PK = look_Phw.reshape(len(look_Phw), -1).astype(np.float32)
    flat_PK -= flat_PK.mean(1, keepdims=True)
    flat_PK /= np.maximum(np.linalg.norm(flat_PK, axis=1, keepdims=True), 1e-6)
    return flat_PK

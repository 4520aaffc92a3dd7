"""Outlines, boxes and areas worked out by hand; turned frames against Pillow's own turning."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pcamx.data.canvas.placement import Fit
from pcamx.explain.candidates import Candidate, as_stored, find_candidates
from pcamx.explain.dicom_seg import label_map
from pcamx.explain.messages import Job

WHOLE = Fit(16, 16, 0, 0)


def blank() -> NDArray[np.float64]:
    return np.zeros((16, 16))


def test_one_pixel_is_a_diamond_around_its_centre() -> None:
    """Half-way to each neighbour's centre the map has fallen to one half."""
    scaled = blank()
    scaled[5, 6] = 1
    (one,) = find_candidates(scaled, 0.5, WHOLE, 16, 16)
    assert (one.value, one.peak, one.box, one.area) == (1.0, (6.5, 5.5), (6.0, 5.0, 1.0, 1.0), 0.5)
    corners = {(6.0, 5.5), (6.5, 5.0), (7.0, 5.5), (6.5, 6.0)}
    assert {tuple(point) for point in one.outline.tolist()} == corners
    assert one.outline[0].tolist() == one.outline[-1].tolist() and one.holes == ()


def test_scale_and_place_on_the_canvas() -> None:
    """A film of 48 x 24 lies as 16 x 8 on the canvas, four rows down: one of its pixels is 3."""
    scaled = blank()
    scaled[4 + 5, 6] = 1
    (one,) = find_candidates(scaled, 0.5, Fit(16, 8, 0, 4), 48, 24)
    assert one.peak == (19.5, 16.5) and one.box == (18.0, 15.0, 3.0, 3.0) and one.area == 4.5


def test_the_outline_closes_on_the_film_s_edge() -> None:
    scaled = blank()
    scaled[:, :2] = 1
    (one,) = find_candidates(scaled, 0.5, WHOLE, 16, 16)
    assert one.box == (0.0, 0.0, 2.0, 16.0) and one.area == 32.0
    (all_of_it,) = find_candidates(np.ones((16, 16)), 0.5, WHOLE, 32, 64)
    assert all_of_it.box == (0.0, 0.0, 32.0, 64.0) and all_of_it.area == 2048.0


def test_padding_holds_no_candidate() -> None:
    scaled = blank()
    scaled[1, 3] = scaled[14, 3] = 1
    assert find_candidates(scaled, 0.5, Fit(16, 8, 0, 4), 16, 8) == []


def test_a_hole_and_what_lies_in_it() -> None:
    scaled = blank()
    scaled[2:13, 2:13] = 0.8
    scaled[4:11, 4:11] = 0
    scaled[7, 7] = 1
    inner, ring = find_candidates(scaled, 0.4, WHOLE, 16, 16)
    assert (inner.value, inner.holes) == (1.0, ())
    assert (ring.value, ring.peak, len(ring.holes)) == (0.8, (2.5, 2.5), 1)
    # The level lies half-way between centres; each corner of either ring is cut by 1/8.
    assert ring.box == (2.0, 2.0, 11.0, 11.0)
    assert ring.area == pytest.approx((11 * 11 - 4 / 8) - (7 * 7 - 4 / 8))
    labels = label_map([inner, ring], 16, 16)
    assert labels[7, 7] == 1 and labels[3, 3] == 2 and labels[5, 5] == 0 and labels[0, 0] == 0


def test_highest_first_then_from_above() -> None:
    scaled = blank()
    scaled[2, 9] = scaled[2, 3] = scaled[9, 9] = 0.7
    scaled[13, 13] = 0.9
    found = find_candidates(scaled, 0.5, WHOLE, 16, 16)
    assert [one.peak for one in found] == [(13.5, 13.5), (3.5, 2.5), (9.5, 2.5), (9.5, 9.5)]
    assert find_candidates(scaled, 0.95, WHOLE, 16, 16) == []


def test_every_pixel_that_reaches_the_threshold_lies_in_one_candidate() -> None:
    rng = np.random.default_rng(0)
    scaled = rng.random((16, 16))
    found = find_candidates(scaled, 0.6, WHOLE, 16, 16)
    assert len(found) > 5
    labels = sum((_inside(one) for one in found), np.zeros((16, 16), int))
    assert np.array_equal(labels, (scaled >= 0.6).astype(int))
    for one in found:
        assert one.value == scaled[_inside(one) == 1].max()


def _inside(one: Candidate) -> NDArray[np.int64]:
    """Winding number of pixel centres, an independent way to say inside."""
    y, x = np.mgrid[0:16, 0:16] + 0.5
    total = np.zeros((16, 16))
    for ring in (one.outline, *one.holes):
        angle = np.unwrap(np.arctan2(ring[:, 1] - y[..., None], ring[:, 0] - x[..., None]))
        total += np.abs(np.rint((angle[..., -1] - angle[..., 0]) / (2 * np.pi))) * (
            1 if ring is one.outline else -1
        )
    return total.astype(int)


@pytest.mark.parametrize("turn", range(1, 9))
def test_as_stored(turn: int) -> None:
    """A pixel of the upright film, looked up in the file."""
    stored = Image.fromarray(np.arange(15, dtype=np.uint8).reshape(3, 5))
    exif = Image.Exif()
    exif[0x0112] = turn
    stored.info["exif"] = exif.tobytes()
    stored.getexif()[0x0112] = turn
    upright = np.asarray(ImageOps.exif_transpose(stored))
    height, width = upright.shape
    for row in range(height):
        for column in range(width):
            centre = np.array([[column + 0.5, row + 0.5]])
            x, y = as_stored(centre, turn, width, height)[0]
            assert np.asarray(stored)[int(y), int(x)] == upright[row, column]
            assert (x % 1, y % 1) == (0.5, 0.5)


def job(map_HW: np.ndarray, width: int, height: int) -> Job:
    low, high = map_HW.min(), map_HW.max()
    film: Any = SimpleNamespace(width=width, height=height)
    return Job(film, 0.5, map_HW.astype(np.float32), (map_HW - low) / (high - low))


def test_the_outline_is_drawn_at_the_threshold_whatever_the_level() -> None:
    """A peak of 10: at half its height it covers the same, however far it lies above the level."""
    y, x = np.mgrid[:64, :64] - 31.5
    found = job(10 * np.exp(-(x**2 + y**2) / 200), 64, 64)
    (expected,) = found.candidates(0.5, None)
    for level in (9.0, 6.0, 1.0, 0.1, -1.0):
        (one,) = found.candidates(0.5, level)
        assert (one.area, one.box) == (expected.area, expected.box)
    assert found.candidates(0.5, 10.1) == []


def test_a_film_whose_map_peaks_beside_it_has_a_candidate_where_it_reaches_the_level() -> None:
    """The film lies in the upper and lower half left out: columns 16 to 47 of 64."""
    map_HW = np.zeros((64, 64))
    map_HW[10, 2], map_HW[30:34, 30:34] = 10.0, 4.0  # the peak lies on the padding
    found = job(map_HW, 32, 64)
    assert found.candidates(0.5, 5.0) == [] == found.candidates(0.5, None)
    (one,) = found.candidates(0.5, 3.0)
    assert one.value == pytest.approx(0.4)
    (one,) = found.candidates(0.5, -7.0)  # above which all of the film lies
    assert one.value == pytest.approx(0.4) and one.box == (0, 0, 32, 64)
    assert one.area == pytest.approx(32 * 64) and one.holes == ()

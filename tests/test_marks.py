"""Lesion marks become masks of the film's size."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pcamx.data.marks import Mask, read_marks
from pcamx.errors import PcamxError

FILMS = {"a/x.jpg": (20, 10), "a/y.jpg": (10, 10), "b/y.png": (10, 10), "bad.png": None}
SQUARE = [4, 2, 8, 2, 8, 6, 4, 6]


def coco(tmp_path: Path, **change: Any) -> Path:
    image = {"id": 7, "file_name": "x.jpg", "width": 20, "height": 10}
    mark = {"id": 1, "image_id": 7, "segmentation": [SQUARE], "bbox": [4, 2, 4, 4]}
    image |= change.pop("image", {})
    mark |= change.pop("mark", {})
    file = tmp_path / "coco.json"
    file.write_text(json.dumps({"images": [image], "annotations": [mark]} | change))
    return file


def masks(source: Path) -> dict[str, Mask | None]:
    return {film: make() if make else None for film, make in read_marks(source, FILMS).items()}


def save(file: Path, pixels: object, mode: str | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(pixels, np.uint8))
    (image.convert(mode) if mode else image).save(file)


def test_coco_polygons_are_filled_at_the_films_size(tmp_path: Path) -> None:
    second = {"id": 2, "image_id": 7, "segmentation": [[15, 5, 25, 5, 25, 9, 15, 9]]}
    file = coco(tmp_path)
    tree = json.loads(file.read_text())
    tree["annotations"].append(second)
    tree["images"].append({"id": 8, "file_name": "of another set.png"})  # unmarked: no matter
    file.write_text(json.dumps(tree))
    mask = masks(file)["a/x.jpg"]
    assert mask is not None and mask.shape == (10, 20) and mask.dtype == np.uint8
    want = np.zeros((10, 20), np.uint8)
    want[2:7, 4:9] = 255  # x 4 to 8, y 2 to 6, outline included
    want[5:10, 15:] = 255  # what lies over the border is cut off
    assert np.array_equal(mask, want)


def test_a_film_that_cannot_be_used_has_no_mask(tmp_path: Path) -> None:
    file = coco(tmp_path, image={"file_name": "bad.png"})
    assert masks(file) == {"bad.png": None}
    save(tmp_path / "m" / "bad.png", np.ones((3, 3)))
    assert masks(tmp_path / "m") == {"bad.png": None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": {"file_name": "z.jpg"}}, "z.jpg is not a film of this data set"),
        ({"image": {"file_name": "y.jpg"}}, None),
        ({"image": {"file_name": "y"}}, "y may be a/y.jpg or b/y.png; name the film by"),
        ({"image": {"width": 10, "height": 20}}, "a/x.jpg is 10 x 20 there, .* 20 x 10 pixels"),
        ({"image": {"width": None}}, "a/x.jpg is None x 10 there"),
        ({"image": {"id": None}}, "image None lacks an id or a file_name"),
        ({"images": 3}, 'no list "images"'),
        ({"annotations": [5]}, 'no list "annotations"'),
        ({"mark": {"image_id": 9}}, "annotation 1: image_id 9 is not among the images"),
        ({"mark": {"segmentation": []}}, "annotation 1 of a/x.jpg: no polygon; boxes are not"),
        ({"mark": {"segmentation": {"counts": "ab"}}}, "run-length masks are not read"),
        ({"mark": {"segmentation": [[1, 1, 2, 2]]}}, "at least three pairs"),
        ({"mark": {"segmentation": [[1, 1, 2, 2, 3, 3, 4]]}}, "at least three pairs"),
        ({"mark": {"segmentation": [[1, 1, 2, 2, 3, "x"]]}}, "other than numbers"),
        ({"mark": {"segmentation": [[1, 1, 2, 2, 3, float("inf")]]}}, "other than numbers"),
        ({"mark": {"segmentation": [[21, 1, 30, 2, 25, 4]]}}, "outside the 20 x 10 film"),
        ({"mark": {"segmentation": [[1, -9, 3, -1, 2, -4]]}}, "outside the 20 x 10 film"),
    ],
)
def test_coco_mistakes_are_named_in_one_line(
    tmp_path: Path, change: dict[str, Any], message: str | None
) -> None:
    file = coco(tmp_path, **change)
    if message is None:  # a/y.jpg is the only y.jpg; only its size is wrong
        message = "a/y.jpg is 20 x 10 there, the upright film has 10 x 10"
    with pytest.raises(PcamxError, match=message) as error:
        read_marks(file, FILMS)
    assert str(error.value).startswith(f"{file}: ") and "\n" not in str(error.value)


def test_two_coco_images_of_one_film(tmp_path: Path) -> None:
    file = coco(tmp_path)
    tree = json.loads(file.read_text())
    tree["images"].append({"id": 8, "file_name": "a/x.jpg", "width": 20, "height": 10})
    tree["annotations"].append({"id": 2, "image_id": 8, "segmentation": [SQUARE]})
    file.write_text(json.dumps(tree))
    with pytest.raises(PcamxError, match="images 7 and 8 are the same film, a/x.jpg"):
        read_marks(file, FILMS)


def test_not_json_not_there_not_marks(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"images": [')
    (tmp_path / "b.csv").write_text("")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("a.json", "not valid JSON .*line 1"),
        ("b.csv", "takes a COCO .json or a folder"),
        ("empty", "no mask images"),
        ("none.json", "no such file or folder"),
    ):
        with pytest.raises(PcamxError, match=message):
            read_marks(tmp_path / name, FILMS)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "LA", "I;16"])
def test_mask_images_of_any_mode(tmp_path: Path, mode: str) -> None:
    pixels = np.zeros((10, 20), np.uint8)
    pixels[3:5, 6:9] = 255
    save(tmp_path / "a" / "x.png", pixels, mode)
    save(tmp_path / "b" / "y.tif", np.zeros((10, 10)))
    (tmp_path / "README.txt").write_text("not a mask")
    (tmp_path / "a" / "._x.png").write_text("not a mask")
    found = masks(tmp_path)
    assert list(found) == ["a/x.jpg", "b/y.png"]
    assert np.array_equal(found["a/x.jpg"], np.where(pixels > 0, 255, 0))  # type: ignore[arg-type]
    assert found["b/y.png"] is not None and not found["b/y.png"].any()


def test_an_inverted_palette_goes_by_colour(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0] * 20] * 9 + [[1] * 20], np.uint8), "P")
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.save(tmp_path / "x.png")
    mask = masks(tmp_path)["a/x.jpg"]
    assert mask is not None and mask[:9].all() and not mask[9].any()


def test_mask_mistakes_are_named(tmp_path: Path) -> None:
    def refused(folder: str, message: str) -> None:
        with pytest.raises(PcamxError, match=message) as error:
            masks(tmp_path / folder)
        assert "\n" not in str(error.value)

    save(tmp_path / "size" / "x.png", np.ones((20, 10)))
    refused("size", "x.png: the mask has 10 x 20 pixels, the upright film a/x.jpg has 20 x 10")
    save(tmp_path / "unknown" / "c" / "z.png", np.ones((9, 9)))
    refused("unknown", "c/z is not a film")
    save(tmp_path / "flat" / "y.png", np.ones((10, 10)))
    refused("flat", "y may be a/y.jpg or b/y.png")
    save(tmp_path / "elsewhere" / "c" / "x.png", np.ones((10, 20)))
    refused("elsewhere", "c/x is not a film")
    save(tmp_path / "twice" / "x.png", np.ones((10, 20)))
    save(tmp_path / "twice" / "a" / "x.png", np.ones((10, 20)))
    refused("twice", "film a/x.jpg has another mask")
    save(tmp_path / "lossy" / "x.jpg", np.ones((10, 20)))
    refused("lossy", "blurs a mask's edge; save masks as PNG")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.png").write_text("text")
    refused("broken", "x.png: not a readable mask")

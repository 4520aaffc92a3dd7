"""Boxes that CVAT turns: its exports hold the box as it was before, and the turn beside it."""

import json
from pathlib import Path
from typing import Any

import marks_by_hand as by_hand
import numpy as np
import pytest
from marks_by_hand import FILMS
from numpy.typing import NDArray

from pcamx.data.marks import read_marks
from pcamx.errors import PcamxError

FILM = "a/x.jpg"


def pixels(source: Path) -> NDArray[np.uint8]:
    make = read_marks(source, FILMS).masks[FILM]
    assert make is not None
    return make()


def upright() -> NDArray[np.uint8]:
    """What 6 x 2 pixels about (6, 4) are after a quarter of a turn: 2 x 6."""
    want = np.zeros((10, 20), np.uint8)
    want[1:7, 5:7] = 255
    return want


def coco(folder: Path, mark: dict[str, Any]) -> Path:
    file = by_hand.coco(folder, "box")
    tree = json.loads(file.read_text())
    tree["annotations"][0] |= {"bbox": [3, 3, 6, 2]} | mark
    file.write_text(json.dumps(tree))
    return file


def test_a_turned_box_in_coco(tmp_path: Path) -> None:
    turn = {"segmentation": [], "attributes": {"occluded": False, "rotation": 90.0}}
    assert np.array_equal(pixels(coco(tmp_path, turn)), upright())
    for none in ({"rotation": 0.0}, {"rotation": None}, {}, None):
        box = pixels(coco(tmp_path, {"attributes": none}))
        assert box[3:5, 3:9].all() and np.count_nonzero(box) == 12
    with pytest.raises(PcamxError, match="annotation 1 of a/x.jpg: attributes.rotation is 'a'"):
        pixels(coco(tmp_path, {"attributes": {"rotation": "a"}}))


def test_a_turned_box_in_voc(tmp_path: Path) -> None:
    file = by_hand.voc(tmp_path, "box")
    edges = "<xmin>3</xmin><ymin>3</ymin><xmax>9</xmax><ymax>5</ymax></bndbox>"
    said = "".join(
        f"<attribute><name>{name}</name><value>{value}</value></attribute>"
        for name, value in (("occluded", "True"), ("rotation", "90.0"))
    )
    head, _, tail = file.read_text().partition("<xmin>")
    _, _, tail = tail.partition("</bndbox>")
    file.write_text(f"{head}{edges}<attributes>{said}</attributes>{tail}")
    assert np.array_equal(pixels(file), upright())


@pytest.mark.parametrize(("image", "category"), [("7", 3), (7, "3"), (7.0, 3.0), ("7", "3")])
def test_ids_that_a_table_made_texts(tmp_path: Path, image: Any, category: Any) -> None:
    found = read_marks(coco(tmp_path, {"image_id": image, "category_id": category}), FILMS)
    assert found.labels() == {"fracture": 1}


def test_a_name_of_digits_is_no_number(tmp_path: Path) -> None:
    file = coco(tmp_path, {"image_id": "007"})
    tree = json.loads(file.read_text())
    tree["images"].append({"id": "007", "file_name": "a/y.jpg"})
    file.write_text(json.dumps(tree))
    assert list(read_marks(file, FILMS).of) == ["a/y.jpg"]

"""What may be another film's mark, or no lesion, is said; so is what is left out."""

import json
from pathlib import Path
from typing import Any

import marks_by_hand as by_hand
import numpy as np
import pytest
from PIL import Image

from pcamx.data.marks import read_marks
from pcamx.data.marks.names import Names

SIZE = (by_hand.W, by_hand.H)


def problems(source: Path, *films: str) -> dict[str, list[str]]:
    said: dict[str, list[str]] = {}
    for problem in read_marks(source, dict.fromkeys(films, SIZE)).problems:
        said.setdefault(problem.kind, []).append(problem.text)
    return said


def mask(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(by_hand.mask("box")).save(file)


@pytest.mark.parametrize(
    ("name", "films", "meant"),
    [
        ("scan.left", ["scan.png", "scan.left.png"], "scan.left.png"),  # no suffix at its end
        ("scan.left", ["scan.left"], "scan.left"),
        ("x.png", ["x.jpg", "y.jpg"], "x.jpg"),
        ("x.png.txt", ["x.png", "y.png"], "x.png"),  # how some tools name what belongs to x.png
        ("masks/x.jpg.png", ["a/x.jpg"], "a/x.jpg"),
        ("x.png", ["x.png.j2c", "x.jpg.j2c"], "x.png.j2c"),  # a film and a copy of its name
    ],
)
def test_names_with_something_like_a_suffix(name: str, films: list[str], meant: str) -> None:
    assert Names(films).find(name)[0] == [meant]


@pytest.mark.parametrize(
    ("name", "film", "said"),
    [
        ("patient2/image1.png", "patient1/image1.png", True),
        ("/set/valid/image1.png", "train/image1.png", True),
        ("images/image1.png", "patient1/image1.png", False),  # a folder of everything
        ("/data/upload/3/image1.png", "patient1/image1.png", False),
        ("image1.png", "patient1/image1.png", False),
        ("patient2/image1.png", "image1.png", False),
    ],
)
def test_a_folder_that_is_not_the_films_is_said(
    tmp_path: Path, name: str, film: str, said: bool
) -> None:
    found = problems(by_hand.coco(tmp_path, "box", name=name), film)
    assert found == ({"folders": [f"{name} for {film}"]} if said else {})


@pytest.mark.parametrize("write", [by_hand.voc, by_hand.labelme])
def test_a_file_that_is_named_like_another_film_is_said(tmp_path: Path, write: Any) -> None:
    """Copied or renamed, its own words are about the film that it was made for."""
    file = write(tmp_path, "box", name="y.jpg")
    assert problems(file, "x.jpg", "y.jpg") == {"renamed": [f"{file.name} for y.jpg, not x.jpg"]}
    assert problems(file, "y.jpg", "z.jpg") == {}
    assert problems(by_hand.coco(tmp_path / "c", "box", name="y.jpg"), "coco.jpg", "y.jpg") == {}


def test_masks_in_folders_that_may_be_classes(tmp_path: Path) -> None:
    for file in ("fracture/a.png", "metal/b.png"):
        mask(tmp_path / "by_class" / file)
        mask(tmp_path / "by_patient" / file.replace("fracture", "p1").replace("metal", "p2"))
    assert problems(tmp_path / "by_class", "a.png", "b.png") == {"classes": ["fracture, metal"]}
    assert problems(tmp_path / "by_patient", "films/p1/a.png", "films/p2/b.png") == {}


def test_files_beside_masks_that_are_not_read(tmp_path: Path) -> None:
    mask(tmp_path / "a.png")
    for name in ("b.gif", "c.npy", "d.nii.gz", "notes.csv"):
        (tmp_path / name).touch()
    found = problems(tmp_path, "a.png", "b.png", "c.png", "d.png")
    assert found == {
        "damaged": [
            "b.gif: .gif is not read; save the mask as PNG",
            "c.npy: .npy is not read; save the mask as PNG",
            "d.nii.gz: .gz is not read; save the mask as PNG",
        ]
    }


def test_archives_beside_marks_are_not_read(tmp_path: Path) -> None:
    by_hand.labelme(tmp_path, "box")
    for name in ("more.zip", "tasks.jsonl", "x.jpg"):
        (tmp_path / name).touch()
    assert problems(tmp_path, "x.jpg") == {
        "damaged": ["more.zip: of no known kind", "tasks.jsonl: of no known kind"]
    }


def test_drafts_of_label_studio(tmp_path: Path) -> None:
    file = by_hand.label_studio(tmp_path, "box")
    (task,) = json.loads(file.read_text())
    kept = {"result": task["annotations"][0]["result"]}
    other = {"id": 6, "data": {"image": "y.jpg"}, "annotations": []}
    for drafts, said in (
        ([kept], {"drafts": ["export.json: task 6: 1 drafts"]}),
        ([{"result": []}, {"result": None}, 4], {}),
        (4, {}),
    ):
        file.write_text(json.dumps([task, other | {"drafts": drafts}]))
        assert problems(file, "x.jpg", "y.jpg") == said


@pytest.mark.parametrize(
    "item",
    [
        {"type": "cuboid", "id": "c", "value": {"front": {"x": 1}, "back": {"x": 2}}},
        {"type": "videorectangle", "id": "v", "value": {"sequence": [{"x": 1, "y": 1}]}},
        {"id": "n", "value": {"outline": [[1, 1]]}},
        {"type": "labels", "id": "alone", "value": {"start": 1, "labels": ["fracture"]}},
    ],
)
def test_a_region_of_an_unknown_tool_of_label_studio_is_named(tmp_path: Path, item: Any) -> None:
    file = by_hand.label_studio(tmp_path, "box")
    tree = json.loads(file.read_text())
    tree[0]["annotations"][0]["result"].append(item)
    file.write_text(json.dumps(tree))
    (said,) = problems(file, "a/x.jpg")["damaged"]
    kind = {"labels": "label without a region"}.get(item.get("type"), item.get("type"))
    assert ", region 3: a " in said and (kind or "region without a type") in said


@pytest.mark.parametrize(
    "item",
    [
        {"type": "choices", "id": "k", "value": {"choices": ["abnormal"]}},
        {"type": "textarea", "id": "t", "value": {"text": ["seen"]}},
        {"type": "rating", "id": "r", "value": {"rating": 4}},
        {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"},
        {"type": "taxonomy", "id": "x", "value": {"taxonomy": [["a"]]}},
    ],
)
def test_what_label_studio_says_of_an_image_is_no_region(tmp_path: Path, item: Any) -> None:
    file = by_hand.label_studio(tmp_path, "box")
    tree = json.loads(file.read_text())
    tree[0]["annotations"][0]["result"].append(item)
    file.write_text(json.dumps(tree))
    assert not problems(file, "a/x.jpg")


def _masked(file: Path, lesion_HW: Any, *, colour: int, ground: int, alpha: bool) -> None:
    """A mask whose lesion is of ``colour``, and clear where ``alpha``, on opaque ``ground``."""
    layers = [np.where(lesion_HW, colour, ground)] * 3 + [np.where(lesion_HW & alpha, 0, 255)]
    file.parent.mkdir(exist_ok=True)
    Image.fromarray(np.stack(layers, -1).astype(np.uint8)).save(file)


@pytest.mark.parametrize(
    ("colour", "ground", "alpha", "side"),
    [(255, 255, True, 3), (0, 255, False, 3), (255, 255, True, 9), (0, 255, False, 9)],
)
def test_a_mask_that_is_all_but_the_lesion_is_said(
    colour: int, ground: int, alpha: bool, side: int, tmp_path: Path
) -> None:
    """A lesion of 9 x 9 is most of the film: the rest is less than half, but all of the border."""
    lesion_HW = np.zeros((10, 11), np.bool_)
    lesion_HW[1 : 1 + side, 1 : 1 + side] = True
    lesion_HW[-1] = False
    file = tmp_path / "masks/x.png"
    _masked(file, lesion_HW, colour=colour, ground=ground, alpha=alpha)
    found = read_marks(file.parent, {"x.png": (11, 10)})
    (said,) = [problem for problem in found.problems if problem.kind == "ground"]
    assert said.text == "x.png, film x.png" and said.film == "x.png"
    assert any("as the negative of one is" in note for note in found.notes())


def test_a_mask_along_three_sides_is_not(tmp_path: Path) -> None:
    lesion_HW = np.ones((10, 11), np.bool_)
    lesion_HW[1:9, 1:] = False
    file = tmp_path / "masks/x.png"
    _masked(file, lesion_HW, colour=255, ground=0, alpha=False)
    assert not read_marks(file.parent, {"x.png": (11, 10)}).problems

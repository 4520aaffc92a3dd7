"""Mark files that are damaged, made to do harm, or of another kind: one line that names the item.

And the run lengths beside an independent reader.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import marks_by_hand as by_hand
import numpy as np
import pytest
from marks_by_hand import FILMS, L_ROWS
from PIL import Image
from pycocotools import mask as pycocotools

from pcamx.data.marks import rle
from pcamx.data.marks.collect import read_marks
from pcamx.errors import PcamxError


def assert_refused(source: Path, message: str) -> None:
    """Reading or drawing the marks raises one line that names the file and holds ``message``."""
    with pytest.raises(PcamxError) as caught:
        for make in read_marks(source, FILMS).masks.values():
            assert make is not None
            make()
    text = str(caught.value)
    assert message in text and "\n" not in text and len(text) < 1000, text


def change(file: Path, edit: Any) -> Path:
    tree = json.loads(file.read_text())
    edit(tree)
    file.write_text(json.dumps(tree))
    return file


@pytest.mark.parametrize(
    ("image", "mark", "message"),
    [
        ({"file_name": "z.jpg"}, {}, "no mark can be used; images that are not films of this data"),
        ({"width": 10, "height": 20}, {}, "a/x.jpg is 10 x 20 there, the upright film a/x.jpg has"),
        ({"width": None}, {}, "width is missing"),
        ({"width": 0}, {}, "the image is 0 x 10"),
        ({"height": -10}, {}, "height is -10"),
        ({"height": 1.5}, {}, "height is 1.5"),
        ({"id": None}, {}, "image id missing is neither"),
        ({"id": [7]}, {}, "image id [7] is neither"),
        ({"file_name": 3}, {}, "file_name of 7 is 3, not a text"),
        ({"file_name": "a\nb\x1b[0m"}, {}, "not used: a?b?[0m; check"),
        ({}, {"image_id": 10**4000}, "annotation 1: image_id too large is not among the images"),
        ({}, {"image_id": 9}, "annotation 1: image_id 9 is not among the images"),
        ({}, {"image_id": [7]}, "annotation 1: image_id [7] is not among the images"),
        ({}, {"segmentation": [], "bbox": None}, "annotation 1 of a/x.jpg: neither a segment"),
        ({}, {"segmentation": "none"}, "neither polygons nor run lengths"),
        ({}, {"segmentation": [[1, 1, 2, 2]]}, "at least three points"),
        ({}, {"segmentation": [[1, 1, 2, 2, 3, 3, 4]]}, "at least three pairs"),
        ({}, {"segmentation": [[1, 1, 2, 2, 3, "x"]]}, "y is 'x', not a number"),
        ({}, {"segmentation": [[1, 1, 2, 2, 3, True]]}, "y is True, not a number"),
        ({}, {"segmentation": [[1, 1, 2, 2, 3, float("nan")]]}, "y is nan, not a number"),
        ({}, {"segmentation": [[1, 1, 2, 2, 3, float("inf")]]}, "y is inf, not a number"),
        ({}, {"segmentation": [[1, 1, 2, 2, 3, 10**300]]}, "y is too large, not a number"),
        ({}, {"segmentation": [[1, 1, 2, 2, 3, 1e9]]}, "y is 1000000000.0, not a number"),
        ({}, {"segmentation": [], "bbox": [1, 1, -4, 4]}, "a box of -4 x 4"),
        ({}, {"segmentation": [], "bbox": [1, 1, 4]}, "bbox of four numbers"),
        ({}, {"segmentation": {"counts": [200]}}, "lacks its size"),
        ({}, {"segmentation": {"size": [10, 20]}}, "lacks its counts"),
        ({}, {"segmentation": {"size": [20, 10], "counts": [200]}}, "10 x 20 pixels on an image"),
        ({}, {"segmentation": {"size": [10**9, 10**9], "counts": [1]}}, "1000000000 x 1000000000"),
        ({}, {"segmentation": {"size": [10, 20], "counts": [199]}}, "do not fill 20 x 10"),
        ({}, {"segmentation": {"size": [10, 20], "counts": [10**18, 1]}}, "do not fill 20 x 10"),
        ({}, {"segmentation": {"size": [10, 20], "counts": [-1, 201]}}, "a run length is not"),
        ({}, {"segmentation": {"size": [10, 20], "counts": [1.5, 198.5]}}, "a run length is not"),
        ({}, {"segmentation": {"size": [10, 20], "counts": ""}}, "do not fill 20 x 10"),
        ({}, {"segmentation": {"size": [10, 20], "counts": "Z146"}}, "do not fill 20 x 10"),
        ({}, {"segmentation": {"size": [10, 20], "counts": "o" * 99}}, "no COCO text"),
        ({}, {"segmentation": {"size": [10, 20], "counts": "é"}}, "no COCO text"),
        ({}, {"segmentation": {"size": [10, 20], "counts": "Z14600000fo"}}, "break off"),
    ],
)
def test_coco(tmp_path: Path, image: Any, mark: Any, message: str) -> None:
    file = by_hand.coco(tmp_path, "polygon", **image)
    change(file, lambda tree: tree["annotations"][0].update(mark))
    assert_refused(file, message)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("images", 3, 'no list "images"'),
        ("annotations", [5], 'no list "annotations"'),
        ("annotations", [], "nothing is marked in it"),
        ("categories", 7, 'no list "categories"'),
    ],
)
def test_coco_parts(tmp_path: Path, part: str, value: Any, message: str) -> None:
    assert_refused(
        change(by_hand.coco(tmp_path, "box"), lambda t: t.update({part: value})), message
    )


def test_coco_image_twice(tmp_path: Path) -> None:
    file = change(by_hand.coco(tmp_path, "box"), lambda t: t["images"].append(t["images"][0]))
    assert_refused(file, "image id 7 is given twice")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<xmin>4</xmin>", "", "object 1 of x.jpg: xmin is missing"),
        ("<xmin>4</xmin>", "<xmin>four</xmin>", "object 1 of x.jpg: xmin is 'four', not a number"),
        ("<xmin>4</xmin>", "<xmin>nan</xmin>", "object 1 of x.jpg: xmin is 'nan', not a number"),
        ("<xmin>4</xmin>", "<xmin>9</xmin>", "object 1 of x.jpg: a box of -1 x 4"),
        ("<xmin>4</xmin>", f"<xmin>{'9' * 9999}</xmin>", "object 1 of x.jpg: xmin is '99"),
        ("<filename>x.jpg</filename>", "", "filename is missing"),
        ("<width>20</width>", "<width>-20</width>", "width is '-20'"),
        ("<width>20</width>", "<width>1e400</width>", "width is '1e400'"),
        ("</object>", "", "not valid XML"),
        ("<annotation>", '<!DOCTYPE a [<!ENTITY b "b">]><annotation>', "declares a document type"),
        ("<annotation>", '<! doctype a SYSTEM "/etc/passwd"><annotation>', "declares a document"),
        ("<annotation>", "<comment>", "not valid XML"),
        ("annotation>", "comment>", "marks of an unknown kind"),
    ],
)
def test_voc(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = by_hand.voc(tmp_path, "box")
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 2 if old == "annotation>" else 1))
    assert_refused(file, message)


def test_entities_in_another_encoding(tmp_path: Path) -> None:
    file = tmp_path / "x.xml"
    bomb = '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY b "b">]><annotation/>'
    file.write_bytes(bomb.encode("utf-16"))
    assert_refused(file, "not UTF-8")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "0 0.5 0.5 0.2",
            "line 1 of x.txt: 3 numbers after the class; a box has 4, a polygon",
        ),
        ("0 0.5 0.5 0.2 0.2 0.9", "line 1 of x.txt: 5 numbers after the class"),
        ("0 0.5 0.5 0.2 0.2 0.9 1", "line 1 of x.txt: 6 numbers after the class, the last a whole"),
        (
            "0 0.5 0.5 0.2 0.2 0.9 17",
            "line 1 of x.txt: 6 numbers after the class, the last a whole",
        ),
        (
            "0 .5 .5 .2 .5 .45 .45 1 .55 .55 2",
            "line 1 of x.txt: 10 numbers after the class, every third behind the fourth 0, 1 or 2",
        ),
        ("0 120 40 20 20", "line 1 of x.txt: 120 is no share of the image"),
        ("0 0.5 0.5 nan 0.2", "line 1 of x.txt: a share of the image is 'nan'"),
        ("0 0.5 0.5 x 0.2", "line 1 of x.txt: a share of the image is 'x'"),
        ("0 0.5 0.5 -0.2 0.2", "line 1 of x.txt: a box of -0.2 x 0.2"),
        ("fracture 0.5 0.5 0.2 0.2", "marks of an unknown kind"),
        ("", "marks of an unknown kind"),
    ],
)
def test_yolo(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "x.txt").write_text(line)
    assert_refused(tmp_path / "x.txt", message)


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        (
            "polygon",
            {"points": [[1, 1], [2, 2]]},
            "shape 1 of x.jpg: a polygon is at least",
        ),
        (
            "polygon",
            {"points": [[1, 1], [2, 2], [3]]},
            "1 of x.jpg: a polygon: [3] is not a point",
        ),
        ("polygon", {"points": None}, "shape 1 of x.jpg: a polygon is at least"),
        ("polygon", {"points": "12345"}, "shape 1 of x.jpg: a polygon is at least"),
        ("polygon", {"shape_type": "spline"}, "1 of x.jpg: shape_type 'spline' is not known"),
        (
            "box",
            {"points": [[1, 1], [2, 2], [3, 3]]},
            "1 of x.jpg: a rectangle has two or four",
        ),
        ("mask", {"mask": None}, "shape 1 of x.jpg: mask is missing"),
        ("mask", {"mask": "AAAA"}, "shape 1 of x.jpg: the mask is no readable PNG"),
        ("mask", {"points": [[4, 2], [7, 4]]}, "a mask of 3 x 3 pixels for 4 x 3"),
        ("mask", {"points": [[0, 0], [1e7, 1e7]]}, "a mask of 10000001 x 10000001 pixels"),
    ],
)
def test_labelme(tmp_path: Path, kind: str, shape: Any, message: str) -> None:
    file = by_hand.labelme(tmp_path, kind)
    assert_refused(change(file, lambda tree: tree["shapes"][0].update(shape)), message)


def _region(tree: Any) -> Any:
    return tree[0]["annotations"][0]["result"][1]


@pytest.mark.parametrize(
    ("kind", "edit", "message"),
    [
        ("box", lambda t: _region(t)["value"].pop("width"), "task 5, region 2: width is missing"),
        ("box", lambda t: _region(t)["value"].update(width=-1), "region 2: a box of -1 x 40"),
        ("box", lambda t: _region(t).pop("original_width"), "region 2: width is missing"),
        ("box", lambda t: _region(t).update(image_rotation=90), "turned in Label Studio"),
        ("box", lambda t: t[0].pop("annotations"), 'task 5: no list "annotations"'),
        (
            "box",
            lambda t: t[0]["data"].pop("image"),
            "region 2: its task's data name no image",
        ),
        ("box", lambda t: t[0].pop("data"), "marks of an unknown kind"),
        ("mask", lambda t: _region(t)["value"].update(rle="AAAA"), "no list of bytes"),
        ("mask", lambda t: _region(t)["value"].update(rle=[300]), "no list of bytes"),
        ("mask", lambda t: _region(t)["value"].update(rle=10**9), "no list of bytes"),
        ("mask", lambda t: _region(t)["value"].update(rle=[]), "breaks off"),
        ("mask", lambda t: _region(t)["value"].update(rle=[255] * 9), "does not fill 20 x 10"),
        ("mask", lambda t: _region(t)["value"].update(rle=[0, 0, 3, 32] + [57] * 9), "breaks off"),
        ("mask", lambda t: _region(t)["value"].update(rle=[0, 0, 3, 32] + [255] * 99), "overflows"),
    ],
)
def test_label_studio(tmp_path: Path, kind: str, edit: Any, message: str) -> None:
    assert_refused(change(by_hand.label_studio(tmp_path, kind), edit), message)


def test_a_task_that_cannot_be_read_costs_no_other(tmp_path: Path) -> None:
    file = change(by_hand.label_studio(tmp_path, "box"), lambda t: t.extend([3, {"id": 6}]))
    found = read_marks(file, FILMS)
    assert list(found.of) == ["a/x.jpg"]
    assert [(p.kind, p.text) for p in found.problems] == [
        ("damaged", "export.json: " + text + "; export the marks again")
        for text in (
            'a task: no list "annotations" of objects, which Label Studio\'s JSON export has',
            'task 6: no list "annotations" of objects, which Label Studio\'s JSON export has',
        )
    ]


@pytest.mark.parametrize(
    ("kind", "old", "new", "message"),
    [
        ("polygon", "8.00,2.00;8.00,6.00;", "", "polygon 1 of a/x.jpg: a polygon is at least"),
        ("polygon", "8.00,6.00;", "8.00;", "polygon 1 of a/x.jpg: a polygon: ['8.00'] is not"),
        ("polygon", "8.00,6.00;", "nan,6.00;", "polygon 1 of a/x.jpg: a polygon: x is 'nan'"),
        ("box", 'xtl="4.0"', "", "box 1 of a/x.jpg: xtl is missing"),
        ("box", 'xtl="4.0"', 'xtl="14.0"', "box 1 of a/x.jpg: a box of -6 x 4"),
        ("mask", "2, 3", "2, 4", "mask 1 of a/x.jpg: the run lengths do not fill 3 x 3 pixels"),
        ("mask", "2, 3", "2, -3", "a run length is ' -3', not a whole number"),
        ("mask", "2, 3", "2, " + "9" * 5000, "a run length is ' 99"),
        ("mask", 'width="3"', 'width="9000000"', "a mask of 9000000 x 3 pixels, the film has 20"),
        ("mask", 'rle="0, 1, 2, 1, 2, 3"', "", "mask 1 of a/x.jpg: a run length is ''"),
        ("box", 'name="a/x.jpg"', "", "the name of an image is missing"),
        ("box", "<image", "<track/><image", "CVAT for video; export the task as CVAT for images"),
    ],
)
def test_cvat(tmp_path: Path, kind: str, old: str, new: str, message: str) -> None:
    file = by_hand.cvat(tmp_path, kind)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    assert_refused(file, message)


def test_mask_images(tmp_path: Path) -> None:
    (tmp_path / "lossy").mkdir()
    Image.new("L", (20, 10)).save(tmp_path / "lossy" / "y.png")
    Image.new("L", (20, 10)).save(tmp_path / "lossy" / "x.jpg")
    assert_refused(tmp_path / "lossy", "x.jpg: .jpg blurs a mask's edge; save masks as PNG")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "x.png").write_text("text")
    assert_refused(tmp_path / "text", "x.png: not a readable mask")
    by_hand.images(tmp_path, "mask")
    cut = tmp_path / "masks" / "x.png"
    cut.write_bytes(cut.read_bytes()[:50])
    assert_refused(tmp_path / "masks", "x.png: not a readable mask")


def test_files_that_are_no_marks(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"images": [')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "long.json").write_text("9" * 5000)
    (tmp_path / "config.json").write_text('{"images": []}')
    (tmp_path / "empty.json").write_text("[]")
    (tmp_path / "b.csv").write_text("")
    zipfile.ZipFile(tmp_path / "export.zip", "w").close()
    (tmp_path / "empty").mkdir()
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "x.jpg").write_bytes(b"")
    for name, message in (
        ("a.json", "not valid JSON"),
        ("deep.json", "not valid JSON"),
        ("long.json", "not valid JSON"),
        ("config.json", "marks of an unknown kind; known: COCO .json, Pascal VOC .xml, YOLO .txt"),
        ("empty.json", "marks of an unknown kind"),
        ("b.csv", "marks of an unknown kind"),
        ("export.zip", "holds no marks of a known kind; unpack it if it holds mask images"),
        ("empty", "holds no marks of a known kind"),
        ("films", "holds no marks of a known kind"),
        ("none.json", "no such file or folder"),
    ):
        assert_refused(tmp_path / name, f"{tmp_path / name}: ")
        assert_refused(tmp_path / name, message)


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pcamx.data.marks.parse.MAX_BYTES", 100)
    assert_refused(by_hand.coco(tmp_path, "box"), "coco.json: larger than")


def test_several_kinds_in_one_folder(tmp_path: Path) -> None:
    by_hand.coco(tmp_path, "box")
    by_hand.voc(tmp_path / "voc", "box")
    assert_refused(
        tmp_path, "several kinds of marks, COCO (coco.json), Pascal VOC (voc/x.xml); name one"
    )


# Run lengths


@pytest.mark.parametrize("seed", range(8))
def test_coco_run_lengths_beside_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(1, 90, 2))
    mask = rng.random((height, width)) < rng.choice([0.02, 0.5, 0.98])
    packed = pycocotools.encode(np.asfortranarray(mask.astype(np.uint8)))
    counts = rle.coco_counts(packed["counts"].decode())
    assert np.array_equal(rle.expand(counts, width, height, columns=True), mask)


def test_coco_run_lengths_by_hand() -> None:
    # 42 is 10 + 32 x 1: "Z" (48 + 10 + 32, goes on), "1". 3 and 9 are one letter each. Then come
    # differences: 1 - 3 is 30 in five bits, "N"; 9 - 9, 1 - 1; 135 - 9 is 30 + 32 x 3, "n3".
    text = "Z139N00n3"
    assert rle.coco_counts(text) == by_hand.COCO_COUNTS
    want = np.zeros((10, 20), bool)
    want[2:5, 4:7] = np.array(L_ROWS) == 1
    assert np.array_equal(rle.expand(by_hand.COCO_COUNTS, 20, 10, columns=True), want)


def test_brush_of_words_and_runs_by_hand() -> None:
    """3 x 1 pixels: nothing, set, nothing; eight words as they are, then a run of four."""
    header = f"{12:032b}" + f"{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    words = "0" + "00" + f"{8 - 1:03b}" + "".join(f"{v:08b}" for v in (9, 9, 9, 0, 0, 0, 0, 255))
    run = "1" + "01" + f"{4 - 1:04b}" + f"{0:08b}"
    bits = header + words + run
    data = int(bits + "0" * (-len(bits) % 8), 2).to_bytes(-(-len(bits) // 8), "big")
    assert rle.label_studio_brush(data, 3, 1).tolist() == [[False, True, False]]


def test_a_name_that_stands_twice_in_json(tmp_path: Path) -> None:
    """json keeps the last: the marks under the first would be lost."""
    file = by_hand.coco(tmp_path, "box")
    file.write_text(file.read_text().rstrip()[:-1] + ', "annotations": []}')
    assert_refused(file, "'annotations' stands twice in one object")


def test_two_classes_of_one_id_in_coco(tmp_path: Path) -> None:
    file = by_hand.coco(tmp_path, "box")
    change(file, lambda t: t.update(categories=[{"id": 1, "name": n} for n in ("lesion", "L")]))
    assert_refused(file, "category id 1 is given to two names")

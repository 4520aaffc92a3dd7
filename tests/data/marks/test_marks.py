"""Lesion marks of every format become the same masks of the film's size."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import marks_by_hand as by_hand
import numpy as np
import pytest
from marks_by_hand import FILMS
from PIL import Image

from pcamx.data.marks import Marks, Mask, read_marks
from pcamx.data.marks.names import Names
from pcamx.data.marks.shapes import Polygon, draw
from pcamx.errors import PcamxError


def masks(source: Path) -> dict[str, Mask | None]:
    made = read_marks(source, FILMS).masks
    return {film: make() if make else None for film, make in made.items()}


def problems(found: Marks) -> list[tuple[str, str]]:
    return [(problem.kind, problem.text) for problem in found.problems]


def save(file: Path, pixels: object, mode: str | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(pixels, np.uint8))
    (image.convert(mode) if mode else image).save(file)


@pytest.mark.parametrize(("name", "kind"), by_hand.WRITE, ids=map("-".join, by_hand.WRITE))
def test_the_same_lesion_in_every_format(tmp_path: Path, name: str, kind: str) -> None:
    source = by_hand.WRITE[name, kind](tmp_path, kind)
    found = read_marks(source, FILMS)
    assert found.kind == name and list(found.of) == ["a/x.jpg"] and not found.problems
    make = found.masks["a/x.jpg"]
    assert make is not None
    mask = make()
    assert mask.dtype == np.uint8 and np.array_equal(mask, by_hand.mask(kind))
    (mark,) = found.of["a/x.jpg"]
    assert mark.shape.kind == kind
    label = {"YOLO": "0", "mask images": ""}.get(name, "fracture")
    assert mark.labels == ((label,) if label else ())
    boxes = ["boxes taken as filled rectangles: 1"] if kind == "box" else []
    assert found.notes() == boxes + ([f"classes taken as lesions: {label} 1"] if label else [])
    assert found.unsized == (("a/x.jpg",) if name == "YOLO" else ())


@pytest.mark.parametrize(("name", "kind"), by_hand.WRITE, ids=map("-".join, by_hand.WRITE))
def test_the_folder_around_a_file_is_recognised_too(tmp_path: Path, name: str, kind: str) -> None:
    by_hand.WRITE[name, kind](tmp_path / "deeper", kind)
    (tmp_path / "README.txt").write_bytes("not marks, caf\xe9".encode("latin-1"))
    (tmp_path / "._x.xml").write_text("what macOS leaves")
    found = masks(tmp_path)["a/x.jpg"]
    assert found is not None and np.array_equal(found, by_hand.mask(kind))


def test_marks_of_a_film_are_put_together(tmp_path: Path) -> None:
    file = by_hand.coco(tmp_path, "polygon", name="x.jpg")
    tree = json.loads(file.read_text())
    tree["annotations"].append(
        {"id": 2, "image_id": 7, "segmentation": [[15, 5, 20.5, 5, 20.5, 9, 15, 9]]}
    )
    tree["images"].append({"id": 8, "file_name": "of another set.png"})  # unmarked: no matter
    file.write_text(json.dumps(tree))
    want = by_hand.mask("polygon")
    want[5:9, 15:] = 255
    found = masks(file)["a/x.jpg"]
    assert found is not None and np.array_equal(found, want)
    assert read_marks(file, FILMS).unmarked == 1


OUTLINES = {
    "a box's corners": [(3, 2), (11, 2), (11, 8), (3, 8)],  # 8 x 6 pixels
    "past the film": [(-4.0, -3.0), (30.0, 4.0), (9.0, 25.0)],
    "a star, its middle hollow": [(10, 0.2), (13.1, 9.6), (5.2, 3.8), (14.8, 3.8), (6.9, 9.6)],
    "dented": [(2.2, 1.1), (17.7, 1.4), (16.2, 8.8), (9.1, 4.3), (3.3, 9.4)],
    "one pixel": [(4.4, 4.4), (4.6, 4.4), (4.5, 4.6)],
}


@pytest.mark.parametrize("name", OUTLINES)
def test_pixels_of_a_polygon(name: str) -> None:
    """By whether a centre lies in it: even-odd along a ray to the right."""
    ring = OUTLINES[name]
    want = np.zeros((10, 20), bool)
    for row, column in np.ndindex(want.shape):
        for (x0, y0), (x1, y1) in zip(ring, ring[1:] + ring[:1], strict=True):
            if (y0 > row + 0.5) != (y1 > row + 0.5):
                cut = x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
                want[row, column] ^= column + 0.5 < cut
    assert want.any() and np.array_equal(draw([Polygon((tuple(ring),))], (20, 10)) > 0, want)


def test_a_crack_between_centres_is_its_outline() -> None:
    crack = Polygon((((3.0, 4.6), (9.0, 4.6), (9.0, 4.9), (3.0, 4.9)),))
    want = np.zeros((10, 20), np.uint8)
    want[4, 3:10] = 255
    assert np.array_equal(draw([crack], (20, 10)), want)


@pytest.mark.parametrize(
    ("edges", "columns", "rows"),
    [
        ([4.4, 2.6, 4, 4], (4, 8), (3, 7)),  # pixels whose centre lies inside
        ([4.5, 2.5, 4, 4], (4, 8), (2, 6)),
        ([4.6, 2.2, 0.3, 0.2], (4, 5), (2, 3)),  # none: the one in the middle
        ([-3, -3, 6, 6], (0, 3), (0, 3)),  # cut at the border
    ],
)
def test_pixels_of_a_box(
    tmp_path: Path, edges: list[float], columns: tuple[int, int], rows: tuple[int, int]
) -> None:
    file = by_hand.coco(tmp_path, "box")
    tree = json.loads(file.read_text())
    tree["annotations"][0]["bbox"] = edges
    file.write_text(json.dumps(tree))
    want = np.zeros((10, 20), np.uint8)
    want[slice(*rows), slice(*columns)] = 255
    found = masks(file)["a/x.jpg"]
    assert found is not None and np.array_equal(found, want)


def test_turned_rectangles_and_ellipses(tmp_path: Path) -> None:
    """Label Studio turns a rectangle about its left upper corner, CVAT about its middle."""
    want = np.zeros((10, 20), np.uint8)
    want[2:6, 4:8] = 255
    # 90 degrees clockwise about (8, 2): the corner at its left, the rectangle below it.
    file = by_hand.label_studio(tmp_path, "box")
    tree = json.loads(file.read_text())
    value = tree[0]["annotations"][0]["result"][1]["value"]
    value |= {"x": 40, "y": 20, "width": 20, "height": 40, "rotation": 90}
    file.write_text(json.dumps(tree))
    found = masks(file)["a/x.jpg"]
    assert found is not None and np.array_equal(found, want)
    file = by_hand.cvat(tmp_path, "box")
    wide = 'xtl="3.0" ytl="3.0" xbr="9.0" ybr="5.0" rotation="90"'  # 6 x 2 about (6, 4)
    file.write_text(file.read_text().replace('xtl="4.0" ytl="2.0" xbr="8.0" ybr="6.0"', wide))
    found = masks(file)["a/x.jpg"]
    want = np.zeros((10, 20), np.uint8)
    want[1:7, 5:7] = 255
    assert found is not None and np.array_equal(found, want)
    circle = {"points": [[10, 5], [13, 5]], "shape_type": "circle", "label": ""}
    file = by_hand.labelme(tmp_path, "box")
    tree = json.loads(file.read_text())
    file.write_text(json.dumps(tree | {"shapes": [circle]}))
    found = masks(file)["a/x.jpg"]
    rows, columns = np.nonzero(found)  # type: ignore[arg-type]
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 7, 7, 12)
    assert len(rows) == pytest.approx(np.pi * 3**2, rel=0.15)


@pytest.mark.parametrize("name", ["COCO", "Pascal VOC", "LabelMe", "Label Studio", "CVAT"])
@pytest.mark.parametrize(
    ("size", "kind"), [((10, 20), "frame"), ((40, 20), "size"), ((10**9, 10**9), "size")]
)
def test_marks_of_another_frame_are_not_used(
    tmp_path: Path, name: str, size: tuple[int, int], kind: str
) -> None:
    write = by_hand.WRITE[name, "box"]
    extra: dict[str, Any] = {"size": size}
    if name == "COCO":
        extra = {"width": size[0], "height": size[1]}
    write(tmp_path / "labels", "box", **extra)
    # A second film, so that something is left to use.
    good = write(tmp_path / "2", "box", name="a/y.jpg", **_of(name, (10, 10)))
    good.rename(good.with_name("y" + good.suffix))
    found = read_marks(tmp_path, FILMS)
    assert list(found.of) == ["a/y.jpg"]
    ((seen, text),) = problems(found)
    assert seen == kind
    assert f"is {size[0]} x {size[1]} there, the upright film a/x.jpg has 20 x 10" in text
    assert kind != "frame" or "EXIF" in found.notes()[2]


def _of(name: str, size: tuple[int, int]) -> dict[str, Any]:
    return {"width": size[0], "height": size[1]} if name == "COCO" else {"size": size}


def test_a_mask_image_of_another_frame_is_not_used(tmp_path: Path) -> None:
    save(tmp_path / "x.png", np.eye(20, 10))
    save(tmp_path / "a" / "y.png", np.eye(10))
    found = read_marks(tmp_path, FILMS)
    assert list(found.of) == ["a/y.jpg"]
    assert [problem.kind for problem in found.problems] == ["frame"]


def test_marks_outside_and_empty_ones(tmp_path: Path) -> None:
    file = by_hand.coco(tmp_path, "polygon")
    tree = json.loads(file.read_text())
    more: list[dict[str, Any]] = [
        {"segmentation": [[21, 1, 30, 2, 25, 4]]},
        {"segmentation": [[1, -9, 3, -1, 2, -4]]},
        {"segmentation": [[15, 1, 25, 1, 25, 5]]},
        {"bbox": [3, 3, 0, 4]},
        {"bbox": [16, 6, 4.9, 4]},  # not a pixel over the border: rounding
    ]
    tree["annotations"] += [{"id": k, "image_id": 7} | m for k, m in enumerate(more, 2)]
    file.write_text(json.dumps(tree))
    found = read_marks(file, FILMS)
    assert problems(found) == [
        ("outside", "annotation 2 of a/x.jpg, a film of 20 x 10"),
        ("outside", "annotation 3 of a/x.jpg, a film of 20 x 10"),
        ("cut", "annotation 4 of a/x.jpg, 5 pixels of it"),
        ("empty", "annotation 5 of a/x.jpg"),
    ]
    assert len(found.of["a/x.jpg"]) == 3
    both = "annotation 2 of a/x.jpg, a film of 20 x 10; annotation 3 of a/x.jpg, a film of 20 x 10"
    assert found.notes()[2] == f"2 marks outside the film, not used: {both}"


def test_points_and_lines_have_no_area(tmp_path: Path) -> None:
    file = by_hand.labelme(tmp_path, "box")
    tree = json.loads(file.read_text())
    tree["shapes"].append({"label": "", "points": [[1, 1]], "shape_type": "point"})
    file.write_text(json.dumps(tree))
    assert problems(read_marks(file, FILMS)) == [("open", "x.json: shape 2 of x.jpg: a point")]
    file = by_hand.cvat(tmp_path, "box")
    line = '<polyline label="" points="1,1;2,2"/><tag label="seen"/></image>'
    file.write_text(file.read_text().replace("</image>", line))
    assert problems(read_marks(file, FILMS)) == [
        ("open", "annotations.xml: polyline 2 of a/x.jpg: no area")
    ]
    file = by_hand.label_studio(tmp_path, "box")
    tree = json.loads(file.read_text())
    point = {"type": "keypointlabels", "value": {"x": 1, "y": 1, "width": 1}}
    tree[0]["annotations"][0]["result"].append(point)
    file.write_text(json.dumps(tree))
    ((kind, text),) = problems(read_marks(file, FILMS))
    assert kind == "open" and text == "export.json: task 5, region 3: a keypoint"
    tree[0]["annotations"][0]["result"] = [point]
    file.write_text(json.dumps(tree))
    with pytest.raises(PcamxError, match="no mark can be used; points and lines, .* a keypoint"):
        read_marks(file, FILMS)


# Which film is meant


@pytest.mark.parametrize(
    ("name", "films", "meant"),
    [
        ("a/x.png", ["a/x.jpg", "b/x.png"], "a/x.jpg"),  # its folder rather than its suffix
        ("x.png", ["a/x.jpg", "b/x.png"], "b/x.png"),
        ("1.2.840.7.2.png", ["1.2.840.7.1", "1.2.840.7.2", "1.2.840.7.2.1"], "1.2.840.7.2"),
        ("1.2.840.7.2", ["1.2.840.7.1", "1.2.840.7.2.dcm"], "1.2.840.7.2.dcm"),
        ("scan.2.png", ["scan.1", "scan.2"], "scan.2"),
        ("1.2.840.7.1.png", ["1.2.840.7.1.1"], None),
    ],
)
def test_which_of_several_films(name: str, films: list[str], meant: str | None) -> None:
    assert Names(films).find(name)[0] == ([meant] if meant else [])


def test_another_patient_s_folder_is_said(tmp_path: Path) -> None:
    """The folder study1 is shared; whose it is differs, by a renamed folder or by mistake."""
    file = by_hand.coco(tmp_path, "box", name="patient99/study1/x.jpg")
    found = read_marks(file, {"patient6/study1/x.jpg": (20, 10)})
    said = {p.kind: p.text for p in found.problems}
    assert said["folders"] == "patient99/study1/x.jpg for patient6/study1/x.jpg"
    for name in ("films/patient6/study1/x.jpg", "study1/x.jpg", "upload/x.jpg"):
        file = by_hand.coco(tmp_path, "box", name=name)
        kinds = {p.kind for p in read_marks(file, {"patient6/study1/x.jpg": (20, 10)}).problems}
        assert "folders" not in kinds


@pytest.mark.parametrize(
    "name",
    [
        "a/x.jpg",
        "x.jpg",
        "x.png",  # a copy in another format
        "x",
        "/home/me/export/a/x.jpg",
        "C:\\films\\a\\x.jpg",
        "../../a/x.jpg",
        "any/x.jpg",
    ],
)
def test_names_that_mean_a_film(tmp_path: Path, name: str) -> None:
    assert list(masks(by_hand.coco(tmp_path, "box", name=name))) == ["a/x.jpg"]


@pytest.mark.parametrize(
    "address",
    [
        "/data/upload/3/0f9e8d7c-x.jpg",
        "/data/local-files/?d=export%2Fa%2Fx.jpg",
        "https://films.example/a/x.jpg?signature=1.2",
        "/label-studio/data/local-files/?d=export/a/x.jpg",
        "s3://bucket/a/x.jpg",
        "file:///C:/films/a/x.jpg",
        "C:\\films\\a\\x.jpg",
        "a/x.jpg",
    ],
)
def test_addresses_of_label_studio(tmp_path: Path, address: str) -> None:
    assert list(masks(by_hand.label_studio(tmp_path, "box", name=address))) == ["a/x.jpg"]


@pytest.mark.parametrize("name", ["wrist:left.png", "x?d=left.png", "hash#left.png", "%6ceft.png"])
def test_a_films_name_is_no_address_to_label_studio(tmp_path: Path, name: str) -> None:
    """The mark of wrist:left.png is not that of left.png, which lies there too."""
    films = {name: (20, 10), "left.png": (20, 10)}
    file = by_hand.label_studio(tmp_path, "box", name=name)
    assert list(read_marks(file, films).of) == [name]


def test_a_folder_tells_films_of_one_name_apart(tmp_path: Path) -> None:
    films = {f"{p}/image1.png": (20, 10) for p in ("p1/s1", "p2/s1", "p2/s2")}
    for name, film in (
        ("/set/p2/s1/image1.png", "p2/s1/image1.png"),
        ("s2/image1.png", "p2/s2/image1.png"),
    ):
        assert list(read_marks(by_hand.coco(tmp_path, "box", name=name), films).of) == [film]


def test_a_voc_file_names_its_folder_or_lies_in_it(tmp_path: Path) -> None:
    films = {f"{p}/image1.png": (20, 10) for p in ("p1", "p2", "p3")}
    file = by_hand.voc(tmp_path / "any", "box", name="image1.png")
    path = "</filename><path>C:\\set\\p2\\image1.png</path>"
    file.write_text(file.read_text().replace("</filename>", path))
    leftover = by_hand.voc(tmp_path / "p3", "box", name="image1.png")
    path = "</filename><path>/set/p1/another.png</path>"
    leftover.write_text(leftover.read_text().replace("</filename>", path))
    assert list(read_marks(tmp_path, films).of) == ["p2/image1.png", "p3/image1.png"]


def test_an_image_that_lies_beside_the_films_is_no_film(tmp_path: Path) -> None:
    """a/x.jpg is there, though not listed: its marks are not b/x.jpg's."""
    root = tmp_path / "set"
    for folder in ("a", "b", "c"):
        (root / folder).mkdir(parents=True)
    (root / "a/x.jpg").touch()
    (root / "c/x.json").touch()  # no image
    film = {"b/x.jpg": (20, 10)}
    for name, taken in (("a/x.jpg", 0), ("a/x.png", 0), ("c/x.jpg", 1), ("x.jpg", 1), ("d/x", 1)):
        file = by_hand.coco(tmp_path, "box", name=name)
        if taken:
            assert list(read_marks(file, film, root=root).of) == ["b/x.jpg"]
        else:
            assert list(read_marks(file, film).of) == ["b/x.jpg"]
            with pytest.raises(PcamxError, match="which lies in .* beside the films; check that"):
                read_marks(file, film, root=root)


def test_annotations_of_a_task_are_put_together_but_for_the_cancelled(tmp_path: Path) -> None:
    file = by_hand.label_studio(tmp_path, "box")
    tree = json.loads(file.read_text())
    region = json.loads(json.dumps(tree[0]["annotations"][0]["result"][1]))
    region["value"]["x"] = 70
    tree[0]["annotations"] += [
        {"id": 3, "was_cancelled": cancelled, "result": [region]} for cancelled in (True, False)
    ]
    file.write_text(json.dumps(tree))
    assert len(read_marks(file, FILMS).of["a/x.jpg"]) == 2


def test_what_is_unknown_or_ambiguous_is_named_and_not_used(tmp_path: Path) -> None:
    file = by_hand.coco(tmp_path, "box")
    tree = json.loads(file.read_text())
    for key, name in enumerate(("y", "z.jpg", "c/x.jpg", "/etc/passwd", "..", "bad.png"), 8):
        tree["images"].append({"id": key, "file_name": name, "width": 20, "height": 10})
        tree["annotations"].append({"id": key, "image_id": key, "bbox": [1, 1, 2, 2]})
    file.write_text(json.dumps(tree))
    found = read_marks(file, FILMS)
    assert problems(found) == [
        ("ambiguous", "y may be a/y.jpg or b/y.png"),
        ("unknown", "z.jpg"),
        ("unknown", "/etc/passwd"),
        ("unknown", ".."),
        ("unknown", "c/x.jpg"),  # a/x.jpg itself is there
    ]
    assert list(found.of) == ["a/x.jpg", "bad.png"] and found.masks["bad.png"] is None
    assert len(found.of["a/x.jpg"]) == 1


def test_several_images_of_one_film_are_put_together_and_named(tmp_path: Path) -> None:
    file = by_hand.coco(tmp_path, "box", name="c/x.jpg")
    tree = json.loads(file.read_text())
    tree["images"].append({"id": 8, "file_name": "d/x.jpg", "width": 20, "height": 10})
    tree["annotations"].append({"id": 2, "image_id": 8, "bbox": [14, 2, 4, 4]})
    file.write_text(json.dumps(tree))
    found = read_marks(file, FILMS)
    assert problems(found) == [
        ("folders", "c/x.jpg for a/x.jpg"),
        ("folders", "d/x.jpg for a/x.jpg"),
        ("twice", "a/x.jpg by c/x.jpg and d/x.jpg"),
    ]
    assert len(found.of["a/x.jpg"]) == 2
    tree["images"][1]["file_name"] = tree["images"][0]["file_name"]  # as of two annotators
    file.write_text(json.dumps(tree))
    found = read_marks(file, FILMS)
    assert problems(found) == [
        ("folders", "c/x.jpg for a/x.jpg"),
        ("twice", "a/x.jpg by c/x.jpg and c/x.jpg"),
    ]


def test_shares_of_the_image_where_pixels_are_due(tmp_path: Path) -> None:
    file = by_hand.coco(tmp_path, "box", name="a/x.jpg")
    tree = json.loads(file.read_text())
    first = tree["annotations"][0]
    more = [first | {"id": 2, "bbox": [0.25, 0.25, 0.5, 0.5]}]
    more += [first | {"id": 3, "segmentation": [[0.1, 0.1, 0.9, 0.1, 0.9, 0.8]], "bbox": []}]
    tree["annotations"] += more
    file.write_text(json.dumps(tree))
    found = read_marks(file, FILMS)
    assert [kind for kind, _ in problems(found)] == ["shares", "shares"]
    assert len(found.of["a/x.jpg"]) == 1


def test_letters_of_any_alphabet(tmp_path: Path) -> None:
    name = "手/poignet cassé.png"
    films = {unicodedata.normalize("NFC", name): (20, 10)}
    split = unicodedata.normalize("NFD", name)  # as macOS writes it
    assert split != next(iter(films))
    for write in (by_hand.coco, by_hand.voc, by_hand.labelme, by_hand.label_studio, by_hand.cvat):
        found = read_marks(write(tmp_path / write.__name__, "box", name=split), films)
        assert list(found.of) == list(films)


# Folders of mask images


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


def test_a_masks_suffix_counts_in_a_whole_path_only(tmp_path: Path) -> None:
    save(tmp_path / "flat" / "y.png", np.eye(10))
    save(tmp_path / "flat" / "x.png", np.eye(10, 20))
    found = read_marks(tmp_path / "flat", FILMS)
    assert problems(found) == [("ambiguous", "y.png may be a/y.jpg or b/y.png")]
    save(tmp_path / "whole" / "b" / "y.png", np.eye(10))
    assert list(masks(tmp_path / "whole")) == ["b/y.png"]


def test_a_mask_of_a_film_that_cannot_be_used(tmp_path: Path) -> None:
    save(tmp_path / "bad.png", np.ones((3, 3)))
    assert masks(tmp_path) == {"bad.png": None}

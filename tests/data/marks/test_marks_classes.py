"""Which marks are lesions: classes that are chosen, several sources, predictions, hostile masks."""

import base64
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import marks_by_hand as by_hand
import numpy as np
import pytest
from marks_by_hand import FILMS
from PIL import Image

from pcamx.cli.options import add_labels
from pcamx.data.marks import read_marks
from pcamx.data.marks.names import Names
from pcamx.errors import PcamxError


def coco(folder: Path, marks: list[tuple[str, list[int], str]], **extra: Any) -> Path:
    """Film, box and class of each mark; "" for none."""
    names = list(dict.fromkeys(name for name, _, _ in marks))
    labels = list(dict.fromkeys(label for _, _, label in marks))
    tree = {
        "images": [{"id": k, "file_name": name} for k, name in enumerate(names)],
        "categories": [{"id": k, "name": name} for k, name in enumerate(labels, 1) if name],
        "annotations": [
            {"id": k, "image_id": names.index(name), "bbox": box}
            | ({"category_id": labels.index(label) + 1} if label else {})
            for k, (name, box, label) in enumerate(marks)
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "coco.json").write_text(json.dumps(tree | extra))
    return folder / "coco.json"


def pixels(source: Any, film: str = "a/x.jpg", **more: Any) -> int:
    make = read_marks(source, FILMS, **more).masks[film]
    assert make is not None
    return int((make() > 0).sum())


MIXED = [
    ("a/x.jpg", [1, 1, 4, 4], "fracture"),
    ("a/x.jpg", [10, 1, 2, 2], "text"),
    ("a/x.jpg", [14, 1, 1, 1], "metal"),
    ("a/y.jpg", [1, 1, 3, 3], "text"),
]

# Classes


def test_several_classes_are_refused_until_they_are_chosen(tmp_path: Path) -> None:
    file = coco(tmp_path, MIXED)
    with pytest.raises(PcamxError) as caught:
        read_marks(file, FILMS)
    assert str(caught.value) == (
        f"{file}: marks of 3 classes, text 2, fracture 1, metal 1; say which are lesions, "
        "separated by commas: --labels text"
    )
    assert pixels(file, labels=["fracture"]) == 16
    assert pixels(file, labels=["Fracture", "metal"]) == 17
    found = read_marks(file, FILMS, ["fracture"])
    assert list(found.of) == ["a/x.jpg"]
    assert found.notes()[1:] == [
        "classes taken as lesions: fracture 1",
        "marks of classes that were not chosen, not used: text 2, metal 1",
    ]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("fractur", "did you mean fracture? the marks have text 2, fracture 1, metal 1"),
        ("cyst", "--labels cyst: no usable mark is of this class; the marks have text 2"),
    ],
)
def test_a_class_that_is_not_there(tmp_path: Path, chosen: str, message: str) -> None:
    with pytest.raises(PcamxError) as caught:
        read_marks(coco(tmp_path, MIXED), FILMS, ["text", chosen])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_spellings_of_one_class_are_one(tmp_path: Path) -> None:
    file = coco(tmp_path, [("a/x.jpg", [1, 1, 4, 4], "1.0"), ("a/x.jpg", [9, 1, 2, 2], "1")])
    assert read_marks(file, FILMS).labels() == {"1": 2}
    assert pixels(file, labels=["1.0"]) == 20
    cases = [("a/x.jpg", [1, 1, 4, 4], "Fracture"), ("a/x.jpg", [9, 1, 2, 2], "fracture ")]
    assert pixels(coco(tmp_path, cases)) == 20


def test_marks_without_a_class_beside_others(tmp_path: Path) -> None:
    file = coco(tmp_path, [("a/x.jpg", [1, 1, 4, 4], "fracture"), ("a/x.jpg", [9, 1, 2, 2], "")])
    assert pixels(file) == 20  # one class is all that there is
    found = read_marks(file, FILMS, ["fracture"])
    assert len(found.of["a/x.jpg"]) == 1
    assert "not chosen, not used: (no class) 1" in found.notes()[2]
    with pytest.raises(PcamxError, match="no mark has a class; leave it out"):
        read_marks(by_hand.images(tmp_path, "mask"), FILMS, ["fracture"])


def test_a_class_of_another_data_set_does_not_count(tmp_path: Path) -> None:
    file = coco(tmp_path, [MIXED[0], ("of another set.jpg", [1, 1, 2, 2], "text")])
    assert pixels(file) == 16


def test_the_option() -> None:
    import argparse

    parser = argparse.ArgumentParser(exit_on_error=False)
    add_labels(parser)
    assert parser.parse_args(["--labels", "fracture, bone cyst"]).labels == (
        "fracture",
        "bone cyst",
    )
    quoted = ["--labels", '"fracture, distal",metal']
    assert parser.parse_args(quoted).labels == ("fracture, distal", "metal")
    with pytest.raises(argparse.ArgumentError, match="name one class at least"):
        parser.parse_args(["--labels", " ,"])


def test_masks_of_one_class_each_number_it_too(tmp_path: Path) -> None:
    """a/x.jpg has class 1 alone, b/y.png both, a/y.jpg 2 alone."""
    for name, shape, values in (("a/x", (10, 20), [1]), ("b/y", (10, 10), [1, 2])):
        pixels_HW = np.zeros(shape, np.uint8)
        for k, value in enumerate(values):
            pixels_HW[2:4, 2 + 3 * k : 4 + 3 * k] = value
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels_HW).save(tmp_path / f"{name}.png")
    Image.fromarray(np.pad(np.full((8, 8), 2, np.uint8), 1)).save(tmp_path / "a" / "y.png")
    with pytest.raises(PcamxError, match="marks of 2 classes, 1 2, 2 2; say which"):
        read_marks(tmp_path, FILMS)
    found = read_marks(tmp_path, FILMS, ["1"])
    assert list(found.of) == ["a/x.jpg", "b/y.png"] and found.left_out == {"2": 2}
    assert pixels(tmp_path, labels=["1"]) == pixels(tmp_path, "b/y.png", labels=["1"]) == 4


# Several sources


def test_several_sources_are_put_together_and_named(tmp_path: Path) -> None:
    first = coco(tmp_path / "1", [MIXED[0], MIXED[3]])
    second = by_hand.labelme(tmp_path / "2", "box")  # 16 pixels, 6 of them the first one's
    tree = json.loads(second.read_text())
    tree["shapes"].append({"points": [[1, 1]], "shape_type": "point"})
    second.write_text(json.dumps(tree))
    third = by_hand.yolo(tmp_path / "3", "box").parent
    found = read_marks([first, second, third, first], FILMS, ["fracture", "0"])
    assert found.kind == "COCO and LabelMe and YOLO"
    make = found.masks["a/x.jpg"]
    assert make is not None
    want = by_hand.mask("box")
    want[1:5, 1:5] = 255
    assert np.array_equal(make(), want)
    assert [(p.kind, p.text) for p in found.problems] == [
        ("open", f"{second}: shape 2 of x.jpg: a point"),
        ("merged", f"a/x.jpg by {first} and {second}"),
    ]
    assert found.unsized == ("a/x.jpg", "a/y.jpg")
    assert found.left_out == {"text": 1}


def test_each_source_says_what_its_only_class_is(tmp_path: Path) -> None:
    first = coco(tmp_path / "1", [("a/x.jpg", [1, 1, 4, 4], "fracture")])
    second = coco(tmp_path / "2", [("a/y.jpg", [1, 1, 2, 2], "lesion")])
    assert list(read_marks([first, second], FILMS).of) == ["a/x.jpg", "a/y.jpg"]
    masks = by_hand.images(tmp_path, "mask")  # without classes, so used as a whole
    found = read_marks([second, masks], FILMS, ["lesion"])
    assert list(found.of) == ["a/y.jpg", "a/x.jpg"]
    one = Image.open(masks / "x.png").point(lambda value: value // 255)
    one.save(masks / "x.png")  # of 0 and 1: still without classes
    found = read_marks([second, masks], FILMS, ["lesion"])
    assert list(found.of) == ["a/y.jpg", "a/x.jpg"] and not found.left_out


def test_a_source_of_nothing_to_use_is_named(tmp_path: Path) -> None:
    first = coco(tmp_path / "1", [MIXED[0]])
    second = coco(tmp_path / "2", [("z.jpg", [1, 1, 2, 2], "fracture")])
    with pytest.raises(PcamxError, match="2/coco.json: COCO, but no mark can be used"):
        read_marks([first, second], FILMS)


# What is no person's mark


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"info": {"description": "lesion candidates of pcamx explain"}}, "of pcamx explain"),
        ({"film": "x", "probability": {}, "candidates": [], "map": {}}, "of pcamx explain"),
        ([{"image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "score": 0.5}], "COCO results"),
        (
            [{"data": {"image": "x.png"}, "predictions": [{"result": []}]}],
            "tasks to import, with predictions that nobody has looked at yet",
        ),
        (
            {"images": [], "annotations": [{"image_id": 1, "score": 0.5}]},
            "every annotation has a score",
        ),
    ],
)
def test_predictions_are_refused(tmp_path: Path, tree: Any, message: str) -> None:
    (tmp_path / "coco.json").write_text(json.dumps(tree))
    for source in (tmp_path, tmp_path / "coco.json"):
        with pytest.raises(PcamxError) as caught:
            read_marks(source, FILMS)
        assert message in str(caught.value) and "correct them in a tool" in str(caught.value)


def test_files_of_no_known_kind_are_named(tmp_path: Path) -> None:
    by_hand.yolo(tmp_path, "box")
    (tmp_path / "y.txt").write_text("lesion 0.5 0.5 0.1 0.1\n")
    (tmp_path / "classes.txt").write_text("lesion\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "z.json").write_text('{"some": "thing"}')
    found = read_marks(tmp_path, FILMS)
    assert [p.text for p in found.problems] == [
        "y.txt: of no known kind",
        "z.json: of no known kind",
    ]
    assert found.notes()[-1].startswith("2 items that cannot be read, not used: y.txt")


# Names


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("1a2b3c4d-x.jpg", "x.jpg"),
        ("images\\1a2b3c4d-x.jpg", "images/x.jpg"),
        ("a1b2c3__x.jpg", "x.jpg"),
        ("1a2b3c4d-", ""),
        ("1a2b3c-x.jpg", ""),
        ("x.jpg", ""),
    ],
)
def test_prefixes_of_uploads(name: str, rest: str) -> None:
    assert Names(FILMS).without_prefix(name) == rest


def test_a_film_that_is_called_so_comes_first(tmp_path: Path) -> None:
    films: dict[str, tuple[int, int] | None] = {"1a2b3c4d-x.jpg": (20, 10), "x.jpg": (20, 10)}
    file = by_hand.coco(tmp_path, "box", name="1a2b3c4d-x.jpg")
    assert list(read_marks(file, films).of) == ["1a2b3c4d-x.jpg"]


# Masks of which Pillow would give something else than was painted


def png16(colours: int) -> bytes:
    """A PNG of 20 x 10 with 16 bits a colour, all of them 1."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    kind = {3: 2, 4: 6, 2: 4}[colours]
    rows = (b"\0" + struct.pack(">H", 1) * 20 * colours) * 10
    head = struct.pack(">IIBBBBB", 20, 10, 16, kind, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def saved(image: Image.Image, kind: str, **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


GREY = Image.new("L", (20, 10))
SHADES = Image.fromarray(np.arange(1, 201, dtype=np.uint8).reshape(10, 20))
CLEAR = np.full((10, 20, 4), 255, np.uint8)
CLEAR[..., 3] = 0
CUT_OUT = np.full((10, 20, 4), (0, 0, 0, 255), np.uint8)
CUT_OUT[2:5, 4:7] = (255, 255, 255, 0)


@pytest.mark.parametrize(
    ("content", "suffix", "message"),
    [
        (png16(3), ".png", "16 bits a colour"),
        (png16(4), ".png", "16 bits a colour"),
        (png16(2), ".png", "16 bits a colour"),
        (saved(GREY, "TIFF", save_all=True, append_images=[GREY]), ".tif", "several pages"),
        (saved(GREY, "JPEG"), ".png", "a JPEG under another name"),
        (saved(SHADES, "PNG"), ".png", "no pixel is black or transparent"),
        (saved(Image.fromarray(CLEAR), "PNG"), ".png", "bright where it is transparent"),
        (saved(Image.fromarray(CUT_OUT), "PNG"), ".png", "bright where it is transparent"),
        (saved(Image.new("1", (9000, 9000)), "PNG"), ".png", "larger than 64 megapixels"),
        (
            saved(Image.new("I;16", (20, 10)), "TIFF", tiffinfo={262: 0}),
            ".tif",
            "a 16-bit negative",
        ),
    ],
)
def test_masks_that_are_named_and_not_used(
    tmp_path: Path, content: bytes, suffix: str, message: str
) -> None:
    (tmp_path / f"x{suffix}").write_bytes(content)
    Image.fromarray(np.eye(10, dtype=np.uint8)).save(tmp_path / "z.png")
    films = FILMS | {"z.png": (10, 10)}
    found = read_marks(tmp_path, films)
    assert list(found.of) == ["z.png"]
    ((kind, text),) = ((p.kind, p.text) for p in found.problems)
    assert kind == "damaged" and text.startswith(f"x{suffix}: ") and message in text


def test_a_mask_within_a_file_is_looked_at_alike(tmp_path: Path) -> None:
    file = by_hand.label_studio(tmp_path, "box")
    tree = json.loads(file.read_text())
    regions = tree[0]["annotations"][0]["result"]
    url = f"data:image/png;base64,{base64.b64encode(png16(4)).decode()}"
    regions.append(regions[1] | {"type": "bitmask", "value": {"imageDataURL": url}})
    file.write_text(json.dumps(tree))
    found = read_marks(file, FILMS)
    ((kind, text),) = ((p.kind, p.text) for p in found.problems)
    assert kind == "damaged" and text.startswith("task 5, region 3: 16 bits a colour")
